"""A day of the public Azure Functions trace of 2019, as a trace for cache_sim.

  azure_trace.py invocations_per_function_md.anon.d01.csv app_memory_percentiles.anon.d01.csv > day.csv

An application is a model: it is what that platform loads. Of its invocations only the number in each minute is known;
they are spread over the minute, by the seed. Its bytes are its average allocated memory; applications that the second
file does not know are left out. A load takes what reading its bytes takes at 1.7 GB/s, and for a quarter of them, by the
seed, 1 to 8 seconds of compiling.

The data: github.com/Azure/AzurePublicDataset (CC-BY; Shahrad et al., "Serverless in the Wild", USENIX ATC 2020).
"""

import argparse
import csv
import random
import sys

READ_BYTES_PER_SECOND = 1.7e9
MINUTES = 1440


def memory_of(lines):
    """{application: bytes}."""
    return {(row["HashOwner"], row["HashApp"]): int(float(row["AverageAllocatedMb"]) * 1e6)
            for row in csv.DictReader(lines)}


def read(invocations, memory, seed, models=None):
    """(seconds, model, bytes, load_seconds) for each invocation, ascending; `models`: only so many applications."""
    sizes = memory_of(memory)
    per_minute = {}
    for row in csv.DictReader(invocations):
        application = (row["HashOwner"], row["HashApp"])
        if application not in sizes:
            continue
        counts = per_minute.setdefault(application, [0] * MINUTES)
        for minute in range(MINUTES):
            counts[minute] += int(row[str(minute + 1)])
    chance = random.Random(seed)
    chosen = sorted(per_minute)
    if models is not None and models < len(chosen):
        chosen = chance.sample(chosen, models)
    uses = []
    for model, application in enumerate(chosen):
        size = sizes[application]
        load_seconds = size / READ_BYTES_PER_SECOND + 0.01
        if chance.random() < 0.25:
            load_seconds += chance.uniform(1, 8)
        for minute, count in enumerate(per_minute[application]):
            uses += [(60 * (minute + chance.random()), model, size, load_seconds) for _ in range(count)]
    return sorted(uses)


def write(uses, out):
    out.write("seconds,model,bytes,load_seconds\n")
    for at, model, size, load_seconds in uses:
        out.write(f"{at:.3f},{model},{size},{load_seconds:.4f}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("invocations", type=argparse.FileType(encoding="utf-8"))
    parser.add_argument("memory", type=argparse.FileType(encoding="utf-8"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", type=int, help="so many applications, by the seed; default: all")
    arguments = parser.parse_args()
    write(read(arguments.invocations, arguments.memory, arguments.seed, arguments.models), sys.stdout)


if __name__ == "__main__":
    main()
