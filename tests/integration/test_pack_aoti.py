"""`hearth pack --format aoti`: compiled, served by the real hearthd, and compared with eager PyTorch."""

import json
import pathlib
import re
import shutil
import zipfile

import grpc
import numpy as np
import pytest
import safetensors.torch
import torch

import aoti_nets
import hearthd as daemon
import models
import pack_nets
from hearth_pack import cli
from test_pack import EXAMPLE, ready_event
from test_pack_process import as_a_process
from test_protocol import answers_of

AOTI = ["--format", "aoti", "--example", "x=3x16:FP32", "--example", "bias=3x12:FP32", "--batch"]


@pytest.fixture(scope="module")
def aoti_package(root):
    """What the factory of aoti_nets.py becomes; {name of the model}."""
    source = f"{pathlib.Path(aoti_nets.__file__)}:net"
    assert cli.main([source, "--repository", str(root), "--name", "compiled", *AOTI]) == 0
    return root / "compiled"


def test_a_module_is_compiled_and_served(aoti_package, pack_server):
    assert {path.name for path in (aoti_package / "1").iterdir()} == {"model.pt2", "model.safetensors"}
    assert not list(aoti_package.rglob("*.cpp"))
    with pack_server.client() as client:
        client.load_model("compiled")
    module = aoti_nets.net()
    for batch in (1, 2, 16):
        random = np.random.default_rng(batch)
        x, bias = (random.normal(size=(batch, size)).astype(np.float32) for size in (16, 12))
        with torch.inference_mode():
            expected = module(torch.from_numpy(x), torch.from_numpy(bias))
        got = answers_of(pack_server, "compiled", ("x", "FP32", x), ("bias", "FP32", bias))
        for mine, want in zip(got, expected, strict=True):
            np.testing.assert_allclose(mine, want.detach().numpy(), rtol=0, atol=1e-5)
    assert ready_event(pack_server, "compiled")["copied"] == "0 B"


def test_a_compiled_entry_says_what_it_takes_and_needs(aoti_package):
    yaml = (aoti_package / "model.yaml").read_text()
    assert 'name: "x", datatype: FP32, shape: [-1, 16]' in yaml
    metadata, = aoti_package.rglob("*.wrapper_metadata.json")
    own = json.loads(json.loads(metadata.read_text())["hearth"])
    assert own["cpu_features"]
    batch = own["inputs"][0]["shape"][0]
    assert own["inputs"][1]["shape"][0] == batch and own["dimensions"][batch][0] == 1
    assert own["constants"]["first.weight"] == [24, 16]


def test_an_exported_program_is_compiled(pack, pack_server, tmp_path):
    batch = torch.export.Dim("batch")
    example = torch.zeros(3, 5, dtype=torch.int64)
    program = torch.export.export(aoti_nets.lookup(), (example,), dynamic_shapes=({0: batch},))
    torch.export.save(program, str(tmp_path / "lookup.pt2"))
    pack(tmp_path / "lookup.pt2", "looked_up", "--format", "aoti", "--batch")
    with pack_server.client() as client:
        client.load_model("looked_up")
    ids = np.arange(10).reshape(2, 5)
    with torch.inference_mode():
        expected = aoti_nets.lookup()(torch.from_numpy(ids)).numpy()
    got, = answers_of(pack_server, "looked_up", ("ids", "INT64", ids))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_an_index_out_of_range_is_a_refused_request(pack, pack_server):
    pack(f"{pathlib.Path(aoti_nets.__file__)}:lookup", "indexed", "--format", "aoti", "--batch", "--example",
         "ids=4x300:INT64", "--tolerance", "1e-3")
    with pack_server.client() as client:
        client.load_model("indexed")
    for bad in (50, -51, 10**12):
        with pytest.raises(grpc.RpcError) as error:
            answers_of(pack_server, "indexed", ("ids", "INT64", np.full((2, 300), bad)))
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT, error.value.details()
    assert answers_of(pack_server, "indexed", ("ids", "INT64", np.full((2, 300), 49)))[0].shape == (2, 64)


