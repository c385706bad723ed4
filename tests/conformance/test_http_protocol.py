"""The same protocol over HTTP: JSON, and binary tensors beside it."""

import json
import os

import numpy as np
import pytest
import tritonclient.http
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

import models
import wire

pytestmark = pytest.mark.needs("http")

LENGTH = "Inference-Header-Content-Length"
JSON_TYPES = [name for name in models.DATATYPES if name not in ("FP16", "BF16", "BYTES")]


def given(name, values, datatype, binary=True):
    return tritonclient.http.InferInput(name, values.shape, datatype).set_data_from_numpy(values, binary_data=binary)


def body(model_input="INPUT0", datatype="FP32", shape=(1, 2), data=(1.0, 2.0), **more):
    return {"inputs": [{"name": model_input, "datatype": datatype, "shape": list(shape), "data": list(data)}], **more}


def infer(ask, model, content, headers=None):
    """(status, the answer's JSON)"""
    status, _, answer = ask("POST", f"/v2/models/{model}/infer", content, headers)
    return status, json.loads(answer)


def has(http, datatype):
    name = f"identity_{datatype.lower()}"
    if not http.is_model_ready(name):
        pytest.skip(f"needs the model {name}")
    return name


# --- what there is ---


def test_health_is_a_status(http, ask):
    assert http.is_server_live() and http.is_server_ready()
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/simple/ready", "/v2/models/simple/versions/1/ready"):
        assert ask("GET", path)[0] == 200, path


def test_an_unknown_model_is_not_ready(http):
    assert not http.is_model_ready("nobody") and not http.is_model_ready("simple", "99")


def test_the_server_says_the_same_as_over_grpc(http, client):
    ours, theirs = http.get_server_metadata(), client.get_server_metadata(as_json=True)
    assert (ours["name"], ours["version"]) == (theirs["name"], theirs["version"])
    assert {"model_repository"} <= set(ours["extensions"])


@pytest.mark.parametrize("model, version", [("simple", ""), ("simple", "1"), ("identity_fp32", "")])
def test_a_models_metadata_is_the_same_as_over_grpc(http, client, model, version):
    ours, theirs = http.get_model_metadata(model, version), client.get_model_metadata(model, version)
    assert (ours["name"], ours["versions"], ours["platform"]) == (theirs.name, list(theirs.versions), theirs.platform)
    for field in ("inputs", "outputs"):
        assert [(t["name"], t["datatype"], t["shape"]) for t in ours[field]] == [
            (t.name, t.datatype, list(t.shape)) for t in getattr(theirs, field)]


@pytest.mark.needs("model_configuration")
def test_a_configuration_has_numbers_for_numbers(http):
    config = http.get_model_config("simple")
    assert config["name"] == "simple" and config["max_batch_size"] == 8
    assert config["input"][0]["data_type"] == "TYPE_INT32" and config["input"][0]["dims"] == [16]


@pytest.mark.needs("statistics")
def test_statistics_grow(http):
    before, = http.get_inference_statistics("simple")["model_stats"]
    ones = np.ones((2, 16), np.int32)
    http.infer("simple", [given("INPUT0", ones, "INT32"), given("INPUT1", ones, "INT32")])
    after, = http.get_inference_statistics("simple", "1")["model_stats"]
    assert after["inference_count"] - before.get("inference_count", 0) == 2
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 1
    assert "simple" in [row["name"] for row in http.get_inference_statistics()["model_stats"]]


def state(http, name):
    return next(row["state"] for row in http.get_model_repository_index() if row["name"] == name)


@pytest.mark.needs("explicit control")
def test_models_are_loaded_and_unloaded(http):
    name = "comes_and_goes_1"
    http.load_model(name)
    http.unload_model(name)
    assert not http.is_model_ready(name)
    wire.wait_until(lambda: state(http, name) == "UNAVAILABLE")
    http.load_model(name)
    assert state(http, name) == "READY" and http.is_model_ready(name)
    with pytest.raises(InferenceServerException) as error:
        http.load_model("nobody")
    assert "failed to load 'nobody'" in error.value.message()


# --- inference ---


@pytest.mark.parametrize("datatype", models.DATATYPES)
def test_binary_data_comes_back(http, datatype):
    name = has(http, datatype)
    if datatype == "BYTES":
        values = np.array([b"one", b"", "źdźbło".encode()], np.object_)
    else:
        values = np.array([[0, 1, 2], [3, 4, 100]]).astype(wire.NUMPY[datatype])
    got = http.infer(name, [given("INPUT0", values, datatype)],
                     outputs=[tritonclient.http.InferRequestedOutput("OUTPUT0", binary_data=True)]).as_numpy("OUTPUT0")
    assert got.tolist() == values.tolist() and got.dtype == values.dtype


