"""What the turns of all rounds come to, as numbers and as tables in Markdown."""

import collections
import itertools

import common
from . import models

FIGURES = ("requests_per_second", "p50_us", "p99_us", "processor_us")
# Requests per second over theirs at least, and p99 over theirs at most.
TARGETS = collections.defaultdict(lambda: (3, 1 / 3), triton=(2, 1 / 2))


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
    """How many times hearthd's figure is the other's; of processor time nothing, where that was too little to be seen."""
    ratios = {f"{key}_times": [hearthd[key] / other[key] for hearthd, other in pairs if other[key]] for key in FIGURES}
    return {key: common.spread(values) for key, values in ratios.items() if values}


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
    rate, p99 = (cell[f"{key}_times"]["median"] for key in ("requests_per_second", "p99_us"))
    used = f"{cell['processor_us_times']['median']:.2f}" if "processor_us_times" in cell else "?"
    return (f"{bold(f'{rate:.2f}', rate < TARGETS[name][0])} / {bold(f'{p99:.2f}', p99 > TARGETS[name][1])} / {used}" +
            (" (some failed)" if "failed" in cell[name] or "failed" in cell["hearthd"] else ""))


def figures_of(one):
    if "p50_us" not in one:
        return one["failed"]
    return (f"{one['requests_per_second']:.0f}/s, {one['p50_us'] / 1e3:.2f} / {one['p99_us'] / 1e3:.2f} ms, "
            f"{one['processor_us']:.0f} us")


def bold(text, is_missed):
    return f"**{text}**" if is_missed else text
