"""The Open Inference Protocol over HTTP: Triton's own client, and requests that it cannot send."""

import functools
import gzip
import http.client
import json
import re
import signal
import socket
import time

import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

import models
from test_protocol import FLOATS, floats, raw_of, refusal, request

NUMPY_TYPES = {
    "BOOL": bool, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16,
    "FP32": np.float32, "FP64": np.float64, "BF16": ml_dtypes.bfloat16, "BYTES": np.object_}
JSON_TYPES = [name for name in NUMPY_TYPES if name not in ("FP16", "BF16")]


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(f"127.0.0.1:{server.rest_port}", network_timeout=60) as ours:
        yield ours


def ask(server, method, path, body=None, headers=None):
    """(status, headers, body) of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def infer(server, model, body, headers=None):
    """(status, the answer's JSON) of an inference without binary data."""
    text = body if isinstance(body, (bytes, str)) else json.dumps(body)
    status, _, answer = ask(server, "POST", f"/v2/models/{model}/infer", text, headers)
    return status, json.loads(answer)


def tensor(name, datatype, shape, data):
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def of(datatype):
    """(model, input's name) of a model that answers with what it is given."""
    return ("strings", "words") if datatype == "BYTES" else ("identity", "x")


# --- what there is ---


def test_the_server_says_who_it_is(server, client):
    assert client.is_server_live() and client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata["name"] == "hearth" and metadata["version"]
    assert {"binary_tensor_data", "model_repository", "statistics"} <= set(metadata["extensions"])
    with server.client() as grpc_client:
        theirs = grpc_client.get_server_metadata(as_json=True)
    assert theirs["extensions"] == metadata["extensions"]


@pytest.mark.parametrize("model, version", [("addsub", ""), ("typed", ""), ("versions", "2")])
def test_metadata_is_what_grpc_says(server, client, model, version):
    metadata = client.get_model_metadata(model, version)
    with server.client() as grpc_client:
        theirs = grpc_client.get_model_metadata(model, version)
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == (
        theirs.name, list(theirs.versions), theirs.platform)
    for field in ("inputs", "outputs"):
        assert [(t["name"], t["datatype"], t["shape"]) for t in metadata[field]] == [
            (t.name, t.datatype, list(t.shape)) for t in getattr(theirs, field)]


def test_configuration_and_statistics_have_numbers_for_numbers(server, client):
    client.infer("batched", [binary("x", "FP32", FLOATS)])
    config = client.get_model_config("batched")
    assert config["name"] == "batched" and config["max_batch_size"] == 8
    assert config["input"][0]["data_type"] == "TYPE_FP32" and config["input"][0]["dims"] == [4]
    before = client.get_inference_statistics("batched")["model_stats"][0]
    client.infer("batched", [binary("x", "FP32", FLOATS)])
    (after,) = client.get_inference_statistics("batched", "1")["model_stats"]
    assert after["inference_count"] == before["inference_count"] + 1
    assert after["inference_stats"]["success"]["ns"] > before["inference_stats"]["success"]["ns"]
    assert "batched" in [row["name"] for row in client.get_inference_statistics()["model_stats"]]


def test_a_model_is_ready_once_it_answers(client):
    assert not client.is_model_ready("nobody")
    client.infer("bare", [binary("x", "FP32", FLOATS)])
    assert client.is_model_ready("bare") and client.is_model_ready("bare", "1")
    assert not client.is_model_ready("bare", "7")


def test_the_repository_is_driven_over_it(client):
    client.load_model("counter")
    rows = {(row["name"], row["version"]): row["state"] for row in client.get_model_repository_index()}
    assert rows["counter", "1"] == "READY" and client.is_model_ready("counter")
    client.unload_model("counter")
    rows = {(row["name"], row["version"]): row["reason"] for row in client.get_model_repository_index()}
    assert rows["counter", "1"] == "unloaded" and not client.is_model_ready("counter")
    with pytest.raises(InferenceServerException) as error:
        client.load_model("nobody")
    assert error.value.status() == "500" and "failed to load 'nobody'" in error.value.message()


def test_a_load_may_have_no_body(server):
    for action in ("load", "unload", "load"):
        status, headers, body = ask(server, "POST", f"/v2/repository/models/table/{action}")
        assert (status, body) == (200, b"{}")
    assert ";dur=" in headers["Server-Timing"]
    status, _, body = ask(server, "POST", "/v2/repository/index", '{"ready": true}')
    assert status == 200 and {row["state"] for row in json.loads(body)} == {"READY"}
    status, _, body = ask(server, "POST", "/v2/repository/models/table/load", '{"parameters": {"config": "{}"}}')
    assert (status, body) == (200, b"{}")


def test_the_description_is_of_the_paths_that_there_are(server):
    document = json.loads(ask(server, "GET", "/v2/openapi.json")[2])
    assert document["openapi"].startswith("3.0")
    for path, methods in document["paths"].items():
        there = path.format(model="identity", version="1", region="nobody")
        status, headers, _ = ask(server, "DELETE", there)
        allowed = headers["Allow"].split(", ")
        assert status == 405 and any(method.upper() in allowed for method in methods), path
        for method, operation in methods.items():
            if "{" not in path:  # those would load, unload or forget something
                assert ask(server, method.upper(), there)[0] not in (404, 405), (method, path)
            for name in re.findall(r"{(\w+)}", path):
                assert {"$ref": f"#/components/parameters/{name.title()}"} in operation["parameters"]
    references = re.findall(r"#(/[\w/]+)", json.dumps(document))
    for reference in references:
        assert functools.reduce(lambda node, key: node[key], reference[1:].split("/"), document), reference


def test_every_operation_of_the_description_has_a_name_of_its_own(server):
    document = json.loads(ask(server, "GET", "/v2/openapi.json")[2])
    names = [method["operationId"] for methods in document["paths"].values() for method in methods.values()]
    assert len(set(names)) == len(names)


def test_the_description_has_the_answer_of_a_model_that_is_not_ready(server):
    document = json.loads(ask(server, "GET", "/v2/openapi.json")[2])
    status, _, body = ask(server, "GET", "/v2/models/nobody/ready")
    described = document["paths"]["/v2/models/{model}/ready"]["get"]["responses"]
    assert status == 503 and ("503" in described or "error" in json.loads(body))


def test_the_description_has_the_answer_with_binary_tensors(server):
    document = json.loads(ask(server, "GET", "/v2/openapi.json")[2])
    described = document["paths"]["/v2/models/{model}/infer"]["post"]["responses"]["200"]["content"]
    assert set(described) == {"application/json", "application/octet-stream"}


# --- inference ---


def binary(name, datatype, values, as_binary=True):
    return triton.InferInput(name, values.shape, datatype).set_data_from_numpy(values, binary_data=as_binary)


@pytest.mark.parametrize("out_binary", [True, False], ids=["out=binary", "out=json"])
@pytest.mark.parametrize("in_binary", [True, False], ids=["in=binary", "in=json"])
@pytest.mark.parametrize("datatype", NUMPY_TYPES)
def test_tritonclient_reads_back_what_it_sent(client, datatype, in_binary, out_binary):
    if datatype not in JSON_TYPES and not (in_binary and out_binary):
        in_binary, out_binary = in_binary, True
        if not in_binary:
            return  # the client refuses
    if datatype == "BYTES":
        values = np.array([b"one", b"", "źdźbło".encode()], np.object_)
    else:
        values = np.array([[0, 1, 2], [3, 4, 100]]).astype(NUMPY_TYPES[datatype])
    model, name = of(datatype)
    output = client.get_model_metadata(model)["outputs"][0]["name"]
    result = client.infer(model, [binary(name, datatype, values, in_binary)], request_id="42",
                          outputs=[triton.InferRequestedOutput(output, binary_data=out_binary)])
    assert result.get_response()["id"] == "42"
    got = result.as_numpy(output)
    assert got.shape == values.shape and got.dtype == values.dtype
    if datatype == "BYTES":
        assert [v if isinstance(v, bytes) else v.encode() for v in got] == values.tolist()
    else:
        assert got.tobytes() == values.tobytes()


@pytest.mark.parametrize("datatype", NUMPY_TYPES)
def test_binary_data_of_every_datatype_comes_back_as_it_went(server, datatype):
    shape, raw = raw_of(datatype)
    model, name = of(datatype)
    head = json.dumps({"parameters": {"binary_data_output": True}, "inputs": [{
        "name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(raw)}}]}).encode()
    status, headers, body = ask(server, "POST", f"/v2/models/{model}/infer", head + raw,
                                {"Inference-Header-Content-Length": str(len(head))})
    assert status == 200 and headers["Content-Type"] == "application/octet-stream"
    size = int(headers["Inference-Header-Content-Length"])
    (output,) = json.loads(body[:size])["outputs"]
    assert (output["datatype"], output["shape"]) == (datatype, shape)
    assert output["parameters"] == {"binary_data_size": len(raw)} and body[size:] == raw


@pytest.mark.parametrize("datatype", JSON_TYPES)
def test_json_of_every_datatype_comes_back_as_it_went(server, datatype):
    model, name = of(datatype)
    limits = NUMPY_TYPES[datatype] if datatype not in ("BOOL", "BYTES", "FP32", "FP64") else None
    values = {"BOOL": [True, False, True], "BYTES": ["a", "", "\"\\\n😀"], "FP32": [0.5, -1e-40, 3.4028235e38],
              "FP64": [0.1, -5e-324, 1.7976931348623157e308]}.get(datatype) or [
                  int(np.iinfo(limits).min), 0, int(np.iinfo(limits).max)]
    status, answer = infer(server, model, {"inputs": [tensor(name, datatype, [3], values)]})
    assert status == 200 and answer["model_name"] == model and answer["model_version"] == "1"
    (output,) = answer["outputs"]
    assert (output["datatype"], output["shape"]) == (datatype, [3])
    if datatype == "FP32":
        assert np.array(output["data"], np.float32).tolist() == np.array(values, np.float32).tolist()
    else:
        assert output["data"] == values


def test_numbers_that_json_has_not_are_written_as_python_reads_them(server):
    status, answer = infer(server, "identity", '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [3], '
                           '"data": [NaN, Infinity, -Infinity]}]}')
    assert status == 200 and str(answer["outputs"][0]["data"]) == "[nan, inf, -inf]"


def test_nested_data_and_any_order_of_keys_are_the_same(server):
    flat, nested = [1, 2, 3, 4], [[1, 2], [3, 4]]
    want = infer(server, "identity", {"inputs": [tensor("x", "INT64", [2, 2], flat)]})
    got = infer(server, "identity", {"inputs": [{"data": nested, "datatype": "INT64", "shape": [2, 2], "name": "x"}]})
    assert got[0] == 200 and got[1]["outputs"] == want[1]["outputs"]


def test_a_large_tensor_passes_both_ways(client):
    values = np.arange(6 << 20, dtype=np.float32).reshape(6, -1)  # 24 MiB
    output = client.get_model_metadata("identity")["outputs"][0]["name"]
    result = client.infer("identity", [binary("x", "FP32", values)],
                          outputs=[triton.InferRequestedOutput(output, binary_data=True)])
    assert np.array_equal(result.as_numpy(output), values)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("as_binary", [True, False], ids=["binary", "json"])
def test_compressed_bodies_and_answers_are_the_same(client, encoding, as_binary):
    values = np.arange(20000, dtype=np.float32).reshape(100, 200)
    output = client.get_model_metadata("identity")["outputs"][0]["name"]
    result = client.infer("identity", [binary("x", "FP32", values, as_binary)],
                          outputs=[triton.InferRequestedOutput(output, binary_data=as_binary)],
                          request_compression_algorithm=encoding, response_compression_algorithm=encoding)
    assert np.array_equal(result.as_numpy(output), values)


def test_an_answer_is_compressed_for_who_takes_it(server):
    body = json.dumps({"inputs": [tensor("x", "INT32", [1000], [7] * 1000)]})
    plain = ask(server, "POST", "/v2/models/identity/infer", body)
    small = ask(server, "POST", "/v2/models/identity/infer", body, {"Accept-Encoding": "br, gzip"})
    assert small[1]["Content-Encoding"] == "gzip" and len(small[2]) < len(plain[2]) / 10
    assert json.loads(gzip.decompress(small[2])) == json.loads(plain[2])


@pytest.mark.parametrize("body, encoding, status", [
    (b"plain", "gzip", 400), (gzip.compress(b"{}")[:-1], "gzip", 400), (gzip.compress(b"{}"), "br", 415),
    (gzip.compress(bytes(100 << 20)), "gzip", 413)])
def test_bodies_that_are_not_what_they_say_are_refused(server, body, encoding, status):
    got, _, answer = ask(server, "POST", "/v2/models/identity/infer", body, {"Content-Encoding": encoding})
    assert got == status and json.loads(answer)["error"]


def test_a_body_without_json_is_the_data_of_the_only_input(server):
    for model, body, shape in (("typed", FLOATS.tobytes() * 2, [2, 4]), ("typed", b"", [0, 4])):
        status, headers, answer = ask(server, "POST", f"/v2/models/{model}/infer", body,
                                      {"Inference-Header-Content-Length": "0"})
        size = int(headers["Inference-Header-Content-Length"])
        (output,) = json.loads(answer[:size])["outputs"]
        assert status == 200 and output["shape"] == shape
        assert np.array_equal(np.frombuffer(answer[size:], np.float32), np.frombuffer(body, np.float32) * 2)
    status, answer = infer(server, "typed", bytes(15), {"Inference-Header-Content-Length": "0"})
    assert status == 400 and "does not say the shape of input 'x'" in answer["error"]
    status, answer = infer(server, "addsub", bytes(16), {"Inference-Header-Content-Length": "0"})
    assert status == 400 and "models of one input" in answer["error"]
    status, answer = infer(server, "nobody", bytes(16), {"Inference-Header-Content-Length": "0"})
    assert status == 404


def test_some_tensors_are_binary_and_others_json(server, client):
    names = [t["name"] for t in client.get_model_metadata("addsub")["outputs"]]
    a, b = np.array([5, 7], np.float32), np.array([1, 10], np.float32)
    result = client.infer("addsub", [binary("b", "FP32", b), binary("a", "FP32", a, False)],
                          outputs=[triton.InferRequestedOutput(names[1], binary_data=True),
                                   triton.InferRequestedOutput(names[0], binary_data=False)])
    assert [o["name"] for o in result.get_response()["outputs"]] == names[::-1]
    assert result.as_numpy(names[0]).tolist() == [6, 17] and result.as_numpy(names[1]).tolist() == [4, -3]


def test_the_version_asked_for_answers(client):
    for version, factor in [("1", 1), ("2", 2), ("10", 10), ("", 10)]:
        result = client.infer("versions", [binary("x", "FP32", FLOATS)], model_version=version)
        output = result.get_response()["outputs"][0]["name"]
        assert np.array_equal(result.as_numpy(output), FLOATS * factor)


def test_an_answer_says_how_its_model_was_found(start, repository):
    server = start(repository)
    body = {"inputs": [tensor("x", "FP32", [1, 4], [1, 2, 3, 4])]}
    first, second = (infer(server, "bare", body)[1]["parameters"] for _ in range(2))
    assert first["hearth_cache"] == "load" and first["hearth_load_ms"] > 0
    assert second == {"hearth_cache": "hit"}


# --- refusals ---


def body_of(*inputs, **more):
    return {"inputs": list(inputs), **more}


FOUR = [1, 2, 3, 4]


@pytest.mark.parametrize("model, body, theirs", [
    ("nobody", body_of(tensor("x", "FP32", [1, 4], FOUR)), request("nobody", floats())),
    ("versions/versions/99", body_of(tensor("x", "FP32", [1, 4], FOUR)), request("versions", floats(), version="99")),
    ("versions/versions/x", body_of(tensor("x", "FP32", [1, 4], FOUR)), request("versions", floats(), version="x")),
    ("addsub", body_of(tensor("a", "FP32", [1, 4], FOUR)), request("addsub", floats("a"))),
    ("identity", body_of(tensor("y", "FP32", [1, 4], FOUR)), request("identity", floats("y"))),
    ("identity", body_of(tensor("x", "FP7", [1, 4], FOUR)), request("identity", ("x", "FP7", [1, 4], bytes(16)))),
    ("identity", body_of(tensor("x", "FP32", [2, 4], FOUR)), request("identity", ("x", "FP32", [2, 4], bytes(16)))),
    ("identity", body_of(tensor("x", "FP32", [-1, 4], FOUR)), request("identity", ("x", "FP32", [-1, 4], bytes(16)))),
    ("identity", body_of(tensor("x", "FP32", [1 << 62, 1 << 62], FOUR)),
     request("identity", ("x", "FP32", [1 << 62, 1 << 62], bytes(16)))),
    ("typed", body_of(tensor("x", "INT32", [1, 4], FOUR)), request("typed", ("x", "INT32", [1, 4], bytes(16)))),
    ("identity", body_of(tensor("x", "FP32", [1, 4], FOUR), outputs=[{"name": "nonsense"}]),
     request("identity", floats(), outputs=["nonsense"])),
])
def test_refusals_are_grpcs(server, model, body, theirs):
    code, text = refusal(server, theirs)
    status, answer = infer(server, model, body)
    assert status == {"NOT_FOUND": 404, "INVALID_ARGUMENT": 400}[code]
    assert answer == {"error": text}


@pytest.mark.parametrize("body, sentence", [
    (b"", "expected an object"),
    (b"\xff\xfe", "expected an object"),
    (b"[]", "expected an object, got an array at byte 0"),
    (b"[" * 100000, "expected an object"),
    (b'{"inputs":' + b"[" * 100000, "expected an object, got an array"),
    (b'{"a":' + b"[" * 100000, "more than 64 levels"),
    (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1,2]}', "expected ',' or ']'"),
    (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1,true]}]}', "expected a number, got a boolean"),
    (b'{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1000]}]}', "does not fit INT8"),
    (b'{"inputs":[{"name":"x","datatype":"FP16","shape":[1],"data":[1]}]}', "FP16 data via JSON is not supported"),
    (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2]}]}', "unable to find data for input tensor 'x'"),
    (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1.5],"data":[1]}]}', "not a whole number"),
    (b'{"inputs":[{"name":"x","name":"y"}]}', "'name' comes twice"),
    (b'{"parameters":{"timeout":"soon"}}', "invalid value type for 'timeout' parameter"),
    (b'{"parameters":{"sequence_id":true}}', "invalid value type for 'sequence_id' parameter"),
    (b'{"inputs":[{"name":"\xff"}]}', "not UTF-8"),
])
def test_malformed_bodies_are_refused_with_a_sentence(server, body, sentence):
    status, _, answer = ask(server, "POST", "/v2/models/identity/infer", body)
    assert status in (400, 501), answer
    assert sentence in json.loads(answer)["error"]
    assert server.alive


