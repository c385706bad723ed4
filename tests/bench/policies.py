"""What a policy of eviction costs its users in stalled seconds, on the real cache (cache_sim.cc) and on libcachesim's."""

import csv
import statistics

import common

CAPACITIES = [10, 25, 50]  # percent of the bytes of all models
OURS = ["lru", "gdsf", "gdsf+prewarm", "clairvoyant"]
# Of libcachesim, which knows sizes but nothing of what a load takes.
PEERS = ["LRU", "GDSF", "S3FIFO", "Sieve", "LHD"]


def trace_file(build, seed):
    """A day that is made up, as a file."""
    file = common.CACHE / "traces" / f"{seed}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(common.run_text(build / "tests" / "bench" / "cache_sim", seed), encoding="utf-8")
    return file


def ours(build, file, capacity, policy):
    return common.run_json(build / "tests" / "bench" / "cache_sim", file, capacity, policy)["stall_seconds"]


def peer(file, capacity, name):
    """The same count of stalls as in cache_sim.cc: a miss waits for the load, who comes meanwhile for its rest."""
    import libcachesim
    with open(file, encoding="utf-8", newline="") as lines:
        uses = [(float(row["seconds"]), int(row["model"]), int(row["bytes"]), float(row["load_seconds"]))
                for row in csv.DictReader(lines)]
    sizes = {model: size for _, model, size, _ in uses}
    # In units of 1 MiB: some of its policies keep tables by size.
    cache = getattr(libcachesim, name)(cache_size=sum(units(size) for size in sizes.values()) * capacity // 100)
    request = libcachesim.Request()
    ready, stall = {}, 0.0
    for at, model, size, load_seconds in uses:
        request.obj_id, request.obj_size, request.clock_time = model + 1, units(size), int(at)
        if cache.get(request):
            stall += max(0.0, ready[model] - at)
        else:
            stall += load_seconds
            ready[model] = at + load_seconds
    return stall


def units(size):
    return -(-size // (1 << 20))


def compare(build, traces):
    """{capacity: {policy: mean and range over the traces of its share of LRU's stalls}}."""
    ways = {policy: lambda file, capacity, policy=policy: ours(build, file, capacity, policy) for policy in OURS}
    ways |= {f"libcachesim {name}": lambda file, capacity, name=name: peer(file, capacity, name) for name in PEERS}
    shares = {capacity: {way: [] for way in ways} for capacity in CAPACITIES}
    for file in traces:
        for capacity in CAPACITIES:
            stalls = {way: stall(file, capacity) for way, stall in ways.items()}
            for way, seconds in stalls.items():
                shares[capacity][way].append(seconds / stalls["lru"])
        common.say(f"  trace {file.stem}")
    result = {f"{capacity}%": {way: {"mean": round(statistics.mean(values), 3), "min": round(min(values), 3),
                                     "max": round(max(values), 3)} for way, values in one.items()}
              for capacity, one in shares.items()}
    result["mean"] = {way: round(statistics.mean(result[f"{capacity}%"][way]["mean"] for capacity in CAPACITIES), 3)
                      for way in ways}
    return result


def table(result):
    ways = list(result["mean"])
    width = max(map(len, ways))
    lines = ["stalled seconds as a share of LRU's, by cache size (mean over the traces)",
             " " * width + "".join(f"{capacity:>8}" for capacity in result)]
    for way in ways:
        figures = (one[way]["mean"] if isinstance(one[way], dict) else one[way] for one in result.values())
        lines.append(f"{way:<{width}}" + "".join(f"{share:8.2f}" for share in figures))
    return "\n".join(lines)


def draw(result, path):
    """The same as a picture: a bar for each way, a group for each cache size."""
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plot
    matplotlib.rcParams["svg.hashsalt"] = "hearth"  # the same figures give the same file
    matplotlib.rcParams["font.family"] = "sans-serif"
    matplotlib.rcParams["svg.fonttype"] = "none"
    ways = [way for way in result["mean"] if way != "lru"]
    figure, axes = plot.subplots(figsize=(9, 4), layout="constrained")
    groups = [f"{capacity}%" for capacity in CAPACITIES]
    for number, way in enumerate(ways):
        means = [result[group][way]["mean"] for group in groups]
        reach = [[mean - result[group][way]["min"] for mean, group in zip(means, groups)],
                 [result[group][way]["max"] - mean for mean, group in zip(means, groups)]]
        colour = {"gdsf": "#c2410c", "clairvoyant": "#9ca3af"}.get(way, plot.cm.Blues(0.35 + 0.08 * number))
        label = {"gdsf": "hearth gdsf (default)"}.get(way, way)
        axes.bar([place + (number - len(ways) / 2 + 0.5) * 0.1 for place in range(len(groups))], means, 0.09,
                 yerr=reach, color=colour, label=label, error_kw={"elinewidth": 0.7, "ecolor": "#374151"})
    axes.axhline(1, color="#374151", linewidth=0.8)
    axes.set_xticks(range(len(groups)), [f"cache of {group} of all models" for group in groups])
    axes.set_ylabel("stalled seconds, LRU = 1")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=3, fontsize="small", frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.25))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
