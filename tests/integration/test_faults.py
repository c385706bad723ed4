"""Loads in which the n-th call of a kind fails, for every n: each ends with a reason, and nothing else is lost."""

import os
import struct

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton

import models
from test_formats import write_hdf5, write_program, write_safetensors, write_state_dict
from test_operations import wait_until
from test_protocol import FLOATS, floats, infer_floats, request

KINDS = {"open": 1, "map": 2, "read": 3, "populate": 4, "allocate": 5}
# What a load may end with that finds no file, no memory or no data; never that the fault is hearth's.
REASONS = {"NOT_FOUND", "PERMISSION_DENIED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "DATA_LOSS", "UNAVAILABLE",
           "FAILED_PRECONDITION"}
MANY = 200  # more calls of a kind than any load makes
SIZE = 128


def held(server):
    return [server.metric(f"hearth_{state}_bytes") for state in ("resident", "loading", "unloading")]


class Faults:
    """The orders of faults.cc."""

    def __init__(self, file):
        self._file = file
        self.never()

    def _order(self, kind, to_succeed):
        with open(self._file, "r+b" if self._file.exists() else "w+b") as file:
            file.write(struct.pack("3i", kind, to_succeed, 0))

    def never(self):
        self._order(0, 0)

    def at(self, kind, number):
        """The call `number`, from 0."""
        self._order(KINDS[kind], number)

    @property
    def failed(self):
        return struct.unpack("3i", self._file.read_bytes())[2]


@pytest.fixture
def faults(tmp_path, monkeypatch):
    faults = Faults(tmp_path / "faults")
    monkeypatch.setenv("FAULTS", str(tmp_path / "faults"))
    monkeypatch.setenv("LD_PRELOAD", os.environ["TEST_FAULTS"])
    return faults


def write_archive(folder, net):
    torch.jit.script(net).save(str(folder / "model.pt"))


def write_apart(folder, net, write_weights):
    write_weights(folder, net)
    write_program(folder, net, keep=())  # which empties it


FORMATS = {
    "TorchScript": write_archive,
    "safetensors": lambda folder, net: write_apart(folder, net, write_safetensors),
    "state_dict": lambda folder, net: write_apart(folder, net, write_state_dict),
    "HDF5": lambda folder, net: write_apart(
        folder, net, lambda where, what: write_hdf5(where, what, chunks=(64, SIZE), compression="gzip")),
}


class Square(torch.nn.Module):
    """x @ weight.T, which a load has to read, map or copy."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(SIZE) * 3, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight)


@pytest.fixture(params=FORMATS)
def server(request, start, tmp_path, faults):
    root = tmp_path / "repository"
    models.write_model(root, "good", models.Affine(2.0))
    folder = root / "net" / "1"
    folder.mkdir(parents=True)
    FORMATS[request.param](folder, Square())
    (root / "net" / "model.yaml").write_text(f"inputs: [{{name: x, datatype: FP32, shape: [-1, {SIZE}]}}]\n")
    # A failure is forgotten at once, and a program is parsed anew.
    return start(root, config={"cache": {"failure_backoff": "1ms", "max_failure_backoff": "1ms", "kept_programs": 0}})


@pytest.mark.parametrize("kind", KINDS)
def test_whichever_call_fails_the_load_says_why_and_the_next_one_is_good(server, faults, kind):
    values = np.ones((1, SIZE), np.float32)
    reasons = []
    with server.client() as client:
        infer_floats(client, "good")
        baseline = held(server)
        for number in range(MANY):
            faults.at(kind, number)
            try:
                client.load_model("net")
            except triton.InferenceServerException as error:
                reasons.append(error)
            happened = faults.failed
            faults.never()
            assert server.alive
            assert infer_floats(client, "good")[0, 1] == 2 * FLOATS[0, 1]
            answer = server.stub().ModelInfer(request("net", floats(values=values)))
            assert (np.frombuffer(answer.raw_output_contents[0], np.float32) == 3).all(), (kind, number)
            client.unload_model("net")
            wait_until(lambda: held(server) == baseline)
            client.load_model("net")
            client.unload_model("net")
            if not happened:
                break
    assert number < MANY - 1, "it never comes to an end"
    assert reasons or kind not in ("open", "map")
    for error in reasons:
        code = error.status().removeprefix("StatusCode.")
        assert code in REASONS and (code == "RESOURCE_EXHAUSTED" or kind != "allocate"), str(error)
        assert "net" in error.message(), str(error)
