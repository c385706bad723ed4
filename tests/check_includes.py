#!/usr/bin/env python3
"""Holds the source tree to the include direction and to its other rules about headers.

    check_includes.py ROOT          prints file:line: for every breach; exit code 1 when there is one

    base <- metrics <- tensor <- model <- storage <- {torch_backend | residency} <- serving <- frontend

config/ stands beside them and is included by app.cc and main.cc only; client/ knows nothing of server/.
"""

import pathlib
import re
import sys

# What a folder of server/ may include besides itself.
LAYERS = {
    "base": set(),
    "metrics": {"base"},
    "tensor": {"base", "metrics"},
    "model": {"base", "metrics", "tensor"},
    "storage": {"base", "metrics", "tensor", "model"},
    "torch_backend": {"base", "metrics", "tensor", "model", "storage"},
    "inspect": {"base", "metrics", "tensor", "model", "storage"},
    "tools": set(),  # programs of their own
    "residency": {"base", "metrics", "tensor", "model", "storage"},
    "serving": {"base", "metrics", "tensor", "model", "storage", "residency"},
    "frontend": {"base", "metrics", "tensor", "model", "storage", "residency", "serving"},
    "config": {"base"},
}
TOP = set(LAYERS)  # app.cc and main.cc see everything

TORCH = re.compile(r"^(torch|ATen|c10|caffe2)/")
WIRE = re.compile(r"^(grpc|grpcpp|google/protobuf)/|\.pb\.h$")
LOGGING = re.compile(r"^(spdlog|fmt)/")
YAML = re.compile(r"^yaml-cpp/")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SOURCES = {".h", ".cc"}


def room_of(path):
    """server/model/loader.h -> ("server", "model"); server/app.cc -> ("server", None)."""
    parts = path.parts
    return parts[0], parts[1] if len(parts) > 2 else None


def breaches_of_include(path, style, target, root):
    """What is wrong with `path` including `target`, as sentences."""
    top, room = room_of(path)
    if target.startswith(("server/", "client/", "tests/")):
        if style == "<":
            yield f"<{target}> is ours: include it with quotes"
        if not (root / target).exists() and not target.endswith(".pb.h"):
            yield f"{target} does not exist (includes start at the root of the repository)"
    elif style == '"' and (path.parent / target).suffix == ".h" and (root / path.parent / target).exists():
        yield f'"{target}" is relative: write "{(path.parent / target).as_posix()}"'

    if target.startswith("tests/") and top != "tests":
        yield f"{target} belongs to the tests"
    if top == "client" and target.startswith("server/"):
        yield f"client/ never includes server/ ({target})"
    if top == "server" and target.startswith("client/"):
        yield f"server/ never includes client/ ({target})"
    if top == "server" and room is not None and target.startswith("server/"):
        other = target.split("/")[1] if target.count("/") > 1 else target
        if other != room and other not in LAYERS.get(room, set()):
            yield f"{room}/ stands below {other}, or beside it: {target}"

    if TORCH.match(target) and not (room == "torch_backend" or top == "tests"):
        yield f"only server/torch_backend includes LibTorch ({target})"
    if top == "server" and WIRE.search(target) and room not in ("frontend", None):
        yield f"only server/frontend knows the wire ({target})"
    if LOGGING.match(target) and path.as_posix() != "server/base/log.cc":
        yield f"log through server/base/log.h, not {target}"
    if top == "server" and YAML.match(target) and room != "base":
        yield f"read YAML through server/base/yaml_reader.h, not {target}"


def breaches_of_file(path, root):
    """(line, sentence) for everything wrong with one file."""
    text = (root / path).read_text(encoding="utf-8")
    if path.suffix == ".h" and not re.search(r"^#pragma once$", text, re.M):
        yield 1, "a header needs #pragma once"
    kinds = {}
    for number, line in enumerate(text.splitlines(), 1):
        found = INCLUDE.match(line)
        if not found:
            continue
        style, target = found.groups()
        for kind, pattern in (("LibTorch", TORCH), ("protobuf or gRPC", WIRE), ("spdlog or fmt", LOGGING)):
            if pattern.search(target):
                kinds.setdefault(kind, number)
        for sentence in breaches_of_include(path, style, target, root):
            yield number, sentence
    if "LibTorch" in kinds and len(kinds) > 1:
        other = next(kind for kind in kinds if kind != "LibTorch")
        yield kinds[other], f"LibTorch and {other} do not go into one file: their headers clash"


def check(root):
    """Every breach in the tree, as "file:line: sentence"."""
    root = pathlib.Path(root)
    result, seen = [], 0
    for top in ("server", "client", "tests"):
        for file in sorted((root / top).rglob("*")):
            if file.suffix in SOURCES and file.is_file():
                seen += 1
                path = file.relative_to(root)
                result += [f"{path}:{line}: {what}" for line, what in breaches_of_file(path, root)]
    if seen == 0:
        result.append(f"{root}: no sources here")
    return result


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    breaches = check(sys.argv[1])
    print("\n".join(breaches) or "the include direction holds")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
