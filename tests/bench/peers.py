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
import subprocess
import sys
import tempfile
import time

import numpy as np

import common
import peers
from peers import h2load, models, process, server

FIGURES = ("requests_per_second", "p50_us", "p99_us", "processor_us")
# Requests per second over theirs at least, and p99 over theirs at most.
TARGETS = collections.defaultdict(lambda: (3, 1 / 3), triton=(2, 1 / 2))


def main():
    arguments = parse()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    cache = arguments.cache.resolve()
    generator = h2load.H2load(cache)
    generator.install()
    process.adopt_orphans()
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
    result = {"rounds": arguments.rounds, "seconds": arguments.seconds, "threads": arguments.threads,
              "hearthd": {key: common.spread(turn[key] for turn in turns["hearthd"])
                          for key in ("memory", "start_seconds")},
              "peers": {name: {"title": one.title, "remark": one.remark,
                               **({"unavailable": missing[name]} if name in missing else {}),
                               **(summary(turns[name]) if turns[name] else {})} for name, one in others.items()}}
    common.say(table(result))
    common.report("peers", result)


def parse():
    parser = common.parser(__doc__.split("\n\n", maxsplit=1)[0], rounds=5)
    names = [kind.name for kind in peers.PEERS]
    parser.add_argument("--servers", nargs="+", default=names, choices=names, help="beside hearthd; default all")
    parser.add_argument("--models", nargs="+", default=list(models.WHAT), choices=list(models.WHAT), help="default all")
    parser.add_argument("--ways", nargs="+", default=["grpc", "binary", "json"], help="grpc, binary, json; default all")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement; default 3")
    parser.add_argument("--warm-up", type=float, default=1, help="seconds before each; default 1")
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


def summary(turns):
    ways = {}
    for way, model, clients in turns[0]["points"]:
        samples = [turn["points"][way, model, clients] for turn in turns]
        name = next(name for name in samples[0] if name != "hearthd")
        ways.setdefault(way, {}).setdefault(model, {})[str(clients)] = {
            **{who: of(sample[who] for sample in samples) for who in ("hearthd", name)},
            **compared([(sample["hearthd"], sample[name]) for sample in samples
                        if not any("failed" in one for one in sample.values())])}
    return {"points": ways, **{key: common.spread(turn[key] for turn in turns)
                               for key in ("start_seconds", "memory", "idle_processors", "strangers_processors")}}


def of(samples):
    samples = list(samples)
    good = [one for one in samples if "failed" not in one]
    bad = [one["failed"] for one in samples if "failed" in one]
    return {**{key: common.median(one[key] for one in good) for key in FIGURES if good},
            **({"failed": f"{len(bad)} times, for example: {bad[0]}"} if bad else {})}


def compared(pairs):
    """How many times hearthd's figure is the other's."""
    return {f"{key}_times": common.spread(hearthd[key] / other[key] for hearthd, other in pairs if other[key])
            for key in FIGURES if pairs}


def table(result):
    """In Markdown; bold is what misses its target."""
    there = {name: one for name, one in result["peers"].items() if "points" in one}
    clients = sorted({number for one in there.values() for models_of in one["points"].values()
                      for cells in models_of.values() for number in cells}, key=int)
    heading = ["| | " + " | ".join(f"{number} clients" for number in clients) + " |", "|---" * (len(clients) + 1) + "|"]
    ratios, figures = [], []
    for model, way in itertools.product(models.WHAT, ("grpc", "binary", "json")):
        cells = {name: one["points"][way][model] for name, one in there.items() if model in one["points"].get(way, {})}
        for name, cell in cells.items():
            ratios.append(f"| {model}, {way}, {there[name]['title']} | " +
                          " | ".join(ratios_of(cell[number], name) for number in clients) + " |")
            figures.append(f"| {model}, {way}, {there[name]['title']} | " +
                           " | ".join(figures_of(cell[number][name]) for number in clients) + " |")
            figures.append("| hearthd beside it | " +
                           " | ".join(figures_of(cell[number]["hearthd"]) for number in clients) + " |")
    ours = result["hearthd"]
    rows = [f"| hearthd | {ours['memory']['median'] / 2**20:.0f} | | {ours['start_seconds']['median']:.1f} | |"]
    for name, one in result["peers"].items():
        if name in there:
            times = ours["memory"]["median"] / one["memory"]["median"]
            rows.append(f"| {one['title']} | {one['memory']['median'] / 2**20:.0f} | {bold(f'{times:.2f}', times >= 1)} | "
                        f"{one['start_seconds']['median']:.1f} | {one['idle_processors']['median']:.2f} |")
        if "unavailable" in one:
            rows.append(f"| {one['title']} | {one['unavailable'].replace('|', '/')} | | | |")
    strangers = max((one["strangers_processors"]["max"] for one in there.values()), default=0)
    tables = [
        "", "hearthd's over the peer's: requests per second / p99 / processor time for each request", "", *heading, *ratios,
        "", "requests per second, p50 / p99, processor time for each request", "", *heading, *figures] if ratios else []
    return "\n".join([
        *tables, "", "| | memory, MiB | hearthd's over it | seconds until all models answer | processors while idle |",
        "|---|---|---|---|---|", *rows,
        "", f"others on this machine used up to {strangers:.2f} processors during a turn"])


def ratios_of(cell, name):
    if "p99_us_times" not in cell:
        return cell[name].get("failed") or cell["hearthd"].get("failed", "")
    rate, p99, used = (cell[f"{key}_times"].get("median", 0) for key in ("requests_per_second", "p99_us", "processor_us"))
    return (f"{bold(f'{rate:.2f}', rate < TARGETS[name][0])} / {bold(f'{p99:.2f}', p99 > TARGETS[name][1])} / {used:.2f}" +
            (" (some failed)" if "failed" in cell[name] or "failed" in cell["hearthd"] else ""))


def figures_of(one):
    if "p50_us" not in one:
        return one["failed"]
    return (f"{one['requests_per_second']:.0f}/s, {one['p50_us'] / 1e3:.2f} / {one['p99_us'] / 1e3:.2f} ms, "
            f"{one['processor_us']:.0f} us")


def bold(text, is_missed):
    return f"**{text}**" if is_missed else text


if __name__ == "__main__":
    main()