@pytest.mark.parametrize("length, sentence", [
    ("1000", "Inference-Header-Content-Length is 1000, and the body has"),
    ("-1", "no number of bytes"), ("99999999999999999999", "no number of bytes"), ("x", "no number of bytes"),
    ("1", "expected a key in double quotes, and the JSON ends"),
])
def test_a_json_length_that_is_none_is_refused(server, length, sentence):
    status, answer = infer(server, "identity", "{}    ", {"Inference-Header-Content-Length": length})
    assert status == 400 and sentence in answer["error"]


def test_two_json_lengths_that_differ_are_refused(server):
    body = json.dumps({"inputs": [tensor("x", "FP32", [1, 2], [1, 2])]}).encode()

    def answer(*lengths):
        connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
        connection.putrequest("POST", "/v2/models/identity/infer")
        connection.putheader("Content-Length", str(len(body)))
        for length in lengths:
            connection.putheader("Inference-Header-Content-Length", str(length))
        connection.endheaders(body)
        got = connection.getresponse()
        return got.status, got.read().decode()

    assert answer(len(body), len(body))[0] == 200
    status, text = answer(len(body), 0)
    assert status == 400 and "is there twice" in text


@pytest.mark.parametrize("size, sentence", [
    (15, "1 bytes of binary data more"), (17, "a binary_data_size of 17, and 16 bytes"), (2 ** 64 - 1, "and 16 bytes of the body are left")])
