"""Loads of one model by hearth and by everybody else, until it is bound and until it has answered.

Every sample is a process of its own, one thread; samples take turns within a round, and each ratio is taken within
its round. Interpreter start and imports are nobody's load. Warm: all pages in the page cache. Cold: none of this
machine's (the host may have them). Writes a table to standard error, and everything as JSON to standard output.

Sections: warm and cold loads at three sizes; a second set of weights for a program that is there; a model that was
evicted; ten heads on one base.
"""

import importlib.util
import random
import statistics
import sys

import common
import loading_files
import page_cache

CANARY_BYTES = 256 << 20
RAW_READS = [(1, "buffered"), (2, "buffered"), (4, "buffered"), (1, "direct"), (4, "direct"), (8, "direct")]
HEADS = 10


class Bench:
    def __init__(self, build, device):
        self._bench = build / "tests" / "bench" / "load_bench"
        self._device = device

    def native(self, *words):
        return common.run_json(self._bench, "--device", self._device, *words)

    def peer(self, loader, size, file):
        return common.run_json(sys.executable, "-W", "ignore", common.ROOT / "tests/bench/loading_peers.py",
                               loader, size, file, self._device)

    def ways(self, name, files):
        """What loads this size: {way: (files it reads, a function that takes one sample)}."""
        dims = loading_files.SIZES[name].dims
        ways = {
            "hearth, TorchScript": ([files.torchscript],
                                    lambda: self.native("hearth", dims, files.torchscript)),
            "hearth, packed safetensors": (files.packed.split(","),
                                           lambda: self.native("hearth", dims, files.packed)),
            "hearth, safetensors as written": (
                [files.packed.split(",")[0], files.safetensors],
                lambda: self.native("hearth", dims, f"{files.packed.split(',')[0]},{files.safetensors}")),
            "torch.jit.load": ([files.torchscript], lambda: self.native("jit", dims, files.torchscript)),
        }
        for way, module, loader, file in (
                ("torch.load", "torch", "torch_load", files.pickled),
                ("torch.load, mmap", "torch", "torch_load_mmap", files.pickled),
                ("safetensors", "safetensors", "safetensors_mmap", files.safetensors),
                ("fastsafetensors", "fastsafetensors", "fast_safetensors", files.safetensors),
                ("Run:ai streamer", "runai_model_streamer", "runai_streamer", files.safetensors)):
            if importlib.util.find_spec(module) is None:
                common.say(f"{way} is not installed, and left out")
                continue
            ways[way] = ([file], lambda loader=loader, file=file: self.peer(loader, name, file))
        return ways


def in_turn(ways, before):
    """One sample of each way, in an order of its own; before(files) prepares each."""
    order = list(ways)
    random.shuffle(order)
    samples = {}
    for way in order:
        files, sample = ways[way]
        before(files)
        samples[way] = sample()["loads"][0]
    return samples


def ratios(rounds, numerator, denominator, key):
    return common.spread(one[numerator][key] / one[denominator][key] for one in rounds)


