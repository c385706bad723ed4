"""What a cache hit costs, what a policy of eviction costs its users, and what they notice of models coming and going.

hit       Acquire and release of a resident model, in nanoseconds.
policies  A simulated day on the real cache (cache_sim.cc), the same trace for each policy, as shares of the seconds that
          requests stall with LRU.
The rest asks a live hearthd (live.py):
hot       Latencies of a hot model while others of 400 MB are loaded and evicted, against the same model alone.
evict     Unloading 400 MB: until the process has given the bytes back.
catalog   Start with 100,000 models in the repository, and the memory for each of them.
churn     More models than fit, asked for by eight clients: requests lost, answers wrong, budget exceeded.
"""

import argparse
import statistics

import common
import live

SECTIONS = ["hit", "policies", "hot", "evict", "catalog", "churn"]

CAPACITIES = [10, 25, 50]  # percent of the bytes of all models
POLICIES = ["lru", "gdsf", "clairvoyant"]


def hits(build, rounds):
    measured = common.run_json(
        build / "tests" / "bench" / "acquire_bench", "--benchmark_format=json",
        f"--benchmark_repetitions={rounds}", "--benchmark_report_aggregates_only=true")
    to_ns = {"ns": 1, "us": 1e3, "ms": 1e6}
    return {row["run_name"]: round(row["real_time"] * to_ns[row["time_unit"]], 1)
            for row in measured["benchmarks"] if row["aggregate_name"] == "median"}


def policies(build, seeds):
    """{capacity: {policy: mean and range over the seeds of its share of LRU's stalls}}; seeds are the traces."""
    shares = {capacity: {policy: [] for policy in POLICIES} for capacity in CAPACITIES}
    for seed in seeds:
        for capacity in CAPACITIES:
            stalls = {policy: common.run_json(build / "tests" / "bench" / "cache_sim", seed, capacity, policy)
                      ["stall_seconds"] for policy in POLICIES}
            for policy, stall in stalls.items():
                shares[capacity][policy].append(stall / stalls["lru"])
        common.say(f"  trace {seed}")
    result = {f"{capacity}%": {policy: {"mean": round(statistics.mean(values), 3), "min": round(min(values), 3),
                                        "max": round(max(values), 3)} for policy, values in one.items()}
              for capacity, one in shares.items()}
    for policy in POLICIES:
        result.setdefault("mean", {})[policy] = round(
            statistics.mean(one[policy]["mean"] for name, one in result.items() if name != "mean"), 3)
    return result


def table(stalls):
    lines = ["stalled seconds as a share of LRU's (mean over the traces)"]
    for capacity, one in stalls.items():
        figures = (one[policy]["mean"] if isinstance(one[policy], dict) else one[policy] for policy in POLICIES)
        lines.append(f"  {capacity:>5}  " + "  ".join(f"{name} {share:.2f}" for name, share in zip(POLICIES, figures)))
    return "\n".join(lines)


def main():
    parser = common.parser(__doc__, rounds=7)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--sections", default=",".join(SECTIONS), help="default %(default)s")
    parser.add_argument("--seeds", default="1,2,3,4,5", help="traces to simulate; default %(default)s")
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement of the hot model; default 5")
    parser.add_argument("--churn-seconds", type=float, default=60, help="default 60")
    arguments = parser.parse_args()
    build, rounds = arguments.build, arguments.rounds
    measure = {
        "hit": lambda: {"median_ns": hits(build, rounds)},
        "policies": lambda: policies(build, arguments.seeds.split(",")),
        "hot": lambda: live.interference(build, rounds, arguments.seconds),
        "evict": lambda: live.eviction(build, rounds),
        "catalog": lambda: live.catalog(build, 100_000, min(rounds, 3)),
        "churn": lambda: live.churn(build, arguments.churn_seconds),
    }
    result = {"rounds": rounds}
    for section in arguments.sections.split(","):
        if section not in measure:
            parser.error(f"there is no section '{section}': {', '.join(SECTIONS)}")
        common.say(section)
        result[section] = measure[section]()
    if "policies" in result:
        common.say(table(result["policies"]))
    common.report("cache", result)


if __name__ == "__main__":
    main()
