"""What a cache hit costs, what a policy of eviction costs its users, and what they notice of models coming and going.

hit       Acquire and release of a resident model, in nanoseconds.
policies  A simulated day on the real cache and on libcachesim's (policies.py), the same trace for each, as shares of the
          seconds that requests stall with LRU.
The rest asks a live hearthd (live.py):
hot       Latencies of a hot model while others of 400 MB are loaded and evicted, against the same model alone.
evict     Unloading 400 MB: until the process has given the bytes back.
catalog   Start with 100,000 models in the repository, and the memory for each of them.
churn     More models than fit, asked for by eight clients: requests lost, answers wrong, budget exceeded.
ageing    The median request to a model that is there, before and after 10,000 loads and evictions.
"""

import argparse
import pathlib

import common
import live
import policies

SECTIONS = ["hit", "policies", "hot", "evict", "catalog", "churn", "ageing"]


def hits(build, rounds):
    measured = common.run_json(
        build / "tests" / "bench" / "acquire_bench", "--benchmark_format=json",
        f"--benchmark_repetitions={rounds}", "--benchmark_report_aggregates_only=true")
    to_ns = {"ns": 1, "us": 1e3, "ms": 1e6}
    return {row["run_name"]: round(row["real_time"] * to_ns[row["time_unit"]], 1)
            for row in measured["benchmarks"] if row["aggregate_name"] == "median"}


def main():
    parser = common.parser(__doc__, rounds=7)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--sections", default=",".join(SECTIONS), help="default %(default)s")
    parser.add_argument("--seeds", default="1,2,3,4,5", help="traces to simulate; default %(default)s")
    parser.add_argument("--trace", type=pathlib.Path, action="append",
                        help="a trace to simulate instead (sim_trace.h; azure_trace.py makes one); may be repeated")
    parser.add_argument("--draw", type=pathlib.Path, metavar="SVG", help="a picture of the policies")
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement of the hot model; default 5")
    parser.add_argument("--churn-seconds", type=float, default=60, help="default 60")
    arguments = parser.parse_args()
    build, rounds = arguments.build, arguments.rounds
    measure = {
        "hit": lambda: {"median_ns": hits(build, rounds)},
        "policies": lambda: policies.compare(build, arguments.trace or [
            policies.trace_file(build, seed) for seed in arguments.seeds.split(",")]),
        "hot": lambda: live.interference(build, rounds, arguments.seconds),
        "evict": lambda: live.eviction(build, rounds),
        "catalog": lambda: live.catalog(build, 100_000, min(rounds, 3)),
        "churn": lambda: live.churn(build, arguments.churn_seconds),
        "ageing": lambda: live.ageing(build, 10_000),
    }
    result = {"rounds": rounds}
    for section in arguments.sections.split(","):
        if section not in measure:
            parser.error(f"there is no section '{section}': {', '.join(SECTIONS)}")
        common.say(section)
        result[section] = measure[section]()
    if "policies" in result:
        common.say(policies.table(result["policies"]))
        if arguments.draw:
            policies.draw(result["policies"], arguments.draw)
    common.report("cache", result)


if __name__ == "__main__":
    main()
