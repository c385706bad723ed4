"""The model.yaml of earlier versions: whether it goes with the version that is being packed."""

import pathlib

import yaml

from hearth_pack import examples
from hearth_pack.errors import PackError, UsageError


def _read(path):
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # scalars stay text
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PackError(f"'{path}' cannot be read: {' '.join(str(error).split())}; mend it, or replace it with "
                        "--overwrite-yaml") from error
    return document if isinstance(document, dict) else {}


def _tensors(document, key):
    return [tensor for tensor in document.get(key) or [] if isinstance(tensor, dict) and "name" in tensor]


def _differs(kind, declared, value):
    """What is said of a tensor, and what it is; empty: they go together."""
    datatype, shape = declared.get("datatype"), declared.get("shape")
    have = examples.shape_of(value)
    same = datatype in (None, examples.datatype_of(value)) and (shape is None or len(shape) == len(have) and all(
        said in ("-1", str(size)) for said, size in zip(shape, have)))
    if same:
        return ""
    return f"{kind} '{declared['name']}' is {_shown(datatype, shape)} there and " \
           f"{_shown(examples.datatype_of(value), have)} here"


def _shown(datatype, shape):
    return " ".join([datatype or "of any type"] + ([f"[{', '.join(map(str, shape))}]"] if shape is not None else []))


def _inputs(declared, names, example):
    """As hearthd reads it: by the program's names, or by order under others."""
    by_name = all(tensor["name"] in names for tensor in declared)
    if not by_name and len(declared) != len(names):
        yield f"it has the inputs {_names(declared)}, and the program takes {', '.join(names)}"
        return
    for tensor, name in zip(declared, [tensor["name"] for tensor in declared] if by_name else names):
        if name in example:
            yield _differs("input", tensor, example[name])


def _outputs(declared, expected):
    if declared and len(declared) != len(expected):
        yield f"it has the outputs {_names(declared)}, and the program gives {', '.join(expected)}"
        return
    for tensor, value in zip(declared, expected.values()):
        yield _differs("output", tensor, value)


def _names(tensors):
    return ", ".join(tensor["name"] for tensor in tensors)


def _contradictions(document, method, names, cases):
    said = document.get("method", "forward")
    if said != method:
        yield f"method is {said} there and {method} here"
    if cases:
        yield from _inputs(_tensors(document, "inputs"), names, cases[0].example)
        yield from _outputs(_tensors(document, "outputs"), cases[0].expected)


def refuse_another(options, method, names, cases):
    """Raises where the model.yaml that is there, which holds for all versions, would not let this one be served.

    names: of all inputs, in the program's order.
    """
    path = pathlib.Path(options.repository) / options.name / "model.yaml"
    if options.overwrite_yaml or not path.is_file():
        return
    found = [text for text in _contradictions(_read(path), method, names, cases) if text]
    if found:
        raise UsageError(f"'{path}' is for all versions, and this one contradicts it: {'; '.join(found)}. Choose "
                         "another --name, or replace it with --overwrite-yaml, after which earlier versions may not "
                         "load any more")
