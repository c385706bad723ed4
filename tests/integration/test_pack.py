"""`hearth pack`: every kind of source, packed, served by the real hearthd, and compared with eager PyTorch."""

import collections
import hashlib
import io
import json
import os
import pathlib
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch

import hearthd as daemon
import models
import pack_nets
from hearth_pack import cli, safetensors as hearth_safetensors, verify
from hearth_pack.compare import compare
from hearth_pack.errors import PackError
from hearth_pack.progress import Progress
from test_models import ask
from test_protocol import request
from test_speech import RATE, samples_of, silero_file

EXAMPLE = ["--example", "x=2x4:FP32", "--batch"]


def values_of(batch):
    return np.random.default_rng(batch).normal(size=(batch, 4)).astype(np.float32)


def eager(module, values):
    with torch.inference_mode():
        return module.eval()(torch.from_numpy(values)).numpy()


def serves(server, name, module):
    """Whether all of it comes out as eager PyTorch has it, to the bit."""
    with server.client() as client:
        client.load_model(name)
    for batch in (1, 2, 16):
        values = values_of(batch)
        assert ask(server, name, values).tobytes() == eager(module, values).tobytes()
    return True


def ready_event(server, name):
    return next(event for event in map(json.loads, reversed(server.lines))
                if event["msg"] == "model ready" and event["model"].startswith(name))


def header_of(file):
    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8:8 + length]), raw[8 + length:], 8 + length


# --- sources ---

def test_a_torchscript_file_is_packed(pack, pack_server, tmp_path):
    file = models.save(pack_nets.Net(1), tmp_path / "net.pt")
    told = pack(file, "scripted", *EXAMPLE)
    assert told.count("equal to the bit") == 4
    assert serves(pack_server, "scripted", torch.jit.load(str(file)))
    assert serves(pack_server, "scripted", pack_nets.Net(1))


def legacy_tar(tensors, path):
    """As torch.save wrote before PyTorch 0.1.10."""
    parts = {"storages": io.BytesIO(), "tensors": io.BytesIO(), "pickle": io.BytesIO(), "sys_info": io.BytesIO()}

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return str(keys[id(value)]) if id(value) in keys else None

    keys = {id(tensor): number for number, tensor in enumerate(tensors.values(), 1)}
    types = {torch.float32: torch.FloatStorage, torch.float16: torch.HalfStorage, torch.int64: torch.LongStorage}
    pickle.dump(len(keys), parts["storages"], 2)
    pickle.dump(len(keys), parts["tensors"], 2)
    for tensor in tensors.values():
        key = keys[id(tensor)]
        pickle.dump((key + 1000, "cpu", types[tensor.dtype]), parts["storages"], 2)
        parts["storages"].write(struct.pack("<q", tensor.numel()) + tensor.contiguous().numpy().tobytes())
        pickle.dump((key, key + 1000, torch.FloatTensor), parts["tensors"], 2)
        strides = torch.empty(tensor.shape).stride()
        parts["tensors"].write(struct.pack(f"<i4x{2 * tensor.dim()}qq", tensor.dim(), *tensor.shape, *strides, 0))
    pickle.dump([], parts["storages"], 2)
    Pickler(parts["pickle"], 2).dump(dict(tensors))
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, part in parts.items():
            entry = tarfile.TarInfo(name)
            entry.size = part.tell()
            part.seek(0)
            tar.addfile(entry, part)


def hdf5(tensors, path):
    with h5py.File(path, "w") as file:
        for name, tensor in tensors.items():
            file[name.replace(".", "/")] = tensor.numpy()
        file["about"] = "text is no weight"