def test_binary_sizes_that_do_not_add_up_are_refused(server, size, sentence):
    head = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4],
                                   "parameters": {"binary_data_size": size}}]}).encode()
    status, answer = infer(server, "identity", head + bytes(16), {"Inference-Header-Content-Length": str(len(head))})
    assert status == 400 and sentence in answer["error"]


def test_outputs_that_json_cannot_carry_are_refused_and_say_how_to_ask(server):
    shape, raw = raw_of("BYTES")
    for model, name, datatype, shape, raw in (("strings", "words", "BYTES", shape, raw), ("identity", "x", "FP16", [1], b"ab")):
        head = json.dumps({"inputs": [{"name": name, "datatype": datatype, "shape": shape,
                                       "parameters": {"binary_data_size": len(raw)}}]}).encode()
        status, answer = infer(server, model, head + raw, {"Inference-Header-Content-Length": str(len(head))})
        assert status == 400 and "binary" in answer["error"]


@pytest.mark.parametrize("method, path, status", [
    ("GET", "/", 404), ("GET", "/v2/nothing", 404), ("GET", "/v2/models", 404), ("GET", "/v2/models/a/b/c/d/e", 404),
    ("GET", "/v2/models/%zz", 404), ("GET", "/v2/models/nobody", 404), ("GET", "/v2/models/identity/infer", 405),
    ("POST", "/v2/health/live", 405), ("DELETE", "/v2", 405), ("GET", "/v2/models/nobody/stats", 400)])
