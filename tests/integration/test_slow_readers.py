"""Clients that ask and do not read the answers: memory stays bounded, nobody else notices, and they are given up."""

import contextlib
import json
import re
import socket
import struct
import threading
import time

import grpc
import numpy as np
import pytest
import torch

import models
from test_floods import PREFACE, answers_over_grpc, answers_over_http, connections
from test_protocol import request
from test_rest import wait_until

MIB = 1 << 20
HEADERS, DATA = 1, 0
GIVEN_UP = "answers are given up that their clients do not take; grpc.stall_timeout says after how long"
# What is held of requests and answers, and what else a daemon may grow by meanwhile.
LIMIT, SLACK = 128 * MIB, 256 * MIB


class Grow(torch.nn.Module):
    """8 MiB for a few bytes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ones(1 << 21) * x.sum()


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("slow-readers")
    models.write_model(root, "typed", models.Affine(2.0), options=models.FIXED_INPUT)
    models.write_model(root, "identity", models.Identity())
    models.write_model(root, "grow", Grow())
    return root


@pytest.fixture
def begin(start, repository):
    """A server that gives up after a second, or as `grpc` and the others say."""
    def run(stall="1s", **sections):
        config = {"limits": {"request_memory": LIMIT}, "grpc": {"stall_timeout": stall, **sections.pop("grpc", {})},
                  "rest": {"stall_timeout": "1s"}, **sections}
        server = start(repository, config=config)
        assert answers_over_grpc(server) and answers_over_http(server)
        return server
    return run


def held(server):
    return server.metric("hearth_request_memory_bytes")


@contextlib.contextmanager
def nobody_else_notices(server, bound=LIMIT + SLACK):
    """Meanwhile others are answered, and memory grows by no more than `bound`."""
    before, most, wrong = server.memory(), [0], []
    done = threading.Event()

    def watch():
        try:
            while not done.is_set():
                if not (answers_over_grpc(server) and answers_over_http(server)):
                    wrong.append("another client's answer")
                most[0] = max(most[0], server.memory() - before)
        except Exception as error:  # told below
            wrong.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    assert not wrong, wrong[0]
    assert most[0] < bound, f"{most[0] // MIB} MiB"


def message_of(size):
    values = np.zeros((1, size // 4), np.float32)
    return request("identity", ("x", "FP32", list(values.shape), values.tobytes()))


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def call_frames(stream, path, message):
    """One gRPC call as HTTP/2's bytes; its header fields are literals that no table remembers."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "hearth"), ("te", "trailers"),
              ("content-type", "application/grpc")]
    block = b"".join(bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
                     for name, value in fields)
    body = b"\0" + struct.pack(">I", len(message)) + message
    assert len(body) < 16384
    return frame(HEADERS, 4, stream, block) + frame(DATA, 1, stream, body)


def connections_of(server, port):
    """How many TCP connections a port has, by the kernel's account of the server's side."""
    text = open(f"/proc/{server.process.pid}/net/tcp", encoding="ascii").read()
    return len(re.findall(rf"^ *\d+: 0100007F:{port:04X} \S+ 01 ", text, re.M))


