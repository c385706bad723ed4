"""The same models on hearthd, Triton, MLServer, TorchServe, LitServe and Ray Serve: requests, latency, memory.

In each round every peer has its turn, in random order. It starts, gives right answers, works for some seconds so that what
it compiles as it runs is compiled, and is then measured at each point, and hearthd right before or after it; the other one
is idle meanwhile. Memory is looked at when the other one is gone. Ratios are those of such neighbours, asked in the same
way. Nobody batches; torch has one thread for each run, and everybody runs as many at a time.
"""

import collections
import itertools
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

import common
import peers
from peers import h2load, models, process, report, server


def main():
    arguments = parse()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    cache = arguments.cache.resolve()
    generator = h2load.H2load(cache)
    generator.install()
    process.adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    with tempfile.TemporaryDirectory() as folder:
        settings = server.Settings(write_models(pathlib.Path(folder), arguments.models), arguments.threads, cache,
                                   arguments.build)
        hearthd = peers.Hearthd(settings)
        others = {kind.name: kind(settings) for kind in peers.PEERS
                  if kind.name in arguments.servers and set(kind.ways) & set(arguments.ways)}
        try:
            turns, missing = measured(hearthd, others, generator, arguments)
        except server.Unavailable as error:
            sys.exit(f"hearthd: {error}")
        finally:
            process.end_all()
    result = {"rounds": arguments.rounds, "seconds": arguments.seconds, "threads": arguments.threads,
              "hearthd": {key: common.spread(turn[key] for turn in turns["hearthd"])
                          for key in ("memory", "start_seconds")},
              "peers": {name: {"title": one.title, "remark": one.remark,
                               **({"unavailable": missing[name]} if name in missing else {}),
                               **(report.summary(turns[name]) if turns[name] else {})} for name, one in others.items()}}
    common.say(report.table(result))
    common.report("peers", result)


def parse():
    parser = common.parser(__doc__.split("\n\n", maxsplit=1)[0], rounds=5)
    names = [kind.name for kind in peers.PEERS]
    parser.add_argument("--servers", nargs="+", default=names, choices=names, help="beside hearthd; default all")
    parser.add_argument("--models", nargs="+", default=list(models.WHAT), choices=list(models.WHAT), help="default all")
    parser.add_argument("--ways", nargs="+", default=["grpc", "binary", "json"], help="grpc, binary, json; default all")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement; default 2")
    parser.add_argument("--warm-up", type=float, default=0.5, help="seconds before each; default 0.5")
    parser.add_argument("--settle", type=float, default=3,
                        help="seconds that each server is asked in each way before anything is measured; default 3")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)),
                        help="runs at the same time: hearthd's compute threads, the others' processes; default: CPUs")
    parser.add_argument("--cache", type=pathlib.Path, default=os.environ.get("PEERS_DIR") or common.CACHE.parent / "peers",
                        help="where the servers are installed, some 1.5 GB; default $PEERS_DIR or .cache/peers")
    return parser.parse_args()


def write_models(folder, names):
    subprocess.run([sys.executable, models.__file__, folder], check=True, stdout=sys.stderr)
    shapes = json.loads((folder / "shapes.json").read_text(encoding="utf-8"))
    return [server.Model(name, folder / f"{name}.pt",
                         np.fromfile(folder / f"{name}.input", np.float32).reshape(shapes[name]["input"]),
                         np.fromfile(folder / f"{name}.output", np.float32)) for name in names]


def scratch():
    return tempfile.TemporaryDirectory(ignore_cleanup_errors=True)


def alone(hearthd, generator, arguments):
    """hearthd's memory after having worked, with nobody beside it that shares its pages."""
    with scratch() as folder:
        try:
            seconds = hearthd.start(folder)
            for way, model in asked(hearthd, arguments):
                measure(hearthd, way, model, max(arguments.clients), generator, arguments.settle, 0)
            return {"start_seconds": seconds, "memory": process.memory(hearthd.pids())}
        finally:
            hearthd.stop()


def measured(hearthd, others, generator, arguments):
    """(what turn() says, for each round, of each peer; why some of them are missing)"""
    turns, missing = collections.defaultdict(list), {}

    def attempt(name, call, *words):
        try:
            return call(*words)
        except server.Unavailable as error:
            missing[name] = str(error)
            common.say(f"  {error}")
            return None

    hearthd.install()
    for name, peer in others.items():
        attempt(name, peer.install)
    for number in range(arguments.rounds):
        common.say(f"round {number + 1}/{arguments.rounds}: hearthd")
        turns["hearthd"].append(alone(hearthd, generator, arguments))
        for name in random.sample(list(others), len(others)):
            if name not in missing:
                common.say(f"round {number + 1}/{arguments.rounds}: {others[name].title}")
                turns[name].append(attempt(name, turn, others[name], hearthd, generator, arguments))
    return {name: [one for one in turns[name] if one] for name in ("hearthd", *others)}, missing


def turn(peer, hearthd, generator, arguments):
    """{"start_seconds", "memory", ..., "points": {(way, model, clients): figures of both, or why there are none}}"""
    points = {}
    with scratch() as folder, scratch() as hearthd_folder:
        try:
            result = {"start_seconds": peer.start(folder), "points": points}
            for way, model in asked(peer, arguments):  # Java compiles, Python specialises
                measure(peer, way, model, max(arguments.clients), generator, arguments.settle, 0)
            result["idle_processors"] = idle(peer)
            hearthd.start(hearthd_folder)
            peer.not_mine = hearthd.pids()
            strangers = process.Strangers()
            for (way, model), clients in itertools.product(asked(peer, arguments), arguments.clients):
                points[way, model.name, clients] = point = {
                    one.name: measure(one, way, model, clients, generator, arguments.seconds, arguments.warm_up)
                    for one in random.sample((peer, hearthd), 2)}
                common.say(f"  {way}, {model.name}, {clients} clients: " + "; ".join(
                    f"{name} {figures}" for name, figures in sorted(point.items())))
            result["strangers_processors"] = strangers.processors()
            hearthd.stop()
            return {**result, "memory": process.memory(peer.pids())}
        finally:
            hearthd.stop()
            peer.stop()


def asked(one, arguments):
    return itertools.product((way for way in one.ways if way in arguments.ways), one.settings.models)


def idle(peer, seconds=2):
    """How many processors it uses when nobody asks it anything."""
    used = process.processor_seconds(peer.pids())
    time.sleep(seconds)
    return round((process.processor_seconds(peer.pids()) - used) / seconds, 3)


def measure(one, way, model, clients, generator, seconds, warm_up):
    request = one.request(way, model)
    try:
        length = server.check(request, model)
        used = process.processor_seconds(one.pids())
        figures = generator.run(request, length, clients, seconds, warm_up)
        used = process.processor_seconds(one.pids()) - used
        server.check(request, model)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return {"failed": str(error)}
    requests = figures.pop("requests")
    return {**figures, "processor_us": round(used * 1e6 / requests, 1)}


if __name__ == "__main__":
    main()
