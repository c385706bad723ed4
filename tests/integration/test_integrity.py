"""Weights that are not what their files' checksums say, in every format that has checksums."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest
import torch
import tritonclient.utils as triton

import aoti_nets
import models
import test_aoti
from hearth_pack import weights as pack_weights
from test_aoti import folder, package  # fixtures
from test_formats import write_program
from test_protocol import answers_of, refusal, request
from test_tensors import write_shards


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.first = torch.nn.Linear(16, 32)
        self.second = torch.nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


X = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 16)


class Kind:
    """A model of one format in a folder of its own: what to ask, what to hear, and where to do damage."""

    def __init__(self, root, name, file, weight, named, expected, inputs, yaml=""):
        self.root, self.name, self.file, self.named = root, name, pathlib.Path(file), named
        self.expected, self.inputs, self.yaml = expected, inputs, yaml
        self._weight = weight.detach().contiguous().numpy().tobytes()

    def configure(self, text):
        (self.root / self.name / "model.yaml").write_text(self.yaml + text)

    def damage(self):
        """Another file in its place, with one bit of one weight changed."""
        content = bytearray(self.file.read_bytes())
        at = content.index(self._weight)
        content[at + len(self._weight) // 2] ^= 1
        self.replace(bytes(content))

    def replace(self, content):
        (self.file.parent / "next").write_bytes(content)
        (self.file.parent / "next").rename(self.file)

    def message(self):
        return request(self.name, *((name, kind, list(array.shape), array.tobytes())
                                    for name, kind, array in self.inputs))

    def check(self, server):
        for got, expected in zip(answers_of(server, self.name, *self.inputs), self.expected):
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def of_net(root, name, file, named):
    net = Net().eval()
    with torch.no_grad():
        expected = [net(torch.from_numpy(X)).numpy()]
    return Kind(root, name, file, net.second.weight, named, expected, [("x", "FP32", X)])


def torchscript(root, _):
    return of_net(root, "script", models.write_model(root, "script", Net()), "record 'data/")


def safetensors(root, _):
    version = root / "packed" / "1"
    write_program(version, Net().eval(), keep=())
    pack_weights.write(version, Net().state_dict())
    return of_net(root, "packed", version / "model.safetensors", "'second.weight'")


def torch_save(root, _):
    version = root / "saved" / "1"
    write_program(version, Net().eval(), keep=())
    torch.save(Net().state_dict(), version / "weights.pth")
    return of_net(root, "saved", version / "weights.pth", "'second.weight'")


def torch_save_shards(root, _):
    """The damage is in the second of them."""
    version = root / "shards" / "1"
    write_program(version, Net().eval(), keep=())
    named = list(Net().state_dict().items())
    write_shards(version, [dict(named[:2]), dict(named[2:])], "pytorch_model", ".bin", torch.save)
    return of_net(root, "shards", version / "pytorch_model-00002-of-00002.bin", "'second.weight'")


def aoti(root, compiled):
    module = aoti_nets.net(0)
    version = test_aoti.write_model(root, "compiled", compiled, module)
    arrays = test_aoti.inputs_of(3)
    inputs = [(name, "FP32", array) for name, array in zip(("x", "bias"), arrays)]
    return Kind(root, "compiled", version / "model.safetensors", module.second.weight, "'second.weight'",
                test_aoti.eager(module, *arrays), inputs, test_aoti.YAML)


KINDS = [torchscript, safetensors, torch_save, torch_save_shards, aoti]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request, tmp_path):
    compiled = request.getfixturevalue("package") if request.param is aoti else None
    return request.param(tmp_path / "repository", compiled)


def test_a_damaged_tensor_is_refused_by_name_on_load(start, kind):
    kind.configure("integrity: on-load\n")
    server = start(kind.root)
    kind.check(server)
    kind.damage()
    with server.client() as client:
        client.unload_model(kind.name)
        with pytest.raises(triton.InferenceServerException, match=re.escape(kind.named)):
            client.load_model(kind.name)
    code, text = refusal(server, kind.message())
    assert kind.file.name in text and kind.named in text, (code, text)
    assert server.terminate() == 0


def test_a_whole_model_is_verified_while_it_serves(start, kind):
    kind.configure("integrity: background\n")
    server = start(kind.root)
    kind.check(server)
    assert server.wait_for("weights verified")["model"] == f"{kind.name}:1"
    kind.check(server)
    assert server.metric("hearth_verified_models_total", result="whole") == 1
    assert server.metric("hearth_verified_models_total", result="damaged") == 0
    assert server.terminate() == 0


@pytest.mark.parametrize("residency", ["populated", "sealed"])
def test_damage_found_while_a_model_serves_ends_in_a_clear_refusal_until_the_file_is_replaced(start, kind, residency):
    kind.configure(f"integrity: background\nresidency: {residency}\n")
    good = kind.file.read_bytes()
    kind.damage()
    server = start(kind.root, config={"cache": {"failure_backoff": "1ms", "max_failure_backoff": "1ms"}})
    with server.client() as client:
        client.load_model(kind.name)
        assert server.wait_for("weights damaged")["model"] == f"{kind.name}:1"
        assert server.metric("hearth_verified_models_total", result="damaged") == 1
        for _ in range(3):  # the resident one, then two loads
            code, text = refusal(server, kind.message())
            assert code == "DATA_LOSS" and kind.file.name in text and kind.named in text, (code, text)
        assert server.metric("hearth_evictions_total", reason="data_loss") == 1
        assert server.metric("hearth_loads_total", code="OK") == 1
        assert server.metric("hearth_verified_models_total", result="damaged") == 1
        kind.replace(good)
        client.load_model(kind.name)
        kind.check(server)
        assert server.wait_for("weights verified")["model"] == f"{kind.name}:1"
    assert server.terminate() == 0


def test_a_sealed_package_is_out_of_reach_of_what_happens_to_its_weights(start, tmp_path, package):
    kind = aoti(tmp_path / "repository", package)
    kind.configure("residency: sealed\nintegrity: on-load\n")
    server = start(kind.root)
    kind.check(server)
    size = kind.file.stat().st_size
    assert server.metric("hearth_resident_bytes", dimension="mapped") == 0
    assert server.metric("hearth_resident_bytes", dimension="host") >= size
    with open(kind.file, "r+b") as file:
        file.write(b"\x55" * size)
        file.truncate(1024)
    kind.check(server)
    shutil.rmtree(kind.file.parent)
    kind.check(server)
    with server.client() as client:
        client.unload_model(kind.name)
    assert server.metric("hearth_resident_bytes", dimension="host") < size
    assert server.terminate() == 0


def same_weights(root, name):
    """One of several models whose files state the same checksums."""
    version = root / name / "1"
    write_program(version, Net().eval(), keep=())
    pack_weights.write(version, Net().state_dict())
    return of_net(root, name, version / "model.safetensors", "'second.weight'")


def test_a_model_whose_files_are_whole_is_not_refused_for_the_damaged_ones_it_would_share(start, tmp_path):
    root = tmp_path / "repository"
    bad, good = same_weights(root, "bad"), same_weights(root, "good")
    bad.damage()
    good.configure("integrity: on-load\n")
    server = start(root)
    with server.client() as client:
        client.load_model("bad")  # unverified, and mapped first
        client.load_model("good")
        good.check(server)
    assert server.terminate() == 0


def test_damage_found_by_one_model_is_told_to_those_who_share_the_file(start, tmp_path):
    root = tmp_path / "repository"
    bad, good = same_weights(root, "bad"), same_weights(root, "good")
    bad.damage()
    server = start(root)
    with server.client() as client:
        client.load_model("bad")
        client.load_model("good")  # of the same bytes, as the files state
        assert server.wait_for("model ready")["model"]
        bad.configure("integrity: background\n")
        client.load_model("bad")
        server.wait_for("weights damaged")
        code, text = refusal(server, good.message())
        assert code == "DATA_LOSS" and "bad/1/model.safetensors" in text, (code, text)
        good.check(server)  # loaded anew, from its own file
        good.check(server)
    assert server.terminate() == 0


def test_verifying_is_a_phase_of_the_load(start, kind):
    kind.configure("integrity: on-load\n")
    server = start(kind.root)
    report = json.loads(server.cli("profile", kind.name, "--json").stdout)
    phases = {phase["name"]: phase for phase in report["phases"]}
    assert phases["verify"]["ms"] > 0 and phases["verify"]["bytes"] > 0, phases
    assert server.metric("hearth_load_phase_seconds_count", phase="verify") == 1
