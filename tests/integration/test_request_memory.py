"""Memory of requests is bounded in common: floods of large messages end in answers or clean refusals."""

import json
import threading

import grpc
import numpy as np
import pytest
import torch

import models
from test_protocol import floats, infer_floats, refusal, request
from test_rest import ask, wait_until

MIB = 1 << 20


class Slow(torch.nn.Module):
    """Works for a while, and answers with one number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        work = torch.ones(256, 256)
        for _ in range(60):
            work = work @ work * 0.001
        return x.sum() + work.sum() * 0.0


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("request-memory")
    models.write_model(root, "identity", models.Identity())
    models.write_model(root, "slow", Slow())
    return root


def megabytes(count):
    return np.ones((1, count * MIB // 4), np.float32)


def binary_body(values):
    head = json.dumps({"parameters": {"binary_data_output": True}, "inputs": [{
        "name": "x", "datatype": "FP32", "shape": list(values.shape),
        "parameters": {"binary_data_size": values.nbytes}}]}).encode()
    return head + values.tobytes(), {"Inference-Header-Content-Length": str(len(head))}


def test_a_request_larger_than_all_may_be_together_is_refused_and_told_why(start, repository):
    server = start(repository, config={"limits": {"request_memory": "8MiB"}})
    code, text = refusal(server, request("identity", floats(values=megabytes(16))))
    assert code == "RESOURCE_EXHAUSTED" and "raise limits.request_memory" in text, text
    body, headers = binary_body(megabytes(16))
    status, _, answer = ask(server, "POST", "/v2/models/identity/infer", body, headers)
    assert status == 429 and "raise limits.request_memory" in json.loads(answer)["error"]
    with server.client() as client:
        assert infer_floats(client, "identity", values=megabytes(1)).nbytes == MIB
    wait_until(lambda: server.metric("hearth_request_memory_bytes") == 0)
    assert server.metric("hearth_request_memory_limit_bytes") == 8 * MIB


def test_an_answer_that_does_not_fit_is_refused(start, repository):
    server = start(repository, config={"limits": {"request_memory": "6MiB"}})
    code, text = refusal(server, request("identity", floats(values=megabytes(4))))  # and its answer as much
    assert code == "RESOURCE_EXHAUSTED" and "the answer" in text and "limits.request_memory" in text, text
    wait_until(lambda: server.metric("hearth_request_memory_bytes") == 0)


def test_the_limit_can_be_changed_while_it_runs(start, repository):
    server = start(repository, config={"limits": {"request_memory": "1MiB"}})
    message = request("identity", floats(values=megabytes(2)))
    assert refusal(server, message)[0] == "RESOURCE_EXHAUSTED"
    config = json.loads(server.config_file.read_text())
    config["limits"]["request_memory"] = "64MiB"
    server.config_file.write_text(json.dumps(config))
    server.cli("reload")
    assert server.stub().ModelInfer(message, timeout=60).outputs


def test_a_flood_of_large_requests_ends_in_answers_and_refusals_and_memory_stays_bounded(start, repository):
    """24 clients send 8 messages of 16 MiB each, 3 GiB in all, to a model that is slower than they are."""
    limit, messages = 128 * MIB, 128 * MIB
    server = start(repository, config={"limits": {"request_memory": limit}, "compute": {"threads": 1},
                                       "grpc": {"max_messages_bytes": messages, "buffer_pool": "64MiB"}})
    assert server.stub().ModelInfer(request("slow", floats()), timeout=60).outputs
    before = server.memory("RssAnon")
    values = megabytes(16)
    message = request("slow", floats(values=values))
    expected = float(values.sum(dtype=np.float64))
    codes, wrong, most = [], [], [0]
    done = threading.Event()

    def client():
        with server.channel() as channel:
            infer = type(server.stub())(channel).ModelInfer
            for _ in range(8):
                try:
                    answer = infer(message, timeout=300)
                    codes.append("OK")
                    if np.frombuffer(answer.raw_output_contents[0], np.float32)[0] != expected:
                        wrong.append(answer)
                except grpc.RpcError as error:
                    codes.append(error.code().name)
                    if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and "limits.request_memory" not in error.details():
                        wrong.append(error)

    def watch():
        while not done.is_set():
            most[0] = max(most[0], server.memory("RssAnon"))
            done.wait(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    clients = [threading.Thread(target=client) for _ in range(24)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    done.set()
    watcher.join()
    assert not wrong, wrong[0]
    assert len(codes) == 24 * 8 and codes.count("OK") > 0
    assert set(codes) <= {"OK", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}, set(codes)
    assert most[0] - before < limit + messages + 128 * MIB, f"{(most[0] - before) // MIB} MiB"
    wait_until(lambda: server.metric("hearth_request_memory_bytes") == 0)
    with server.client() as one:
        assert infer_floats(one, "identity", values=megabytes(1)).nbytes == MIB