def narrow_channel(server):
    """Of a client that takes no more than it reads: gRPC would widen its windows by itself."""
    return grpc.insecure_channel(server.address, options=[
        ("grpc.max_receive_message_length", -1), ("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65536)])


def unread_calls(server, channel, count, message):
    """`count` calls of ModelInfer whose answers nobody takes: without a reader, gRPC closes their windows."""
    method = channel.unary_stream("/inference.GRPCInferenceService/ModelInfer")
    return [method(message.SerializeToString()) for _ in range(count)]


def test_answers_of_calls_that_nobody_reads_are_bounded_and_given_up(begin):
    server = begin()
    with narrow_channel(server) as channel, nobody_else_notices(server):
        calls = unread_calls(server, channel, 100, message_of(4 * MIB))
        assert server.wait_for(GIVEN_UP)["answers"] > 0
        codes = set()
        for call in calls:
            with pytest.raises(grpc.RpcError) as error:
                for _ in call:
                    pass
            codes.add(error.value.code())
        # Those that did not fit are refused with a sentence, the others are given up.
        assert codes == {grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED}, codes
        wait_until(lambda: held(server) == 0)
    assert server.metric("hearth_pins") == 0


@pytest.mark.parametrize("size", [1024, MIB])
def test_a_stream_that_is_never_read_is_bounded_and_given_up(begin, size):
    server = begin()
    message = message_of(size).SerializeToString()
    sent, ended = [], threading.Event()

    def requests():
        while not ended.is_set():
            sent.append(1)
            yield message

    with narrow_channel(server) as channel, nobody_else_notices(server):
        call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(requests())
        assert server.wait_for(GIVEN_UP)["answers"] == 1
        ended.set()
        # What was sent after that is in buffers, or nowhere.
        assert server.metric("hearth_requests_total", model="identity") <= 64 + 64 * 1024 // size + 64
        call.cancel()
        wait_until(lambda: held(server) == 0 and server.metric("hearth_pins") == 0)


def test_a_client_that_takes_its_answers_slowly_has_all_of_them(begin):
    """Longer in all than the timeout, and never as long without a piece."""
    server = begin(stall="2s")
    message = message_of(3 * MIB)
    with narrow_channel(server) as channel:
        call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(iter(
            [message.SerializeToString()] * 8))
        for answer in call:
            assert len(answer) > 3 * MIB
            time.sleep(0.4)  # the client's own pace
        assert call.code() == grpc.StatusCode.OK


def test_an_answer_that_is_taken_piece_by_piece_is_not_given_up(begin):
    """One answer, and a client that opens its windows by 512 KiB at a time, for longer in all than the timeout."""
    server = begin()
    message = request("grow", ("x", "FP32", [1], np.ones(1, np.float32).tobytes())).SerializeToString()
    step, received = 512 * 1024, 0
    server.stub().ModelInfer(request("grow", ("x", "FP32", [1], bytes(4))), timeout=60)  # it is there
    with socket.create_connection(("127.0.0.1", server.grpc_port), timeout=60) as raw:
        raw.sendall(PREFACE + call_frames(1, "/inference.GRPCInferenceService/ModelInfer", message))
        begun, window = time.monotonic(), 65535
        while received < 8 * MIB:
            if received >= window:
                time.sleep(0.2)
                window += step
                raw.sendall(b"".join(frame(8, 0, stream, struct.pack(">I", step)) for stream in (0, 1)))
            bytes_ = raw.recv(1 << 16)
            assert bytes_, "it was given up"
            received += len(bytes_)
    assert time.monotonic() - begun > 2
    assert not [line for line in server.lines if GIVEN_UP in line]


def test_calls_of_a_connection_whose_bytes_nobody_reads_are_bounded(begin):
    """A client of its own making: it neither opens a window nor empties its socket, and asks on."""
    server = begin(grpc={"max_calls_per_connection": 100})
    message = message_of(8192).SerializeToString()
    path = "/inference.GRPCInferenceService/ModelInfer"
    with nobody_else_notices(server, SLACK):
        with socket.create_connection(("127.0.0.1", server.grpc_port), timeout=2) as raw:
            with contextlib.suppress(OSError):  # it is let send no more
                raw.sendall(PREFACE)
                for number in range(2000):
                    raw.sendall(call_frames(2 * number + 1, path, message))
            server.wait_for(GIVEN_UP)
        wait_until(lambda: held(server) == 0)


def test_http_requests_that_are_pipelined_and_whose_answers_are_not_read_are_given_up(begin):
    server = begin()
    body = json.dumps({"parameters": {"binary_data_output": True}, "inputs": [{
        "name": "x", "datatype": "FP32", "shape": [1, MIB // 4], "parameters": {"binary_data_size": MIB}}]}).encode()
    whole = (b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: %d\r\n"
             b"Content-Length: %d\r\n\r\n" % (len(body), len(body) + MIB)) + body + bytes(MIB)

    def ask_on(client):
        with contextlib.suppress(OSError):
            for _ in range(100):
                client.sendall(whole)

    with contextlib.ExitStack() as opened, nobody_else_notices(server):
        clients = [opened.enter_context(socket.create_connection(("127.0.0.1", server.rest_port), timeout=60))
                   for _ in range(20)]
        threads = [threading.Thread(target=ask_on, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()  # each was hung up on
        wait_until(lambda: held(server) == 0)


def test_metrics_that_are_never_read_are_given_up(begin):
    server = begin()
    asked = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 2000
    with connections(server.http_port, 20) as clients, nobody_else_notices(server, SLACK):
        for client in clients:
            client.settimeout(60)
            with contextlib.suppress(OSError):
                client.sendall(asked)
        wait_until(lambda: connections_of(server, server.http_port) == 0)


def test_a_shutdown_waits_no_longer_for_them_than_for_others(begin):
    server = begin(stall="0s", shutdown={"drain_timeout": "2s"})
    with narrow_channel(server) as channel, socket.create_connection(("127.0.0.1", server.rest_port), timeout=60) as http:
        calls = unread_calls(server, channel, 4, message_of(4 * MIB))
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(iter(
            [message_of(MIB).SerializeToString()] * 4))
        http.sendall(b"GET /v2/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        wait_until(lambda: held(server) >= 17 * MIB)
        begun = time.monotonic()
        assert server.terminate() == 0, server.log()
        assert time.monotonic() - begun < 20  # not drain_timeout's default, and another one
        for call in (*calls, stream):
            call.cancel()