CHECKPOINTS = {
    "state_dict": lambda net, path: torch.save(net.state_dict(), path),
    "training": lambda net, path: torch.save({"epoch": 3, "model_state_dict": net.state_dict()}, path),
    "parallel": lambda net, path: torch.save({f"module.{n}": t for n, t in net.state_dict().items()}, path),
    "safetensors": lambda net, path: safetensors.torch.save_file(
        {name: tensor.clone() for name, tensor in net.state_dict().items()}, path),
    "hdf5": lambda net, path: hdf5(net.state_dict(), path),
    "legacy": lambda net, path: torch.save(net.state_dict(), path, _use_new_zipfile_serialization=False),
    "module": lambda net, path: torch.save(net, path),
    "legacy_module": lambda net, path: torch.save(net, path, _use_new_zipfile_serialization=False),
    "tar": lambda net, path: legacy_tar(net.state_dict(), path),
    "plain_pickle": lambda net, path: path.write_bytes(
        pickle.dumps({name: tensor.numpy() for name, tensor in net.state_dict().items()})),
}
CODE = ("module", "legacy_module", "tar", "plain_pickle")  # can run some


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_factory_with_a_checkpoint_is_packed(pack, pack_server, root, tmp_path, kind):
    CHECKPOINTS[kind](pack_nets.Net(11, width=7), tmp_path / "weights")
    arguments = ["pack_nets:Net", kind, "--args", '{"width": 7}', "--checkpoint", tmp_path / "weights", *EXAMPLE]
    if kind in CODE:
        told = pack(*arguments, code=1)
        assert "--trust-pickle" in told and told.count("\n") == 1
        assert "torch.load" not in told and "weights_only" not in told
        assert not (root / kind).exists()
        arguments.append("--trust-pickle")
    pack(*arguments)
    assert serves(pack_server, kind, pack_nets.Net(11, width=7))


def test_shards_of_another_packing_are_a_checkpoint_and_a_file_of_code_a_factory(pack, pack_server, root, tmp_path):
    """Of tied tensors they have one name."""
    pack("pack_nets:Net", "origin", "--args", '{"seed": 9}', "--shard-size", "500B")
    (tmp_path / "nets.py").write_text("import pack_nets\n\n\nclass Inner:\n    make = pack_nets.Net\n")
    index = root / "origin" / "1" / "model.safetensors.index.json"
    pack(f"{tmp_path / 'nets.py'}:Inner.make", "copied", "--checkpoint", index, *EXAMPLE)
    assert serves(pack_server, "copied", pack_nets.Net(9))
    index.write_text('{"weight_map": {"inner.weight": "../elsewhere"}}')
    assert "is not a file beside it" in pack("pack_nets:Net", "copied", "--checkpoint", index, code=1)


def test_a_pickled_module_is_packed_by_those_who_trust_it(pack, pack_server, tmp_path):
    torch.save(pack_nets.Net(4), tmp_path / "net.pt")
    assert "--trust-pickle" in pack(tmp_path / "net.pt", "whole", *EXAMPLE, code=1)
    pack(tmp_path / "net.pt", "whole", "--trust-pickle", *EXAMPLE)
    assert serves(pack_server, "whole", pack_nets.Net(4))


SCRIPT = """import sys
import pack_nets
import torch


class Mine(pack_nets.Plain):
    pass


if __name__ == "__main__":
    torch.save(Mine(), sys.argv[1])
    torch.save(Mine(), sys.argv[2], _use_new_zipfile_serialization=False)
"""


def test_a_module_whose_class_the_saving_script_defined_is_packed_when_the_script_is_named(pack, pack_server, tmp_path):
    (tmp_path / "saving.py").write_text(SCRIPT)
    files = [tmp_path / "own.pt", tmp_path / "own_legacy.pt"]
    subprocess.run([sys.executable, tmp_path / "saving.py", *files], check=True, timeout=daemon.PATIENCE,
                   env=daemon.environment({"PYTHONPATH": str(pathlib.Path(__file__).parent)}))
    (tmp_path / "other.py").write_text("")
    for file in files:
        told = pack(file, file.stem, "--trust-pickle", *EXAMPLE, code=1)
        assert "'Mine', which was defined in the script that saved it" in told and "--main FILE.py" in told
        assert "--checkpoint" in told and told.count("\n") == 1
        told = pack(file, file.stem, "--trust-pickle", "--main", tmp_path / "other.py", *EXAMPLE, code=1)
        assert "'Mine', which" in told and "other.py' does not define" in told
        main = sys.modules["__main__"]
        pack(file, file.stem, "--trust-pickle", "--main", tmp_path / "saving.py", *EXAMPLE)
        assert sys.modules["__main__"] is main
        assert serves(pack_server, file.stem, pack_nets.Plain())
    told = pack(files[0], "own", "--trust-pickle", "--main", tmp_path / "none.py", *EXAMPLE, code=1)
    assert "none.py could not be imported: FileNotFoundError" in told


