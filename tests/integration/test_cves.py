"""What other model servers were broken by, tried on hearth: a class of CVEs a test. docs/security.md lists them, with
the tests elsewhere that hold the rest of each class."""

import contextlib
import gzip
import http.client
import json
import os
import pathlib
import shutil
import socket
import struct
import threading
import zlib

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

import hearthd
import models
from strangers import ask, error_of, numbers
from test_protocol import FLOATS, floats, request

TRAVERSALS = ["../outside", "..", ".", "/etc/passwd", "identity/../../outside", "..\\outside", "identity\0",
              "identity\n",
              "%2e%2e%2foutside", "....//outside", "~root", "file:///etc/passwd", "http://203.0.113.5/model.pt", "",
              "a" * 100_000,
              "identity;touch x", "$(touch x)", "`touch x`", "identity\x1b[2J", "\u202eidentity", "CON", "-rf", "*"]
HOSTILE = "x\n2026-01-01T00:00:00Z info ready\r\n{\"msg\":\"ready\",\"level\":\"info\"}\x1b[31m\0\u2028end"


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    """A hearthd that logs every request, with a model outside its repository that it must not find."""
    folder = tmp_path_factory.mktemp("victim")
    root = folder / "repository"
    root.mkdir()
    for name in ("identity", "addsub"):
        models.write_model(root, name, models.Identity() if name == "identity" else models.AddSub())
    shutil.copytree(root / "identity", folder / "outside")
    config = {"logging": {"access": True}, "grpc": {"client_shared_memory": True, "max_message_bytes": "16MiB"},
              "limits": {"max_tensors": 16, "max_dimensions": 8},
              "rest": {"max_body_bytes": "4MiB", "stall_timeout": "2s"}}
    with hearthd.Hearthd(root, folder, config=config) as running:
        yield running
        assert running.alive, running.log()


@pytest.fixture(autouse=True)
def still_there(victim):
    """Whatever was tried, the server answers as before, and has made no file."""
    before = sorted(str(path) for path in victim.workdir.rglob("*"))
    yield
    assert victim.alive, victim.log()
    assert victim.client().infer("identity", [numbers()]).get_response().outputs
    assert sorted(str(path) for path in victim.workdir.rglob("*")) == before


def refused(call):
    with pytest.raises((InferenceServerException, grpc.RpcError)) as error:
        call()
    text = error.value.details() if isinstance(error.value, grpc.RpcError) else error.value.message()
    assert "root:" not in text
    return text


# --- path traversal, file write, commands: CVE-2023-31036, 2024-0087, 2024-0100, 2025-23316, 2026-47487, ... ---


@pytest.mark.parametrize("name", TRAVERSALS, ids=range(len(TRAVERSALS)))
def test_a_models_name_leads_nowhere(victim, name):
    stub = victim.stub()
    for version in ("", "1", "../1", "1/../../.."):
        refused(lambda v=version: stub.ModelInfer(request(name, floats(values=FLOATS), version=v), timeout=60))
        refused(lambda v=version: stub.ModelMetadata(service_pb2.ModelMetadataRequest(name=name, version=v),
                                                     timeout=60))
        refused(lambda v=version: stub.ModelConfig(service_pb2.ModelConfigRequest(name=name, version=v), timeout=60))
    refused(lambda: stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name=name), timeout=60))
    refused(lambda: stub.RepositoryModelUnload(service_pb2.RepositoryModelUnloadRequest(model_name=name), timeout=60))
    assert not stub.ModelReady(service_pb2.ModelReadyRequest(name=name), timeout=60).ready


@pytest.mark.parametrize("name", [name for name in TRAVERSALS if name and len(name) < 1000])
def test_a_models_name_in_a_path_leads_nowhere(victim, name):
    quoted = "".join(f"%{byte:02x}" for byte in name.encode())
    for method, path in (("POST", f"/v2/repository/models/{quoted}/load"),
                         ("POST", f"/v2/repository/models/{quoted}/unload"),
                         ("GET", f"/v2/models/{quoted}"), ("GET", f"/v2/models/{quoted}/config"),
                         ("GET", f"/v2/models/identity/versions/{quoted}"), ("POST", f"/v2/models/{quoted}/infer")):
        status, _, body = ask("127.0.0.1", victim.rest_port, method, path, body="{}" if method == "POST" else None)
        assert "root:" not in error_of(body)
        assert status in (400, 404) or error_of(body).startswith(("failed to load", "failed to unload")), (path, body)


