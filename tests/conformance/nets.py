"""What the suite's models do, as TorchScript; models.py has the same as numpy. Only who writes models needs torch."""

import warnings
from typing import List, Tuple

import torch
from torch import Tensor, nn

warnings.filterwarnings("ignore", category=DeprecationWarning)


class Identity(nn.Module):
    def forward(self, INPUT0: Tensor) -> Tensor:
        return INPUT0


class Words(nn.Module):
    def forward(self, INPUT0: List[str]) -> List[str]:
        return INPUT0


class AddSub(nn.Module):
    def forward(self, INPUT0: Tensor, INPUT1: Tensor) -> Tuple[Tensor, Tensor]:
        return INPUT0 + INPUT1, INPUT0 - INPUT1


class Times(nn.Module):
    """A weight, so that there is something to load."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = nn.Parameter(torch.full((1,), float(factor)))

    def forward(self, INPUT0: Tensor) -> Tensor:
        return INPUT0 * self.factor


class Slow(nn.Module):
    """About a millisecond for each of INPUT1's rounds."""

    def __init__(self):
        super().__init__()
        self.register_buffer("work", torch.eye(192))

    def forward(self, INPUT0: Tensor, INPUT1: Tensor) -> Tensor:
        x = self.work
        for _ in range(int(INPUT1.sum().item())):
            x = torch.tanh(x @ x)
        return INPUT0 + 0 * x[0, 0]


class Fails(nn.Module):
    def forward(self, INPUT0: Tensor) -> Tensor:
        if INPUT0.sum() > 0:
            raise ValueError("nothing positive, please")
        return INPUT0


class Accumulator(nn.Module):
    """The sum of a sequence, in a state that the server carries from request to request."""

    def forward(self, INPUT0: Tensor, START: Tensor, STATE: Tensor) -> Tuple[Tensor, Tensor]:
        total = torch.where(START > 0, torch.zeros_like(STATE), STATE) + INPUT0
        return total, total


class Sum(nn.Module):
    """The same, in a state that the module keeps."""

    def __init__(self):
        super().__init__()
        self.register_buffer("total", torch.zeros(1, 1))

    def forward(self, INPUT0: Tensor) -> Tensor:
        self.total = self.total + INPUT0
        return self.total
