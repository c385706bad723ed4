"""Programs with their weights apart, in every format of weights, against eager PyTorch."""

import json
import os
import pathlib
import shutil

import grpc
import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import hearthd as daemon
import models
from test_models import ask
from test_protocol import FLOATS


class Net(torch.nn.Module):
    """Tied, viewed, empty, scalar and half-precision tensors, and a buffer that is not saved."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.first = torch.nn.Linear(4, 19)
        self.norm = torch.nn.BatchNorm1d(19)
        self.second = torch.nn.Linear(19, 4)
        self.tied = torch.nn.Linear(4, 4)
        self.again = torch.nn.Linear(4, 4)
        self.again.weight = self.tied.weight
        self.register_buffer("halves", torch.randn(4).half())
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("scale", torch.tensor(seed + 0.5))
        self.register_buffer("turned", torch.randn(4, 4).t())
        self.register_buffer("steps", torch.arange(4.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(torch.relu(self.norm(self.first(x))))
        y = self.again(self.tied(y)) * self.scale + self.halves.float() + self.empty.sum()
        return y @ self.turned + self.steps


def make(seed):
    net = Net(seed).eval()
    torch.nn.init.normal_(net.norm.running_mean)
    return net


def write_program(folder, net, keep=("steps",)):
    """The program alone: every tensor keeps its shape and loses its values, but for `keep`."""
    scripted = torch.jit.script(net)
    hollow = {}
    for name, tensor in [*scripted.named_parameters(remove_duplicate=False),
                         *scripted.named_buffers(remove_duplicate=False)]:
        if name not in keep and tensor.numel() > 1:
            one = hollow.setdefault(tensor.data_ptr(), torch.zeros(1, dtype=tensor.dtype))
            tensor.data = one.expand(tensor.shape)
    folder.mkdir(parents=True, exist_ok=True)
    scripted.save(str(folder / "program.pt"))


def write_state_dict(folder, net):
    torch.save(net.state_dict(), folder / "weights.pth")


def write_checkpoint(folder, net):
    torch.save({"epoch": 3, "state_dict": net.state_dict(), "note": "ü"}, folder / "weights.bin")


def tensors(net):
    return {name: tensor.contiguous().clone() for name, tensor in net.state_dict().items()}


def write_safetensors(folder, net):
    save_file(tensors(net), folder / "model.safetensors")


def write_unaligned_safetensors(folder, net):
    """Every tensor at an odd multiple of 8 bytes."""
    save_file(tensors(net), folder / "model.safetensors")
    raw = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    padding = (72 - length % 64) % 64
    (folder / "model.safetensors").write_bytes(
        (length + padding).to_bytes(8, "little") + raw[8:8 + length] + b" " * padding + raw[8 + length:])


def write_deduplicated_safetensors(folder, net):
    """As safetensors' save_model does: of tied names only one is written."""
    kept = tensors(net)
    del kept["again.weight"]
    save_file(kept, folder / "model.safetensors")


def write_shards(folder, net):
    named = list(tensors(net).items())
    weight_map = {}
    for number in range(3):
        shard = dict(named[number::3])
        name = f"model-{number}.safetensors"
        save_file(shard, folder / name)
        weight_map.update({tensor: name for tensor in shard})
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def write_hdf5(folder, net, name="model.h5", **options):
    """Parts of names become groups, as HDF5 has it; the last part but one keeps its dot."""
    with h5py.File(folder / name, "w", libver=("earliest", "v110")) as file:
        for number, (tensor, values) in enumerate(tensors(net).items()):
            values = values.numpy()
            path = tensor.replace(".", "/") if number % 2 else tensor
            file.create_dataset(path, data=values, **(options if values.ndim and values.size else {}))


def write_chunked_hdf5(folder, net):
    write_hdf5(folder, net, name="model.hdf5", chunks=True, compression="gzip", shuffle=True)