def test_no_call_takes_files_urls_or_places_to_write_to(victim):
    client, outside = victim.client(), victim.workdir / "written"
    for config, files in ((None, {"file:1/model.pt": b"x"}), ('{"backend": "python"}', {"file:../../../written": b"x"}),
                          ('{"parameters": {"EXECUTION_ENV_PATH": {"string_value": "/tmp/x.tar.gz"}}}',
                           {"file:1/model.py": b"x"})):
        refused(lambda c=config, f=files: client.load_model("identity", config=c, files=f))
    for settings in ({"log_file": str(outside)}, {"log_file": "/etc/cron.d/x"}, {"log_format": f"{outside}"}):
        refused(lambda s=settings: client.update_log_settings(s))
    refused(lambda: client.update_trace_settings(settings={"trace_file": str(outside), "trace_level": ["TIMESTAMPS"]}))
    refused(lambda: client.load_model("http://203.0.113.5/model.mar"))
    assert not outside.exists()


# --- forged lines of the log: CVE-2024-0095 ---


def test_nothing_that_a_client_sends_begins_a_line_of_the_log(victim):
    before = len(victim.lines)
    stub = victim.stub()
    for message in (request(HOSTILE, floats()), request("identity", floats(), request_id=HOSTILE),
                    request("identity", (HOSTILE, "FP32", [1, 4], FLOATS.tobytes())),
                    request("identity", floats(), version=HOSTILE)):
        with contextlib.suppress(grpc.RpcError):
            stub.ModelInfer(message, timeout=60)
    quoted = "".join(f"%{byte:02x}" for byte in HOSTILE.encode())
    ask("127.0.0.1", victim.rest_port, "POST", f"/v2/models/{quoted}/infer", "{}", {"User-Agent": "a\tb"})
    ask("127.0.0.1", victim.rest_port, "POST", "/v2/repository/models/identity/load", headers={"Via": "1.1 \x1b[31m"})
    ask("127.0.0.1", victim.rest_port, "POST", "/v2/models/identity/infer", json.dumps({"id": HOSTILE, "inputs": []}))
    victim.client().infer("identity", [numbers()], request_id="the last of them")
    end = hearthd.PATIENCE
    with contextlib.suppress(hearthd.Failed):
        while "the last of them" not in json.dumps(victim.wait_for("request", patience=end)):
            pass
    lines = victim.lines[before:]
    assert lines
    for line in lines:
        event = json.loads(line)  # each is one of ours, whole
        assert set(event) >= {"ts", "level", "msg"} and event["msg"] != "ready" and "\x1b" not in line, line


# --- shared memory: CVE-2024-0088, 2024-0116, 2025-23319, 2025-23320, 2025-23334 ---


@pytest.fixture
def region(victim):
    key = f"/hearth-cve-{os.getpid()}"
    path = pathlib.Path("/dev/shm" + key)
    path.write_bytes(bytes(64))
    client = victim.client()
    client.register_system_shared_memory("region", key, 64)
    yield key
    client.unregister_system_shared_memory()
    path.unlink()


