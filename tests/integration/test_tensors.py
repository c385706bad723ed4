"""Every kind of tensor in every format, against eager PyTorch to the bit: a cell of the table for each test."""

import copy
import json
from typing import Dict

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model

import hearthd as daemon
import models
import pack_nets
import tensor_nets
from test_formats import tensors, write_program
from test_protocol import answers_of, refusal, request

def hollow(folder, net, keep=("steps",)):
    """program.pt without the values of `net`, which keeps them."""
    write_program(folder, copy.deepcopy(net), keep)


def write_shards(folder, shards, stem, ending, save):
    """`shards`, [{name: tensor}], and their index, with names as Hugging Face gives them."""
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        name = f"{stem}-{number:05}-of-{len(shards):05}{ending}"
        save(shard, folder / name)
        weight_map.update({tensor: name for tensor in shard})
    (folder / f"{stem}{ending}.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def apart(named, *names):
    """Shards with one of `names` in each, tensors that share memory among them, and the rest dealt out."""
    shards = [{name: named[name]} for name in names]
    for number, (name, tensor) in enumerate(named.items()):
        if name not in names:
            shards[number % len(shards)][name] = tensor
    return shards


TIED = ("tied.weight", "again.weight")
VIEWS = ("base", "window", "row")


# --- writers: each makes the folder of a version ---

def scripted(folder, net):
    models.save(net, folder / "model.pt")


def traced(folder, net):
    # With one batch for all: the program has nothing that depends on it.
    models.save(torch.jit.trace(net, torch.zeros(2, 4)), folder / "model.pt")


def frozen(folder, net):
    """All tensors are constants of the code."""
    models.save(torch.jit.freeze(torch.jit.script(net)), folder / "model.pt")


def state_dict(folder, net):
    hollow(folder, net)
    torch.save(net.state_dict(), folder / "weights.pth")


def traced_program(folder, net):
    """Constants of the code in the program, weights beside it."""
    models.save(torch.jit.trace(net, torch.zeros(2, 4)), folder / "program.pt")
    torch.save(net.state_dict(), folder / "weights.pth")


def state_dict_shards(folder, net):
    """Each shard has the whole storage that its tensors are views of."""
    hollow(folder, net)
    shards = apart(net.state_dict(), *TIED, *VIEWS)
    write_shards(folder, shards, "pytorch_model", ".bin", torch.save)


def safetensors(folder, net):
    hollow(folder, net)
    save_file(tensors(net), folder / "model.safetensors")


def safetensors_shards(folder, net):
    """Tied tensors lie twice, in two shards."""
    hollow(folder, net)
    write_shards(folder, apart(tensors(net), *TIED, *VIEWS), "model", ".safetensors", save_file)


def safetensors_deduplicated(folder, net):
    """Of tied names the shards have one, as transformers writes it."""
    hollow(folder, net)
    named = tensors(net)
    del named["again.weight"]
    write_shards(folder, apart(named, "tied.weight", *VIEWS), "model", ".safetensors", save_file)


def hdf5(folder, net, **options):
    """h5py knows no complex numbers that hearthd reads: the program keeps them. Its bfloat16 are float32 there."""
    hollow(folder, net, keep=("steps", "wave"))
    with h5py.File(folder / "model.h5", "w", libver=("earliest", "v110")) as file:
        for name, tensor in tensors(net).items():
            if name == "wave":
                continue
            values = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
            file.create_dataset(name.replace(".", "/"), data=values,
                                **(options if values.ndim and values.size else {}))


def hdf5_chunked(folder, net):
    hdf5(folder, net, chunks=True)


def hdf5_gzip(folder, net):
    hdf5(folder, net, chunks=True, compression="gzip", shuffle=True)


KEEP_STRIDES = [scripted, traced, frozen, state_dict, traced_program, state_dict_shards]
WRITERS = [*KEEP_STRIDES, safetensors, safetensors_shards, safetensors_deduplicated, hdf5, hdf5_chunked, hdf5_gzip]


def make(write):
    """The module of this format; each has values of its own."""
    return tensor_nets.Every(WRITERS.index(write)).eval()


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    """A hearthd over one model for each format."""
    root = tmp_path_factory.mktemp("every")
    for write in WRITERS:
        folder = root / write.__name__ / "1"
        folder.mkdir(parents=True)
        write(folder, make(write))
    with daemon.Hearthd(root, tmp_path_factory.mktemp("server")) as running:
        yield running
        assert running.alive, running.log()


def eager(net, values):
    with torch.inference_mode():
        return net(torch.from_numpy(values))


def raw(tensor):
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def values_of(batch):
    return np.random.default_rng(batch).normal(size=(batch, 4)).astype(np.float32)


@pytest.mark.parametrize("kind", tensor_nets.KINDS)
@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_each_kind_of_tensor_answers_as_eager_pytorch_to_the_bit(every, write, kind):
    net = make(write)
    if write not in KEEP_STRIDES:
        for name, buffer in net.named_buffers():
            net.get_buffer(name).data = buffer.contiguous()
    at = tensor_nets.KINDS.index(kind)
    for batch in range(1, 17):
        values = values_of(batch)
        want = eager(net, values)[at]
        answer = every.stub().ModelInfer(request(write.__name__, ("x", "FP32", list(values.shape), values.tobytes())))
        assert list(answer.outputs[at].shape) == list(want.shape)
        assert models.TORCH_TYPES[answer.outputs[at].datatype] == want.dtype
        assert answer.raw_output_contents[at] == raw(want), batch


# --- what not every format has ---

def of(net, values):
    return eager(net.eval(), values).numpy()


class Twice(torch.nn.Module):
    """One module under two names, of which the second comes first in the alphabet."""

    def __init__(self, prepare=lambda layer: layer):
        super().__init__()
        torch.manual_seed(2)
        self.zeta = prepare(torch.nn.Linear(4, 4))
        self.alpha = self.zeta

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.alpha(torch.relu(self.zeta(x)))


@pytest.mark.parametrize("kept", ["alpha", "zeta"])
@pytest.mark.parametrize("prepare", [lambda layer: layer, torch.jit.script], ids=["eager", "scripted"])
def test_a_module_of_two_names_is_given_its_weights_by_either(start, tmp_path, prepare, kept):
    """Scripted beforehand it stays one object; otherwise only its tensors are."""
    folder = tmp_path / "models" / "net" / "1"
    hollow(folder, Twice(prepare))
    if kept == "alpha":
        save_model(Twice(), folder / "model.safetensors")  # which of two names keeps the first in the alphabet
    else:
        save_file({name: tensor for name, tensor in tensors(Twice()).items() if name.startswith(kept)},
                  folder / "model.safetensors")
    values = values_of(3)
    got, = answers_of(start(tmp_path / "models"), "net", ("x", "FP32", values))
    assert got.tobytes() == of(Twice(), values).tobytes()


class Conjugated(torch.nn.Module):
    """Its tensors are conjugated and negated when they are read: memory has other values."""

    def __init__(self):
        super().__init__()
        self.register_buffer("wave", torch.complex(torch.arange(4.0), torch.arange(4.0) + 1).conj())
        self.register_buffer("negative", torch.complex(torch.zeros(4), torch.arange(4.0)).conj().imag)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(torch.resolve_conj(self.wave * x))[:, :, 1] + self.negative


@pytest.mark.parametrize("write", [scripted, frozen, state_dict, state_dict_shards], ids=lambda write: write.__name__)
def test_conjugated_and_negated_tensors_are_what_they_were(start, tmp_path, write):
    net = Conjugated().eval()
    assert net.wave.is_conj() and net.negative.is_neg()
    folder = tmp_path / "models" / "net" / "1"
    folder.mkdir(parents=True)
    if write is state_dict_shards:
        hollow(folder, net, keep=("wave", "negative"))
        write_shards(folder, [{name: tensor} for name, tensor in net.state_dict().items()], "net", ".bin", torch.save)
    else:
        write(folder, net)
    values = values_of(3)
    got, = answers_of(start(tmp_path / "models"), "net", ("x", "FP32", values))
    assert got.tobytes() == of(net, values).tobytes()


class Turning(Conjugated):
    """Writes to them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.wave.mul_(2)
        self.negative.add_(1)
        return torch.view_as_real(torch.resolve_conj(self.wave * x))[:, :, 1] + self.negative


def test_written_to_they_are_what_they_were_for_each_request(start, tmp_path):
    models.write_model(tmp_path / "models", "net", Turning())
    server, values = start(tmp_path / "models"), values_of(3)
    for _ in range(3):
        got, = answers_of(server, "net", ("x", "FP32", values))
        assert got.tobytes() == of(Turning(), values).tobytes()


# --- names of other alphabets ---

class Words(torch.nn.Module):
    rows: Dict[str, torch.Tensor]

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.rows = {"größe": torch.arange(4.0), "重み": torch.ones(4) / 3}
        self.first = torch.nn.Linear(4, 4)
        self.second = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Dict[str, torch.Tensor]:
        return {"größe": self.first(x) * self.rows["größe"], "重み": self.second(x) * self.rows["重み"]}


YAML = """inputs: [{name: "вход", datatype: FP32, shape: [-1, 4]}]
outputs: [{name: größe, datatype: FP32, shape: [-1, 4]}, {name: "重み", datatype: FP32, shape: [-1, 4]}]
"""


def archive_of_another_name(folder):
    """Its records lie below the name that it was saved as."""
    models.save(Words(), folder / "größe.pt").rename(folder / "model.pt")


def files_by_name(folder):
    hollow(folder, Words(), keep=())
    named = Words().state_dict()
    save_file({name: named.pop(name) for name in ("first.weight", "first.bias")}, folder / "größe.safetensors")
    torch.save({**named, "重み": torch.ones(3)}, folder / "重み.pth")  # which no program can use
    (folder.parent / "model.yaml").write_text(YAML + "weights: [größe.safetensors, 重み.pth]\n")


def shards_by_name(folder):
    hollow(folder, Words(), keep=())
    named = list(Words().state_dict().items())
    write_shards(folder, [dict(named[:2]), {**dict(named[2:]), "größe": torch.ones(3)}], "重み", ".safetensors",
                 save_file)


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("write", [archive_of_another_name, files_by_name, shards_by_name],
                         ids=lambda write: write.__name__)
def test_names_of_other_alphabets_are_names(start, tmp_path, write, escaped):
    folder = tmp_path / "models" / "net" / "1"
    folder.mkdir(parents=True)
    (folder.parent / "model.yaml").write_text(YAML)
    write(folder)
    for index in folder.glob("*.index.json"):
        index.write_text(json.dumps(json.loads(index.read_text()), ensure_ascii=escaped), encoding="utf-8")
    server, values = start(tmp_path / "models"), values_of(3)
    answer = server.stub().ModelInfer(request("net", ("вход", "FP32", [3, 4], values.tobytes())))
    expected = eager(Words().eval(), values)
    assert [output.name for output in answer.outputs] == list(expected)
    assert list(answer.raw_output_contents) == [raw(want) for want in expected.values()]


def test_an_attribute_whose_name_pytorch_cannot_read_back_is_a_refusal(start, tmp_path):
    """Frozen, it has no attributes."""
    net = pack_nets.Unreadable()
    models.write_model(tmp_path / "models", "net", net)
    models.write_model(tmp_path / "models", "frozen", torch.jit.freeze(torch.jit.script(net.eval())))
    server, values = start(tmp_path / "models"), values_of(3)
    code, text = refusal(server, request("net", ("x", "FP32", [3, 4], values.tobytes())))
    assert code == "INVALID_ARGUMENT" and "net/1/model.pt" in text, text
    got, = answers_of(server, "frozen", ("x", "FP32", values))
    assert got.tobytes() == of(net, values).tobytes()