def test_what_is_not_there_is_an_error_in_json(server, method, path, status):
    got, _, body = ask(server, method, path)
    assert got == status and json.loads(body)["error"]


def test_a_body_over_the_limit_is_refused_before_it_is_sent(start, repository):
    server = start(repository, config={"rest": {"max_body_bytes": 1000}})
    status, _, body = ask(server, "POST", "/v2/models/identity/infer", bytes(1001))
    assert status == 413 and "1000 bytes (rest.max_body_bytes)" in json.loads(body)["error"]
    assert infer(server, "identity", {"inputs": [tensor("x", "FP32", [1], [1])]})[0] == 200


def test_bodies_of_all_clients_together_have_a_limit(start, repository):
    server = start(repository, config={"rest": {"max_bodies_bytes": "1MiB"}})
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [200_000], "data": [0] * 200_000}]}).encode()
    path = "/v2/models/identity/infer"
    with socket.create_connection(("127.0.0.1", server.rest_port)) as slow:
        slow.sendall(f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:-1])
        for _ in range(100):  # the one thread takes turns: what the slow one has sent has been read after so many
            assert ask(server, "GET", "/v2/health/live")[0] == 200
        status, _, answer = ask(server, "POST", path, body)
        assert status == 503 and "rest.max_bodies_bytes" in json.loads(answer)["error"]
        slow.sendall(body[-1:])
        slow.settimeout(60)
        assert slow.recv(12).endswith(b"200")
    assert ask(server, "POST", path, body)[0] == 200  # what was taken has been given back