def shared(name, size, offset=0):
    message = service_pb2.ModelInferRequest(model_name="identity")
    tensor = message.inputs.add(name="x", datatype="FP32", shape=[max(size // 4, 0)])
    tensor.parameters["shared_memory_region"].string_param = name
    tensor.parameters["shared_memory_byte_size"].int64_param = size
    tensor.parameters["shared_memory_offset"].int64_param = offset
    return message


@pytest.mark.parametrize("size, offset", [(128, 0), (64, 1), (4, 64), (4, 2**63 - 1), (2**62, 0), (-4, 0), (4, -4),
                                          (64, -64),
                                          (2**63 - 1, 2**63 - 1)])
def test_nobody_reads_beyond_a_region(victim, region, size, offset):
    refused(lambda: victim.stub().ModelInfer(shared("region", size, offset), timeout=60))


def test_no_error_tells_what_regions_are_called_by_the_system(victim, region):
    texts = [refused(lambda s=size: victim.stub().ModelInfer(shared("region", s), timeout=60))
             for size in (128, -1, 2**40)]
    texts.append(refused(lambda: victim.stub().ModelInfer(shared("another", 4), timeout=60)))
    texts.append(refused(lambda: victim.stub().ModelInfer(request("absent", floats()), timeout=60)))
    for text in texts:
        assert region not in text and region.strip("/") not in text and "/dev/shm" not in text


def test_a_region_is_no_way_to_other_files(victim):
    client = victim.client()
    for key in ("../etc/passwd", "/../etc/passwd", "/etc/passwd", "a/b", "", "/", ".", "..", "/..", "x\0y", "a" * 5000):
        refused(lambda k=key: client.register_system_shared_memory("other", k, 64))
    for size, offset in ((0, 0), (2**63, 0), (2**64 - 1, 1), (64, 2**64 - 64), (2**40, 0)):
        refused(lambda s=size, o=offset: client.register_system_shared_memory("other", "/hearth-absent", s, offset=o))


def test_a_region_that_is_unregistered_while_it_is_read_stays_until_then(victim, region):
    client, stop, failures = victim.client(), threading.Event(), []

    def infer():
        while not stop.is_set():
            try:
                victim_stub.ModelInfer(shared("region", 64), timeout=60)
            except grpc.RpcError as error:
                if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
                    failures.append(error)

    victim_stub = victim.stub()
    readers = [threading.Thread(target=infer) for _ in range(4)]
    for reader in readers:
        reader.start()
    for _ in range(100):
        client.unregister_system_shared_memory("region")
        client.register_system_shared_memory("region", region, 64)
    stop.set()
    for reader in readers:
        reader.join()
    assert not failures


# --- sizes: CVE-2025-23323, 23324, 23326, 23327, 2026-24146, 24173, 24174, 24210 ---


@pytest.mark.parametrize("shape", [[2**62, 4], [2**32, 2**32], [2**63 - 1], [2**31, 2**31, 2], [-1], [-2**63],
                                   [2**61, 8, 0],
                                   [1] * 9, [1] * 100_000, [4] * 8], ids=lambda shape: f"{shape[:3]}x{len(shape)}")
def test_a_shape_that_overflows_or_never_ends_is_refused(victim, shape):
    refused(lambda: victim.stub().ModelInfer(request("identity", ("x", "FP32", shape, FLOATS.tobytes())), timeout=60))
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "data": [1.0, 2.0, 3.0, 4.0]}]})
    status, _, _ = ask("127.0.0.1", victim.rest_port, "POST", "/v2/models/identity/infer", body)
    assert status == 400


def test_too_many_tensors_or_outputs_are_refused(victim):
    many_inputs = request("identity", *[(f"x{i}", "FP32", [1], b"\0" * 4) for i in range(17)])
    many_outputs = request("identity", floats())
    for i in range(100_000):
        many_outputs.outputs.add(name=f"y{i}")
    for message in (many_inputs, many_outputs):
        refused(lambda m=message: victim.stub().ModelInfer(m, timeout=60))
    outputs = json.dumps({"inputs": [], "outputs": [{"name": f"y{i}"} for i in range(10_000)]})
    status, _, _ = ask("127.0.0.1", victim.rest_port, "POST", "/v2/models/identity/infer", outputs)
    assert status == 400


@pytest.mark.parametrize("length", ["-1", "99999999999999999999", "18446744073709551615", "9223372036854775808",
                                    "0x10", "1e3", " 5", ""])
def test_a_length_of_json_that_is_none_is_refused(victim, length):
    status, _, _ = ask("127.0.0.1", victim.rest_port, "POST", "/v2/models/identity/infer", b"{}" * 8,
                       {"Inference-Header-Content-Length": length})
    assert status == 400


