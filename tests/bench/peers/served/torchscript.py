"""A TorchScript file as a function of numpy arrays; what all peers run in their own processes."""

import numpy as np
import torch


def load(file):
    torch.set_num_threads(1)
    module = torch.jit.load(file).eval()

    def run(x):
        with torch.inference_mode():
            return module(torch.from_numpy(x)).numpy()

    return run


def of_bytes(data, shape):
    # A copy, because torch wants to be allowed to write.
    return np.frombuffer(bytearray(data), np.float32).reshape(shape)
