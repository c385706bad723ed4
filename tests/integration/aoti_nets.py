"""Modules that test_aoti.py compiles; every compilation takes seconds, so there are few."""

import torch


class Net(torch.nn.Module):
    """Two inputs with one batch dimension; an output that is an input, and one that is a weight."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.first = torch.nn.Linear(16, 24)
        self.norm = torch.nn.BatchNorm1d(24)
        self.second = torch.nn.Linear(24, 12)
        torch.nn.init.normal_(self.norm.running_mean)

    def forward(self, x: torch.Tensor, bias: torch.Tensor):
        y = self.second(torch.relu(self.norm(self.first(x)))) + bias
        return y, x, self.second.bias


class Counter(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(12))

    def forward(self, x: torch.Tensor):
        self.count.add_(1.0)
        return x + self.count


class Lookup(torch.nn.Module):
    """Uses its input as indices, in loops long enough to be parallel."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.table = torch.nn.Embedding(50, 64)

    def forward(self, ids: torch.Tensor):
        return torch.sin(self.table(ids)).sum(1)


class Turned(torch.nn.Module):
    """With a weight that is not contiguous."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(48, 16).t())

    def forward(self, x: torch.Tensor):
        return torch.sin(self.weight) * x.sum()


def turned():
    return Turned().eval()


def net(seed=0):
    return Net(seed).eval()


def lookup(seed=0):
    return Lookup(seed).eval()


def counter():
    return Counter().eval()