@pytest.mark.parametrize("size", [-1, 2**63 - 1, 2**64 - 1, 2**64, -2**63, 1e300, "16", 17, 15])
def test_a_size_of_binary_data_that_is_not_there_is_refused(victim, size):
    head = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4],
                                   "parameters": {"binary_data_size": size}}]})
    status, _, _ = ask("127.0.0.1", victim.rest_port, "POST", "/v2/models/identity/infer",
                       head.encode() + FLOATS.tobytes(),
                       {"Inference-Header-Content-Length": str(len(head))})
    assert status == 400


# --- parsers: CVE-2025-23310, 23311, 23317, 23321, 23325, 23331, 33201, 2026-24158, 24175, 24264, 47480 ---


def raw(victim, text, port=None):
    """What comes back for these bytes, until the server hangs up or is silent for a while."""
    with socket.create_connection(("127.0.0.1", port or victim.rest_port), timeout=30) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(text)
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
        return answer


def test_a_flood_of_chunks_costs_no_stack_and_no_memory(victim):
    before = victim.memory("VmHWM")
    head = b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = raw(victim, head + b"1\r\n \r\n" * 500_000 + b"0\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))
    for broken in (b"ffffffffffffffff\r\n", b"-1\r\n", b"fffffffffffffffff\r\n", b"1" * 100_000,
                   b"5;" + b"x" * 100_000 + b"\r\n", b"zz\r\n"):
        assert raw(victim, head + broken).startswith((b"HTTP/1.1 4", b"")), broken[:20]
    assert victim.memory("VmHWM") < before + (64 << 20)


@pytest.mark.parametrize("head", [
    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100_000, b"GET /" + b"a" * 1_000_000, b"G" * 1_000_000, b"\0" * 1000,
    b"\r\n" * 1000,
    b"GET / HTTP/9.9\r\n\r\n", b"GET /\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\nHost\r\n\r\n",
    b"GET / HTTP/1.1\r\n: x\r\n\r\n", b"GET / HTTP/1.1\r\nA: \0\r\n\r\n",
    b"POST /v2/models/identity/infer HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"POST /v2/models/identity/infer HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"POST /v2/models/identity/infer HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    b"POST /v2/models/identity/infer HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v2 HTTP/1.1\r\n\r\n",
    b"POST /v2/models/identity/infer HTTP/1.1\r\nTransfer-Encoding: xchunked\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /v2/models/identity/infer HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"],
    ids=lambda head: repr(head[:60]))
def test_a_header_that_is_none_is_refused(victim, head):
    for port in (victim.rest_port, victim.http_port):
        answer = raw(victim, head, port)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer[:100]
        assert answer.count(b"HTTP/1.1 ") <= 1  # nothing behind it was taken for a request


def test_json_of_any_depth_costs_no_stack(victim):
    for text in ("[" * 1_000_000, '{"a":' * 500_000, '{"inputs":' + "[" * 1_000_000,
                 '{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":'
                 + "[" * 1_000_000 + "1" + "]" * 1_000_000 + "}]}"):
        for path in ("/v2/models/identity/infer", "/v2/repository/index", "/v2/repository/models/identity/load"):
            status, _, _ = ask("127.0.0.1", victim.rest_port, "POST", path, text)
            assert status == 400, path


@pytest.mark.parametrize("text", [b"\xff\xfe", b'{"inputs": "\\ud800"}', b'{"id": "\xc3\x28"}', b"nul", b"1e99999",
                                  b'{"a":1,}', b'"' + b"\\" * 99,
                                  b'{"inputs":[{"name":null}]}', b'{"inputs":[[]]}', b'{"inputs":{}}', b"[]", b"{}{}",
                                  b'{"id":1}'],
                         ids=range(13))
def test_what_is_no_json_is_refused(victim, text):
    status, _, body = ask("127.0.0.1", victim.rest_port, "POST", "/v2/models/identity/infer", text)
    assert status == 400 and error_of(body)


def test_a_bomb_is_refused_before_it_goes_off(victim):
    before = victim.memory("VmHWM")
    plain = bytes(1 << 30)
    bombs = {"gzip": gzip.compress(plain, 9), "deflate": zlib.compress(plain, 9)}
    for encoding, bomb in bombs.items():
        assert len(bomb) < 2 << 20
        status, _, _ = ask("127.0.0.1", victim.rest_port, "POST", "/v2/models/identity/infer", bomb,
                           {"Content-Encoding": encoding})
        assert status == 413, encoding
    nested = gzip.compress(bombs["gzip"])
    assert ask("127.0.0.1", victim.rest_port, "POST", "/v2/models/identity/infer", nested,
               {"Content-Encoding": "gzip, gzip"})[0] == 415
    assert victim.memory("VmHWM") < before + (64 << 20)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize("method", ["ModelInfer", "ServerLive"])
def test_a_bomb_over_grpc_is_inflated_no_further_than_a_message_may_be_large(victim, method, compression):
    before = victim.memory("VmHWM")
    with victim.channel() as channel:
        call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        with pytest.raises(grpc.RpcError) as error:
            call(bytes(512 << 20), timeout=60, compression=compression)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max (16777217 vs. 16777216)" in error.value.details()
    assert victim.memory("VmHWM") < before + (64 << 20)


def test_an_id_that_is_too_long_is_refused_and_comes_back_shorter(victim):
    message = request("identity", floats())
    message.id = "x" * (1 << 20)
    text = refused(lambda: victim.stub().ModelInfer(message, timeout=60))
    assert "id has 1048576 bytes, and 4096 at most" in text and len(text) < 5000


def test_messages_of_grpc_that_are_none_are_refused(victim):
    with victim.channel() as channel:
        for method in ("ModelInfer", "ModelMetadata", "RepositoryModelLoad", "SystemSharedMemoryRegister",
                       "LogSettings", "ServerLive"):
            call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
            for message in (b"\xff" * 1000, b"\x0a\xff\xff\xff\xff\x0f", b"\x0b" * 100_000,
                            b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
                            b"\x2a" + b"\x80" * 20, struct.pack("<I", 7) * 10_000):
                with pytest.raises(grpc.RpcError) as error:
                    call(message, timeout=60)
                assert error.value.code() != grpc.StatusCode.UNAVAILABLE, (method, message[:10])


def test_strings_whose_lengths_are_lies_are_refused(victim):
    for data in (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7fa", struct.pack("<I", 2**31) + b"a", b"\1"):
        refused(lambda d=data: victim.stub().ModelInfer(request("identity", ("x", "BYTES", [1], d)), timeout=60))


# --- lives that end too early: CVE-2025-23322, 2026-24266, 47478 ---


def test_streams_and_calls_that_are_cancelled_at_any_time_leave_the_server_whole(victim):
    with victim.channel() as channel:
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        unary = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        message = request("identity", ("x", "FP32", [250_000],
                                       np.zeros(250_000, np.float32).tobytes())).SerializeToString()
        for i in range(200):
            call = stream(iter([message] * (i % 5 + 1)), timeout=60)
            if i % 3 == 0:
                with contextlib.suppress(grpc.RpcError):
                    next(call)
            call.cancel()
            unary.future(message, timeout=60).cancel()


def test_connections_that_are_cut_in_the_middle_leave_the_server_whole(victim):
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [100_000],
                                   "data": [1.5] * 100_000}]}).encode()
    whole = b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    for i in range(60):
        with socket.create_connection(("127.0.0.1", victim.rest_port), timeout=30) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
            connection.sendall(whole if i % 2 else whole[:len(whole) * i // 60])
            if i % 4 == 1:
                connection.recv(10)


def test_what_leaks_does_not(victim):
    """CVE-2025-33211, 2026-47482: refusals of every kind give back what they took."""
    def refusals():
        for _ in range(20):
            ask("127.0.0.1", victim.rest_port, "POST", "/v2/models/identity/infer", b"[" * 1_000_000)
            ask("127.0.0.1", victim.rest_port, "POST", "/v2/models/absent/infer", b" " * 3_000_000)
            refused(lambda: victim.stub().ModelInfer(request("identity", ("x", "FP32", [7], bytes(4_000_000))),
                                                     timeout=60))

    refusals()
    before = victim.memory()
    for _ in range(5):
        refusals()
    assert victim.memory() < before + (48 << 20)
    with contextlib.suppress(http.client.HTTPException):
        ask("127.0.0.1", victim.rest_port, "GET", "/v2/health/live")
