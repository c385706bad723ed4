"""What is wrong with a request is said in a code and a text that clients know."""

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

import wire
from wire import ONES, floats, request, simple, tensor

INVALID, NOT_FOUND = "INVALID_ARGUMENT", "NOT_FOUND"


def ints(rows=1, columns=16):
    return np.ones((rows, columns), np.int32)


def raw_input(size, name="INPUT0", shape=(1, 16), datatype="INT32"):
    return name, datatype, list(shape), bytes(size)


TABLE = {
    "unknown model": (
        floats("nobody", [[1]]), NOT_FOUND, "Request for unknown model: 'nobody' is not found"),
    "unknown model with a version": (
        floats("nobody", [[1]], version="1"), NOT_FOUND, "Request for unknown model: 'nobody' is not found"),
    "unknown version": (
        simple(version="99"), NOT_FOUND, "Request for unknown model: 'simple' version 99 is not found"),
    "version that is no number": (
        simple(version="x"), INVALID, "failed to get model version from specified version string 'x'"),
    "missing input": (
        request("simple", tensor("INPUT0", ONES)), INVALID,
        "expected 2 inputs but got 1 inputs for model 'simple'. Got input(s) ['INPUT0'], "
        "but missing required input(s) ['INPUT1']"),
    "no inputs": (
        request("simple"), INVALID, "expected 2 inputs but got 0 inputs for model 'simple'"),
    "unexpected input": (
        request("simple", tensor("INPUT0", ONES), tensor("INPUT7", ONES)), INVALID,
        "unexpected inference input 'INPUT7' for model 'simple'"),
    "unexpected output": (
        simple(outputs=["OUTPUT7"]), INVALID, "unexpected inference output 'OUTPUT7' for model 'simple'"),
    "wrong datatype": (
        request("simple", tensor("INPUT0", np.ones((1, 16), np.float32)), tensor("INPUT1", ONES)), INVALID,
        "inference input 'INPUT0' data-type is 'FP32', but model 'simple' expects 'INT32'"),
    "wrong shape": (
        simple(ints(columns=17)), INVALID,
        "unexpected shape for input 'INPUT0' for model 'simple'. Expected [-1,16], got [1,17]"),
    "too many dimensions": (
        simple(np.ones((1, 16, 1), np.int32)), INVALID, "unexpected shape for input 'INPUT0' for model 'simple'"),
    "batch too large": (
        simple(ints(9), ints(9)), INVALID, "inference request batch-size must be <= 8 for 'simple'"),
    "batches of two sizes": (
        simple(ints(2), ints(3)), INVALID, "batch size does not match other inputs for 'simple'"),
    "too few bytes": (
        request("simple", raw_input(60), tensor("INPUT1", ONES)), INVALID,
        "input byte size mismatch for input 'INPUT0' for model 'simple'. Expected 64, got 60"),
    "too many bytes": (
        request("simple", raw_input(68), tensor("INPUT1", ONES)), INVALID,
        "input byte size mismatch for input 'INPUT0' for model 'simple'. Expected 64, got 68"),
    "no data": (
        request("simple", raw_input(64)[:3] + (None,), raw_input(64, "INPUT1")[:3] + (None,)), INVALID, "INPUT"),
    "input twice": (
        request("simple", tensor("INPUT0", ONES), tensor("INPUT0", ONES)), INVALID,
        "input 'INPUT0' already exists in request"),
    "timeout of another type": (
        simple(parameters={"timeout": "soon"}), INVALID,
        "invalid value type for 'timeout' parameter, expected int64_param."),
    "priority of another type": (
        simple(parameters={"priority": "high"}), INVALID, "invalid value type for 'priority' parameter"),
    "sequence flag of another type": (
        simple(parameters={"sequence_start": "yes"}), INVALID,
        "invalid value type for 'sequence_start' parameter, expected bool_param."),
}


@pytest.mark.parametrize("message, code, text", TABLE.values(), ids=TABLE)
def test_a_bad_request_is_refused_as_triton_does(stub, message, code, text):
    got, said = wire.refusal(stub.ModelInfer, message)
    assert got == code and text in said, said


@pytest.mark.parametrize("message, code, text", TABLE.values(), ids=TABLE)
def test_a_bad_request_is_refused_in_a_stream_as_well(stub, message, code, text):
    copy = pb.ModelInferRequest()
    copy.CopyFrom(message)
    copy.id = "mine"
    bad, good = stub.ModelStreamInfer(iter([copy, simple(request_id="next")]), timeout=wire.PATIENCE)
    assert text in bad.error_message and bad.infer_response.id == "mine"
    assert not good.error_message and good.infer_response.id == "next"