def test_a_client_that_waits_for_100_continue_is_told_to_go_on(server):
    body = json.dumps({"inputs": [tensor("x", "FP32", [1], [1])]}).encode()
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=60) as connection:
        connection.sendall(b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                           b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and b'"data":[1]' in answer


def test_a_chunked_body_is_read(server):
    body = json.dumps({"inputs": [tensor("x", "FP32", [1], [1])]}).encode()
    status, answer = infer_chunked(server, [body[:10], body[10:11], body[11:]])
    assert status == 200 and answer["outputs"][0]["data"] == [1]


def infer_chunked(server, pieces):
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
    connection.request("POST", "/v2/models/identity/infer", iter(pieces), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


# --- life ---


def slow_body(rounds):
    return json.dumps({"inputs": [tensor("x", "FP32", [256, 256], np.eye(256).flatten().tolist()),
                                  tensor("rounds", "INT64", [1], [rounds])]})


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_timeout_is_kept_and_is_a_504(start, repository):
    server = start(repository, config={"compute": {"threads": 1}})
    ask(server, "POST", "/v2/repository/models/slow/load")
    running = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
    running.request("POST", "/v2/models/slow/infer", slow_body(2000))
    wait_until(lambda: server.metric("hearth_pins") >= 1)
    late = json.loads(slow_body(1))
    status, answer = infer(server, "slow", {**late, "parameters": {"timeout": 1000}})
    assert status == 504 and answer["error"]
    assert running.getresponse().status == 200


def test_a_client_that_goes_away_cancels_its_request(start, repository):
    """While one runs, others wait for the only thread; they are gone before it is done."""
    server = start(repository, config={"compute": {"threads": 1}})
    ask(server, "POST", "/v2/repository/models/slow/load")
    running = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
    running.request("POST", "/v2/models/slow/infer", slow_body(2000))
    wait_until(lambda: server.metric("hearth_pins") >= 1)
    waiting = []
    for _ in range(3):
        waiting.append(http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60))
        waiting[-1].request("POST", "/v2/models/slow/infer", slow_body(1000000))
    wait_until(lambda: server.metric("hearth_pins") >= 4)
    for connection in waiting:
        connection.close()
    assert running.getresponse().status == 200
    wait_until(lambda: server.metric("hearth_requests_total", model="slow", code="CANCELLED") == 3)
    running.close()


def test_sigterm_answers_what_runs_and_exits_0(start, repository):
    server = start(repository)
    ask(server, "POST", "/v2/repository/models/slow/load")
    connections = [http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60) for _ in range(3)]
    for connection in connections:
        connection.request("POST", "/v2/models/slow/infer", slow_body(500))
    wait_until(lambda: server.metric("hearth_pins") >= 3)
    server.process.send_signal(signal.SIGTERM)
    assert [connection.getresponse().status for connection in connections] == [200] * 3
    assert server.wait() == 0


