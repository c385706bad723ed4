"""Models that are larger than the memory they may have: served from the disk, slowly but right."""

import json
import os
import struct

import numpy as np
import pytest
import torch

import models
from cgroups import memory_group
from test_formats import write_program
from test_protocol import answers_of, floats, infer_floats, refusal, request

MIB, GIB = 1 << 20, 1 << 30


class Table(torch.nn.Module):
    """Looks rows up; has no memory of its own for them."""

    def __init__(self, rows, width):
        super().__init__()
        self.rows = torch.nn.Parameter(torch.zeros(1).expand(rows, width), requires_grad=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding(ids, self.rows) * 2.0


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """64 GiB of weights, nearly all of it a hole in the file; what to ask, and PyTorch's answer."""
    root = tmp_path_factory.mktemp("table")
    folder = root / "table" / "1"
    width = 4096
    count = 64 * GIB // (4 * width)
    program = Table(count, width)
    write_program(folder, program, keep=("rows",))  # hollow as it is
    header = json.dumps({"rows": {"dtype": "F32", "shape": [count, width], "data_offsets": [0, 64 * GIB]}})
    header = header.ljust(4096 - 8).encode()
    weights = folder / "model.safetensors"
    weights.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(weights, 4096 + 64 * GIB)
    rows = torch.from_numpy(np.memmap(weights, np.float32, "r+", 4096, (count, width)))
    ids = torch.tensor([[0, 1, 77_777, count // 2], [count - 1, 3_000_001, 77_777, 5]])
    torch.manual_seed(1)
    rows[ids[:, :3].reshape(-1)] = torch.randn(6, width)  # the last of each row of `ids` stays zeros
    program.rows = torch.nn.Parameter(rows, requires_grad=False)
    expected = program(ids).numpy()
    assert expected[0, 0].any() and not expected[0, 3].any()
    assert weights.stat().st_blocks * 512 < 8 * MIB
    yield root, ids.numpy(), expected
    weights.unlink()


BUDGET = {"mapped": "1GiB"}


@pytest.mark.parametrize("options", ["", "residency: populated\n"])
def test_a_table_64_times_the_budget_answers_from_a_few_pages(start, table, options):
    root, ids, expected = table
    (root / "table" / "model.yaml").write_text(options)
    server = start(root, config={"cache": {"budget": BUDGET, "mapped_window": "64MiB"}})
    before = server.memory("RssFile")
    for _ in range(2):
        answer, = answers_of(server, "table", ("ids", "INT64", ids))
        assert answer.tobytes() == expected.tobytes()
    assert server.memory("RssFile") - before < 64 * MIB
    assert server.memory("RssAnon") < 256 * MIB
    event = server.wait_for("weights larger than the mapped budget: served from a window")
    assert event["model"] == "table" and event["window"] == "64.0 MiB", event
    assert server.metric("hearth_resident_bytes", dimension="mapped") == 64 * MIB
    model, = json.loads(server.cli("ps", "--json").stdout)["models"]
    assert model["bytes"]["window"] == model["bytes"]["mapped"] == 64 * MIB
    assert "64.0 MiB of 64.0 GiB" in server.cli("ps").stdout
    assert server.terminate() == 0


def test_who_wants_a_lock_on_more_than_there_is_or_has_no_window_is_refused(start, table):
    root, ids, _ = table
    ask = request("table", ("ids", "INT64", list(ids.shape), ids.tobytes()))
    (root / "table" / "model.yaml").write_text("residency: locked\n")
    code, text = refusal(start(root, config={"cache": {"budget": BUDGET}}), ask)
    assert code == "FAILED_PRECONDITION" and "cache.budget.mapped" in text, (code, text)
    (root / "table" / "model.yaml").write_text("")
    code, text = refusal(start(root, config={"cache": {"budget": BUDGET, "mapped_window": 0}}), ask)
    assert code == "FAILED_PRECONDITION" and "cache.budget.mapped" in text, (code, text)


class Dense(torch.nn.Module):
    """Reads every weight in each run. Small whole numbers: exact in whatever order they are added."""

    def __init__(self, layers, width):
        super().__init__()
        torch.manual_seed(2)
        self.weights = torch.nn.ParameterList(
            [torch.nn.Parameter(torch.randint(-3, 4, (width, width)).float(), False) for _ in range(layers)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for weight in self.weights:
            x = torch.remainder(x + x @ weight, 7.0)
        return x


def test_a_model_larger_than_the_memory_the_process_may_have_is_served_slowly_but_right(start, tmp_path):
    width = 4096
    module = Dense(8, width).eval()
    file = models.write_model(tmp_path / "repository", "dense", module)
    assert file.stat().st_size > 512 * MIB
    values = torch.arange(width)[None, :].remainder(7).float()
    expected = module(values).numpy()
    del module
    with open(file, "rb") as written:  # what is in the page cache is charged to whoever wrote it
        os.fsync(written.fileno())
        os.posix_fadvise(written.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with memory_group(384 * MIB) as group:
        server = start(tmp_path / "repository", join=group.join)
        try:
            with server.client() as client:
                for _ in range(3):
                    assert infer_floats(client, "dense", values=values.numpy()).tobytes() == expected.tobytes()
            assert server.wait_for("weights larger than the mapped budget: served from a window")
            assert group.limit_hits() > 0, "there was room for all of it"
            assert group.out_of_memory_kills() == 0
            assert server.terminate() == 0
        finally:
            server.__exit__(None, None, None)
    file.unlink()