def loads(bench, name, rounds, cold):
    """All ways at one size. `best_read_ms` is the best of the raw reads of the same round, where it is cold."""
    files = loading_files.files_of(name)
    ways = bench.ways(name, files)
    fresh = max(loading_files.SIZES[name].bytes * 5 // 4, CANARY_BYTES)
    canary, samples, reads = [], [], []

    def prepare(paths):
        if cold:
            page_cache.chill(*paths)
        else:
            page_cache.warm(*paths)
        canary.append(page_cache.touch_fresh_memory(fresh))  # last: what it frees is what is handed out next

    for number in range(rounds):
        samples.append(in_turn(ways, prepare))
        if cold:
            reads.append({})
            for threads, how in RAW_READS:
                prepare([files.torchscript])
                reads[-1][f"{how} x{threads}"] = bench.native("read", files.torchscript, threads, how)["ms"]
        common.say(f"  {name} {'cold' if cold else 'warm'} {number + 1}/{rounds}")
    hashes = {way: {one[way]["hash"] for one in samples} for way in ways}
    result = {
        "median_ms": {way: {key: common.median(one[way][key] for one in samples)
                            for key in ("bound_ms", "loaded_ms", "first_answer_ms")} for way in ways},
        "first_answer_range_ms": {way: common.spread(one[way]["first_answer_ms"] for one in samples) for way in ways},
        "private_kb": {way: max(one[way]["anon_kb"] for one in samples) for way in ways},
        "same_bits_as_jit": {way: hashes[way] == hashes["torch.jit.load"] for way in ways},
        "fresh_memory_ms_per_256MB": common.spread(canary),
        "bound_times_faster_than_jit": ratios(samples, "torch.jit.load", "hearth, TorchScript", "bound_ms"),
        "hearth_bound_beyond_map_ms": common.spread(one["hearth, TorchScript"]["bound_ms"] -
                                             one["hearth, TorchScript"]["map_ms"] for one in samples),
        "first_answer_times_faster_than": {
            way: ratios(samples, way, "hearth, TorchScript", "first_answer_ms")
            for way in ways if not way.startswith("hearth")},
    }
    if cold:
        medians = {way: common.median(one[way] for one in reads) for way in reads[0]}
        # Not the luckiest of all samples of a round: one way was the best, and is compared round by round.
        best = min(medians, key=medians.get)
        result["raw_read_ms"] = medians
        result["share_of_best_raw_read"] = {
            way: common.spread(read[best] / one[way]["loaded_ms"] for read, one in zip(reads, samples))
            for way in ("hearth, TorchScript", "hearth, packed safetensors")}
    return result


def variants(bench, name, rounds):
    """A second set of weights for the same program, in the same process."""
    dims = loading_files.SIZES[name].dims
    base, variant = loading_files.files_of(name).packed, loading_files.variant_of(name)
    seconds = []
    for _ in range(rounds):
        page_cache.warm(*base.split(","), variant.split(",")[1])
        seconds.append(bench.native("hearth", dims, base, variant)["loads"][1])
    return {"loaded_ms": common.spread(one["loaded_ms"] for one in seconds),
            "beyond_its_own_bytes_ms": common.spread(one["loaded_ms"] - one["populate_ms"] - one["read_ms"]
                                              for one in seconds),
            "first_run_over_steady": common.spread(one["first_run_ms"] / one["steady_ms"] for one in seconds),
            "first_run_over_uncached": common.spread(one["first_run_ms"] / one["uncached_ms"] for one in seconds)}


def reload(bench, name, rounds):
    """Loaded, evicted, loaded again, pages still in the cache."""
    dims, file = loading_files.SIZES[name].dims, loading_files.files_of(name).torchscript
    done = []
    for _ in range(rounds):
        page_cache.warm(file)
        done.append(bench.native("reload", dims, file))
    return {"loaded_ms": common.spread(one["loads"][1]["loaded_ms"] for one in done),
            "populate_alone_ms": common.spread(one["populate_alone_ms"] for one in done),
            "beyond_populate_ms": common.spread(one["loads"][1]["loaded_ms"] - one["populate_alone_ms"] for one in done),
            "first_run_over_steady": common.spread(one["loads"][1]["first_run_ms"] / one["loads"][1]["steady_ms"]
                                            for one in done)}


def heads(bench, rounds):
    """Models that differ in their last layer: what the process holds with one of them and with ten."""
    size, models = loading_files.heads_on_one_base(HEADS)
    page_cache.warm(*{file for model in models for file in model.split(",")})
    growth, extra = [], []
    for _ in range(rounds):
        nothing = bench.native("hearth", size.dims, models[0])["loads"][0]
        all_of_them = bench.native("hearth", size.dims, *models)["loads"]
        weights_kb = size.bytes // 1024
        growth.append((weights_kb + all_of_them[-1]["rss_kb"] - nothing["rss_kb"]) / weights_kb)
        extra.append(statistics.median(one["loaded_ms"] for one in all_of_them[1:]))
    return {"memory_of_ten_over_one": common.spread(growth), "next_head_loaded_ms": common.spread(extra)}


def table(result):
    lines = []
    for kind in ("warm", "cold"):
        for name, one in result.get(kind, {}).items():
            lines += ["", f"{name}, {kind}: bound / first answer, ms (median; range of the first answer)"]
            for way, ms in one["median_ms"].items():
                span = one["first_answer_range_ms"][way]
                note = "" if one["same_bits_as_jit"][way] else "   last bits differ"
                lines.append(f"  {way:32}{ms['bound_ms']:10.1f}{ms['first_answer_ms']:10.1f}"
                             f"   {span['min']:.0f}-{span['max']:.0f}{note}")
            if kind == "cold":
                for way, share in one["share_of_best_raw_read"].items():
                    lines.append(f"  {way}: loaded and populated at {share['median']:.0%} of the best raw read "
                                 f"({share['min']:.0%}-{share['max']:.0%})")
    for section in ("variant", "reload"):
        for name, one in result.get(section, {}).items():
            lines.append(f"{section} {name}: " + ", ".join(f"{key} {value['median']}" for key, value in one.items()))
    if "heads" in result:
        lines.append("ten heads: " + ", ".join(f"{key} {value['median']}" for key, value in result["heads"].items()))
    return "\n".join(lines)


def main():
    parser = common.parser(__doc__.split("\n\n", maxsplit=1)[0], rounds=7)
    parser.add_argument("--sizes", default="8MB,400MB,2GB", help="some of them; default all")
    parser.add_argument("--sections", default="warm,cold,variant,reload,heads", help="some of them; default all")
    parser.add_argument("--device", default="cpu", help="where the weights go, e.g. cuda:0; default cpu")
    arguments = parser.parse_args()
    sizes, sections = arguments.sizes.split(","), arguments.sections.split(",")
    bench, rounds = Bench(arguments.build, arguments.device), arguments.rounds
    random.seed(0)
    result = {"rounds": rounds, "device": arguments.device}
    for kind in ("warm", "cold"):
        if kind in sections:
            result[kind] = {name: loads(bench, name, rounds, kind == "cold") for name in sizes}
    for section, function in (("variant", variants), ("reload", reload)):
        if section in sections:
            result[section] = {name: function(bench, name, rounds) for name in sizes if name != "2GB" or
                               section == "reload"}
    if "heads" in sections:
        result["heads"] = heads(bench, rounds)
    common.say(table(result))
    common.report("loading", result)
    if not all(one["same_bits_as_jit"]["hearth, TorchScript"] for kind in ("warm", "cold")
               for one in result.get(kind, {}).values()):
        sys.exit("hearth's answers differ from torch.jit.load's")


if __name__ == "__main__":
    main()
