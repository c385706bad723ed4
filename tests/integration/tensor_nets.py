"""Modules with one kind of tensor for each output: test_tensors.py and test_aoti_tensors.py have them served."""

from typing import Tuple

import torch
from torch import Tensor, nn


# What Every answers with, in order.
KINDS = ("tied", "views", "strides", "empty", "scalar", "fp16", "bf16", "complex", "integers", "constants")


class Every(nn.Module):
    def __init__(self, seed: int = 0):
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.tied = nn.Linear(4, 4)
        self.again = nn.Linear(4, 4, bias=False)
        nn.init.normal_(self.tied.weight, generator=random)
        nn.init.normal_(self.tied.bias, generator=random)
        self.again.weight = self.tied.weight
        base = torch.randn(6, 7, generator=random)
        self.register_buffer("base", base)
        self.register_buffer("window", base[1:5, 2:6])
        self.register_buffer("row", base[2, 3:])
        self.register_buffer("turned", torch.randn(4, 4, generator=random).t())
        self.register_buffer("every_other", torch.randn(8, 4, generator=random)[::2])
        self.register_buffer("repeated", torch.randn(1, generator=random).expand(4))
        self.register_buffer("empty", torch.zeros(0, 4))
        self.register_buffer("scalar", torch.randn((), generator=random))
        self.register_buffer("halves", torch.randn(4, 4, generator=random).half())
        self.register_buffer("brief", torch.randn(4, 4, generator=random).bfloat16())
        self.register_buffer("wave", torch.randn(4, generator=random, dtype=torch.complex64))
        self.register_buffer("small", torch.randint(-100, 100, (4,), generator=random, dtype=torch.int8))
        self.register_buffer("large", torch.randint(-2**60, 2**60, (4,), generator=random))
        self.register_buffer("mask", torch.tensor([True, False, False, True]))
        self.register_buffer("steps", torch.arange(4.0) + seed, persistent=False)

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
                                          Tensor]:
        return (self.again(self.tied(x)),
                x @ self.window + self.row * self.base[0, :4],
                x @ self.turned + (x @ self.every_other) * self.repeated,
                torch.cat([x, self.empty]) + self.empty.sum(),
                x * self.scalar,
                x.to(torch.float16) * self.halves[0] + self.halves[1:].sum(0),
                x.to(torch.bfloat16) @ self.brief,
                torch.view_as_real(x * self.wave),
                torch.where(self.mask, self.large * self.small, self.large - x.to(torch.int64)),
                x * self.steps)


class Named(Every):
    """With one more tensor, of a name that TorchScript cannot write."""

    def __init__(self, seed: int = 0):
        super().__init__(seed)
        self.register_buffer("größe", torch.arange(4.0) / 3)

    def forward(self, x: Tensor):
        return (*super().forward(x), x * self.größe)


def named(seed: int = 0):
    return Named(seed).eval()
