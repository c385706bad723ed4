"""Weights on a real accelerator, where there is one: what test_devices.py and test_tiers.py rehearse on test devices."""

import json

import numpy as np
import pytest
import torch

import aoti_nets
import models
import test_aoti
import test_formats
from test_aoti import folder  # noqa: F401  (a fixture)
from test_devices import on
from test_models import ask
from test_operations import wait_until
from test_protocol import take_turns
from test_tiers import Blend, row_of

MIB = 1 << 20
SIZE = 16 * MIB  # numbers of a model that counts
WEIGHTS = 2 * 4 * SIZE

pytestmark = pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
DEVICE = f"{torch.accelerator.current_accelerator().type}:0" if torch.accelerator.is_available() else None


@pytest.fixture(autouse=True)
def context():
    """This process's own, and its libraries' memory, before anything is measured."""
    (torch.ones(8, 8, device=DEVICE) @ torch.ones(8, 8, device=DEVICE)).cpu()


def free_bytes():
    """Of the whole device, whoever holds the rest."""
    return torch.accelerator.get_memory_info(0)[0]


def eager(net, *values):
    with torch.inference_mode():
        answer = net.to(DEVICE)(*(torch.from_numpy(value).to(DEVICE) for value in values))
        return [tensor.cpu().numpy() for tensor in (answer if isinstance(answer, tuple) else (answer,))]


def close(ours, theirs):
    return ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def write_blend(root, name, seed, size=SIZE):
    net = Blend(seed, size)
    models.write_model(root, name, net, options=f"device: {DEVICE}\n")
    return net


def test_every_format_of_weights_answers_there_as_eager_pytorch(start, tmp_path):
    root = tmp_path / "models"
    nets = {}
    for seed, write in enumerate(test_formats.WRITERS):
        name = write.__name__.removeprefix("write_")
        version = root / name / "1"
        nets[name] = test_formats.make(seed)
        test_formats.write_program(version, test_formats.make(seed))
        write(version, test_formats.make(seed))
        on(DEVICE, version.parent)
    server = start(root)
    for name, net in nets.items():
        for batch in (1, 2, 16):
            values = np.random.default_rng(batch).normal(size=(batch, 4)).astype(np.float32)
            assert close(ask(server, name, values), *eager(net, values)), name
        row = row_of(server, name)
        assert row["device"] == DEVICE and row["bytes"]["device"] > 0 and row["bytes"]["mapped"] == 0, row


def test_a_whole_archive_answers_there_to_the_bit(start, tmp_path):
    """Elementwise work alone, which has one right answer."""
    net = write_blend(tmp_path / "models", "net", 1)
    values = np.linspace(-2, 2, SIZE, dtype=np.float32)[None, :]
    assert ask(start(tmp_path / "models"), "net", values).tobytes() == eager(net, values)[0].tobytes()


def test_a_package_compiled_for_it_answers_as_pythons_loader_does(start, tmp_path, folder):
    module = aoti_nets.net().to(DEVICE)
    batch = torch.export.Dim("batch", max=64)
    program = torch.export.export(
        module, tuple(torch.from_numpy(array).to(DEVICE) for array in test_aoti.inputs_of(4)),
        dynamic_shapes=({0: batch}, {0: batch}))
    package = test_aoti.compiled(program, folder / "there.pt2", test_aoti.OUTSIDE)
    root = tmp_path / "models"
    test_aoti.write_model(root, "net", package, module.cpu(), yaml=f"device: {DEVICE}\n" + test_aoti.YAML)
    server = start(root)
    for size in (1, 2, 16):
        inputs = test_aoti.inputs_of(size)
        for ours, theirs in zip(test_aoti.ask(server, "net", *inputs), eager(module, *inputs)):
            assert close(ours, theirs)
    row = row_of(server, "net")
    assert row["bytes"]["device"] > 0 and row["bytes"]["mapped"] == 0, row


