"""Weights on a device of their own, rehearsed on the test devices of the configuration (devices.fake)."""

import json

import numpy as np
import pytest
import torch

import aoti_nets
import hearthd
import models
import test_aoti
import test_formats
from test_aoti import folder, package  # noqa: F401  (fixtures)
from test_models import ask
from test_protocol import FLOATS, floats, refusal, request, take_turns
from test_reload import reload, resident, wait_until, write

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


def budgets(fake0, fake1):
    return {"cache": {"budget": {"device": {"fake:0": fake0, "fake:1": fake1}}}}


def affines(root, **places):
    """Models of 8 MiB: name=device."""
    for factor, (name, device) in enumerate(places.items()):
        file = models.write_model(root, name, models.Affine(float(factor), size=MIB))
        on(f"fake:{device}", file.parents[1])


ONES = np.ones((1, MIB), np.float32)


def test_an_eviction_on_one_device_leaves_the_other_alone(start, tmp_path):
    root = tmp_path / "models"
    affines(root, other=1, a=0, b=0)
    server = start(root, config={**FAKE, **budgets("12MiB", "9MiB")})
    for factor, name in enumerate(("other", "a", "b")):
        assert ask(server, name, ONES)[0, -1] == factor
    assert resident(server) == {"b", "other"}, "the coldest is on the other device, and stays"
    for device, budget in (("fake:0", 12 * MIB), ("fake:1", 9 * MIB)):
        assert server.metric("hearth_budget_bytes", dimension="device", device=device) == budget
        assert 8 * MIB <= server.metric("hearth_resident_bytes", dimension="device", device=device) <= budget

    rows = {row["name"]: row for row in json.loads(server.cli("ps", "--json").stdout)["models"]}
    assert rows["b"]["device"] == "fake:0" and rows["other"]["device"] == "fake:1"
    assert rows["other"]["bytes"]["device"] == 8 * MIB
    assert "8.0 MiB on fake:1" in server.cli("ps").stdout
    assert "fake:0 8.0 MiB of 12.0 MiB, fake:1 8.0 MiB of 9.0 MiB, host " in server.cli("top").stdout
    status = json.loads(server.cli("status", "--json").stdout)
    assert [(row["device"], row["capacity_bytes"], row["used_bytes"]) for row in status["devices"]] == [
        ("fake:0", 12 * MIB, 8 * MIB), ("fake:1", 9 * MIB, 8 * MIB)]
    total = next(row for row in status["budgets"] if row["dimension"] == "device")
    assert total["capacity_bytes"] == 21 * MIB and total["used_bytes"] == 16 * MIB
    assert "fake:1" in server.cli("status").stdout

    why = json.loads(server.cli("why", "a", "--json").stdout)
    assert "8.00 MiB of fake:0" in why["sentence"], why["sentence"]
    assert why["last_eviction"]["bytes"]["devices"] == {"fake:0": 8 * MIB}
    ask(server, "a", ONES)
    plan = {memory["device"]: memory for memory in json.loads(server.cli("plan", "--json").stdout)["memory"]}
    assert plan["fake:0"]["points"] and not plan["fake:1"]["points"] and not plan[None]["points"]


def test_models_on_two_devices_take_turns_and_each_budget_holds(start, tmp_path):
    """Four models of 8 MiB on each device, of which one, and two, fit."""
    root = tmp_path / "models"
    affines(root, **{f"m{i}": i % 2 for i in range(8)})
    limits = {"fake:0": 12 * MIB, "fake:1": 20 * MIB}
    server = start(root, config={**FAKE, **budgets("12MiB", "20MiB")})
    most = dict.fromkeys(limits, 0)

    def look():
        samples = server.metrics()
        for device in limits:
            used = sum(value for (name, labels), value in samples.items() if ("device", device) in labels and
                       name in ("hearth_resident_bytes", "hearth_loading_bytes", "hearth_unloading_bytes"))
            most[device] = max(most[device], used)

    failures = take_turns(server, 8, MIB, steps=16, after_each=look)
    assert not failures, failures[:5]
    for device, limit in limits.items():
        assert 0 < most[device] <= limit


