"""A model on a device falls tier by tier, host, mapped, cold, and rises by the cheapest path: on the test device."""

import json
import os
import pathlib
import re

import numpy as np
import pytest
import torch

import aoti_nets
import models
import test_aoti
import test_formats
from test_aoti import folder, package  # noqa: F401  (fixtures)
from test_models import ask
from test_operations import wait_until

MIB = 1 << 20
SIZE = MIB  # numbers; twice that many are weights
WEIGHTS = 2 * 4 * SIZE


class Blend(torch.nn.Module):
    """All of its weights, 8 MiB, count, and no two of them give the same answer."""

    def __init__(self, seed, size=SIZE):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.scale = torch.nn.Parameter(torch.randn(size, generator=generator), requires_grad=False)
        self.shift = torch.nn.Parameter(torch.randn(size, generator=generator), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x * self.scale) + self.shift


def row_of(server, name):
    row, = [row for row in json.loads(server.cli("ps", "--json").stdout)["models"] if row["name"] == name]
    return row


class Fleet:
    """Models of one device that has room for one of them."""

    def __init__(self, start, root, count=3, **cache):
        self.values = np.linspace(-2, 2, SIZE, dtype=np.float32)[None, :]
        self.expected, self.files = {}, {}
        for i in range(count):
            self.write(root, f"m{i}", i)
        self.server = start(root, config={
            "devices": {"fake": {"count": 1, "memory": "64MiB"}},
            "cache": {"budget": {"device": "10MiB", "mapped": "30MiB"}, "eviction": "lru", **cache}})

    def write(self, root, name, seed, device="fake:0"):
        net = Blend(seed)
        self.files[name] = models.write_model(root, name, net, options=f"device: {device}\n")
        with torch.inference_mode():
            self.expected[name] = net(torch.from_numpy(self.values)).numpy().tobytes()

    def ask(self, name):
        assert ask(self.server, name, self.values).tobytes() == self.expected[name], name

    def rows(self):
        return {row["name"]: row for row in json.loads(self.server.cli("ps", "--json").stdout)["models"]}

    def states(self):
        return {name: row["state"] for name, row in self.rows().items()}

    def reach(self, **states):
        """Falling to the host takes a thread in the background."""
        wait_until(lambda: self.states() == states)

    def phases(self, name):
        return set(self.rows()[name]["load_phases"])

    def in_memory(self, name):
        """Bytes of its file that stand in the process's address space, and those that are in memory."""
        size = resident = 0
        inside = False
        for line in pathlib.Path(f"/proc/{self.server.process.pid}/smaps").read_text().splitlines():
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                inside = line.endswith(str(self.files[name]))
            elif inside and line.startswith("Size:"):
                size += int(line.split()[1]) * 1024
            elif inside and line.startswith("Rss:"):
                resident += int(line.split()[1]) * 1024
        return size, resident


@pytest.fixture
def fleet(start, tmp_path):
    return Fleet(start, tmp_path / "models")


def test_each_rung_is_seen_and_every_answer_is_pytorchs_to_the_bit(fleet, tmp_path):
    server = fleet.server
    fleet.ask("m0")
    fleet.reach(m0="ready")
    assert fleet.rows()["m0"]["loaded_from"] == "cold" and "open" in fleet.phases("m0")

    fleet.ask("m1")
    fleet.reach(m0="host", m1="ready")
    row = fleet.rows()["m0"]["bytes"]
    assert row["device"] == 0 and row["host"] == 0 and row["mapped"] >= WEIGHTS, row
    size, resident = fleet.in_memory("m0")
    assert size >= WEIGHTS and resident >= WEIGHTS
    fleet.ask("m2")
    fleet.reach(m0="host", m1="host", m2="ready")
    assert server.metric("hearth_rest_bytes", dimension="mapped") >= 2 * WEIGHTS
    assert server.metric("hearth_resident_bytes", dimension="mapped") >= 2 * WEIGHTS

    # From the host: allocated, copied, bound. The program was kept.
    for name, others in [("m0", ("m1", "m2")), ("m1", ("m0", "m2"))]:
        fleet.ask(name)
        fleet.reach(**{name: "ready"}, **{other: "host" for other in others})
        assert fleet.rows()[name]["loaded_from"] == "host"
        assert {"to_device", "bind"} <= fleet.phases(name)
        assert not {"open", "read", "populate", "warm_up"} & fleet.phases(name), fleet.phases(name)
        assert "loaded from host" in server.cli("why", name).stdout
        assert json.loads(server.cli("profile", name, "--json").stdout)["from"] == "host"

    # Who needs the memory gets it before a model has to leave: two on the CPU.
    fleet.write(tmp_path / "models", "cpu0", 10, device="cpu")
    fleet.write(tmp_path / "models", "cpu1", 11, device="cpu")
    server.cli("load", "cpu0")
    server.cli("load", "cpu1")
    fleet.ask("cpu0")
    fleet.ask("cpu1")
    states = fleet.states()
    assert states["m1"] == states["cpu0"] == states["cpu1"] == "ready"
    assert sorted((states["m0"], states["m2"])) == ["host", "mapped"]
    fell = "m0" if states["m0"] == "mapped" else "m2"
    assert not any(fleet.rows()[fell]["bytes"].values())
    size, resident = fleet.in_memory(fell)
    assert size >= WEIGHTS and resident < MIB, "its file stays mapped, its pages are gone"
    assert "its files stay open (mapped)" in server.cli("why", fell).stdout
    assert json.loads(server.cli("why", fell, "--json").stdout)["state"] == "mapped"

    server.cli("unload", "cpu1")
    fleet.ask(fell)
    assert fleet.rows()[fell]["loaded_from"] == "mapped"
    assert not {"open", "warm_up"} & fleet.phases(fell), fleet.phases(fell)

    for tier, least in (("cold", 3), ("mapped", 1), ("host", 2)):
        assert server.metric("hearth_rises_total", **{"from": tier}) >= least
    events = [json.loads(line) for line in server.cli("events", fell, "--json").stdout.splitlines()]
    assert [event["tier"] for event in events if event["kind"] == "fell"][-2:] == ["host", "mapped"]
    risen = [event["tier"] for event in events if event["kind"] == "ready"]
    assert risen[0] == "cold" and risen[-1] == "mapped"


