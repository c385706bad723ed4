"""The same models on hearthd, Triton, MLServer, TorchServe, LitServe and Ray Serve: requests, latency, memory.

One server runs at a time. In each round all of them have their turn, in random order: start, be asked for right answers,
be measured in each way, stop. Ratios are taken between hearthd and another within a round, asked in the same way. Nobody
batches; torch has one thread for each run, and everybody runs as many at a time.
"""

import collections
import itertools
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

import numpy as np

import common
import peers
from peers import h2load, models, process, server

# Requests per second over theirs at least, and p99 over theirs at most.
FIGURES = ("requests_per_second", "p50_us", "p99_us")
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
        servers = {kind.name: kind(settings) for kind in peers.ALL if kind.name in ["hearthd", *arguments.servers]}
        missing = install(servers)
        turns = collections.defaultdict(list)  # one for each round, of a server's name
        order = list(servers)
        for number in range(arguments.rounds):
            random.shuffle(order)
            for name in order:
                if name in missing:
                    continue
                common.say(f"round {number + 1}/{arguments.rounds}: {servers[name].title}")
                try:
                    turns[name].append(turn(servers[name], generator, arguments))
                except server.Unavailable as error:
                    missing[name] = str(error)
                    common.say(f"  {error}")
                    turns.pop(name, None)
        if "hearthd" in missing:
            sys.exit(f"hearthd: {missing['hearthd']}")
    result = {"rounds": arguments.rounds, "seconds": arguments.seconds, "threads": arguments.threads,
              "servers": {name: summary(one, turns[name], turns["hearthd"]) if name in turns else
                          {"title": one.title, "unavailable": missing[name]} for name, one in servers.items()}}
    common.say(table(result))
    common.report("peers", result)


def parse():
    parser = common.parser(__doc__.split("\n\n", maxsplit=1)[0], rounds=5)
    names = [kind.name for kind in peers.ALL[1:]]
    parser.add_argument("--servers", nargs="+", default=names, choices=names, help="beside hearthd; default all")
    parser.add_argument("--models", nargs="+", default=list(models.WHAT), choices=list(models.WHAT), help="default all")
    parser.add_argument("--ways", nargs="+", default=["grpc", "binary", "json"], help="grpc, binary, json; default all")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement; default 3")
    parser.add_argument("--warm-up", type=float, default=1, help="seconds before each; default 1")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)),
                        help="runs at the same time: hearthd's compute threads, the others' processes; default: CPUs")
    parser.add_argument("--cache", type=pathlib.Path, default=os.environ.get("PEERS_DIR", common.CACHE.parent / "peers"),
                        help="where the servers are installed, some 1.5 GB; default $PEERS_DIR or .cache/peers")
    return parser.parse_args()


def write_models(folder, names):
    subprocess.run([sys.executable, models.__file__, folder], check=True, stdout=sys.stderr)
    shapes = json.loads((folder / "shapes.json").read_text(encoding="utf-8"))
    return [server.Model(name, folder / f"{name}.pt",
                         np.fromfile(folder / f"{name}.input", np.float32).reshape(shapes[name]["input"]),
                         np.fromfile(folder / f"{name}.output", np.float32)) for name in names]


def install(servers):
    """Why some of them are missing, by name."""
    missing = {}
    for name, one in servers.items():
        try:
            one.install()
        except server.Unavailable as error:
            missing[name] = str(error)
            common.say(f"{one.title}: {error}")
    return missing


def turn(one, generator, arguments):
    """{"start_seconds", "memory", "points": {(way, model, clients): figures, or why there are none}}"""
    points = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = {"start_seconds": one.start(folder), "points": points}
            for way, model in itertools.product(one.ways, one.settings.models):
                if way not in arguments.ways:
                    continue
                request = one.request(way, model)
                for clients in arguments.clients:
                    try:
                        length = server.check(request, model)
                        point = generator.run(request, length, clients, arguments.seconds, arguments.warm_up)
                        server.check(request, model)
                    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
                        point = {"failed": str(error)}
                    points[way, model.name, clients] = point
                    common.say(f"  {way}, {model.name}, {clients} clients: {point}")
            return {**result, "memory": process.memory()}
        finally:
            one.stop()


def summary(one, turns, hearthd):
    points = {}
    for key in turns[0]["points"]:
        samples = [(mine["points"][key], theirs["points"][key]) for theirs, mine in zip(turns, hearthd)]
        failed = [theirs["failed"] for _, theirs in samples if "failed" in theirs]
        samples = [pair for pair in samples if not any("failed" in point for point in pair)]
        way, model, clients = key
        points.setdefault(way, {}).setdefault(model, {})[str(clients)] = {
            **({"failed": f"{len(failed)} times, for example: {failed[0]}"} if failed else {}),
            **{name: common.median(theirs[name] for _, theirs in samples) for name in FIGURES if samples},
            **{f"hearthd_{name}_times": common.spread(mine[name] / theirs[name] for mine, theirs in samples)
               for name in FIGURES if samples and turns is not hearthd}}
    return {"title": one.title, "remark": one.remark, "ways": points,
            "start_seconds": common.spread(turn["start_seconds"] for turn in turns),
            "memory": common.spread(turn["memory"] for turn in turns),
            "hearthd_memory_times": common.spread(mine["memory"] / theirs["memory"]
                                                  for theirs, mine in zip(turns, hearthd))}


def table(result):
    """In Markdown; bold is what misses its target."""
    servers = result["servers"]
    there = {name: one for name, one in servers.items() if "unavailable" not in one}
    lines = []
    for model in models.WHAT:
        rows = [(way, name, one["ways"][way][model]) for way in ("grpc", "binary", "json")
                for name, one in there.items() if model in one["ways"].get(way, {})]
        if rows:
            clients = list(rows[0][2])
            lines += ["", f"| {model} | {' | '.join(f'{number} clients' for number in clients)} |",
                      "|---" * (len(clients) + 1) + "|"]
            for way, name, cells in rows:
                lines.append(f"| {servers[name]['title']}, {way} | "
                             f"{' | '.join(cell_of(cell, name) for cell in cells.values())} |")
    lines += ["", "| | memory, MiB | hearthd's over it | seconds until all models answer |", "|---|---|---|---|"]
    for name, one in servers.items():
        if name not in there:
            lines.append(f"| {one['title']} | {one['unavailable']} | | |")
            continue
        times = one["hearthd_memory_times"]["median"]
        lines.append(f"| {one['title']} | {one['memory']['median'] / 2**20:.0f} | "
                     f"{'' if name == 'hearthd' else bold(f'{times:.2f}', times >= 1)} | "
                     f"{one['start_seconds']['median']:.1f} |")
    return "\n".join(lines)


def cell_of(cell, name):
    if "requests_per_second" not in cell:
        return cell["failed"]
    text = f"{cell['requests_per_second']:.0f}/s, {cell['p50_us'] / 1e3:.2f} / {cell['p99_us'] / 1e3:.2f} ms"
    if name == "hearthd":
        return text
    rate, p99 = (cell[f"hearthd_{key}_times"]["median"] for key in ("requests_per_second", "p99_us"))
    return (f"{text}: {bold(f'{rate:.2f}', rate < TARGETS[name][0])}, {bold(f'{p99:.2f}', p99 > TARGETS[name][1])}" +
            (" (some failed)" if "failed" in cell else ""))


def bold(text, is_missed):
    return f"**{text}**" if is_missed else text


if __name__ == "__main__":
    main()
