"""Modules that test_pack.py has packed by name: `pack_nets:Net`."""

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Tied, viewed, empty, scalar, half-precision and shared parts, and a buffer that is not saved."""

    def __init__(self, seed: int = 0, width: int = 19):
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(4, width)
        self.norm = nn.BatchNorm1d(width)
        nn.init.normal_(self.norm.running_mean)
        self.second = nn.Linear(width, 4)
        self.shared = self.second
        self.tied = nn.Linear(4, 4)
        self.again = nn.Linear(4, 4)
        self.again.weight = self.tied.weight
        self.register_buffer("halves", torch.randn(4).half())
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("scale", torch.tensor(seed + 0.5))
        self.register_buffer("view", torch.randn(3, 4)[1])
        self.register_buffer("shift", torch.randn(4))
        self.register_buffer("steps", torch.arange(4.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.first(x)))
        y = self.second(y) + self.shared(-y)
        y = self.again(self.tied(y)) * self.scale + self.halves.float() + self.empty.sum()
        return y + self.steps * self.view + self.shift


class Plain(nn.Module):
    """In whatever type its weights have."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.inner = nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.inner(x))


class Turned(nn.Module):
    """Its weight lies transposed in memory."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.weight = nn.Parameter(torch.randn(300, 200).t())

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class Wide(nn.Module):
    """Of a type that safetensors lacks."""

    def __init__(self):
        super().__init__()
        self.wave = nn.Parameter(torch.complex(torch.arange(4.0), torch.ones(4)).to(torch.complex128))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.wave).abs().float()


class Ambiguous(nn.Module):
    """Means something else in TorchScript than in Python."""

    def __init__(self):
        super().__init__()
        self.register_buffer("turned", torch.zeros(4, 3).t())

    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if torch.jit.is_scripting() else x


class Unscriptable(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x, scale):
        return {name: self.inner(value) for name, value in zip("ab", (x, x * scale))}


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.LayerNorm(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def quantised():
    return torch.ao.quantization.quantize_dynamic(Layers().eval(), {nn.Linear}, dtype=torch.qint8)


class FixedBatch(nn.Module):
    """Traced with a batch of two, it keeps the two."""

    def forward(self, x):
        return x.reshape(int(x.shape[0]), -1).expand(int(x.shape[0]), 4) + torch.zeros(int(x.shape[0]), 4)


def not_a_module():
    return 3


class Unreadable(nn.Module):
    """PyTorch writes this program, and cannot parse what it wrote."""

    def __init__(self):
        super().__init__()
        self.register_buffer("größe", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.größe