def test_a_refusal_names_the_device_that_is_short(start, tmp_path):
    root = tmp_path / "models"
    affines(root, large=1)
    server = start(root, config={**FAKE, **budgets("12MiB", "7MiB")})
    code, text = refusal(server, request("large", floats(values=ONES)))
    assert code == "FAILED_PRECONDITION", text
    assert "8.00 MiB of fake:1 memory, and 7.00 MiB of the 7.00 MiB of cache.budget.device are left" in text, text


def test_a_budget_of_a_device_that_there_is_not_is_a_mistake_of_the_configuration(start, tmp_path):
    root = tmp_path / "models"
    affines(root, net=0)
    server = hearthd.Hearthd(root, tmp_path, config={**FAKE, "cache": {"budget": {"device": {"fake:2": "1MiB"}}}})
    server.spawn()
    assert server.wait() == 78
    assert "key 'cache.budget.device.fake:2': there is no such device; devices.fake.count is 2" in server.log()


def test_budgets_of_accelerators_that_are_not_there_are_all_named_with_their_place(start, tmp_path):
    root = tmp_path / "models"
    affines(root, net=0)
    device = {"cuda:90": "1MiB", "fake:0": "1MiB", "cuda:91": "1MiB"}
    server = hearthd.Hearthd(root, tmp_path, config={**FAKE, "cache": {"budget": {"device": device}}})
    server.spawn()
    assert server.wait() == 1
    lines = [line for line in server.log().splitlines() if "no such device" in line]
    assert len(lines) == 2, server.log()
    for line, name in zip(lines, ("cuda:90", "cuda:91")):
        assert f"{server.config_file}:" in line and f"'cache.budget.device.{name}': there is no such device; there are " in line


def test_a_reload_that_makes_one_devices_budget_smaller_evicts_there(start, tmp_path):
    root = tmp_path / "models"
    affines(root, a=0, b=1)
    server = start(root, config=FAKE)
    for name in ("a", "b"):
        ask(server, name, ONES)
    changed = reload(server, **budgets("32MiB", "7MiB"))
    assert changed == {"cache.budget.device": ("90%", '{"fake:0": 32MiB, "fake:1": 7MiB}', False)}
    wait_until(lambda: resident(server) == {"a"})
    assert server.metric("hearth_budget_bytes", device="fake:1") == 7 * MIB
    write(server, {"cache": {"budget": {"device": {"fake:7": "1MiB"}}}})
    refused = server.cli("reload", check=False)
    assert refused.returncode == 1 and "'cache.budget.device.fake:7': there is no such device" in refused.stderr, refused.stderr
    assert server.metric("hearth_budget_bytes", device="fake:1") == 7 * MIB


def test_memory_that_a_device_does_not_free_leaves_its_budget(start, tmp_path):
    root = tmp_path / "models"
    affines(root, a=0, b=0, c=1)
    config = {"devices": {"fake": {"count": 2, "memory": "64MiB", "failing_frees": 1}}}
    server = start(root, config={**config, **budgets("20MiB", "20MiB")})
    for name in ("a", "c"):
        ask(server, name, ONES)
    server.cli("evict", "a")
    server.wait_for("memory could not be freed; the budget is smaller by as much until hearthd is started again")
    lost = server.metric("hearth_budget_lost_bytes", device="fake:0")
    assert 0 < lost <= 8 * MIB
    assert server.metric("hearth_budget_bytes", device="fake:0") == 20 * MIB - lost
    assert server.metric("hearth_budget_bytes", device="fake:1") == 20 * MIB
    assert server.metric("hearth_resident_bytes", device="fake:0") == 0
    assert "LOST" in server.cli("status").stdout
    for factor, name in enumerate(("a", "b", "c")):
        assert ask(server, name, ONES)[0, -1] == factor
    assert server.metric("hearth_resident_bytes", device="fake:0") <= 20 * MIB - lost


def test_a_request_whose_victims_take_their_memory_along_hears_at_once_that_it_can_never_fit(start, tmp_path):
    root = tmp_path / "models"
    affines(root, a=0, b=0, c=0)
    config = {"devices": {"fake": {"count": 2, "memory": "64MiB", "failing_frees": 4}}}
    server = start(root, config={**config, **budgets("20MiB", "20MiB")})
    for name in ("a", "b"):
        ask(server, name, ONES)
    code, text = refusal(server, request("c", floats(values=ONES)))
    assert code == "FAILED_PRECONDITION" and "16.0 MiB were lost" in text, text


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
