"""Example inputs: what the program is traced and compared with, and what model.yaml says about inputs.

An example is {name: value}; a value is a tensor, or a list of str for BYTES.
"""

import pathlib
import re

import numpy as np
import torch

from hearth_pack.datatypes import PROTOCOL, PROTOCOL_NAMES
from hearth_pack.errors import UsageError

_SPEC = re.compile(r"(?P<name>[^=]+)=(?P<shape>[^:]*):(?P<datatype>[A-Za-z0-9]+)(?:=(?P<value>.+))?")


def _shape(text, whole):
    parts = [part for part in re.split(r"[x,\s]+", text.strip().strip("[]")) if part]
    if not all(part.isdigit() for part in parts):
        raise UsageError(f"--example: '{text}' in '{whole}' is not a shape; write 1x512")
    return [int(part) for part in parts]


def _filled(shape, datatype, fill, generator):
    """As hearthd's own warm-up samples: small whole numbers are valid as indices, labels and values alike."""
    dtype = PROTOCOL[datatype]
    if fill == "zeros":
        return torch.zeros(shape, dtype=dtype)
    if fill == "random":
        if dtype.is_floating_point:
            return torch.rand(shape, generator=generator).to(dtype)
        return torch.randint(0, 2, shape, generator=generator).to(dtype)
    try:
        return torch.full(shape, float(fill), dtype=torch.float64).to(dtype)
    except ValueError:
        raise UsageError(f"--example: '{fill}' is not zeros, random or a number") from None


def _from_spec(text, generator):
    match = _SPEC.fullmatch(text)
    if not match:
        raise UsageError(f"--example: '{text}' is neither NAME=SHAPE:DATATYPE[=FILL], like x=1x512:FP32, nor a .npz")
    datatype = match["datatype"].upper()
    shape = _shape(match["shape"], text)
    if datatype == "BYTES":
        return match["name"], [match["value"] or ""] * int(np.prod(shape))
    if datatype not in PROTOCOL:
        raise UsageError(f"--example: '{match['datatype']}' is not a datatype; write one of "
                         f"{', '.join([*PROTOCOL, 'BYTES'])}")
    return match["name"], _filled(shape, datatype, match["value"] or "random", generator)


def _from_npz(path):
    try:
        with np.load(path, allow_pickle=False) as arrays:
            loaded = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError) as error:
        raise UsageError(f"--example: '{path}' cannot be read: {error}") from error
    return {name: [str(word) for word in array.reshape(-1)] if array.dtype.kind in "US"
            else torch.from_numpy(np.ascontiguousarray(array)) for name, array in loaded.items()}


def parse(texts):
    """The example that all of --example make together."""
    generator = torch.Generator().manual_seed(0)  # the same at every packing
    example = {}
    for text in texts:
        if text.endswith(".npz") and pathlib.Path(text).is_file():
            example.update(_from_npz(text))
        else:
            name, value = _from_spec(text, generator)
            example[name] = value
    return example


def datatype_of(value):
    if isinstance(value, list):
        return "BYTES"
    if value.dtype not in PROTOCOL_NAMES:
        raise UsageError(f"the protocol has no datatype for {value.dtype}")
    return PROTOCOL_NAMES[value.dtype]


def shape_of(value):
    return [len(value)] if isinstance(value, list) else list(value.shape)


def fill_of(value):
    """What model.yaml's warm-up says of it: the one number that it is full of, or random."""
    if isinstance(value, list) or value.numel() == 0:
        return "zeros"
    first = value.reshape(-1)[0]
    if bool((value == first).all()) and bool(torch.isfinite(first.double())):
        number = first.item()
        return str(int(number) if not value.dtype.is_floating_point else number)
    return "random"


def batched(value):
    return isinstance(value, torch.Tensor) and value.dim() > 0


def first_row(example, names):
    return {name: value[:1] if name in names else value for name, value in example.items()}


def twice(example, names):
    return {name: torch.cat([value, value]) if name in names else value for name, value in example.items()}


def type_hint(error, module, example):
    """'; ...' where a module failed for a type, and a floating input has another one than all its floating weights."""
    if "type" not in str(error):
        return ""
    types = {tensor.dtype for tensor in module.state_dict().values()
             if isinstance(tensor, torch.Tensor) and tensor.is_floating_point()}
    others = {name: value for name, value in example.items()
              if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype not in types}
    if len(types) != 1 or not others or next(iter(types)) not in PROTOCOL_NAMES:
        return ""
    (wanted,) = (PROTOCOL_NAMES[dtype] for dtype in types)
    name, value = next(iter(others.items()))
    shape = "x".join(map(str, value.shape))
    return f"; the weights are {wanted}, and '{name}' is {PROTOCOL_NAMES[value.dtype]}: write --example " \
           f"{name}={shape}:{wanted}, or convert the array in the .npz"
