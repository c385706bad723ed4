"""What the benchmarks share: medians, running a program that prints JSON, a word on progress."""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "bench"


def parser(description, rounds):
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "bench")
    result.add_argument("--rounds", type=int, default=rounds, help=f"default {rounds}")
    return result


def say(text):
    print(text, file=sys.stderr, flush=True)


def run_json(*command):
    """The JSON object that a program prints; its failure ends the benchmark."""
    return json.loads(run_text(*command))


def run_text(*command):
    done = subprocess.run([str(word) for word in command], text=True, stdout=subprocess.PIPE,
                          check=False, env=quiet_environment())
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed with {done.returncode}")
    return done.stdout


def quiet_environment():
    """This process's variables without those that hearthd would take for settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HEARTH_")}


def median(values):
    return round(statistics.median(values), 4)


def spread(values):
    values = list(values)
    return {"median": median(values), "min": round(min(values), 4), "max": round(max(values), 4)}


def machine():
    return {"cpus": len(os.sched_getaffinity(0)), "system": platform.platform()}


def report(name, result):
    print(json.dumps({"bench": name, "machine": machine(), **result}, indent=2))
