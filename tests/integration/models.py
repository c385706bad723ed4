"""Small TorchScript models, made by Python's torch, and what they ought to answer."""

import pathlib
import warnings
from typing import Dict, List, Tuple

import torch
from torch import Tensor, nn

warnings.filterwarnings("ignore", category=DeprecationWarning)

# The protocol's name of every element type that torch has too.
TORCH_TYPES = {
    "BOOL": torch.bool,
    "UINT8": torch.uint8, "UINT16": torch.uint16, "UINT32": torch.uint32, "UINT64": torch.uint64,
    "INT8": torch.int8, "INT16": torch.int16, "INT32": torch.int32, "INT64": torch.int64,
    "FP16": torch.float16, "BF16": torch.bfloat16, "FP32": torch.float32, "FP64": torch.float64,
}


class Identity(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Strings(nn.Module):
    def forward(self, words: List[str]) -> List[str]:
        return words


class AddSub(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tuple[Tensor, Tensor]:
        return a + b, a - b


class Affine(nn.Module):
    """x * scale + shift; `scale` is a parameter of `size` elements."""

    def __init__(self, scale: float, shift: float = 0.0, size: int = 4):
        super().__init__()
        self.scale = nn.Parameter(torch.full((size,), scale))
        self.register_buffer("shift", torch.full((size,), shift))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class Counter(nn.Module):
    """Counts its calls in place: served, every request has to look like the first."""

    def __init__(self):
        super().__init__()
        self.register_buffer("w", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.w.add_(1)
        return x + self.w


class Assigner(nn.Module):
    """The same with a new tensor in the attribute, a number and a list."""

    calls: int
    seen: List[int]

    def __init__(self):
        super().__init__()
        self.register_buffer("w", torch.zeros(4))
        self.calls = 0
        self.seen: List[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.w = self.w + 1
        self.calls += 1
        self.seen.append(self.calls)
        return x + self.w + self.calls + len(self.seen)


class Tied(nn.Module):
    """One tensor under two names, a view into it, an empty one, and other element types."""

    def __init__(self):
        super().__init__()
        weight = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 7
        self.a = nn.Parameter(weight)
        self.b = self.a
        self.register_buffer("view", self.a.detach()[1:3, 2:5])
        self.register_buffer("transposed", self.a.detach().t())
        self.register_buffer("empty", torch.empty(0, 3))
        self.register_buffer("rounded", torch.linspace(-1, 1, 6).bfloat16())
        self.register_buffer("wave", torch.complex(torch.ones(6), torch.arange(6.0)))

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.a + self.b.sum() + self.view.sum() + self.transposed[5].sum()
        return y + self.rounded.float() + self.wave.imag + self.empty.sum()


class WithSetState(nn.Module):
    """Builds one of its tensors anew when it is read."""

    def __init__(self):
        super().__init__()
        self.factor = torch.arange(4, dtype=torch.float32)
        self.training = False

    @torch.jit.export
    def __getstate__(self):
        return (self.factor, self.training)

    @torch.jit.export
    def __setstate__(self, state: Tuple[Tensor, bool]):
        self.factor = state[0] * 2
        self.training = state[1]

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Table(nn.Module):
    """A dictionary of results: their names are known only after a run."""

    def forward(self, x: Tensor) -> Dict[str, Tensor]:
        return {"double": x * 2, "half": x / 2}


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            raise ValueError("this model wants nothing positive")
        return x


class Slow(nn.Module):
    """Takes `rounds` rounds of work."""

    def forward(self, x: Tensor, rounds: int) -> Tensor:
        for _ in range(rounds):
            x = torch.tanh(x @ x)
        return x


def double(x: Tensor) -> Tensor:
    return x * 2


class Forks(nn.Module):
    """Has a part of its work done on another thread."""

    def forward(self, x: Tensor) -> Tensor:
        other = torch.jit.fork(double, x)
        return x + torch.jit.wait(other)


def save(module, file):
    """Scripts (unless it is scripted already) and saves; returns the file."""
    file = pathlib.Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(module, torch.jit.ScriptModule):
        module = torch.jit.script(module.eval())
    torch.jit.save(module, str(file))
    return file


def model_file(root, name, version=1):
    return pathlib.Path(root) / name / str(version) / "model.pt"


def write_model(root, name, module, version=1, options=None):
    """<root>/<name>/<version>/model.pt, and model.yaml from the text `options`."""
    file = save(module, model_file(root, name, version))
    if options is not None:
        (pathlib.Path(root) / name / "model.yaml").write_text(options)
    return file


FIXED_INPUT = """\
inputs:
  - {name: x, datatype: FP32, shape: [-1, 4]}
"""


def frozen(constant):
    """Its weights are constants of the code: two of these have the same code text."""
    return torch.jit.freeze(torch.jit.script(Affine(constant).eval()))


def write_all(root):
    write_model(root, "identity", Identity())
    write_model(root, "strings", Strings())
    write_model(root, "addsub", AddSub())
    write_model(root, "typed", Affine(2.0), options=FIXED_INPUT)
    write_model(root, "batched", Affine(2.0), options="max_batch_size: 8\n" + FIXED_INPUT)
    write_model(root, "counter", Counter())
    write_model(root, "assigner", Assigner())
    write_model(root, "tied", Tied())
    write_model(root, "setstate", WithSetState())
    write_model(root, "table", Table())
    write_model(root, "raises", Raises())
    write_model(root, "slow", Slow())
    write_model(root, "frozen2", frozen(2.0))
    write_model(root, "frozen3", frozen(3.0))
    write_model(root, "versions", Affine(1.0), version=1)
    write_model(root, "versions", Affine(2.0), version=2)
    write_model(root, "versions", Affine(10.0), version=10)
    save(Affine(5.0), pathlib.Path(root) / "bare.pt")
