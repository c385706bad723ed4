#!/usr/bin/env python3
"""Writes tests/data/weights/ and the torch.save pickles in tests/data/pickles/, as the libraries write them.

The files are committed. Run this again only to add one (PyTorch 2.13, safetensors 0.8):

    python3 tests/data/make_weights.py
"""

import json
import pathlib
import zipfile

import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "weights"


def save_pickled(name, value):
    """torch.save, and its data.pkl alone for the pickle walker's corpus."""
    torch.save(value, OUT / name)
    with zipfile.ZipFile(OUT / name) as archive:
        pickle, = [entry for entry in archive.namelist() if entry.endswith("data.pkl")]
        (HERE / "pickles" / f"{name}.data.pkl").write_bytes(archive.read(pickle))


def main():
    OUT.mkdir(exist_ok=True)
    torch.manual_seed(0)
    weight = torch.randn(3, 4)
    some = {"weight": weight, "tied": weight, "view": weight[1:, 2:], "turned": weight.t(),
            "größe": torch.tensor(2.5), "empty": torch.zeros(0, 3)}
    types = {str(dtype): torch.ones(3).to(dtype)
             for dtype in (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
                           torch.float16, torch.bfloat16, torch.float32, torch.float64,
                           torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn,
                           torch.float8_e5m2, torch.complex64)}
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    save_pickled("some.pth", some)
    save_pickled("types.pth", types)
    save_pickled("module.pth", net.state_dict())
    save_pickled("checkpoint.pth", {"epoch": 70000, "big": 2**40, "lr": 0.1, "note": "ü",
                                    "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}},
                                    "model_state_dict": net.state_dict()})
    save_pickled("parameters.pth", {name: parameter for name, parameter in net.named_parameters()})
    save_pickled("whole_module.pth", net)
    save_pickled("no_tensors.pth", {"epoch": 3})
    save_file({name: tensor.contiguous().clone() for name, tensor in some.items()},
              OUT / "some.safetensors", metadata={"format": "pt"})
    save_file(types, OUT / "types.safetensors")
    (OUT / "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {"total_size": 48}, "weight_map": {"weight": "some.safetensors"}}))


if __name__ == "__main__":
    main()