def test_weights_have_the_layout_that_the_code_counts_on(pack, pack_server, root):
    source = f"{pathlib.Path(aoti_nets.__file__)}:turned"
    options = ["--format", "aoti", "--example", "x=3:FP32"]
    assert "'weight' is not contiguous" in pack(source, "leaning", *options, code=1)
    pack(source, "leaning", *options, "--weights", "state_dict")
    state = torch.load(root / "leaning" / "1" / "weights.pth")
    shutil.copytree(root / "leaning", root / "straight")
    (root / "straight" / "1" / "weights.pth").unlink()
    safetensors.torch.save_file({"weight": state["weight"].contiguous()},
                                root / "straight" / "1" / "model.safetensors")
    x = np.array([1, 2, 3], np.float32)
    with torch.inference_mode():
        expected = aoti_nets.turned()(torch.from_numpy(x)).numpy()
    for name in ("leaning", "straight"):
        with pack_server.client() as client:
            client.load_model(name)
        np.testing.assert_allclose(answers_of(pack_server, name, ("x", "FP32", x))[0], expected, rtol=0, atol=1e-5)


def test_what_aoti_cannot_serve_is_refused_with_the_way_out(pack, tmp_path):
    factory = f"{pathlib.Path(aoti_nets.__file__)}:counter"
    told = pack(factory, "counter", "--format", "aoti", "--example", "x=3x12:FP32", code=1)
    assert "'count'" in told and "--format torchscript" in told
    script = models.save(pack_nets.Net(1), tmp_path / "net.pt")
    assert "MODULE:FACTORY" in pack(script, "script", "--format", "aoti", *EXAMPLE, code=2)
    assert "--example" in pack(factory, "counter", "--format", "aoti", code=2)
    assert "torch.export" in pack(factory, "counter", "--format", "aoti", "--example", "x=3x12:FP32", "--trace", code=2)


BRANCH = """import torch


class Branch(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x
"""
COMPILER = """#!/bin/sh
case "$*" in
  *.wrapper.cpp*) echo "wrapper.cpp:7:1: note: pages of code" >&2
                  echo "wrapper.cpp:7:1: error: nothing is right here" >&2; exit 1;;
esac
exec g++ "$@"
"""


def told_briefly(tmp_path, *arguments, **environment):
    (tmp_path / "logs").mkdir()
    packing = as_a_process(*arguments, "--repository", tmp_path / "new", "--format", "aoti",
                           TMPDIR=str(tmp_path / "logs"), **environment)
    _, complaint = packing.communicate(timeout=daemon.PATIENCE)
    assert packing.returncode == 1
    (sentence,) = re.findall("^hearth-pack: .*$", complaint, re.MULTILINE)
    (log,) = (tmp_path / "logs").glob("hearth-pack-*.log")
    assert f"; all of it is in {log}" in sentence and len(sentence) < 1000
    return sentence, complaint, log.read_text()


def test_what_cannot_be_exported_is_told_with_its_line_and_without_pages_of_code(tmp_path):
    (tmp_path / "branch.py").write_text(BRANCH)
    sentence, complaint, log = told_briefly(tmp_path, f"{tmp_path / 'branch.py'}:Branch", "--example", "x=2x4:FP32")
    assert "torch.export cannot export Branch: Could not guard on data-dependent expression" in sentence
    assert f"{tmp_path / 'branch.py'}:6" in sentence
    assert "torch.ops.aten" not in complaint and "torch.ops.aten" in log and "Traceback" in log


def test_what_does_not_compile_is_told_with_the_compilers_last_error(tmp_path):
    (tmp_path / "compiler").write_text(COMPILER)
    (tmp_path / "compiler").chmod(0o755)
    sentence, _, log = told_briefly(
        tmp_path, "pack_nets:Plain", "--example", "x=2x4:FP32", CXX=str(tmp_path / "compiler"),
        TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    assert "AOTInductor cannot compile the model: wrapper.cpp:7:1: error: nothing is right here; all" in sentence
    assert "pages of code" in log


def test_without_a_compiler_aoti_says_so(pack, monkeypatch):
    def none():
        raise RuntimeError("no compiler")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", none)
    told = pack(f"{pathlib.Path(aoti_nets.__file__)}:net", "none", *AOTI, code=1)
    assert "C++ compiler" in told and "g++" in told


def test_a_package_is_no_source(pack, tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        archive.writestr("net/data/aotinductor/model/a.so", b"x")
    assert "compiled already" in pack(tmp_path / "net.pt2", "again", code=2)
