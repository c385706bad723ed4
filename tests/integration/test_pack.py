"""`hearth pack`: every kind of source, packed, served by the real hearthd, and compared with eager PyTorch."""

import hashlib
import io
import json
import pathlib
import pickle
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
