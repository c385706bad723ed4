"""How near hearthd comes to a bare LibTorch loop that does nothing but run the same model.

batching: a model that computes for a while, 64 clients with one row each, against a loop over batches of the size that hearthd
made on average. speech: silero VAD, 100 clients that each send window after window of a sequence of their own, against a loop
over 100 copies of the module. Both sides compute on one thread; the loop has a process to itself, and so has the load. Rounds
take turns. The clients of both share one thread: more would take the model's processor from it, where there are only two.
shared memory: an identity model, tensors in messages and in /dev/shm. threads: a model that computes on two threads
against a loop that does; and the same beside four that compute on one, where all together have two processors, against a
server on which every run has two threads and there are two runs at a time.
"""

import importlib.util
import json
import pathlib
import re
import sys
import tempfile
import threading
import time
import urllib.request

import torch

import common
from serving import Identity, serve

FEATURES = 512
WINDOW = 512  # samples
ROWS = 256  # of one request of the model with two threads
NARROW = ("narrow0", "narrow1", "narrow2", "narrow3")


def network():
    torch.manual_seed(0)
    wide = 2048
    return torch.nn.Sequential(torch.nn.Linear(FEATURES, wide), torch.nn.ReLU(), torch.nn.Linear(wide, wide), torch.nn.ReLU(),
                               torch.nn.Linear(wide, 10))


class Rows(torch.nn.Module):
    """A batch from one row, as the load sends it."""

    def __init__(self, inner: torch.nn.Module, features: int):
        super().__init__()
        self.inner = inner
        self.features = features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.reshape(-1, self.features))


def write_model(repository, name, module, options=""):
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    torch.jit.save(module, str(folder / "model.pt"))
    (repository / name / "model.yaml").write_text(options, encoding="utf-8")


def silero_file():
    package = importlib.util.find_spec("silero_vad").submodule_search_locations[0]
    return pathlib.Path(package) / "data" / "silero_vad.jit"