WRITERS = [write_state_dict, write_checkpoint, write_safetensors, write_unaligned_safetensors,
           write_deduplicated_safetensors, write_shards, write_hdf5, write_chunked_hdf5]


@pytest.fixture(scope="module")
def formats(tmp_path_factory):
    """A repository with one model for each format, all of one program; {name: seed}."""
    root = tmp_path_factory.mktemp("formats")
    seeds = {}
    for seed, write in enumerate(WRITERS):
        name = write.__name__.removeprefix("write_")
        folder = root / name / "1"
        write_program(folder, make(seed))
        write(folder, make(seed))
        seeds[name] = seed
    return root, seeds


@pytest.fixture(scope="module")
def formats_server(formats, tmp_path_factory):
    with daemon.Hearthd(formats[0], tmp_path_factory.mktemp("server")) as running:
        yield running
        assert running.alive, running.log()


@pytest.mark.parametrize("name", [write.__name__.removeprefix("write_") for write in WRITERS])
@pytest.mark.parametrize("batch", [1, 2, 16])
def test_weights_apart_answer_as_eager_pytorch_to_the_bit(formats, formats_server, name, batch):
    values = np.random.default_rng(batch).normal(size=(batch, 4)).astype(np.float32)
    net = make(formats[1][name])
    if name not in ("state_dict", "checkpoint"):
        net.turned = net.turned.contiguous()  # the other formats keep no strides
    with torch.inference_mode():
        expected = net(torch.from_numpy(values)).numpy()
    assert ask(formats_server, name, values).tobytes() == expected.tobytes()


def refusal(start, root, name="net"):
    server = start(root)
    with pytest.raises(grpc.RpcError) as error:
        ask(server, name, FLOATS)
    assert server.alive
    return error.value.details()


def test_missing_and_misfitting_tensors_are_named(start, tmp_path):
    root = tmp_path / "models"
    folder = root / "net" / "1"
    write_program(folder, make(1))
    wrong = tensors(make(1))
    del wrong["first.bias"]
    wrong["second.weight"] = torch.zeros(3, 3)
    save_file(wrong, folder / "model.safetensors")
    told = refusal(start, root)
    assert "missing: 'first.bias'" in told
    assert "'second.weight' has shape [3,3], the program wants [4,19]" in told


@pytest.mark.parametrize("write", [
    lambda folder: save_file({}, folder / "model.safetensors"),
    lambda folder: h5py.File(folder / "model.h5", "w").close(),
    lambda folder: torch.save({}, folder / "weights.pth"),
], ids=["safetensors", "hdf5", "state_dict"])
def test_empty_files_of_weights_are_no_weights(start, tmp_path, write):
    root = tmp_path / "models"
    folder = root / "net" / "1"
    write_program(folder, make(1))
    write(folder)
    told = refusal(start, root)
    assert "the weights do not go with the program; missing: " in told and "'first.weight'" in told


def test_a_program_without_weights_says_so(start, tmp_path):
    root = tmp_path / "models"
    write_program(root / "net" / "1", make(1))
    assert "program.pt but no weights" in refusal(start, root)


def test_a_whole_pickled_module_is_refused_with_the_way_out(start, tmp_path):
    root = tmp_path / "models"
    folder = root / "net" / "1"
    write_program(folder, make(1))
    torch.save(make(1), folder / "weights.pt")
    assert "hearth pack" in refusal(start, root)


def test_legacy_formats_are_refused_with_the_way_out(start, tmp_path):
    root = tmp_path / "models"
    folder = root / "net" / "1"
    write_program(folder, make(1))
    torch.save(make(1).state_dict(), folder / "weights.pt", _use_new_zipfile_serialization=False)
    assert "hearth pack" in refusal(start, root)


def test_weights_in_another_precision_are_converted(start, tmp_path):
    root = tmp_path / "models"
    folder = root / "net" / "1"
    net = make(1)
    write_program(folder, net)
    save_file({name: tensor.double() if tensor.is_floating_point() else tensor
               for name, tensor in tensors(net).items()}, folder / "model.safetensors")
    with torch.inference_mode():
        expected = net(torch.from_numpy(FLOATS)).numpy()
    assert np.array_equal(ask(start(root), "net", FLOATS), expected)


