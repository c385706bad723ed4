"""A live hearthd whose models come and go: what a hot model's users notice of it, and whether anybody is let down."""

import contextlib
import os
import pathlib
import random
import shutil
import sys
import tempfile
import threading
import time

import common
import loading_files

COLD = ["packed", "variant", "archive"]  # three sets of weights that share nothing
CLIENTS = {"a core to spare": 1, "all cores busy": 8}


def write_identity(path):
    import torch

    import serving
    torch.jit.script(serving.Identity()).save(str(path))


def write_adder(path, number, megabytes):
    """x + number, with so much weight that is looked at, at one end, in each run."""
    import torch

    class Adder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("weight", torch.full((megabytes << 18,), float(number)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.weight[-1]

    torch.jit.script(Adder()).save(str(path))


@contextlib.contextmanager
def server(build, repository, config):
    os.environ.setdefault("HEARTH", str(build.resolve() / "client" / "hearth"))
    os.environ["HEARTHD"] = str(build.resolve() / "server" / "hearthd")
    sys.path.insert(0, str(common.ROOT / "tests" / "integration"))
    import hearthd
    with tempfile.TemporaryDirectory() as folder:
        with hearthd.Hearthd(repository, folder, hearthd.merged({"logging": {"level": "info"}}, config)) as running:
            yield running


@contextlib.contextmanager
def repository_of(files):
    """{model: {name in its version: file}} as a repository of links."""
    with tempfile.TemporaryDirectory(dir=common.CACHE) as folder:
        for model, parts in files.items():
            version = pathlib.Path(folder, model, "1")
            version.mkdir(parents=True)
            for name, file in parts.items():
                os.link(file, version / name)
        yield pathlib.Path(folder)


def cold_models(size):
    files = loading_files.files_of(size)
    program, packed = files.packed.split(",")
    variant = loading_files.variant_of(size).split(",")[1]
    return {"packed": {"program.pt": program, "model.safetensors": packed},
            "variant": {"program.pt": program, "model.safetensors": variant},
            "archive": {"model.pt": files.torchscript}}


class Churn(threading.Thread):
    """Has models loaded in turn, each of which evicts the one before, as fast as that goes."""

    def __init__(self, running, models):
        super().__init__(daemon=True)
        self._client = running.client()
        self._models = models
        self._ended = threading.Event()
        self.loads = 0

    def run(self):
        while not self._ended.is_set():
            self._client.load_model(self._models[self.loads % len(self._models)])
            self.loads += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self.join()
        self._client.close()


def interference(build, rounds, seconds, size="400MB"):
    """The hot model's latencies while others of 400 MB are loaded and evicted, against the same model alone."""
    hot = common.CACHE / "identity.pt"
    loading_files.once(hot, write_identity)
    models = {"hot": {"model.pt": hot}, **cold_models(size)}
    config = {"models": [{"name": "hot", "pin": True}],
              "cache": {"budget": {"mapped": loading_files.SIZES[size].bytes * 5 // 4}}}
    result = {}
    with repository_of(models) as repository, server(build, repository, config) as running:
        for name in COLD:  # into the page cache
            running.client().load_model(name)

        def load(clients):
            return common.run_json(build / "tests" / "bench" / "grpc_load", "--address", running.address, "--model",
                                   "hot", "--clients", clients, "--seconds", seconds)

        for situation, clients in CLIENTS.items():
            samples, rates = [], []
            for number in range(rounds):
                samples.append({})
                for way in ("alone", "churn") if number % 2 else ("churn", "alone"):
                    with contextlib.nullcontext() if way == "alone" else Churn(running, COLD) as others:
                        start = time.perf_counter()
                        samples[-1][way] = load(clients)
                        if others is not None:
                            rates.append(others.loads / (time.perf_counter() - start))
                common.say(f"  hot model, {situation}, {number + 1}/{rounds}")
            result[situation] = {
                "loads_per_second": common.median(rates),
                **{f"{way}_{key}": common.median(one[way][key] for one in samples)
                   for way in ("alone", "churn") for key in ("p50_us", "p99_us", "p999_us", "requests_per_second")},
                **{f"{key}_times": common.spread(one["churn"][f"{key}_us"] / one["alone"][f"{key}_us"]
                                                 for one in samples)
                   for key in ("p50", "p99", "p999")},
            }
    return result


def eviction(build, rounds, size="400MB"):
    """Until what the kernel says this process has mapped of files is down by the weights."""
    taken, returned = [], []
    weights = loading_files.SIZES[size].bytes
    with repository_of(cold_models(size)) as repository, server(build, repository, {}) as running:
        client = running.client()
        for _ in range(rounds):
            for name in COLD:
                client.load_model(name)
                before = running.memory("RssFile")
                start = time.perf_counter()
                client.unload_model(name)
                while running.memory("RssFile") > before - weights * 99 // 100:
                    if time.perf_counter() - start > 5:
                        break
                taken.append((time.perf_counter() - start) * 1e3)
                returned.append((before - running.memory("RssFile")) / weights)
    return {"milliseconds": common.spread(taken), "of_its_bytes": common.spread(returned)}


def catalog(build, count, rounds):
    """Start with so many models in the repository, and what each of them costs while it is cold."""
    model = common.CACHE / "identity.pt"
    loading_files.once(model, write_identity)
    folder = common.CACHE / f"catalog{count}"
    if not (folder / f"m{count - 1:06}.pt").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for number in range(count):
            os.symlink(model, folder / f"m{number:06}.pt")
    empty = common.CACHE / "catalog0"
    empty.mkdir(exist_ok=True)
    seconds, without, bytes_each = [], [], []
    for _ in range(rounds):
        resident = {}
        for repository, times in ((empty, without), (folder, seconds)):
            start = time.perf_counter()
            with server(build, repository, {}) as running:
                times.append(time.perf_counter() - start)
                resident[repository] = running.memory("RssAnon")
        bytes_each.append((resident[folder] - resident[empty]) / count)
    return {"models": count, "start_seconds": common.spread(seconds), "empty_start_seconds": common.spread(without),
            "bytes_each": common.spread(bytes_each)}


class Visitor(threading.Thread):
    """Asks models for answers, the first ones more often, and checks them."""

    def __init__(self, running, count, seed, until):
        super().__init__(daemon=True)
        self._running, self._count, self._until = running, count, until
        self._random = random.Random(seed)
        self.answers = self.wrong = 0
        self.lost = []

    def run(self):
        import numpy as np
        import tritonclient.grpc as triton
        client = self._running.client()
        while time.monotonic() < self._until:
            number = min(int(self._random.paretovariate(0.7)) - 1, self._count - 1)
            x = np.array([self._random.random()], np.float32)
            tensor = triton.InferInput("x", [1], "FP32")
            tensor.set_data_from_numpy(x)
            try:
                answer = client.infer(f"adder{number}", [tensor])
            except triton.InferenceServerException as error:
                self.lost.append(str(error))
                continue
            self.answers += 1
            got = answer.as_numpy(answer.get_response().outputs[0].name)
            if got.shape != (1,) or got[0] != x[0] + np.float32(number):
                self.wrong += 1


def churn(build, seconds, count=60, clients=8):
    """More models than fit, asked for by several clients at once."""
    folder = common.CACHE / "adders"
    files = {f"adder{number}": {"model.pt": loading_files.once(
        folder / f"{number}.pt", lambda path, number=number: write_adder(path, number, 4 + number % 29))}
        for number in range(count)}
    total = sum((4 + number % 29) << 20 for number in range(count))
    # Each client may hold a model, and the largest have to fit beside each other.
    config = {"cache": {"budget": {"mapped": total // 4}}}
    exceeded, highest = 0, 0.0
    with repository_of(files) as repository, server(build, repository, config) as running:
        until = time.monotonic() + seconds
        visitors = [Visitor(running, count, seed, until) for seed in range(clients)]
        for visitor in visitors:
            visitor.start()
        while any(visitor.is_alive() for visitor in visitors):
            samples = running.metrics()

            def of(name):
                return samples[name, (("dimension", "mapped"),)]

            used = of("hearth_resident_bytes") + of("hearth_loading_bytes") + of("hearth_unloading_bytes")
            highest = max(highest, used / of("hearth_budget_bytes"))
            exceeded += used > of("hearth_budget_bytes")
            time.sleep(0.05)
        evictions = running.metric("hearth_evictions_total")
        alive = running.alive
    lost = [text for visitor in visitors for text in visitor.lost]
    return {"seconds": seconds, "models": count, "clients": clients, "alive": alive,
            "answers": sum(visitor.answers for visitor in visitors), "evictions": evictions,
            "requests_lost": len(lost), "for_example": lost[:3],
            "wrong_answers": sum(visitor.wrong for visitor in visitors),
            "budget_exceeded": exceeded, "highest_share_of_budget": round(highest, 4)}


def ageing(build, reloads, samples=3000):
    """What a request takes of a model that is there, before and after two models have taken turns so often."""
    import numpy as np
    import tritonclient.grpc as triton
    size = 4 << 20
    folder = common.CACHE / "adders"
    files = {f"adder{number}": {"model.pt": loading_files.once(
        folder / f"small{number}.pt", lambda path, number=number: write_adder(path, number, 4))} for number in range(2)}
    x = triton.InferInput("x", [1], "FP32")
    x.set_data_from_numpy(np.ones(1, np.float32))
    with repository_of(files) as repository, \
            server(build, repository, {"cache": {"budget": {"mapped": size * 3 // 2}}}) as running:
        client = running.client()

        def ask(number):
            start = time.perf_counter()
            client.infer(f"adder{number}", [x])
            return time.perf_counter() - start

        def p50():
            ask(0)
            return common.median(ask(0) * 1e6 for _ in range(samples))

        for step in range(200):
            ask(step % 2)
        before, memory = p50(), running.memory("VmRSS")
        for step in range(reloads):
            ask((step + 1) % 2)
        after = p50()
        return {"reloads": reloads, "p50_before_us": round(before, 1), "p50_after_us": round(after, 1),
                "after_over_before": round(after / before, 3),
                "memory_grown_kb": (running.memory("VmRSS") - memory) // 1024}
