"""Weights on a device of their own, rehearsed on the test devices of the configuration (devices.fake)."""

import json

import numpy as np
import pytest
import torch

import aoti_nets
import models
import test_aoti
import test_formats
from test_aoti import folder, one_thread, package  # noqa: F401  (fixtures)
from test_models import ask
from test_protocol import FLOATS, floats, refusal, request, take_turns

MIB = 1 << 20
FAKE = {"devices": {"fake": {"count": 2, "memory": "64MiB"}}}


def on(device, folder, options=""):
    (folder / "model.yaml").write_text(f"device: {device}\n{options}")


def test_every_format_of_weights_answers_there_as_eager_pytorch_to_the_bit(start, tmp_path):
    root = tmp_path / "models"
    nets = {}
    for seed, write in enumerate(test_formats.WRITERS):
        name = write.__name__.removeprefix("write_")
        version = root / name / "1"
        nets[name] = test_formats.make(seed)
        test_formats.write_program(version, test_formats.make(seed))
        write(version, test_formats.make(seed))
        on(f"fake:{seed % 2}", version.parent)
        if name not in ("state_dict", "checkpoint"):
            nets[name].turned = nets[name].turned.contiguous()  # the other formats keep no strides
    server = start(root, config=FAKE)
    for name, net in nets.items():
        for batch in (1, 2, 16):
            values = np.random.default_rng(batch).normal(size=(batch, 4)).astype(np.float32)
            with torch.inference_mode():
                expected = net(torch.from_numpy(values)).numpy()
            assert ask(server, name, values).tobytes() == expected.tobytes(), name
    for row in json.loads(server.cli("ps", "--json").stdout)["models"]:
        assert row["bytes"]["device"] > 0 and row["bytes"]["mapped"] == 0, row
    assert server.metric("hearth_resident_bytes", dimension="device") > 0
    assert server.metric("hearth_resident_bytes", dimension="mapped") == 0


def test_a_package_answers_there_as_pythons_loader_does(start, tmp_path, package):
    root = tmp_path / "models"
    module = aoti_nets.net()
    test_aoti.write_model(root, "net", package, module, yaml="device: fake:1\n" + test_aoti.YAML)
    server = start(root, config=FAKE)
    reference = test_aoti.Own(package, module)
    for batch in (1, 2, 16):
        inputs = test_aoti.inputs_of(batch)
        for ours, theirs in zip(test_aoti.ask(server, "net", *inputs), reference(*inputs)):
            assert ours.tobytes() == theirs.tobytes()
    row, = json.loads(server.cli("ps", "--json").stdout)["models"]
    assert row["bytes"]["device"] > 0 and row["bytes"]["mapped"] == 0, row


def test_the_copy_to_the_device_is_a_phase_of_the_load(start, tmp_path):
    root = tmp_path / "models"
    file = models.write_model(root, "big", models.Affine(3.0, size=5 * MIB))
    on("fake:0", file.parents[1])
    report = json.loads(start(root, config=FAKE).cli("profile", "big", "--json").stdout)
    phase, = (phase for phase in report["phases"] if phase["name"] == "to_device")
    assert phase["bytes"] == 2 * 4 * 5 * MIB and phase["ms"] > 0
    assert "populate" not in {phase["name"] for phase in report["phases"]}


def test_a_file_that_is_overwritten_there_harms_no_answer(start, tmp_path):
    root = tmp_path / "models"
    file = models.write_model(root, "net", models.Affine(3.0, size=MIB))
    on("fake:0", file.parents[1])
    server = start(root, config=FAKE)
    ones = np.ones((1, MIB), np.float32)
    assert ask(server, "net", ones)[0, -1] == 3
    file.write_bytes(b"overwritten, and cut short")
    assert ask(server, "net", ones)[0, -1] == 3


def test_models_beyond_the_devices_budget_take_turns_and_hurt_no_answer(start, tmp_path):
    """Eight models of 8 MiB where three fit."""
    root = tmp_path / "models"
    for i in range(8):
        file = models.write_model(root, f"m{i}", models.Affine(float(i), size=MIB))
        on("fake:0", file.parents[1])
    budget = 28 * MIB
    server = start(root, config={**FAKE, "cache": {"budget": {"device": "28MiB"}}})
    most = [0]

    def look():
        most[0] = max(most[0], server.metric("hearth_resident_bytes", dimension="device"))

    failures = take_turns(server, 8, MIB, steps=16, after_each=look)
    assert not failures, failures[:5]
    assert 0 < most[0] <= budget
    assert server.metric("hearth_evictions_total", reason="capacity") > 0


@pytest.mark.parametrize("device, code, words", [
    ("fake:0", "FAILED_PRECONDITION", "devices.fake.count"),  # a test device, and there are none
    ("toaster", "INVALID_ARGUMENT", "'toaster'"),
])
def test_a_device_that_there_is_not_is_refused_with_a_sentence(start, tmp_path, device, code, words):
    root = tmp_path / "models"
    file = models.write_model(root, "net", models.Affine(3.0))
    on(device, file.parents[1])
    got, text = refusal(start(root), request("net", floats(values=FLOATS)))
    assert got == code and words in text, (got, text)
