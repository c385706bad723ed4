"""How long until a model of about 2 GiB is bound, and until it has answered.

Three ways, each in a fresh process, in turn, with warm page caches and one thread:
  hearth  the daemon's own loader, mapping the TorchScript archive
  jit     torch::jit::load of the same archive
  python  torch.load(mmap=True) of the same weights, load_state_dict(assign=True) into a meta module
Interpreter start and `import torch` are nobody's load and are not counted.
"""

import argparse
import json
import subprocess
import sys
import time

import torch

import common

WIDTH = 4096


class Wide(torch.nn.Module):
    def __init__(self, layers: int):
        super().__init__()
        self.layers = torch.nn.ModuleList(
            [torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x)) + x
        return x


def fnv1a(data):
    """As load_bench.cc computes it."""
    value = 1469598103934665603
    for byte in data:
        value = ((value ^ byte) * 1099511628211) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def make_files(layers):
    """The archive and the state dictionary, made once."""
    archive = common.CACHE / f"wide{layers}.pt"
    weights = common.CACHE / f"wide{layers}.weights"
    if not (archive.exists() and weights.exists()):
        common.say(f"writing {archive} and {weights.name}")
        common.CACHE.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(7)
        module = Wide(layers).eval()
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        for target, save in ((archive, lambda f: torch.jit.script(module).save(f)),
                             (weights, lambda f: torch.save(module.state_dict(), f))):
            part = target.with_suffix(".part")
            save(str(part))
            part.rename(target)
    return archive, weights


def python_side(weights, layers):
    """Runs in a process of its own: the child of python_load()."""
    torch.set_num_threads(1)
    torch.ones(8, 8).matmul(torch.ones(8, 8))
    x = torch.ones(1, WIDTH)
    before = anon_kb()
    start = time.perf_counter()
    state = torch.load(weights, mmap=True, weights_only=True)
    with torch.device("meta"):
        module = Wide(layers)
    module.load_state_dict(state, assign=True)
    module.eval()
    bound = time.perf_counter()
    anon = anon_kb() - before
    with torch.inference_mode():
        answer = module(x)
    first = time.perf_counter()
    print(json.dumps({"bound_ms": (bound - start) * 1e3, "first_answer_ms": (first - start) * 1e3,
                      "anon_kb": anon, "hash": fnv1a(answer.contiguous().numpy().tobytes())}))


def anon_kb():
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon:"))


def warm(*files):
    for file in files:
        subprocess.run(["cat", str(file)], stdout=subprocess.DEVNULL, check=True)


def main():
    parser = common.parser(__doc__.split("\n\n", maxsplit=1)[0], rounds=7)
    parser.add_argument("--layers", type=int, default=32, help="of 64 MiB each; default 32")
    parser.add_argument("--python-side", metavar="FILE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.python_side:
        python_side(arguments.python_side, arguments.layers)
        return
    archive, weights = make_files(arguments.layers)
    bench = arguments.build / "tests" / "bench" / "load_bench"
    ways = {
        "hearth": [bench, "hearth", archive, f"1,{WIDTH}"],
        "jit": [bench, "jit", archive, f"1,{WIDTH}"],
        "python": [sys.executable, "-W", "ignore", __file__, "--layers", arguments.layers,
                   "--python-side", weights],
    }
    rounds = []
    for number in range(arguments.rounds):
        warm(archive, weights)
        rounds.append({way: common.run_json(*command) for way, command in ways.items()})
        common.say(f"round {number + 1}: " + ", ".join(
            f"{way} {r['bound_ms']:.1f} / {r['first_answer_ms']:.1f} ms" for way, r in rounds[-1].items()))
    answers = {r["hash"] for one in rounds for r in one.values()}
    size = archive.stat().st_size
    common.report("loading", {
        "file_bytes": size,
        "rounds": arguments.rounds,
        "answers_equal": len(answers) == 1,
        "median_ms": {way: {key: common.median(one[way][key] for one in rounds)
                            for key in ("bound_ms", "first_answer_ms")} for way in ways},
        "bound_times_faster_than_jit_load": ratio(rounds, "jit", "hearth", "bound_ms"),
        "first_answer_times_faster_than_jit_load": ratio(rounds, "jit", "hearth", "first_answer_ms"),
        "first_answer_times_faster_than_python_mmap": ratio(rounds, "python", "hearth",
                                                            "first_answer_ms"),
        "private_bytes": max(one["hearth"]["anon_kb"] for one in rounds) * 1024,
        "private_bytes_allowed": size // 50 + (5 << 20),
    })
    if len(answers) != 1:
        sys.exit("the answers differ")


def ratio(rounds, numerator, denominator, key):
    return common.median(one[numerator][key] / one[denominator][key] for one in rounds)


if __name__ == "__main__":
    main()
