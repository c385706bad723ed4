"""Answers of models that are hard to load without copying, against torch.jit.load of the same file."""

import os
import zipfile

import grpc
import numpy as np
import pytest
import torch

import hearthd as daemon
import models
from test_protocol import FLOATS, floats, infer_floats, refusal, request


def reference(file, *inputs):
    with torch.inference_mode():
        return torch.jit.load(str(file))(*inputs)


def ask(server, model, values=FLOATS):
    answer = server.stub().ModelInfer(request(model, floats(values=values)))
    return np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(answer.outputs[0].shape)


@pytest.mark.parametrize("name", ["tied", "setstate", "typed", "frozen2", "frozen3"])
def test_answers_equal_torch_jit_load_to_the_bit(server, repository, name):
    values = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    expected = reference(models.model_file(repository, name), torch.from_numpy(values)).numpy()
    assert ask(server, name, values).tobytes() == expected.tobytes()


def test_frozen_models_with_one_code_keep_their_own_constants(server):
    for _ in range(2):
        assert np.array_equal(ask(server, "frozen2"), FLOATS * 2)
        assert np.array_equal(ask(server, "frozen3"), FLOATS * 3)


@pytest.mark.parametrize("name, shift", [("counter", 1), ("assigner", 3)])
def test_a_model_that_changes_itself_answers_each_request_as_the_first(server, name, shift):
    for _ in range(5):
        assert np.array_equal(ask(server, name), FLOATS + shift)


def test_an_output_that_is_not_what_model_yaml_declares_is_the_models_fault(start, tmp_path):
    models.write_model(tmp_path / "r", "liar", models.Identity(),
                       options="outputs: [{name: a, datatype: FP32, shape: [-1, 3]}]\n")
    server = start(tmp_path / "r")
    code, text = refusal(server, request("liar", floats()))
    assert code == "INTERNAL", text
    assert "output 'a'" in text and "FP32 [1,4]" in text and "FP32 [-1,3]" in text, text
    assert np.array_equal(ask(server, "liar", FLOATS[:, :3]), FLOATS[:, :3])


def test_a_model_that_changes_itself_answers_rightly_to_many_at_once(server):
    stub = server.stub()
    calls = [stub.ModelInfer.future(request(name, floats()), timeout=60)
             for _ in range(50) for name in ("counter", "assigner")]
    answers = [np.frombuffer(call.result().raw_output_contents[0], np.float32) for call in calls]
    assert all(np.array_equal(a, FLOATS[0] + 1) for a in answers[0::2])
    assert all(np.array_equal(a, FLOATS[0] + 3) for a in answers[1::2])


def test_a_file_on_disk_is_never_written_to(server, repository):
    file = models.model_file(repository, "counter")
    before = file.read_bytes()
    for _ in range(3):
        ask(server, "counter")
    assert file.read_bytes() == before


def test_a_bare_file_is_a_model(server):
    assert np.array_equal(ask(server, "bare"), FLOATS * 5)


def test_a_recompressed_archive_is_served(server, repository):
    """Deflated and unaligned: what `zip` makes of it. Such records are copied, not refused."""
    source = models.model_file(repository, "tied")
    target = models.model_file(repository, "rezipped")
    target.parent.mkdir(parents=True)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    values = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    with server.client() as client:
        client.load_model("rezipped")
    expected = reference(source, torch.from_numpy(values)).numpy()
    assert ask(server, "rezipped", values).tobytes() == expected.tobytes()


def test_a_quantised_model_is_served(server, repository):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    net = Net().eval()
    quantised = torch.ao.quantization.quantize_dynamic(net, {torch.nn.Linear}, dtype=torch.qint8)
    file = models.write_model(repository, "quantised", quantised)
    with server.client() as client:
        client.load_model("quantised")
    expected = reference(file, torch.from_numpy(FLOATS.copy())).numpy()
    assert ask(server, "quantised").tobytes() == expected.tobytes()


def test_a_traced_model_with_constants_is_served(server, repository):
    table = torch.linspace(0, 1, 4)

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * table + table.sum()

    traced = torch.jit.trace(Net(), torch.ones(1, 4))
    file = models.write_model(repository, "traced", traced)
    with server.client() as client:
        client.load_model("traced")
    expected = reference(file, torch.from_numpy(FLOATS.copy())).numpy()
    assert ask(server, "traced").tobytes() == expected.tobytes()


class Leaky(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.hearth_test.leak(x, 0.25)


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    """A repository whose one model needs the operator of operators.cc."""
    torch.ops.load_library(os.environ["TEST_OPERATORS"])
    root = tmp_path_factory.mktemp("leaky")
    models.write_model(root, "leaky", Leaky())
    return root


def test_a_model_with_custom_operators_is_served_when_their_library_is_named(leaky, start):
    server = start(leaky, config={"torch_libraries": [os.environ["TEST_OPERATORS"]]})
    values = np.array([[-2, -1, 0, 3]], np.float32)
    expected = torch.nn.functional.leaky_relu(torch.from_numpy(values), 0.25).numpy()
    assert np.array_equal(ask(server, "leaky", values), expected)


def test_a_model_whose_operators_are_missing_says_which(leaky, start):
    with pytest.raises(grpc.RpcError) as error:
        ask(start(leaky), "leaky")
    assert "hearth_test::leak" in error.value.details()
    assert "torch_libraries" in error.value.details()


def test_an_operator_library_that_cannot_be_loaded_stops_the_start(leaky, start):
    with pytest.raises(daemon.Failed, match="cannot load the operator library '/no/such.so'"):
        start(leaky, config={"torch_libraries": ["/no/such.so"]})


def test_another_exported_method_is_served(server, repository):
    class TwoMethods(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

        @torch.jit.export
        def tenfold(self, y: torch.Tensor, extra: int = 1) -> torch.Tensor:
            return y * 10 + extra

    models.write_model(repository, "methods", torch.jit.script(TwoMethods()),
                       options="method: tenfold\n")
    with server.client() as client:
        client.load_model("methods")
        assert [t.name for t in client.get_model_metadata("methods").inputs] == ["y", "extra"]
    stub = server.stub()
    answer = stub.ModelInfer(request("methods", floats("y")))  # `extra` has a default
    assert np.array_equal(np.frombuffer(answer.raw_output_contents[0], np.float32),
                          FLOATS[0] * 10 + 1)
    extra = ("extra", "INT64", [1], np.int64(5).tobytes())
    answer = stub.ModelInfer(request("methods", floats("y"), extra))
    assert np.array_equal(np.frombuffer(answer.raw_output_contents[0], np.float32),
                          FLOATS[0] * 10 + 5)


def test_a_cancelled_request_leaves_the_server_fit(server):
    stub = server.stub()
    rounds = ("rounds", "INT64", [1], np.int64(200).tobytes())
    values = np.eye(256, dtype=np.float32)
    calls = [stub.ModelInfer.future(request("slow", floats(values=values), rounds)) for _ in range(8)]
    for call in calls:
        call.cancel()
    with server.client() as client:
        assert np.array_equal(infer_floats(client, "typed"), FLOATS * 2)


def test_a_request_that_is_too_late_is_told_so(server):
    rounds = ("rounds", "INT64", [1], np.int64(20000).tobytes())
    values = np.eye(256, dtype=np.float32)
    with pytest.raises(grpc.RpcError) as error:
        server.stub().ModelInfer(request("slow", floats(values=values), rounds), timeout=0.05)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    with server.client() as client:
        assert np.array_equal(infer_floats(client, "typed"), FLOATS * 2)