def start_threads(build, folder, threads_of_all):
    """A model on two threads and four on one, on two processors. `threads_of_all`: of each of two runs, whosever they are."""
    repository = pathlib.Path(folder, f"threads{threads_of_all}")
    rows = torch.jit.script(Rows(network().eval(), FEATURES))
    sample = "warm_up: [{count: 3, inputs: {x: {datatype: FP32, shape: [1, %d]}}}]\n"
    write_model(repository, "pair", rows, "intra_op_threads: 2\n" + sample % (ROWS * FEATURES))
    for name in NARROW:
        write_model(repository, name, rows, sample % (ROWS // 4 * FEATURES))
    return serve(build, repository, ["pair", *NARROW], compute={"threads": 2, "intra_op_threads": threads_of_all})


def beside_each_other(load, server):
    """Everybody at once, each with as many clients as find something to do: {model: what its load saw}."""
    seen = {}

    def ask(name):
        rows = ROWS if name == "pair" else ROWS // 4
        seen[name] = load(server, name, "--clients", 2, "--bytes", 4 * FEATURES * rows, "--answers", "any")

    askers = [threading.Thread(target=ask, args=(name,)) for name in ("pair", *NARROW)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    return seen


def compare_threads(load, shared, oversubscribed):
    """What the first has of the second: requests, and p99."""
    ours, theirs = beside_each_other(load, shared), beside_each_other(load, oversubscribed)

    def rows(seen):  # that were computed in a second
        return sum(one["requests_per_second"] * (ROWS if name == "pair" else ROWS // 4) for name, one in seen.items())

    def slowest(seen):
        return max(seen[name]["p99_us"] for name in NARROW)

    return {"rows": rows(ours) / rows(theirs), "wide_p99": ours["pair"]["p99_us"] / theirs["pair"]["p99_us"],
            "narrow_p99": slowest(ours) / slowest(theirs)}


def start_hearthd(build, folder):
    repository = pathlib.Path(folder, "models")
    write_model(repository, "wide", torch.jit.script(network().eval()), options=(
        "max_batch_size: 32\nbatching: true\n"
        f"inputs: [{{name: x, datatype: FP32, shape: [-1, {FEATURES}]}}]\n"
        "warm_up: [{count: 3, inputs: {x: {datatype: FP32, shape: [32, %d]}}}]\n" % FEATURES))
    write_model(repository, "speech", torch.jit.load(str(silero_file())), options="sequences: {idle_timeout: 1m}\n")
    write_model(repository, "identity", torch.jit.script(Identity()))
    return serve(build, repository, ["wide", "speech", "identity"], grpc={"client_shared_memory": True}, compute={"threads": 1})


def loop(what, seconds, size):
    """Runs in a process of its own: prints rows, or windows, a second."""
    torch.set_num_threads(2 if what == "pair" else 1)
    torch.set_num_interop_threads(1)
    with torch.inference_mode():
        if what in ("wide", "pair"):
            module = torch.jit.script(network().eval())
            rows = torch.full((size, FEATURES), 1e-3)
            step = lambda: module(rows)
        else:
            modules = [torch.jit.load(str(silero_file())) for _ in range(size)]
            window = torch.full((1, WINDOW), 1e-3)

            def step():
                for module in modules:
                    module(window, 16000)
        for _ in range(5):
            step()
        steps, begin = 0, time.perf_counter()
        while time.perf_counter() < begin + seconds:
            step()
            steps += 1
        print(json.dumps({"rows_per_second": steps * size / (time.perf_counter() - begin)}))


def bare(what, seconds, size):
    return common.run_json(sys.executable, __file__, "--loop", what, "--seconds", seconds, "--size", size)["rows_per_second"]


def runs(server):
    """(rows, runs) of the model `wide` so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.event['http_port']}/metrics") as answer:
        text = answer.read().decode()
    return tuple(float(re.search(rf'^{name}{{model="wide",version="1"}} (\S+)', text, re.M).group(1))
                 for name in ("hearth_inferences_total", "hearth_runs_total"))


def main():
    parser = common.parser(__doc__.split("\n\n", maxsplit=1)[0], rounds=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement; default 3")
    parser.add_argument("--loop", help="for the benchmark itself")
    parser.add_argument("--size", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.loop:
        return loop(arguments.loop, arguments.seconds, arguments.size)
    tools = arguments.build / "tests" / "bench"

    def load(server, model, *more):
        return common.run_json(tools / "grpc_load", "--address", server.address, "--model", model, "--seconds",
                               arguments.seconds, *more)

    rounds = {"batching": [], "speech": [], "shared_memory_1MiB": [], "shared_memory_16MiB": [], "two_threads": [],
              "two_threads_beside_others": []}
    with tempfile.TemporaryDirectory() as folder:
        servers = [start_hearthd(arguments.build, folder), *(start_threads(arguments.build, folder, n) for n in (1, 2))]
        server, shared, oversubscribed = servers
        try:
            for number in range(arguments.rounds):
                before = runs(server)
                served = load(server, "wide", "--clients", 64, "--threads", 1, "--bytes", 4 * FEATURES, "--answers", "any")
                rows, count = (after - earlier for after, earlier in zip(runs(server), before))
                batch = max(1, round(rows / count))
                alone = bare("wide", arguments.seconds, batch)
                rounds["batching"].append({"share": served["requests_per_second"] / alone, "batch": batch,
                                           "p99_over_p50": served["p99_us"] / served["p50_us"]})
                heard = load(server, "speech", "--clients", 100, "--threads", 1, "--bytes", 4 * WINDOW, "--answers", "any", "--int64", "sr=16000",
                             "--sequences", 1)
                alone = bare("speech", arguments.seconds, 100)
                rounds["speech"].append({"share": heard["requests_per_second"] / alone,
                                         "p99_over_p50": heard["p99_us"] / heard["p50_us"]})
                for name, size in (("shared_memory_1MiB", 1 << 20), ("shared_memory_16MiB", 16 << 20)):
                    sent = load(server, "identity", "--clients", 4, "--bytes", size)
                    put = load(server, "identity", "--clients", 4, "--bytes", size, "--shared_memory", 1)
                    rounds[name].append({"over_network": put["requests_per_second"] / sent["requests_per_second"]})
                served = load(shared, "pair", "--clients", 2, "--bytes", 4 * FEATURES * ROWS, "--answers", "any")
                alone = bare("pair", arguments.seconds, ROWS)
                rounds["two_threads"].append({"share": served["requests_per_second"] * ROWS / alone,
                                              "p99_over_p50": served["p99_us"] / served["p50_us"]})
                rounds["two_threads_beside_others"].append(compare_threads(load, shared, oversubscribed))
                common.say(f"round {number + 1}: " + "; ".join(
                    f"{name} " + ", ".join(f"{key} {value:.2f}" for key, value in last[-1].items())
                    for name, last in rounds.items()))
        finally:
            for one in servers:
                one.stop()
    common.report("execution", {"rounds": arguments.rounds, **{
        name: {key: common.spread(one[key] for one in of) for key in of[0]} for name, of in rounds.items()}})


if __name__ == "__main__":
    main()