@pytest.mark.parametrize("datatype", JSON_TYPES)
def test_json_comes_back(ask, http, datatype):
    name = has(http, datatype)
    data = {"BOOL": [True, False], "FP32": [0.5, -3.0], "FP64": [0.1, -1e300]}.get(datatype)
    if data is None:
        limits = np.iinfo(wire.NUMPY[datatype])
        data = [int(limits.min), int(limits.max)]
    status, answer = infer(ask, name, body(datatype=datatype, data=data))
    assert status == 200 and answer["model_name"] == name and answer["model_version"] == "1"
    output, = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"], output["data"]) == ("OUTPUT0", datatype, [1, 2], data)


@pytest.mark.model("identity_bytes")
def test_strings_are_json(ask):
    words = ["a", "", "\"\\\n😀"]
    status, answer = infer(ask, "identity_bytes", body(datatype="BYTES", shape=[3], data=words))
    assert status == 200 and answer["outputs"][0]["data"] == words


def test_nested_data_is_the_same_as_flat(ask):
    flat = infer(ask, "identity_fp32", body(shape=[2, 2], data=[1, 2, 3, 4]))
    nested = infer(ask, "identity_fp32", body(shape=[2, 2], data=[[1, 2], [3, 4]]))
    assert flat[0] == nested[0] == 200 and flat[1]["outputs"] == nested[1]["outputs"]


def test_the_id_comes_back_and_only_outputs_that_are_named(ask):
    ones = {"datatype": "INT32", "shape": [1, 16], "data": [1] * 16}
    content = {"id": "42", "inputs": [{"name": "INPUT0", **ones}, {"name": "INPUT1", **ones}],
               "outputs": [{"name": "OUTPUT1"}]}
    status, answer = infer(ask, "simple", content)
    assert status == 200 and answer["id"] == "42"
    assert [(output["name"], output["data"]) for output in answer["outputs"]] == [("OUTPUT1", [0] * 16)]


@pytest.mark.model("versions")
@pytest.mark.parametrize("version, factor", [("", 10), ("/versions/1", 1), ("/versions/2", 2)])
def test_the_version_in_the_path_answers(ask, version, factor):
    status, answer = infer(ask, "versions" + version, body())
    assert status == 200 and answer["outputs"][0]["data"] == [factor, 2 * factor]
    assert answer["model_version"] == str(factor)


@pytest.mark.needs("binary_tensor_data")
def test_some_tensors_are_binary_and_others_are_not(http):
    ones, values = np.ones((1, 16), np.int32), np.arange(16, dtype=np.int32).reshape(1, 16)
    result = http.infer("simple", [given("INPUT1", ones, "INT32"), given("INPUT0", values, "INT32", binary=False)],
                        outputs=[tritonclient.http.InferRequestedOutput("OUTPUT1", binary_data=True),
                                 tritonclient.http.InferRequestedOutput("OUTPUT0", binary_data=False)])
    assert result.as_numpy("OUTPUT0").tolist() == (values + 1).tolist()
    assert result.as_numpy("OUTPUT1").tolist() == (values - 1).tolist()


@pytest.mark.needs("binary_tensor_data")
def test_the_header_says_where_the_binary_data_begins(ask):
    raw = np.array([1, 2], np.float32).tobytes()
    head = json.dumps({"parameters": {"binary_data_output": True}, "inputs": [{
        "name": "INPUT0", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}]}).encode()
    status, headers, answer = ask("POST", "/v2/models/identity_fp32/infer", head + raw, {LENGTH: str(len(head))})
    assert status == 200
    size = int(headers[LENGTH])
    output, = json.loads(answer[:size])["outputs"]
    assert output["parameters"]["binary_data_size"] == 8 and answer[size:] == raw


@pytest.mark.needs("binary_tensor_data")
def test_a_large_tensor_passes_both_ways(http):
    values = np.arange(4 << 20, dtype=np.float32).reshape(4, -1)
    got = http.infer("identity_fp32", [given("INPUT0", values, "FP32")],
                     outputs=[tritonclient.http.InferRequestedOutput("OUTPUT0", binary_data=True)])
    assert np.array_equal(got.as_numpy("OUTPUT0"), values)


# --- what gRPC has, too ---


def reaches(call):
    """What `call` gives; skips where the path is not there."""
    what = call.__name__.removeprefix("get_").removesuffix("_status").removesuffix("_settings").replace("_", " ")
    try:
        return call()
    except InferenceServerException as error:
        if error.status() == "404":
            names = {"log": "logging", "trace": "trace settings", "system shared memory": "system_shared_memory"}
            pytest.skip(f"needs {names[what]} over HTTP")
        raise