def test_model_yaml_chooses_among_several_files_of_weights(start, tmp_path):
    root = tmp_path / "models"
    folder = root / "net" / "1"
    write_program(folder, make(1))
    write_safetensors(folder, make(1))
    torch.save(make(2).state_dict(), folder / "other.pth")
    (root / "net" / "model.yaml").write_text("weights: [other.pth]\n")
    with torch.inference_mode():
        expected = make(2)(torch.from_numpy(FLOATS)).numpy()
    assert np.array_equal(ask(start(root), "net", FLOATS), expected)


def test_hdf5_that_cannot_be_read_is_refused_with_the_reason(start, tmp_path):
    root = tmp_path / "models"
    folder = root / "net" / "1"
    write_program(folder, make(1))
    write_hdf5(folder, make(1), compression="lzf")
    told = refusal(start, root)
    assert "'net/1/model.h5' has a data set '" in told
    assert "lzf" in told and "h5repack" in told


class Matrix(torch.nn.Module):
    """Answers with all of its weights."""

    def __init__(self, values):
        super().__init__()
        self.weight = torch.nn.Parameter(values, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight + x


@pytest.mark.parametrize("gaps", [False, True])
def test_a_huge_chunked_data_set_is_what_h5py_reads(start, tmp_path, gaps):
    """Chunks are unpacked in parallel, those at the edges stick out, and some may never have been written."""
    root = tmp_path / "models"
    folder = root / "matrix" / "1"
    shape = (3001, 2003)
    write_program(folder, Matrix(torch.zeros(1).expand(shape)))
    values = np.random.default_rng(5).integers(-4, 4, size=shape).astype(np.float32)
    with h5py.File(folder / "model.h5", "w", libver=("earliest", "v110")) as file:
        weight = file.create_dataset("weight", shape, "<f4", chunks=(100, 300), compression="gzip", shuffle=True,
                                     fillvalue=2.5)
        weight[:2000 if gaps else None] = values[:2000 if gaps else None]
    with h5py.File(folder / "model.h5") as file:
        expected = file["weight"][:]
    assert (expected == 2.5).any() == gaps
    answer = ask(start(root), "matrix", np.zeros((1, 1), np.float32))
    assert answer.tobytes() == expected.tobytes()


def test_hdf5_that_libhdf5_does_not_survive_is_refused(start, tmp_path):
    root = tmp_path / "models"
    folder = root / "net" / "1"
    write_program(folder, make(1))
    data = pathlib.Path(os.environ["SOURCE_DIR"]) / "tests/data/hdf5/crashes_libhdf5.h5"
    shutil.copy(data, folder / "model.h5")
    assert "'net/1/model.h5'" in refusal(start, root)


def test_damaged_hdf5_leaves_the_daemon_alive(start, tmp_path):
    """Each model's file has other bytes flipped; what still answers has an answer of the right shape."""
    root = tmp_path / "models"
    random = np.random.default_rng(7)
    outcomes = {"refused": 0, "answered": 0}
    for number in range(24):
        folder = root / f"net{number}" / "1"
        write_program(folder, make(1))
        (write_chunked_hdf5 if number % 2 else write_hdf5)(folder, make(1))
        file, = folder.glob("model.h*5")
        damaged = np.frombuffer(file.read_bytes(), np.uint8).copy()
        damaged[random.integers(8, damaged.size, size=40)] ^= random.integers(1, 256, size=40, dtype=np.uint8)
        file.write_bytes(damaged.tobytes())
    server = start(root)
    for number in range(24):
        try:
            assert ask(server, f"net{number}", FLOATS).shape == FLOATS.shape
            outcomes["answered"] += 1
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error.details()
            outcomes["refused"] += 1
        assert server.alive, server.log()
    assert outcomes["refused"] > 0, outcomes
