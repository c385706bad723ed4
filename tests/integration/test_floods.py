"""More than hearthd is made for: it serves or refuses, holds no more memory for it, and answers others meanwhile."""

import asyncio
import contextlib
import json
import re
import resource
import shutil
import socket
import struct
import subprocess
import threading
import time

import grpc
import numpy as np
import pytest

import hearthd
import models
from test_protocol import infer_floats, request
from test_rest import ask, wait_until

MIB = 1 << 20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5)  # and empty settings
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}


def needs(program):
    return pytest.mark.skipif(not shutil.which(program), reason=f"needs {program}: scripts/bootstrap --clients")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("floods")
    models.write_model(root, "typed", models.Affine(2.0), options=models.FIXED_INPUT)
    models.write_model(root, "identity", models.Identity())
    return root


@pytest.fixture(scope="module", autouse=True)
def descriptors():
    """As many as this machine gives; hearthd inherits them."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def connections(port, count, first=b""):
    """`count` connections that send `first` and then nothing."""
    opened = []
    try:
        for _ in range(count):
            opened.append(socket.create_connection(("127.0.0.1", port), timeout=60))
            opened[-1].sendall(first)
        yield opened
    finally:
        for connection in opened:
            connection.close()


def answers_over_grpc(server):
    with server.client() as client:
        return infer_floats(client, "typed").shape == (1, 4)


def answers_over_http(server):
    return ask(server, "POST", "/v2/models/typed/infer", json.dumps(BODY))[0] == 200


# --- connections on which nothing happens ---


def test_ten_thousand_idle_grpc_connections_hold_up_nobody(start, repository, descriptors):
    count = 10_000
    if descriptors < count + 500:
        pytest.skip(f"needs a limit of {count + 500} open files")
    server = start(repository)
    assert answers_over_grpc(server)
    before = server.memory()
    with connections(server.grpc_port, count, PREFACE) as opened:
        for connection in opened:
            assert connection.recv(3)  # the server's settings: it has taken the connection
        assert answers_over_grpc(server) and answers_over_http(server)
        assert server.memory() - before < count * 64 * 1024
    assert answers_over_grpc(server)


def test_ten_thousand_idle_http_connections_hold_up_nobody(start, repository, descriptors):
    count = 10_000
    if descriptors < count + 500:
        pytest.skip(f"needs a limit of {count + 500} open files")
    server = start(repository, config={"rest": {"max_connections": count + 100}})
    assert answers_over_http(server)
    before = server.memory()
    with connections(server.rest_port, count, b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n") as opened:
        for connection in opened:
            assert connection.recv(12) == b"HTTP/1.1 200"
        assert answers_over_http(server) and answers_over_grpc(server)
        assert server.memory() - before < count * 64 * 1024
    assert answers_over_http(server)


def test_idle_http_connections_make_room_for_those_that_wait(start, repository):
    server = start(repository, config={"rest": {"max_connections": 20, "idle_timeout": "500ms"}})
    with connections(server.rest_port, 100):
        assert answers_over_http(server)


def test_a_header_that_comes_a_byte_at_a_time_is_cut_off(start, repository):
    server = start(repository, config={"rest": {"stall_timeout": "1s"}})
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=60) as slow:
        with contextlib.suppress(OSError):
            for _ in range(600):
                slow.sendall(b"x")
                time.sleep(0.1)
        assert time_out_of(slow)
    assert answers_over_http(server)


def time_out_of(connection):
    """Whether the server has closed it."""
    with contextlib.suppress(OSError):
        return not connection.recv(1) or not connection.recv(4096)
    return True


@pytest.mark.parametrize("call", ["ModelInfer", "ModelStreamInfer"])
def test_calls_whose_request_never_comes_hold_up_nobody(start, repository, call):
    """They are no requests in progress: there are more of them than there may be of those."""
    server = start(repository, config={"grpc": {"max_in_flight": 8}})
    assert answers_over_grpc(server)
    before = server.memory()

    async def never():
        await asyncio.Event().wait()
        yield b""

    async def hold():
        async with grpc.aio.insecure_channel(server.address) as channel:
            kind = channel.stream_unary if call == "ModelInfer" else channel.stream_stream
            method = kind(f"/inference.GRPCInferenceService/{call}")
            calls = [method(never()) for _ in range(1000)]
            async with grpc.aio.insecure_channel(server.address) as other:
                live = other.unary_unary("/inference.GRPCInferenceService/ServerLive")
                for _ in range(10):
                    assert await live(b"", timeout=60)
            assert await asyncio.to_thread(answers_over_grpc, server)
            assert not any(one.done() for one in calls)
            for one in calls:
                one.cancel()

    asyncio.run(hold())
    assert answers_over_grpc(server) and server.memory() - before < 256 * MIB


# --- answers that nobody reads ---


def test_an_http_answer_that_is_not_read_is_given_up(start, repository):
    server = start(repository, config={"rest": {"stall_timeout": "1s"}})
    values = np.zeros((8, MIB // 4), np.float32)
    head = json.dumps({"parameters": {"binary_data_output": True}, "inputs": [{
        "name": "x", "datatype": "FP32", "shape": list(values.shape),
        "parameters": {"binary_data_size": values.nbytes}}]}).encode()
    whole = (b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: %d\r\n"
             b"Content-Length: %d\r\n\r\n" % (len(head), len(head) + values.nbytes)) + head + values.tobytes()
    with connections(server.rest_port, 16, whole):
        assert answers_over_http(server) and answers_over_grpc(server)
        wait_until(lambda: connections_of(server) == 0)
        assert answers_over_http(server)
    assert server.memory() < 2 * 1024 * MIB


def connections_of(server):
    """How many TCP connections the REST port has, by the kernel's account of the server's side."""
    text = open(f"/proc/{server.process.pid}/net/tcp", encoding="ascii").read()
    return len(re.findall(rf"^ *\d+: 0100007F:{server.rest_port:04X} \S+ 01 ", text, re.M))


def test_streams_whose_answers_are_not_read_hold_up_nobody(start, repository):
    """64 requests of a stream are in progress at most, and so are their answers."""
    server = start(repository)
    values = np.zeros((1, MIB // 4), np.float32)
    message = request("identity", ("x", "FP32", list(values.shape), values.tobytes()))
    with server.channel() as channel:
        open_stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        done = threading.Event()

        def many():
            for _ in range(1000):
                if done.is_set():
                    return
                yield message.SerializeToString()

        calls = [open_stream(many()) for _ in range(3)]
        wait_until(lambda: server.metric("hearth_requests_total", model="identity", code="OK") >= 3)
        for _ in range(20):
            assert answers_over_grpc(server) and answers_over_http(server)
        assert server.memory() < 2 * 1024 * MIB
        done.set()
        for call in calls:
            call.cancel()
    wait_until(lambda: server.metric("hearth_pins") == 0)
    assert answers_over_grpc(server)


# --- more requests than may be in progress ---


def answered(server):
    """{code: requests}, of all models, those refused before a model was known among them."""
    codes = {}
    for (name, labels), value in server.metrics().items():
        if name in ("hearth_requests_total", "hearth_requests_refused_total"):
            code = dict(labels)["code"]
            codes[code] = codes.get(code, 0) + int(value)
    return codes


def test_requests_beyond_the_limit_are_refused_and_the_others_served(start, repository):
    server = start(repository, config={"grpc": {"max_in_flight": 4}, "compute": {"threads": 1}})
    assert answers_over_grpc(server)
    values = np.ones((1, 4), np.float32)
    message = request("typed", ("x", "FP32", [1, 4], values.tobytes()))
    calls = [server.stub().ModelInfer.future(message, timeout=60) for _ in range(5) for _ in range(200)]
    codes = [call.code() for call in calls]
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE} and grpc.StatusCode.OK in codes
    assert answers_over_grpc(server)


@needs("h2load")
def test_a_flood_from_h2load_is_answered_to_the_last_request(start, repository, tmp_path):
    server = start(repository, config={"grpc": {"max_in_flight": 16}})
    assert answers_over_grpc(server)
    before, memory = answered(server), server.memory()
    message = request("typed", ("x", "FP32", [1, 4], bytes(16))).SerializeToString()
    body = tmp_path / "body"
    body.write_bytes(b"\0" + struct.pack(">I", len(message)) + message)
    done = subprocess.run(
        ["h2load", "-n", "20000", "-c", "50", "-m", "50", "-d", str(body), "-H", "content-type: application/grpc",
         "-H", "te: trailers", f"http://{server.address}/inference.GRPCInferenceService/ModelInfer"],
        text=True, capture_output=True, timeout=300, check=False)
    assert "20000 succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout, done.stdout
    after = answered(server)
    grown = {code: after[code] - before.get(code, 0) for code in after}
    assert sum(grown.values()) == 20000 and set(grown) <= {"OK", "UNAVAILABLE"} and grown["OK"] > 0
    assert server.memory() - memory < 256 * MIB
    assert answers_over_grpc(server)


@needs("wrk")
def test_a_flood_from_wrk_is_answered_to_the_last_request(start, repository, tmp_path):
    server = start(repository, config={"logging": {"level": "info"}})
    assert answers_over_http(server)
    before, memory = answered(server)["OK"], server.memory()
    script = tmp_path / "infer.lua"
    script.write_text(f"wrk.method = 'POST'\nwrk.body = '{json.dumps(BODY)}'\n")
    done = subprocess.run(["wrk", "-t", "2", "-c", "200", "-d", "3s", "--timeout", "30s", "-s", str(script),
                           f"http://127.0.0.1:{server.rest_port}/v2/models/typed/infer"],
                          text=True, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0 and "Non-2xx" not in done.stdout and "Socket errors" not in done.stdout, done.stdout
    requests = int(re.search(r"(\d+) requests in", done.stdout).group(1))
    assert answered(server)["OK"] - before >= requests > 1000
    assert server.memory() - memory < 256 * MIB
    assert answers_over_http(server)


@needs("wrk")
def test_more_http_clients_than_connections_wait_for_their_turn(start, repository):
    server = start(repository, config={"rest": {"max_connections": 20}})
    done = subprocess.run(["wrk", "-t", "2", "-c", "100", "-d", "2s", "--timeout", "30s",
                           f"http://127.0.0.1:{server.rest_port}/v2/health/ready"],
                          text=True, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0 and "Non-2xx" not in done.stdout, done.stdout
    assert int(re.search(r"(\d+) requests in", done.stdout).group(1)) > 1000
    assert answers_over_http(server)