def test_models_beyond_the_budget_take_turns_and_the_device_agrees(start, tmp_path):
    """Eight models of 128 MiB where three fit: what hearthd says it holds is what the device is short of."""
    root = tmp_path / "models"
    for i in range(8):
        file = models.write_model(root, f"m{i}", models.Affine(float(i), size=SIZE))
        on(DEVICE, file.parents[1])
    budget = 3 * WEIGHTS + 16 * MIB
    server = start(root, config={"cache": {"budget": {"device": f"{budget}B"}}})
    ask(server, "m0", np.ones((1, SIZE), np.float32))
    server.cli("unload", "m0")
    server.cli("load", "m0")
    before = free_bytes() + WEIGHTS
    most, least_free = [0], [before]

    def look():
        most[0] = max(most[0], server.metric("hearth_resident_bytes", dimension="device"))
        least_free[0] = min(least_free[0], free_bytes())

    failures = take_turns(server, 8, SIZE, steps=12, after_each=look)
    assert not failures, failures[:5]
    assert 0 < most[0] <= budget
    requests = 3 * 3 * 4 * SIZE  # three at a time: input, product, sum
    print(f"budget {budget >> 20} MiB, device short of at most {(before - least_free[0]) >> 20} MiB")
    assert before - least_free[0] <= budget + requests + 64 * MIB
    assert server.metric("hearth_evictions_total", reason="capacity") > 0


def test_what_is_unloaded_goes_back_to_the_device(start, tmp_path):
    root = tmp_path / "models"
    values = np.linspace(-2, 2, SIZE, dtype=np.float32)[None, :]
    net = write_blend(root, "net", 1)
    server = start(root)
    ask(server, "net", values)
    server.cli("unload", "net")
    before = free_bytes()
    for _ in range(3):
        server.cli("load", "net")
        assert free_bytes() <= before - WEIGHTS
        assert ask(server, "net", values).tobytes() == eager(net, values)[0].tobytes()
        server.cli("unload", "net")
        wait_until(lambda: free_bytes() >= before - 16 * MIB)


def test_it_falls_and_rises_tier_by_tier(start, tmp_path):
    root = tmp_path / "models"
    values = np.linspace(-2, 2, SIZE, dtype=np.float32)[None, :]
    expected = {name: eager(write_blend(root, name, seed), values)[0].tobytes()
                for seed, name in enumerate(("m0", "m1", "m2"))}
    server = start(root, config={"cache": {"budget": {"device": f"{WEIGHTS + 16 * MIB}B"}, "eviction": "lru"}})
    for name in ("m0", "m1", "m2", "m0", "m1", "m2"):
        assert ask(server, name, values).tobytes() == expected[name], name
        wait_until(lambda: all(row["state"] in ("ready", "host")
                               for row in json.loads(server.cli("ps", "--json").stdout)["models"]))
    row = row_of(server, "m2")
    assert row["loaded_from"] == "host" and {"to_device", "bind"} <= set(row["load_phases"])
    assert not {"open", "populate"} & set(row["load_phases"])
    assert server.metric("hearth_rises_total", **{"from": "host"}) == 3


def test_a_budget_in_percent_is_of_the_devices_memory(start, tmp_path):
    (tmp_path / "models").mkdir()
    server = start(tmp_path / "models", config={"cache": {"budget": {"device": "50%"}}})
    total = torch.accelerator.get_memory_info(0)[1]
    row, = json.loads(server.cli("status", "--json").stdout)["devices"]
    assert row["device"] == DEVICE and row["capacity_bytes"] == total // 2


def test_a_model_larger_than_the_device_is_refused_and_harms_nobody(start, tmp_path):
    """Beyond what the budget says there is, as when another process holds the memory."""
    root = tmp_path / "models"
    values = np.linspace(-2, 2, SIZE, dtype=np.float32)[None, :]
    expected = eager(write_blend(root, "net", 1), values)[0].tobytes()
    write_blend(root, "large", 2, 2 * SIZE)
    server = start(root)
    assert ask(server, "net", values).tobytes() == expected
    hog = torch.empty(free_bytes() - 64 * MIB, dtype=torch.uint8, device=DEVICE)
    refused = server.cli("load", "large", check=False)
    assert refused.returncode != 0 and "memory" in refused.stderr, refused.stderr
    assert server.alive
    del hog
    torch.accelerator.empty_cache()
    assert ask(server, "net", values).tobytes() == expected
    server.cli("load", "large")


def test_state_that_a_model_writes_there_is_each_requests_own(start, tmp_path):
    root = tmp_path / "models"
    file = models.write_model(root, "counter", models.Counter())
    on(DEVICE, file.parents[1])
    server = start(root)
    values = np.zeros((1, 4), np.float32)
    for _ in range(3):
        assert ask(server, "counter", values).tolist() == [[1, 1, 1, 1]]