def test_a_pickle_of_a_module_that_is_not_here_says_which(pack, tmp_path, monkeypatch):
    (tmp_path / "gone_nets.py").write_text("import pack_nets\n\n\nclass Gone(pack_nets.Plain):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import gone_nets
    torch.save(gone_nets.Gone(), tmp_path / "gone.pt")
    monkeypatch.delitem(sys.modules, "gone_nets")
    (tmp_path / "gone_nets.py").unlink()
    told = pack(tmp_path / "gone.pt", "gone", "--trust-pickle", *EXAMPLE, code=1)
    assert "needs the module 'gone_nets'" in told and "PYTHONPATH" in told


def test_a_traced_model_is_packed(pack, pack_server):
    pack("pack_nets:Net", "traced", "--trace", *EXAMPLE)
    assert serves(pack_server, "traced", pack_nets.Net())


def test_what_tracing_fixes_is_found_before_it_is_served(pack, root):
    assert "batch" in pack("pack_nets:FixedBatch", "fixed", "--trace", *EXAMPLE, code=1)
    assert not (root / "fixed").exists()


def test_a_traced_model_names_its_inputs_and_outputs(pack, pack_server):
    told = pack("pack_nets:Unscriptable", "dictionary", "--trace", "--example", "scale=1:FP32=3",
                "--example", "x=2x4:FP32", "--verify-with", pack_server.address)
    assert "served, compared with eager PyTorch: the example: equal to the bit" in told
    with pack_server.client() as client:
        metadata = client.get_model_metadata("dictionary")
    assert [(t.name, list(t.shape)) for t in metadata.outputs] == [("a", [2, 4]), ("b", [2, 4])]


@pytest.mark.parametrize("dynamic", [False, True])
def test_an_exported_program_is_packed(pack, pack_server, tmp_path, dynamic):
    net = pack_nets.Net(6).eval()
    shapes = {"x": {0: torch.export.Dim("batch")}} if dynamic else None
    program = torch.export.export(net, (torch.randn(2, 4),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "net.pt2")
    name = f"exported-{dynamic}"
    # The example is the one it was exported with.
    told = pack(tmp_path / "net.pt2", name, *(["--batch"] if dynamic else []), "--verify-with", pack_server.address)
    assert told.count("equal to the bit") == (7 if dynamic else 3)
    values = values_of(2)
    assert ask(pack_server, name, values).tobytes() == eager(net, values).tobytes()
    if dynamic:
        assert serves(pack_server, name, net)


def test_silero_vads_own_file_is_packed(pack, pack_server, recordings):
    pack(silero_file(), "silero", "--method", "audio_forward", "--example", "x=1x512:FP32", "--example",
         f"sr=1:INT64={RATE}", "--dynamic", "x:1", "--verify-with", pack_server.address)
    torch.set_num_threads(1)
    samples = samples_of(recordings[0])
    with torch.no_grad():
        expected = torch.jit.load(str(silero_file())).audio_forward(torch.from_numpy(samples), RATE).numpy()
    answer = pack_server.stub().ModelInfer(request(
        "silero", ("x", "FP32", list(samples.shape), samples.tobytes()),
        ("sr", "INT64", [1], np.int64(RATE).tobytes())), timeout=100)
    assert expected.max() > 0.9
    assert answer.raw_output_contents[0] == expected.tobytes()


def test_quantised_weights_stay_in_the_program(pack, pack_server, root):
    pack("pack_nets:quantised", "quantised", "--example", "x=2x4:FP32", "--verify-with", pack_server.address)
    header, _, _ = header_of(root / "quantised" / "1" / "model.safetensors")
    assert {name for name in header if not name.startswith("__")} == {"layers.3.weight", "layers.3.bias"}
    values = values_of(2)
    assert ask(pack_server, "quantised", values).tobytes() == eager(pack_nets.quantised(), values).tobytes()


def test_a_model_that_keeps_state_is_packed_with_the_state_it_began_with(pack, pack_server):
    for name in ("Counter", "Assigner"):
        told = pack(f"models:{name}", name, "--example", "x=1x4:FP32", "--verify-with", pack_server.address)
        assert told.count("equal to the bit") == 3
        assert ask(pack_server, name).tolist() == ask(pack_server, name).tolist()


# --- files ---

def test_tensors_lie_at_pages_and_have_checksums(pack, pack_server, root):
    pack("pack_nets:Net", "files", *EXAMPLE)
    file = root / "files" / "1" / "model.safetensors"
    header, data, start = header_of(file)
    metadata = header.pop("__metadata__")
    expected = pack_nets.Net().state_dict()
    names = {name for name in header if not name.startswith("__padding__")}
    assert names == expected.keys() - {"again.weight", "shared.weight", "shared.bias"}
    for name in names:
        begin, end = header[name]["data_offsets"]
        assert (start + begin) % 4096 == 0 or begin == end
        assert metadata[f"sha256.{name}"] == hashlib.sha256(data[begin:end]).hexdigest()
    # Others read the file too.
    for name, tensor in safetensors.torch.load_file(file).items():
        assert name.startswith("__padding__") or torch.equal(tensor, expected[name])
    assert serves(pack_server, "files", pack_nets.Net())
    assert ready_event(pack_server, "files")["copied"] == "0 B"
    assert "weights that the program does not use" not in pack_server.log()


def test_the_program_has_no_values_but_those_that_are_nowhere_else(pack, root):
    pack("pack_nets:Net", "hollow", "--args", '{"width": 30000}', *EXAMPLE)
    folder = root / "hollow" / "1"
    assert (folder / "model.safetensors").stat().st_size > 1_000_000
    assert (folder / "program.pt").stat().st_size < 30_000
    program = torch.jit.load(str(folder / "program.pt"))
    assert torch.equal(program.steps, torch.arange(4.0))
    assert program.first.weight.shape == (30000, 4) and not program.first.weight.any()
    assert program.again.weight.data_ptr() == program.tied.weight.data_ptr()
    assert program.first.weight.data_ptr() != program.second.weight.data_ptr()


@pytest.mark.parametrize("weights", ["safetensors", "state_dict"])
def test_weights_are_split_into_shards_of_a_size(pack, pack_server, root, weights):
    name = f"shards-{weights}"
    told = pack("pack_nets:Net", name, "--shard-size", "0.5kB", "--weights", weights, *EXAMPLE)
    folder = root / name / "1"
    (index,) = folder.glob("*.index.json")
    weight_map = json.loads(index.read_text())["weight_map"]
    shards = set(weight_map.values())
    assert f"bytes in {len(shards)} files and an index, read back" in told
    assert len(shards) > 2 and shards < {path.name for path in folder.iterdir()}
    tensors = pack_nets.Net().state_dict()
    for shard in shards:
        inside = [tensors[tensor] for tensor, file in weight_map.items() if file == shard]
        assert sum(tensor.nbytes for tensor in inside) <= 500 or len(inside) == 1
    assert serves(pack_server, name, pack_nets.Net())


def test_a_state_dict_keeps_strides_and_lies_at_pages(pack, pack_server, root):
    pack("pack_nets:Turned", "turned", "--weights", "state_dict", "--example", "x=2x200:FP32", "--batch",
         "--verify-with", pack_server.address)
    file = root / "turned" / "1" / "weights.pth"
    assert torch.load(file, weights_only=True)["weight"].stride() == (1, 200)
    with zipfile.ZipFile(file) as archive, open(file, "rb") as raw:
        (record,) = [entry for entry in archive.infolist() if "/data/" in entry.filename]
        raw.seek(record.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", raw.read(4))
        assert (record.header_offset + 30 + name_length + extra_length) % 4096 == 0


def test_types_that_safetensors_lacks_go_into_a_state_dict(pack, pack_server, root):
    assert "'wave' (torch.complex128)" in pack("pack_nets:Wide", "wide", *EXAMPLE, code=1)
    assert not (root / "wide").exists()
    pack("pack_nets:Wide", "wide", "--weights", "state_dict", *EXAMPLE)
    assert serves(pack_server, "wide", pack_nets.Wide())


def test_floating_weights_are_converted(pack, pack_server, root):
    pack("pack_nets:Plain", "brief", "--dtype", "bfloat16", "--example", "x=2x4:BF16", "--batch", "--verify-with",
         pack_server.address)
    header, _, _ = header_of(root / "brief" / "1" / "model.safetensors")
    assert header["inner.weight"]["dtype"] == "BF16"


@pytest.mark.parametrize("options", [(), ("--trace",)])
def test_an_example_of_another_type_than_the_weights_is_told_which_to_write(pack, options):
    arguments = ["pack_nets:Plain", "other_type", "--dtype", "bfloat16", *options, "--batch"]
    told = pack(*arguments, "--example", "x=2x4:FP32", code=1)
    assert "the weights are BF16, and 'x' is FP32: write --example x=2x4:BF16" in told and told.count("\n") == 1
    assert "write --example" not in pack(*arguments, "--example", "x=2x5:FP32", "--dtype", "float32", code=1)
    pack(*arguments, "--example", "x=2x4:BF16")


def test_model_yaml_has_the_signature_and_a_sample(pack, pack_server, root, tmp_path):
    np.savez(tmp_path / "example.npz", x=values_of(3))
    pack("pack_nets:Plain", "described", "--example", tmp_path / "example.npz", "--batch")
    with pack_server.client() as client:
        client.load_model("described")
        metadata = client.get_model_metadata("described")
    tensors = [(t.name, t.datatype, list(t.shape)) for t in [*metadata.inputs, *metadata.outputs]]
    assert tensors == [("x", "FP32", [-1, 4]), ("OUTPUT__0", "FP32", [-1, 8])]
    assert '"x": {datatype: FP32, shape: [3, 4], data: random}' in (root / "described" / "model.yaml").read_text()


def test_versions_follow_each_other_and_are_never_overwritten(pack, pack_server, root):
    for seed in (1, 2):
        pack("pack_nets:Net", "versions", "--args", json.dumps({"seed": seed}), *EXAMPLE)
    assert "choose another --model-version" in pack("pack_nets:Net", "versions", "--model-version", 2, *EXAMPLE, code=2)
    assert sorted(path.name for path in (root / "versions").iterdir()) == ["1", "2", "model.yaml"]
    assert serves(pack_server, "versions", pack_nets.Net(2))


def test_another_model_yaml_is_left_alone_unless_told_otherwise(pack, root):
    yaml = root / "noted" / "model.yaml"
    yaml.parent.mkdir()
    yaml.write_text("instances: 1\n")
    assert "left as it is" in pack("pack_nets:Plain", "noted", "--example", "x=2x4:FP32")
    assert yaml.read_text() == "instances: 1\n"
    assert "left as it is" not in pack("pack_nets:Plain", "noted", "--example", "x=2x4:FP32", "--overwrite-yaml")
    assert "FP32" in yaml.read_text()


# --- what goes wrong ---

def test_an_entry_that_answers_differently_is_not_put_in_place(pack, tmp_path):
    told = pack("pack_nets:Ambiguous", "ambiguous", "--example", "x=2x4:FP32", code=1, repository=tmp_path)
    assert "nothing was put in place" in told
    assert "turned is not contiguous" in told and "--weights state_dict" in told
    assert list(tmp_path.iterdir()) == []
    told = pack("pack_nets:Ambiguous", "ambiguous", "--example", "x=2x4:FP32", "--tolerance", 1.5, repository=tmp_path)
    assert "largest difference 1, in OUTPUT__0" in told


def test_a_server_that_answers_differently_is_reported(pack, pack_server, tmp_path):
    """The daemon has another model of this name."""
    pack("pack_nets:Net", "elsewhere", "--args", '{"seed": 1}', *EXAMPLE)
    told = pack("pack_nets:Net", "elsewhere", *EXAMPLE, "--verify-with", pack_server.address, code=1,
                repository=tmp_path)
    assert "hearthd's answers differ" in told
    assert "hearthd at 127.0.0.1:9" in pack("pack_nets:Net", "elsewhere", *EXAMPLE, "--verify-with", "127.0.0.1:9",
                                            code=1, repository=tmp_path)


def test_a_failure_halfway_leaves_nothing_behind(pack, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "disk")

    monkeypatch.setattr(torch.jit.RecursiveScriptModule, "save", full)
    assert "No space left" in pack("pack_nets:Net", "half", *EXAMPLE, code=1, repository=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments, code, words", [
    (["no/such.pt"], 2, "is no file and not MODULE:FACTORY"),
    (["nosuchmodule:make"], 1, "could not be called"),
    (["pack_nets:not_a_module"], 1, "gave an int, which is no torch.nn.Module"),
    (["pack_nets:Net", "--args", "[1]"], 2, "JSON object"),
    (["pack_nets:Net", "--args", '{"depth": 1}'], 1, "depth"),
    (["pack_nets:Net", "--checkpoint", "no/such.bin"], 2, "there is no file"),
    (["pack_nets:Net", "--method", "backward"], 2, "no method 'backward'"),
    (["pack_nets:Net", "--example", "x"], 2, "x=1x512:FP32"),
    (["pack_nets:Net", "--example", "x=1x4:FLOAT"], 2, "is not a datatype"),
    (["pack_nets:Net", "--example", "y=1x4:FP32"], 2, "no input 'y'; it takes x"),
    (["pack_nets:Net", "--example", "x=1x5:FP32"], 1, "the model refuses the example"),
    (["pack_nets:Net", "--batch"], 2, "--batch needs"),
    (["pack_nets:Net", "--trace"], 2, "--trace needs"),
    (["pack_nets:Net", "--dynamic", "x:1"], 2, "no example of 'x'"),
    (["pack_nets:Net", "--shard-size", "big"], 2, "is not a size"),
    (["pack_nets:Net", "--name", "../up"], 2, "cannot be the name of a model"),
    (["pack_nets:Net", "--format", "aoti"], 2, "--example of every input"),
    (["pack_nets:Unreadable", "--example", "x=1x4:FP32"], 1, "cannot read the program back"),
    (["pack_nets:Unscriptable"], 1, "try --trace")])
def test_refusals_say_what_to_do(tmp_path, capsys, arguments, code, words):
    assert cli.main(["--repository", str(tmp_path / "new"), *arguments]) == code
    told = capsys.readouterr().err
    assert words in told and told.startswith("hearth-pack: ") and told.count("\n") == 1
    assert not (tmp_path / "new").exists() or list((tmp_path / "new").iterdir()) == []


def test_a_factory_that_fails_is_told_with_its_own_line(pack, tmp_path):
    (tmp_path / "below.py").write_text("def deep():\n    return {}['key']\n")
    (tmp_path / "failing.py").write_text("import torch\nfrom below import deep\n\n\ndef make(size=-1):\n"
                                         "    return torch.nn.Linear(size, 3) if size else deep()\n")
    source = f"{tmp_path / 'failing.py'}:make"
    assert f"negative dimension -1: [3, -1] ({tmp_path / 'failing.py'}:6)" in pack(source, "failing", code=1)
    told = pack(source, "failing", "--args", '{"size": 0}', code=1)
    assert f"KeyError: 'key' ({tmp_path / 'below.py'}:2)\n" in told
    assert pack(source, "failing", "--args", '{"sizes": 0}', code=1).endswith("argument 'sizes'\n")  # nothing ran


def test_a_checkpoint_of_another_module_is_refused_by_name(pack, root, tmp_path):
    torch.save(pack_nets.Plain().state_dict(), tmp_path / "weights.pt")
    told = pack("pack_nets:Net", "foreign", "--checkpoint", tmp_path / "weights.pt", code=1)
    assert "missing: 'again.bias', 'again.weight'" in told and "unknown: 'inner.bias', 'inner.weight'" in told
    torch.save(pack_nets.Net(width=5).state_dict(), tmp_path / "weights.pt")
    assert "size mismatch for first.weight" in pack("pack_nets:Net", "foreign", "--checkpoint",
                                                    tmp_path / "weights.pt", code=1)
    assert not (root / "foreign").exists()


def test_hdf5_is_read_as_hearthd_reads_it_or_refused_by_name(pack, tmp_path, monkeypatch):
    arguments = ["pack_nets:Plain", "hierarchical", "--checkpoint", tmp_path / "weights", *EXAMPLE]
    plain = pack_nets.Plain()
    with h5py.File(tmp_path / "weights", "w") as file:
        file["inner/weight"] = plain.inner.weight.detach().numpy().astype(">f4")
        file.create_dataset("inner/bias", data=plain.inner.bias.detach().numpy(), chunks=(3,), compression="lzf")
    pack(*arguments)
    with h5py.File(tmp_path / "weights", "a") as file:
        del file["inner/bias"]
        file["inner/bias"] = np.zeros(8, [("a", "f4"), ("b", "i4")])
    told = pack(*arguments, code=1)
    assert "'inner/bias' cannot be read: PyTorch has no type for" in told and "--trust-pickle" not in told
    with h5py.File(tmp_path / "weights", "a") as file:
        del file["inner/bias"]
        file.create_dataset("inner/bias", (8,), "f4", external=[("/dev/zero", 0, 32)])
    assert "'inner/bias' cannot be read: it lies in another file" in pack(*arguments, code=1)
    data = pathlib.Path(os.environ["SOURCE_DIR"]) / "tests/data/hdf5"
    for name, words in (("crashes_libhdf5.h5", "is not HDF5 that h5py reads"), ("skipped.h5", "unknown: "),
                        ("same_name.h5", "two data sets that are")):
        shutil.copy(data / name, tmp_path / "weights")
        told = pack(*arguments, code=1)
        assert words in told and told.count("\n") == 1
    monkeypatch.setitem(sys.modules, "h5py", None)
    told = pack(*arguments, code=1)
    assert "hearth-pack[hdf5]" in told and "safetensors" in told and "--trust-pickle" not in told


def test_what_a_pickle_holds_instead_of_weights_is_named(pack, tmp_path):
    for value, words in ((collections.OrderedDict(a=1), "an OrderedDict without"), ([1], "a list without")):
        torch.save(value, tmp_path / "weights")
        assert f"holds {words}" in pack("pack_nets:Plain", "nothing", "--checkpoint", tmp_path / "weights", code=1)


def test_what_is_no_file_of_weights_is_not_called_a_pickle(pack, tmp_path):
    file = tmp_path / "weights"
    for content in (b"", b"hello", bytes(range(200, 256))):
        file.write_bytes(content)
        told = pack("pack_nets:Plain", "nothing", "--checkpoint", file, code=1)
        assert "is nothing that weights are read from: safetensors" in told and told.count("\n") == 1
    for kind in ("state_dict", "legacy"):
        CHECKPOINTS[kind](pack_nets.Plain(), file)
        file.write_bytes(file.read_bytes()[:-200])
        told = pack("pack_nets:Plain", "nothing", "--checkpoint", file, code=1)
        assert "is not whole" in told and "--trust-pickle" not in told


def test_a_saved_buffer_that_the_module_computes_itself_has_to_agree(pack, root, tmp_path):
    state = pack_nets.Net().state_dict()
    torch.save({**state, "steps": torch.arange(4.0) + 1}, tmp_path / "weights.pt")
    assert "unknown: 'steps'" in pack("pack_nets:Net", "computed", "--checkpoint", tmp_path / "weights.pt", code=1)
    torch.save({**state, "steps": torch.arange(4.0)}, tmp_path / "weights.pt")
    pack("pack_nets:Net", "computed", *EXAMPLE, "--checkpoint", tmp_path / "weights.pt")
    assert (root / "computed" / "1" / "program.pt").exists()


def test_comparisons_see_every_difference():
    def between(a, b):
        return compare({"y": torch.tensor(a)}, {"y": torch.tensor(b)})

    nan = float("nan")
    assert between([1.0, nan], [1.0, nan]).within(0)
    assert between([1.0, 2.0], [1.0, 2.5]).difference == 0.5
    assert not between([1.0, 2.0], [1.0, 2.5]).within(0.4) and between([1.0, 2.0], [1.0, 2.5]).within(0.5)
    assert not between([1.0, nan], [1.0, 2.0]).within(1e300)
    assert not between([0.0], [-0.0]).within(0)
    assert between([2**62 + 1], [2**62]).difference == 1
    assert not between([1], [1.0]).within(9)
    assert not between([[1]], [1]).within(9)
    assert not compare({"y": ["a"]}, {"y": ["b"]}).within(9)
    assert not compare({"y": ["a"]}, {"z": ["a"]}).within(9)


def test_bytes_that_do_not_come_back_are_noticed(pack, root):
    pack("pack_nets:Plain", "spoiled", "--example", "x=2x4:FP32")
    folder = root / "spoiled" / "1"
    tensors = pack_nets.Plain().state_dict()
    assert verify.check_weights(folder, tensors).keys() == tensors.keys()
    file = folder / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(PackError, match="does not come back as it was written"):
        verify.check_weights(folder, tensors)
    spoiled, _ = hearth_safetensors.read(file)
    with pytest.raises(PackError, match="the checksum of"):
        verify.check_weights(folder, spoiled)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_shown_on_a_terminal_and_wiped_off(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress(2_000_000, "writing") as progress:
        progress.update(500_000)
        progress.update(1_500_000)
    shown = sys.stderr.getvalue()
    assert "writing   0% of 2.0 MB" in shown and "writing 100%" in shown and shown.endswith("\r\033[K")


# --- the package ---

def test_hearth_pack_runs_what_pip_installs(tmp_path, pack_server, root):
    source = pathlib.Path(os.environ["SOURCE_DIR"]) / "client" / "python"
    shutil.copytree(source, tmp_path / "source")  # pip builds where the source is
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation",
                    "--disable-pip-version-check", "--root-user-action=ignore", "--target", tmp_path / "site",
                    tmp_path / "source"], check=True, timeout=daemon.PATIENCE)
    environment = daemon.environment({
        "PATH": f"{tmp_path / 'site' / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": f"{tmp_path / 'site'}:{pathlib.Path(__file__).parent}"})
    for seed in ("1", "2"):
        done = subprocess.run([daemon.HEARTH, "pack", "pack_nets:Net", "--repository", root, *EXAMPLE], text=True,
                              capture_output=True, env={**environment, "PYTHONHASHSEED": seed},
                              timeout=daemon.PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == "" and done.stdout.count("equal to the bit") == 4
    assert (root / "Net/1/program.pt").read_bytes() == (root / "Net/2/program.pt").read_bytes()
    assert serves(pack_server, "Net", pack_nets.Net())


def code_of(program):
    with zipfile.ZipFile(program) as archive:
        return {name: archive.read(name) for name in archive.namelist() if "/code/" in name}


def as_a_process(*arguments, seed="random", **environment):
    path = f"{os.environ['PYTHONPATH']}:{pathlib.Path(__file__).parent}"
    environment = daemon.environment({"PYTHONPATH": path, "PYTHONHASHSEED": seed, **environment})
    return subprocess.Popen([sys.executable, "-m", "hearth_pack", *map(str, arguments)], text=True, env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_one_program_is_the_same_bytes_whichever_process_packs_it(pack_server, root):
    """With them hearthd tells that it has the program already."""
    for seed in ("1", "2", "random"):
        packing = as_a_process("pack_nets:Net", "--args", json.dumps({"seed": int(seed == "1")}), "--repository", root,
                               "--name", f"seed-{seed}", *EXAMPLE, seed=seed)
        told = packing.communicate(timeout=daemon.PATIENCE)
        assert packing.returncode == 0 and told[1] == "", told
    programs = [root / f"seed-{seed}" / "1" / "program.pt" for seed in ("1", "2", "random")]
    assert programs[1].read_bytes() == programs[2].read_bytes()
    assert code_of(programs[0]) == code_of(programs[1]) and "in_features : Final" in str(code_of(programs[0]))
    assert serves(pack_server, "seed-1", pack_nets.Net(1))
    kept = pack_server.metric("hearth_kept_programs")
    assert serves(pack_server, "seed-2", pack_nets.Net(0))
    assert pack_server.metric("hearth_kept_programs") == kept >= 1


def test_the_process_that_was_started_is_the_one_that_packs_and_is_interrupted(tmp_path):
    (tmp_path / "nets.py").write_text("import os, signal\n\n\ndef make():\n    print(os.getpid(), flush=True)\n"
                                      "    os.kill(os.getpid(), signal.SIGINT)\n")
    packing = as_a_process(tmp_path / "nets.py:make", "--repository", tmp_path / "new")
    told, complaint = packing.communicate(timeout=daemon.PATIENCE)
    assert packing.returncode == 130 and "interrupted" in complaint
    assert int(told) == packing.pid
    packing = as_a_process("no/such.pt")
    assert "is no file" in packing.communicate(timeout=daemon.PATIENCE)[1] and packing.returncode == 2
