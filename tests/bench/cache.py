"""What a cache hit costs, and what a policy of eviction costs its users in stalled seconds.

The hit: Acquire and release of a resident model, in nanoseconds. The policies: a simulated day on the real cache
(cache_sim.cc), the same trace for each of them, as shares of the seconds that requests stall with LRU.
"""

import statistics

import common

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
    parser = common.parser(__doc__.split("\n\n", maxsplit=1)[0], rounds=7)
    parser.add_argument("--seeds", default="1,2,3,4,5", help="traces to simulate; default %(default)s")
    arguments = parser.parse_args()
    result = {"rounds": arguments.rounds, "median_ns": hits(arguments.build, arguments.rounds),
              "stalls": policies(arguments.build, arguments.seeds.split(","))}
    common.say(table(result["stalls"]))
    common.report("cache", result)


if __name__ == "__main__":
    main()
