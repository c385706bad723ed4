"""The models that all servers serve, and what to ask them, written by a process of its own: whoever has LibTorch mapped
shares its pages, and a server that is measured beside it would seem smaller.

    models.py FOLDER

writes NAME.pt, NAME.input and NAME.output (raw FP32) of each model, and shapes.json.
"""

import json
import pathlib
import sys

WHAT = {
    "identity": "1 KiB in, the same out: what the protocol costs",
    "mlp": "256-1024-256, ReLU, 2 MiB of weights",
    "conv": "three convolutions and a linear layer on 3x32x32, a few milliseconds",
}


def modules():
    import torch
    from torch import nn

    class Of(nn.Module):
        """Calls the input of its body x."""

        def __init__(self, body):
            super().__init__()
            self.body = body

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x)

    mlp = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 256))
    conv = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128 * 64, 10))
    return {"identity": (Of(nn.Identity()), [1, 256]), "mlp": (Of(mlp), [1, 256]), "conv": (Of(conv), [1, 3, 32, 32])}


def write(folder):
    import torch
    torch.manual_seed(0)
    torch.set_num_threads(1)
    shapes = {}
    for name, (module, shape) in modules().items():
        module = torch.jit.script(module.eval())
        # Short numbers, so that those who read JSON are not made to read seventeen digits of each.
        x = torch.round(torch.randn(shape), decimals=2)
        with torch.inference_mode():
            y = module(x)
        module.save(str(folder / f"{name}.pt"))
        (folder / f"{name}.input").write_bytes(x.numpy().tobytes())
        (folder / f"{name}.output").write_bytes(y.numpy().tobytes())
        shapes[name] = {"input": shape, "output": list(y.shape)}
    (folder / "shapes.json").write_text(json.dumps(shapes), encoding="utf-8")


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]))
