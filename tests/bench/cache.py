"""What a cache hit costs: Acquire and release of a resident model, in nanoseconds."""

import common


def main():
    parser = common.parser(__doc__, rounds=7)
    arguments = parser.parse_args()
    measured = common.run_json(
        arguments.build / "tests" / "bench" / "acquire_bench", "--benchmark_format=json",
        f"--benchmark_repetitions={arguments.rounds}", "--benchmark_report_aggregates_only=true")
    to_ns = {"ns": 1, "us": 1e3, "ms": 1e6}
    common.report("cache", {
        "rounds": arguments.rounds,
        "median_ns": {row["run_name"]: round(row["real_time"] * to_ns[row["time_unit"]], 1)
                      for row in measured["benchmarks"] if row["aggregate_name"] == "median"},
    })


if __name__ == "__main__":
    main()
