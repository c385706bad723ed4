"""What hearth is for: weights stay in their files. And nothing is left behind."""

import gc
import json
import os
import pathlib
import re

import numpy as np
import pytest
import torch

import models
from hearth_pack import safetensors
from test_formats import write_program
from test_protocol import floats, infer_floats, refusal, request

MIB = 1 << 20


class Wide(torch.nn.Module):
    """`layers` square matrices; each is used."""

    def __init__(self, layers, width):
        super().__init__()
        self.weights = torch.nn.ParameterList(
            [torch.nn.Parameter(torch.zeros(width, width), requires_grad=False)
             for _ in range(layers)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for weight in self.weights:
            x = x + x @ weight
        return x


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """2 GiB of weights. Removed afterwards: the disk has other uses."""
    root = tmp_path_factory.mktemp("big")
    width = 8192  # 256 MiB each
    module = Wide(8, width)
    for i, weight in enumerate(module.weights):
        weight[i, i + 1] = 2.0  # one number each that the answer depends on
    file = models.write_model(root, "wide", module)
    x = torch.linspace(-1, 1, width)[None, :]
    with torch.no_grad():
        expected = module(x).numpy()
    del module
    gc.collect()
    yield root, file, x.numpy(), expected
    file.unlink()


def mapped_bytes(server, file):
    """How much of `file` stands in the process's address space, and how much it made its own."""
    size = own = 0
    inside = False
    for line in pathlib.Path(f"/proc/{server.process.pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(str(file))
        elif inside and line.startswith(("Size:", "Anonymous:")):
            kib = int(line.split()[1]) * 1024
            size, own = (size + kib, own) if line.startswith("Size:") else (size, own + kib)
    return size, own


def test_two_gib_of_weights_answer_within_512_mib_of_private_memory(start, big):
    """The kernel's limit counts whatever may be written to: the mapping of the file is not of it."""
    root, file, values, expected = big
    size = file.stat().st_size
    assert size > 2 << 30
    server = start(root, data_limit=512 * MIB)
    with server.client() as client:
        for _ in range(2):
            assert infer_floats(client, "wide", values=values).tobytes() == expected.tobytes()
    mapped, own = mapped_bytes(server, file)
    assert mapped >= size and own < MIB, (mapped, own)
    assert server.memory("VmData") < 512 * MIB
    assert server.memory("RssAnon") < 256 * MIB
    assert server.terminate() == 0


class Headed(torch.nn.Module):
    """A base that all have, and a head of one's own."""

    WIDTH = 2048

    def __init__(self, number):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.base = torch.nn.Parameter(torch.randn(self.WIDTH, 4 * self.WIDTH, generator=generator), False)
        generator.manual_seed(100 + number)
        self.head = torch.nn.Parameter(torch.randn(4 * self.WIDTH, 3, generator=generator), False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ self.base) @ self.head


class Quiet:
    def update(self, count):
        pass


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Ten models, each with a file of its own that has all of its weights, as `hearth pack` writes it."""
    root = tmp_path_factory.mktemp("heads")
    x = torch.linspace(-1, 1, Headed.WIDTH)[None, :]
    expected = []
    for i in range(10):
        module = Headed(i).eval()
        write_program(root / f"head{i}" / "1", Headed(i).eval(), keep=())
        safetensors.write(root / f"head{i}" / "1" / "model.safetensors", dict(module.named_parameters()), Quiet())
        expected.append(module(x).numpy())
    yield root, x.numpy(), expected
    for file in root.rglob("*.safetensors"):
        file.unlink()


def test_ten_heads_on_one_base_take_the_memory_of_one(start, heads):
    root, values, expected = heads
    base = 4 * Headed.WIDTH ** 2 * 4
    one = sum(file.stat().st_size for file in (root / "head0" / "1").iterdir())
    # Room for one, a tenth more, and nothing else: that it answers with all ten resident is the test.
    server = start(root, config={"cache": {"budget": {"mapped": f"{int(1.1 * one)}B"}}})

    def ask(client, *numbers):
        for i in numbers:
            assert infer_floats(client, f"head{i}", values=values).tobytes() == expected[i].tobytes(), i

    with server.client() as client:
        ask(client, 0)
        alone = server.memory("RssFile")
        ask(client, *range(10))
        # Files that are mapped twice count twice here.
        assert server.memory("RssFile") - alone < 0.1 * base
        assert server.metric("hearth_resident_bytes", dimension="mapped") <= 1.1 * one
        assert not any(event.get("msg") == "model evicted" for event in map(json.loads, server.lines))
        for i in range(10):
            load = json.loads(server.cli("profile", f"head{i}", "--json").stdout)
            assert load["shared_bytes"] == (base if i else 0), i

        # Everybody uses the file of head0.
        charged = server.metric("hearth_resident_bytes", dimension="mapped")
        client.unload_model("head0")
        freed = charged - server.metric("hearth_resident_bytes", dimension="mapped")
        assert 0 < freed < 0.1 * base
        ask(client, *range(1, 10))
        for i in range(1, 10):
            client.unload_model(f"head{i}")
        assert server.metric("hearth_resident_bytes", dimension="mapped") == 0
        assert alone - server.memory("RssFile") > 0.9 * base
    assert server.terminate() == 0


@pytest.fixture
def one_head(tmp_path):
    """A model in a folder of its own, its file of weights, a question and PyTorch's answer."""
    folder = tmp_path / "repository" / "head" / "1"
    module = Headed(0).eval()
    write_program(folder, Headed(0).eval(), keep=())
    weights = folder / "model.safetensors"
    safetensors.write(weights, dict(module.named_parameters()), Quiet())
    x = torch.linspace(-1, 1, Headed.WIDTH)[None, :]
    yield tmp_path / "repository", weights, x.numpy(), module(x).detach().numpy()
    weights.unlink(missing_ok=True)


@pytest.mark.parametrize("residency", ["mapped", "populated", "locked", "sealed"])
def test_wherever_the_weights_are_the_answer_is_the_same(start, one_head, residency):
    root, weights, values, expected = one_head
    size = weights.stat().st_size
    (root / "head" / "model.yaml").write_text(f"residency: {residency}\nintegrity: on-load\n")
    server = start(root, config={"cache": {"drop_page_cache": True}})
    with server.client() as client:
        assert infer_floats(client, "head", values=values).tobytes() == expected.tobytes()
        on_files, private = (server.metric("hearth_resident_bytes", dimension=d) for d in ("mapped", "host"))
        if residency == "sealed":
            assert on_files == 0 and private >= size
            with open(weights, "r+b") as file:
                file.write(b"\x55" * size)
                file.truncate(4096)
            assert infer_floats(client, "head", values=values).tobytes() == expected.tobytes()
        else:
            assert on_files >= size - 8192 and private < size
        locked = server.memory("VmLck")
        told = any("residency: locked" in event.get("msg", "") for event in map(json.loads, server.lines))
        assert (locked >= size - 8192 or told) if residency == "locked" else (locked == 0 and not told)
        client.unload_model("head")
        assert server.metric("hearth_resident_bytes", dimension="mapped") == 0
        assert server.memory("VmLck") == 0
    assert server.terminate() == 0


def test_weights_that_differ_from_their_checksum_are_refused_where_asked_for(start, one_head):
    root, weights, values, expected = one_head
    (root / "head" / "model.yaml").write_text("integrity: on-load\n")
    with open(weights, "r+b") as file:
        file.seek(weights.stat().st_size - 1)  # of the head: it is the last tensor
        last = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([last ^ 1]))
    server = start(root)
    code, text = refusal(server, request("head", floats(values=values)))
    assert code == "DATA_LOSS" and "'head'" in text and "model.safetensors" in text, (code, text)
    assert server.terminate() == 0


def held_by(server):
    """What a process may lose a little of with every load."""
    proc = pathlib.Path(f"/proc/{server.process.pid}")
    return {"memory": server.memory("VmRSS"), "mappings": len((proc / "maps").read_text().splitlines()),
            "descriptors": len(os.listdir(proc / "fd")), "threads": len(os.listdir(proc / "task"))}


def test_ten_thousand_loads_and_evictions_leave_nothing_behind(start, tmp_path):
    root = tmp_path / "repository"
    size = 64 << 10  # numbers
    for i in range(4):
        models.write_model(root, f"m{i}", models.Affine(float(i), size=size))
    server = start(root, config={"cache": {"budget": {"mapped": 12 * size}}})  # of one and a half
    values = np.ones((1, size), np.float32)
    stub = server.stub()

    def cycles(count):
        for step in range(count):
            answer = stub.ModelInfer(request(f"m{step % 4}", floats(values=values)))
            assert np.frombuffer(answer.raw_output_contents[0], np.float32)[0] == step % 4

    cycles(1000)  # the allocator's and the JIT's pools have found their size
    before = held_by(server)
    cycles(10000)
    after = held_by(server)
    assert server.metric("hearth_evictions_total", reason="capacity") >= 10990
    assert after["memory"] - before["memory"] < 16 * MIB, (before, after)
    assert after["mappings"] - before["mappings"] < 50, (before, after)
    assert after["descriptors"] - before["descriptors"] < 5, (before, after)
    assert after["threads"] - before["threads"] < 3, (before, after)
