#!/usr/bin/env python3
"""Writes tests/data/torchscript/: small archives as PyTorch really writes them.

The files are committed, so that no test needs Python. Run this again only to add one (PyTorch 2.13):

    python3 tests/data/make_torchscript.py
"""

import enum
import pathlib
import re
import zipfile
from typing import Dict, List, NamedTuple, Optional, Tuple

import torch
import torch._sources
from torch import Tensor, nn

OUT = pathlib.Path(__file__).resolve().parent / "torchscript"


def forget_paths():
    """Keeps the names of this machine's folders out of the archives' debug records."""
    original = torch._sources.get_source_lines_and_file

    def relative(*args, **kwargs):
        lines, number, name = original(*args, **kwargs)
        return lines, number, re.sub(r".*/(?=torch/|make_torchscript)", "", name or "")

    torch._sources.get_source_lines_and_file = relative


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x)


class Views(nn.Module):
    """Tied weights and every kind of view."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)
        self.b.weight = self.a.weight
        base = torch.arange(20.0).reshape(4, 5)
        self.register_buffer("base", base)
        self.register_buffer("view", base[1:, 1:3])
        self.register_buffer("transposed", base.t())
        self.register_buffer("expanded", torch.ones(1).expand(3, 4))
        self.register_buffer("empty", torch.empty(0, 3))
        self.register_buffer("scalar", torch.tensor(3.5))

    def forward(self, x):
        return self.b(self.a(x)) + self.scalar + self.view.sum()


class DTypes(nn.Module):
    def __init__(self):
        super().__init__()
        for name in ("bfloat16", "float16", "float64", "complex64", "complex128", "int8", "uint8",
                     "int16", "int32", "int64", "bool", "uint16", "uint32", "uint64",
                     "float8_e4m3fn"):
            self.register_buffer(f"{name}_", torch.ones(2, 3).to(getattr(torch, name)))
        self.register_buffer("conjugated", torch.ones(3, dtype=torch.complex64).conj())

    def forward(self, x):
        return x + self.float64_.sum()


class Color(enum.Enum):
    RED = 1
    GREEN = 2


class Pair(NamedTuple):
    a: int
    b: Tensor


class Attributes(nn.Module):
    ints: List[int]
    tensors: List[Tensor]
    floats: List[float]
    bools: List[bool]
    strings: List[str]
    counts: Dict[str, int]
    weights: Dict[str, Tensor]
    groups: Dict[int, List[Tensor]]
    mixed: Tuple[int, str, Tensor]
    nested: List[List[int]]
    nothing: Optional[int]
    color: Color
    pair: Pair
    device: torch.device

    def __init__(self):
        super().__init__()
        self.ints = [1, 300, 70000, -5, 2**40]
        self.tensors = [torch.ones(2), torch.zeros(3)]
        self.floats = [1.5]
        self.bools = [True, False]
        self.strings = ["a", "b"]
        self.counts = {"x": 1}
        self.weights = {"w": torch.ones(3)}
        self.groups = {3: [torch.ones(1)]}
        self.mixed = (1, "q", torch.ones(1))
        self.nested = [[1], [2, 3], []]
        self.nothing = None
        self.color = Color.GREEN
        self.pair = Pair(1, torch.ones(2))
        self.device = torch.device("cpu")
        self.number: complex = 1 + 2j

    def forward(self, x):
        if self.color == Color.RED:
            return x
        return x + self.ints[0] + self.pair.a


class OwnState(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.ones(3)
        self.k = 2

    @torch.jit.export
    def __getstate__(self):
        return (self.w, self.k, self.training)

    @torch.jit.export
    def __setstate__(self, state: Tuple[Tensor, int, bool]):
        self.w = state[0] * 1
        self.k = state[1]
        self.training = state[2]

    def forward(self, x):
        return x * self.w * self.k


class Quantized(nn.Module):
    """A packed layer, and tensors quantised as a whole and by channel."""

    def __init__(self):
        super().__init__()
        self.layer = torch.ao.quantization.quantize_dynamic(
            nn.Sequential(nn.Linear(4, 4)), {nn.Linear}, dtype=torch.qint8)
        x = torch.linspace(-1, 1, 12).reshape(3, 4)
        zeros = torch.zeros(3, dtype=torch.int64)
        self.register_buffer("whole", torch.quantize_per_tensor(x, 0.1, 3, torch.quint8))
        self.register_buffer("channels", torch.quantize_per_channel(
            x, torch.tensor([0.1, 0.2, 0.3]), zeros, 0, torch.qint8))

    def forward(self, x):
        return self.layer(x) + self.whole.dequantize().sum()


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("sparse", torch.eye(3).to_sparse())

    def forward(self, x):
        return x


class TwoTypes(nn.Module):
    """One storage seen as two types: torch.jit.save writes it, torch.jit.load cannot read it."""

    def __init__(self):
        super().__init__()
        x = torch.ones(4)
        self.register_buffer("x", x)
        self.register_buffer("y", x.view(torch.uint8))

    def forward(self, x):
        return x


def recompress(source, target):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name), old.read(name), zipfile.ZIP_DEFLATED)


def main():
    forget_paths()
    torch.manual_seed(0)
    OUT.mkdir(exist_ok=True)
    modules = {"linear": Linear(), "views": Views(), "dtypes": DTypes(), "attributes": Attributes(),
               "own_state": OwnState(), "quantized": Quantized(), "sparse": Sparse(),
               "two_types": TwoTypes()}
    for name, module in modules.items():
        torch.jit.save(torch.jit.script(module), str(OUT / f"{name}.pt"))
    frozen = torch.jit.freeze(torch.jit.script(Linear().eval()))
    torch.jit.save(frozen, str(OUT / "frozen.pt"))
    recompress(OUT / "views.pt", OUT / "recompressed.pt")
    state = Linear().state_dict()
    torch.save(state, OUT / "state_dict.pt")
    torch.save(state, OUT / "legacy_state_dict.pt", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