BYTES_TABLE = {
    "too few strings": ([3], wire.strings(b"a"), "expected 3 string elements for inference input 'INPUT0'"),
    "too many strings": ([1], wire.strings(b"a", b"b"), "unexpected number of string elements 2"),
    "half a length": ([1], b"\1\0", "incomplete string length indicator for inference input 'INPUT0'"),
    "half a string": ([1], b"\5\0\0\0abc", "incomplete string data for inference input 'INPUT0'"),
    "a length of 4 GiB": ([1], b"\xff\xff\xff\xffabc", "incomplete string data for inference input 'INPUT0'"),
}


@pytest.mark.model("identity_bytes")
@pytest.mark.parametrize("shape, raw, text", BYTES_TABLE.values(), ids=BYTES_TABLE)
def test_strings_that_do_not_add_up_are_refused(stub, shape, raw, text):
    code, said = wire.refusal(stub.ModelInfer, request("identity_bytes", ("INPUT0", "BYTES", shape, raw)))
    assert code == INVALID and text in said, said


def test_typed_and_raw_contents_together_are_refused(stub):
    message = simple()
    message.inputs[0].contents.int_contents.extend([1] * 16)
    code, text = wire.refusal(stub.ModelInfer, message)
    assert code == INVALID and "contents field must not be specified when using raw_input_contents for 'INPUT0'" in text


def test_typed_contents_of_another_type_are_refused(stub):
    message = request("identity_fp32", ("INPUT0", "FP32", [1, 2], None))
    message.inputs[0].contents.int_contents.extend([1, 2])
    code, text = wire.refusal(stub.ModelInfer, message)
    assert code == INVALID and "unexpected explicit tensor data for input tensor 'INPUT0'" in text, text


@pytest.mark.parametrize("count", [1, 3])
def test_typed_contents_of_another_size_are_refused(stub, count):
    message = request("identity_fp32", ("INPUT0", "FP32", [1, 2], None))
    message.inputs[0].contents.fp32_contents.extend([1.0] * count)
    code, text = wire.refusal(stub.ModelInfer, message)
    assert code == INVALID and "'INPUT0'" in text


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_has_no_typed_contents(client, stub, datatype):
    name = f"identity_{datatype.lower()}"
    if not client.is_model_ready(name):
        pytest.skip(f"needs the model {name}")
    message = request(name, ("INPUT0", datatype, [1, 1], None))
    message.inputs[0].contents.fp32_contents.extend([1.0])
    assert wire.refusal(stub.ModelInfer, message)[0] == INVALID


def test_fewer_raw_contents_than_inputs_are_refused(stub):
    message = simple()
    del message.raw_input_contents[1:]
    assert wire.refusal(stub.ModelInfer, message)[0] == INVALID


@pytest.mark.parametrize("shape", [[-1, 4], [1 << 62, 1 << 62], [-4, -1], [1 << 40, 1 << 20]])
def test_a_shape_that_nothing_can_have_is_refused(stub, shape):
    assert wire.refusal(stub.ModelInfer, request("identity_fp32", ("INPUT0", "FP32", shape, bytes(16))))[0] == INVALID


def test_a_datatype_that_does_not_exist_is_refused(stub):
    assert wire.refusal(stub.ModelInfer, request("identity_fp32", ("INPUT0", "FP7", [1, 1], bytes(4))))[0] == INVALID


@pytest.mark.parametrize("name, request_id", [("mine-17", "mine-17"), ("", "<id_unknown>")])
def test_a_refusal_names_its_request(stub, name, request_id):
    _, text = wire.refusal(stub.ModelInfer, simple(ints(columns=17), request_id=name))
    assert text.startswith(f"[request id: {request_id}] ")


@pytest.mark.model("fails")
def test_what_a_model_raises_reaches_the_client(stub):
    code, text = wire.refusal(stub.ModelInfer, floats("fails", [[1.0]]))
    assert code in ("INTERNAL", "UNKNOWN", INVALID) and "nothing positive, please" in text
    assert wire.array(wire.infer(stub, floats("fails", [[-1.0]]))).tolist() == [[-1.0]]


def test_after_all_that_the_server_answers(client, stub):
    assert client.is_server_live()
    assert wire.array(wire.infer(stub, simple())).tolist() == [[2] * 16]
