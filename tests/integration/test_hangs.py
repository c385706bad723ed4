"""Parts that are stuck: what others notice of it, and who is told."""

import os

import pytest
import torch

import models
from test_operations import wait_until
from test_protocol import FLOATS, floats, infer_floats, refusal, request

INPUTS = "inputs: [{name: x, datatype: FP32, shape: [-1, 4]}]\n"  # so that a load runs it


class Stuck(torch.nn.Module):
    """Does not come back before there is a file at `gate`."""

    gate: str

    def __init__(self, gate):
        super().__init__()
        self.gate = str(gate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.hearth_test.after_file(x, self.gate) + 1.0


@pytest.fixture
def gate(tmp_path):
    """The loads that were begun come to their end with the test, whatever its outcome."""
    torch.ops.load_library(os.environ["TEST_OPERATORS"])
    file = tmp_path / "gate"
    yield file
    file.touch()


@pytest.fixture
def folder(tmp_path, gate):
    root = tmp_path / "repository"
    models.write_model(root, "stuck", Stuck(gate), options=INPUTS)
    models.write_model(root, "good", models.Affine(2.0))
    models.write_model(root, "other", models.Affine(3.0))
    return root


@pytest.fixture
def server(start, folder, gate):
    return start(folder, config={"torch_libraries": [os.environ["TEST_OPERATORS"]], "loading": {"threads": 1},
                                 "cache": {"load_timeout": "2s"}})


def hung(server, task):
    return server.metric("hearth_hung_tasks", task=task)


def test_a_load_that_hangs_fails_its_waiters_and_nobody_else(server, gate):
    code, text = refusal(server, request("stuck", floats()))
    assert code == "UNAVAILABLE" and "hangs" in text and "cache.load_timeout" in text
    assert refusal(server, request("stuck", floats())) == (code, text), "until it ends"
    assert hung(server, "load") == 1
    with server.client() as client:
        for name, factor in (("good", 2), ("other", 3)):
            assert infer_floats(client, name)[0, 1] == factor * FLOATS[0, 1]
        assert client.is_server_live() and client.is_server_ready()
    assert server.get("/v2/health/live")[0] == 200, "a load is no reason to start the process anew"
    assert "hangs" in server.cli("why", "stuck").stdout
    gate.touch()
    wait_until(lambda: hung(server, "load") == 0)
    with server.client() as client:
        wait_until(lambda: not [m for m in client.get_model_repository_index().models
                                if m.name == "stuck" and m.state == "LOADING"])
        assert infer_floats(client, "stuck")[0, 1] == FLOATS[0, 1] + 1


def test_an_unload_does_not_wait_for_a_load_that_hangs(server, gate):
    refusal(server, request("stuck", floats()))
    assert "loading (hung)" in server.cli("ps").stdout
    assert "hung: stuck:1 (loading)" in server.cli("status").stdout
    assert server.cli("unload", "stuck").returncode == 0
    assert hung(server, "load") == 1, "it is stuck all the same"
    assert "while its load hangs" in server.cli("events").stdout
    gate.touch()
    wait_until(lambda: hung(server, "load") == 0)
    code, text = refusal(server, request("stuck", floats()))
    assert code == "NOT_FOUND" and "has no available versions" in text


def test_when_no_load_thread_is_left_requests_hear_so_and_what_is_resident_is_served(server, folder, gate):
    models.write_model(folder, "stuck2", Stuck(gate), options=INPUTS)
    with server.client() as client:
        client.load_model("good")
        for name in ("stuck", "stuck2"):  # the one thread, and the one that takes its place
            if name == "stuck2":
                with pytest.raises(Exception, match="hangs"):
                    client.load_model(name)
            else:
                refusal(server, request(name, floats()))
        wait_until(lambda: "no load thread is left" in server.cli("status").stdout)
        code, text = refusal(server, request("other", floats()))
        assert code == "UNAVAILABLE" and "stuck:1, stuck2:1" in text
        assert infer_floats(client, "good")[0, 1] == 2 * FLOATS[0, 1]
        assert client.is_server_ready()
        assert "stalled" in server.cli("events").stdout
        gate.touch()
        wait_until(lambda: "no load thread is left" not in server.cli("status").stdout)
        assert infer_floats(client, "other")[0, 1] == 3 * FLOATS[0, 1]


def test_what_must_not_stop_says_that_it_goes_on(server):
    for part in ("cache", "grpc-0"):
        ages = []

        def is_young_again(part=part, ages=ages):
            ages.append(server.metric("hearth_heartbeat_age_seconds", part=part))
            return ages[-1] < max(ages)

        wait_until(is_young_again)