def test_clients_that_send_nothing_or_half_hold_up_nobody(server):
    idle = [socket.create_connection(("127.0.0.1", server.rest_port)) for _ in range(50)]
    for connection in idle[:25]:
        connection.sendall(b"POST /v2/models/identity/infer HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
    assert infer(server, "identity", {"inputs": [tensor("x", "FP32", [1], [1])]})[0] == 200
    for connection in idle:
        connection.close()


# --- shared memory, the log, traces ---

@pytest.fixture
def sharing(start, repository):
    server = start(repository, config={"grpc": {"client_shared_memory": True}})
    with triton.InferenceServerClient(f"127.0.0.1:{server.rest_port}") as made:
        yield server, made


def test_tensors_in_shared_memory_are_read_and_written_there(sharing):
    server, client = sharing
    key, size = f"/hearth_rest_{server.process.pid}", 64
    region = shm.create_shared_memory_region("r", key, size, create_only=True)
    try:
        client.register_system_shared_memory("r", key, size)
        status, = client.get_system_shared_memory_status()
        assert (status["name"], status["key"], status["offset"], status["byte_size"]) == ("r", key, 0, size)
        assert "system_shared_memory" in client.get_server_metadata()["extensions"]
        values = np.array([[1, 2, 3, 4]], np.float32)
        shm.set_shared_memory_region(region, [values])
        given = triton.InferInput("x", [1, 4], "FP32")
        given.set_shared_memory("r", 16)
        name = client.infer("identity", [given]).get_response()["outputs"][0]["name"]
        wanted = triton.InferRequestedOutput(name)
        wanted.set_shared_memory("r", 16, offset=32)
        answer = client.infer("identity", [given], outputs=[wanted]).get_response()["outputs"][0]
        assert answer["parameters"] == {"shared_memory_region": "r", "shared_memory_offset": 32, "shared_memory_byte_size": 16}
        assert "data" not in answer
        assert np.array_equal(shm.get_contents_as_numpy(region, np.float32, [1, 4], offset=32), values)
        given.set_shared_memory("r", 16, offset=56)
        with pytest.raises(InferenceServerException, match="'r'"):
            client.infer("identity", [given])
        client.unregister_system_shared_memory("r")
        assert client.get_system_shared_memory_status() == []
        with pytest.raises(InferenceServerException, match="Unable to find"):
            client.get_system_shared_memory_status("r")
    finally:
        shm.destroy_shared_memory_region(region)


def test_shared_memory_is_refused_where_it_is_not_allowed_and_cuda_has_none(client, server):
    with pytest.raises(InferenceServerException, match="grpc.client_shared_memory"):
        client.register_system_shared_memory("r", "/r", 64)
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    assert client.get_cuda_shared_memory_status() == []
    status, _, answer = ask(server, "POST", "/v2/systemsharedmemory/region/r/register", b'{"key":"/r"}')
    assert status == 400 and "byte_size" in json.loads(answer)["error"]


def test_the_level_of_the_log_is_told_and_changed(start, repository):
    server = start(repository)
    with triton.InferenceServerClient(f"127.0.0.1:{server.rest_port}") as client:
        for level in (0, 1):
            assert client.update_log_settings({"log_verbose_level": level})["log_verbose_level"] == level
            after = client.get_log_settings()
            assert (after["log_info"], after["log_verbose_level"]) == (True, level)
        with pytest.raises(InferenceServerException, match="log_file"):
            client.update_log_settings({"log_file": "/tmp/anything"})


def test_traces_are_the_configurations(client):
    assert client.get_trace_settings()["trace_level"] == ["OFF"]
    assert client.get_trace_settings(model_name="identity")["trace_level"] == ["OFF"]
    with pytest.raises(InferenceServerException, match="`tracing`"):
        client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})


def test_it_can_be_switched_off(start, repository):
    server = start(repository, config={"rest": {"enabled": False}})
    assert server.rest_port == 0 and server.get("/v2/health/live")[0] == 200
