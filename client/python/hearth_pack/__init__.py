"""Makes a hearth repository entry of a PyTorch model, and proves that it answers the same."""

__version__ = "0.1.0"