def test_files_that_changed_while_they_lay_open_are_read_anew(fleet, tmp_path):
    fleet.ask("m0")
    fleet.ask("m1")
    fleet.reach(m0="host", m1="ready")
    fresh = tmp_path / "fresh"
    fleet.write(fresh, "m0", 7)  # and what to expect from now on
    served = tmp_path / "models" / "m0" / "1" / "model.pt"
    os.replace(fleet.files["m0"], served)
    fleet.files["m0"] = served
    fleet.ask("m0")
    assert fleet.rows()["m0"]["loaded_from"] == "cold"
    fleet.reach(m0="ready", m1="host")

    served = tmp_path / "models" / "m1" / "1" / "model.pt"
    served.write_bytes(served.read_bytes()[: WEIGHTS // 2])  # cut short under its mapping
    text = fleet.server.cli("load", "m1", check=False).stderr
    assert "m1/1/model.pt" in text, text
    fleet.ask("m0")
    assert "m1" not in {name for name, state in fleet.states().items() if state != "failed"}


def test_an_unload_closes_its_files(fleet):
    fleet.ask("m0")
    fleet.ask("m1")
    fleet.reach(m0="host", m1="ready")
    fleet.server.cli("unload", "m0")
    assert fleet.states() == {"m1": "ready"}
    assert fleet.in_memory("m0") == (0, 0)
    assert fleet.server.metric("hearth_rests", tier="host") == 0


def test_evict_goes_down_step_by_step(fleet):
    fleet.ask("m0")
    fleet.server.cli("evict", "m0")
    fleet.reach(m0="host")
    assert fleet.server.metric("hearth_resident_bytes", dimension="device") == 0
    fleet.server.cli("evict", "m0")
    assert fleet.states() == {}
    assert fleet.in_memory("m0") == (0, 0)
    fleet.ask("m0")
    assert fleet.rows()["m0"]["loaded_from"] == "cold"


def test_no_more_rests_are_kept_than_the_configuration_says(start, tmp_path):
    fleet = Fleet(start, tmp_path / "models", count=4, rests=2)
    for name in ("m0", "m1", "m2", "m3"):
        fleet.ask(name)
    fleet.reach(m1="host", m2="host", m3="ready")
    assert fleet.in_memory("m0") == (0, 0)
    none = Fleet(start, tmp_path / "others", count=2, rests=0)
    none.ask("m0")
    none.ask("m1")
    assert none.states() == {"m1": "ready"}
    assert none.in_memory("m0") == (0, 0)


def test_every_format_of_weights_rises_to_the_same_answers(start, tmp_path):
    root = tmp_path / "models"
    nets = {}
    for seed, write in enumerate(test_formats.WRITERS):
        name = write.__name__.removeprefix("write_")
        nets[name] = test_formats.make(seed)
        test_formats.write_program(root / name / "1", test_formats.make(seed))
        write(root / name / "1", test_formats.make(seed))
        (root / name / "model.yaml").write_text("device: fake:0\n")
        if name not in ("state_dict", "checkpoint"):
            nets[name].turned = nets[name].turned.contiguous()  # the other formats keep no strides
    server = start(root, config={"devices": {"fake": {"count": 1}}})
    values = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
    for name, net in nets.items():
        with torch.inference_mode():
            expected = net(torch.from_numpy(values)).numpy()
        for tier in ("cold", "host"):
            assert ask(server, name, values).tobytes() == expected.tobytes(), name
            assert row_of(server, name)["loaded_from"] == tier
            server.cli("evict", name)
            wait_until(lambda: row_of(server, name)["state"] == "host") 


def test_a_package_rises_to_the_same_answers(start, tmp_path, package):
    root = tmp_path / "models"
    module = aoti_nets.net()
    test_aoti.write_model(root, "net", package, module, yaml="device: fake:0\n" + test_aoti.YAML)
    server = start(root, config={"devices": {"fake": {"count": 1}}})
    reference = test_aoti.Own(package, module)
    inputs = test_aoti.inputs_of(2)
    for tier in ("cold", "host"):
        for ours, theirs in zip(test_aoti.ask(server, "net", *inputs), reference(*inputs)):
            assert ours.tobytes() == theirs.tobytes()
        assert row_of(server, "net")["loaded_from"] == tier
        server.cli("evict", "net")
        wait_until(lambda: row_of(server, "net")["state"] == "host")