@pytest.mark.needs("logging")
def test_the_log_has_its_settings(http):
    settings = reaches(http.get_log_settings)
    assert settings["log_info"] in (True, False) and settings["log_verbose_level"] >= 0
    assert http.update_log_settings({"log_info": settings["log_info"]})["log_info"] == settings["log_info"]


def test_a_server_can_always_be_asked_whether_it_traces(http):
    assert reaches(http.get_trace_settings)["trace_level"]


@pytest.mark.needs("system_shared_memory")
def test_tensors_go_through_memory(http):
    assert reaches(http.get_system_shared_memory_status) == []
    values = np.array([[1.0, 2.0]], np.float32)
    key = f"/http-region-{os.getpid()}"
    region = shm.create_shared_memory_region("http-region", key, 16, create_only=True)
    try:
        shm.set_shared_memory_region(region, [values])
        http.register_system_shared_memory("http-region", key, 16)
        tensor = tritonclient.http.InferInput("INPUT0", [1, 2], "FP32")
        tensor.set_shared_memory("http-region", 8)
        output = tritonclient.http.InferRequestedOutput("OUTPUT0")
        output.set_shared_memory("http-region", 8, offset=8)
        http.infer("identity_fp32", [tensor], outputs=[output])
        assert shm.get_contents_as_numpy(region, np.float32, [1, 2], offset=8).tolist() == values.tolist()
        http.unregister_system_shared_memory("http-region")
    finally:
        shm.destroy_shared_memory_region(region)


# --- refusals ---

BAD = {
    "unknown model": ("nobody", body(), 404, "Request for unknown model: 'nobody' is not found"),
    "unknown version": ("simple/versions/99", body(), 404, "Request for unknown model: 'simple' version 99 is not found"),
    "missing input": ("simple", body(datatype="INT32", shape=[1, 16], data=[1] * 16), 400,
                      "expected 2 inputs but got 1 inputs for model 'simple'"),
    "unexpected input": ("identity_fp32", body("INPUT7"), 400, "unexpected inference input 'INPUT7'"),
    "unexpected output": ("identity_fp32", body(outputs=[{"name": "OUTPUT7"}]), 400,
                          "unexpected inference output 'OUTPUT7' for model 'identity_fp32'"),
    "wrong datatype": ("identity_fp32", body(datatype="INT32", data=[1, 2]), 400,
                       "data-type is 'INT32', but model 'identity_fp32' expects 'FP32'"),
    "wrong shape": ("identity_fp32", body(shape=[2]), 400, "unexpected shape for input 'INPUT0'"),
}


@pytest.mark.parametrize("model, content, status, text", BAD.values(), ids=BAD)
def test_a_bad_request_is_an_error_in_json(ask, model, content, status, text):
    got, answer = infer(ask, model, content)
    assert got == status and text in answer["error"], answer


MALFORMED = {
    "too few elements": body(data=[1]),
    "too many elements": body(data=[1, 2, 3]),
    "text for a number": body(data=["a", "b"]),
    "no JSON": b"{",
    "no object": b"[]",
    "nothing": b"",
    "no inputs": {},
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_request_is_an_error_in_json(ask, content):
    """400; 500 is what Triton makes of some of them."""
    got, answer = infer(ask, "identity_fp32", content)
    assert got in (400, 500) and answer["error"]


@pytest.mark.needs("binary_tensor_data")
@pytest.mark.parametrize("size", [7, 9, 1 << 40])
def test_binary_sizes_that_do_not_add_up_are_refused(ask, size):
    head = json.dumps({"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 2],
                                   "parameters": {"binary_data_size": size}}]}).encode()
    status, answer = infer(ask, "identity_fp32", head + bytes(8), {LENGTH: str(len(head))})
    assert status == 400 and answer["error"]


@pytest.mark.parametrize("length", ["1000", "-1", "x", "99999999999999999999"])
def test_a_header_length_that_is_none_is_refused(ask, length):
    assert infer(ask, "identity_fp32", json.dumps(body()).encode(), {LENGTH: length})[0] == 400


@pytest.mark.parametrize("method, path", [
    ("GET", "/v2/nothing"), ("GET", "/v2/models/nobody"), ("GET", "/v2/models/nobody/config"),
    ("POST", "/v2/models/simple/nothing")])
def test_what_is_not_there_is_an_error(ask, method, path):
    assert 400 <= ask(method, path)[0] < 500


def test_after_all_that_the_server_answers(http, ask):
    assert http.is_server_live() and infer(ask, "identity_fp32", body())[0] == 200
