"""Whether two answers are the same, to the bit or nearly."""

import torch

from hearth_pack.datatypes import byte_view


class Comparison:
    """Of two answers: `difference` is the largest of any element, None where there is none to name."""

    def __init__(self):
        self.equal_bits = True
        self.difference = 0.0
        self.mismatch = ""  # why there is nothing to subtract
        self.where = ""

    @property
    def badness(self):
        """Orders comparisons."""
        return bool(self.mismatch), self.difference, not self.equal_bits

    def within(self, tolerance):
        if self.mismatch:
            return False
        return self.equal_bits or (tolerance > 0 and self.difference <= tolerance)

    def __str__(self):
        if self.mismatch:
            return self.mismatch
        if self.equal_bits:
            return "equal to the bit"
        return f"largest difference {self.difference:.3g}, in {self.where}"


def _difference(expected, got):
    """The largest of any element; infinite where only one of them is a number."""
    if expected.dtype == torch.bool or not (expected.dtype.is_floating_point or expected.dtype.is_complex):
        # Through Python's integers nothing is rounded; only elements that differ get there.
        differ = expected != got
        return float(max((abs(int(a) - int(b)) for a, b in zip(expected[differ].tolist(), got[differ].tolist())),
                         default=0))
    wide = torch.complex128 if expected.dtype.is_complex else torch.float64
    a, b = expected.to(wide), got.to(wide)
    same = (a == b) | (torch.isnan(a) & torch.isnan(b))
    distance = torch.where(same, torch.zeros((), dtype=torch.float64), (a - b).abs())
    return float(torch.nan_to_num(distance, nan=float("inf"), posinf=float("inf")).max()) if a.numel() else 0.0


def _describe(value):
    return f"{len(value)} strings" if isinstance(value, list) else f"{value.dtype} {list(value.shape)}"


def compare(expected, got):
    """Two answers, as {name: tensor or list of str}."""
    result = Comparison()
    if list(expected) != list(got):
        result.mismatch = f"the outputs are {', '.join(got)} and should be {', '.join(expected)}"
        return result
    for name, want in expected.items():
        have = got[name]
        if _describe(want) != _describe(have):
            result.mismatch = f"{name} is {_describe(have)} and should be {_describe(want)}"
        elif isinstance(want, list):
            if want != have:
                result.mismatch = f"{name} has other strings"
        elif not torch.equal(byte_view(want), byte_view(have)):
            difference = _difference(want.cpu(), have.cpu())
            if result.equal_bits or difference > result.difference:
                result.difference, result.where = difference, name
            result.equal_bits = False
    return result
