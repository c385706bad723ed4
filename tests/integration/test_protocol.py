"""tritonclient, unchanged, and hand-made requests against the gRPC front end."""

import threading

import grpc
import ml_dtypes
import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

import models

FLOATS = np.array([[0.0, -1.5, 3.25, 1e4]], np.float32)


def raw_of(datatype, rows=2):
    """A tensor of `datatype` with telling bits, as (shape, little-endian bytes)."""
    if datatype == "BYTES":
        words = [b"", b"plain", "zażółć".encode(), bytes(range(256))]
        return [4], b"".join(len(w).to_bytes(4, "little") + w for w in words)
    dtype = models.TORCH_TYPES[datatype]
    size = torch.empty((), dtype=dtype).element_size()
    count = rows * 5
    if datatype == "BOOL":
        return [rows, 5], bytes(i % 3 == 0 for i in range(count))
    if dtype.is_floating_point:
        values = torch.linspace(-3, 3, count).to(dtype)
        return [rows, 5], values.view(torch.uint8).numpy().tobytes()
    return [rows, 5], bytes((i * 37 + 11) % 256 for i in range(count * size))


def request(model, *inputs, outputs=(), version="", request_id="", parameters=None):
    """A ModelInferRequest; each input is (name, datatype, shape, raw bytes)."""
    message = pb.ModelInferRequest(model_name=model, model_version=version, id=request_id)
    for name, datatype, shape, raw in inputs:
        message.inputs.add(name=name, datatype=datatype, shape=shape)
        if raw is not None:
            message.raw_input_contents.append(raw)
    for name in outputs:
        message.outputs.add(name=name)
    for name, value in (parameters or {}).items():
        message.parameters[name].CopyFrom(value)
    return message


def answers_of(server, name, *inputs):
    """inputs: (name, datatype, array)"""
    message = request(name, *((key, kind, list(array.shape), array.tobytes()) for key, kind, array in inputs))
    answer = server.stub().ModelInfer(message, timeout=60)
    return [np.frombuffer(raw, np.float32).reshape(output.shape)
            for raw, output in zip(answer.raw_output_contents, answer.outputs)]


def floats(name="x", values=FLOATS):
    return name, "FP32", list(values.shape), values.tobytes()


def refusal(server, message):
    with pytest.raises(grpc.RpcError) as error:
        server.stub().ModelInfer(message, timeout=60)
    return error.value.code().name, error.value.details()


# --- what there is ---


def take_turns(server, count, size, steps, after_each=lambda: None):
    """Three clients ask m0, m1, ..., each models.Affine(its number) of `size` elements, out of step. What went wrong."""
    values = np.ones((1, size), np.float32)
    failures = []

    def ask(seed):
        stub = server.stub()
        for step in range(steps):
            number = (seed * 5 + step * 3) % count
            try:
                answer = stub.ModelInfer(request(f"m{number}", floats(values=values)), timeout=100)
                if np.frombuffer(answer.raw_output_contents[0], np.float32)[-1] != number:
                    failures.append(f"m{number} answered wrongly")
            except grpc.RpcError as error:
                failures.append(f"m{number}: {error.code()} {error.details()}")
            after_each()

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_the_server_says_who_it_is(server):
    with server.client() as client:
        assert client.is_server_live() and client.is_server_ready()
        metadata = client.get_server_metadata()
    assert metadata.name == "hearth"
    assert metadata.version
    assert "model_repository" in metadata.extensions


def test_metadata_follows_the_program(server):
    with server.client() as client:
        metadata = client.get_model_metadata("addsub")
    assert metadata.name == "addsub"
    assert list(metadata.versions) == ["1"]
    assert metadata.platform == "pytorch_libtorch"
    assert [t.name for t in metadata.inputs] == ["a", "b"]
    assert len(metadata.outputs) == 2


def test_metadata_follows_model_yaml(server):
    with server.client() as client:
        (x,) = client.get_model_metadata("typed").inputs
    assert (x.name, x.datatype, list(x.shape)) == ("x", "FP32", [-1, 4])


def test_metadata_lists_every_version(server):
    with server.client() as client:
        assert list(client.get_model_metadata("versions").versions) == ["1", "2", "10"]
        assert list(client.get_model_metadata("versions", "2").versions) == ["1", "2", "10"]


def test_an_unknown_model_is_not_ready_rather_than_an_error(server):
    with server.client() as client:
        assert not client.is_model_ready("nobody")
        assert not client.is_model_ready("versions", "7")


def test_a_model_is_ready_once_it_answers(server):
    with server.client() as client:
        infer_floats(client, "bare")
        assert client.is_model_ready("bare")
        assert client.is_model_ready("bare", "1")


# --- inference ---


def infer_floats(client, model, version="", values=FLOATS):
    tensor = triton.InferInput("x", values.shape, "FP32")
    tensor.set_data_from_numpy(values)
    result = client.infer(model, [tensor], model_version=version)
    return result.as_numpy(result.get_response().outputs[0].name)


@pytest.mark.parametrize("datatype", [*models.TORCH_TYPES, "BYTES"])
def test_raw_bytes_of_every_datatype_come_back_as_they_went(server, datatype):
    shape, raw = raw_of(datatype)
    name = "words" if datatype == "BYTES" else "x"
    model = "strings" if datatype == "BYTES" else "identity"
    answer = server.stub().ModelInfer(request(model, (name, datatype, shape, raw)))
    assert answer.model_name == model and answer.model_version == "1"
    (output,) = answer.outputs
    assert (output.datatype, list(output.shape)) == (datatype, shape)
    assert list(answer.raw_output_contents) == [raw]


@pytest.mark.parametrize("datatype", ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16",
                                      "INT32", "INT64", "FP32", "FP64", "BYTES"])
def test_typed_contents_are_read_like_raw_ones(server, datatype):
    field = {"BOOL": "bool_contents", "UINT64": "uint64_contents", "INT64": "int64_contents",
             "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents"}.get(
                 datatype, "uint_contents" if datatype.startswith("U") else "int_contents")
    values = {"BOOL": [True, False, True], "BYTES": [b"a", b"", b"\xff\x00"]}.get(datatype, [1, 0, 100])
    model, name = ("strings", "words") if datatype == "BYTES" else ("identity", "x")
    message = request(model, (name, datatype, [3], None))
    getattr(message.inputs[0].contents, field).extend(values)
    (raw,) = server.stub().ModelInfer(message).raw_output_contents
    if datatype == "BYTES":
        assert raw == b"".join(len(v).to_bytes(4, "little") + v for v in values)
    else:
        numpy_type = {"BOOL": "bool", "FP32": "float32", "FP64": "float64"}.get(
            datatype, datatype.lower())
        assert np.frombuffer(raw, numpy_type).tolist() == values


@pytest.mark.parametrize("datatype, numpy_type", [
    ("BOOL", bool), ("UINT8", np.uint8), ("UINT16", np.uint16), ("UINT32", np.uint32),
    ("UINT64", np.uint64), ("INT8", np.int8), ("INT16", np.int16), ("INT32", np.int32),
    ("INT64", np.int64), ("FP16", np.float16), ("FP32", np.float32), ("FP64", np.float64),
    ("BF16", ml_dtypes.bfloat16), ("BYTES", np.object_)])
def test_tritonclient_reads_back_what_it_sent(server, datatype, numpy_type):
    if datatype == "BYTES":
        values = np.array([b"one", b"", "źdźbło".encode()], np.object_)
    else:
        values = np.array([[0, 1, 2], [3, 4, 100]]).astype(numpy_type)
    model, name = ("strings", "words") if datatype == "BYTES" else ("identity", "x")
    tensor = triton.InferInput(name, values.shape, datatype)
    tensor.set_data_from_numpy(values)
    with server.client() as client:
        output = client.get_model_metadata(model).outputs[0].name
        result = client.infer(model, [tensor], outputs=[triton.InferRequestedOutput(output)],
                              request_id="42")
    assert result.get_response().id == "42"
    assert result.as_numpy(output).tolist() == values.tolist()


def test_an_empty_tensor_is_a_tensor(server):
    answer = server.stub().ModelInfer(request("identity", ("x", "FP32", [0, 3], b"")))
    assert list(answer.outputs[0].shape) == [0, 3]
    assert list(answer.raw_output_contents) == [b""]


def test_a_large_tensor_passes(server):
    values = np.arange(6 << 20, dtype=np.float32).reshape(6, -1)  # 24 MiB
    with server.client() as client:
        assert np.array_equal(infer_floats(client, "identity", values=values), values)


def test_several_outputs_come_in_the_programs_order(server):
    a, b = np.array([5, 7], np.float32), np.array([1, 10], np.float32)
    answer = server.stub().ModelInfer(request("addsub", floats("a", a), floats("b", b)))
    read = [np.frombuffer(raw, np.float32).tolist() for raw in answer.raw_output_contents]
    assert read == [[6, 17], [4, -3]]


def test_inputs_go_by_name_and_outputs_as_asked(server):
    a, b = np.array([5, 7], np.float32), np.array([1, 10], np.float32)
    with server.client() as client:
        names = [t.name for t in client.get_model_metadata("addsub").outputs]
    answer = server.stub().ModelInfer(
        request("addsub", floats("b", b), floats("a", a), outputs=[names[1]]))
    assert [output.name for output in answer.outputs] == [names[1]]
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [4, -3]


def test_a_dictionary_of_results_gives_named_outputs(server):
    answer = server.stub().ModelInfer(request("table", floats()))
    read = {output.name: np.frombuffer(raw, np.float32).tolist()
            for output, raw in zip(answer.outputs, answer.raw_output_contents)}
    assert read == {"double": (FLOATS * 2)[0].tolist(), "half": (FLOATS / 2)[0].tolist()}


def test_the_version_asked_for_answers_and_the_highest_otherwise(server):
    with server.client() as client:
        for version, factor in [("1", 1), ("2", 2), ("10", 10), ("", 10)]:
            assert np.array_equal(infer_floats(client, "versions", version), FLOATS * factor)


# --- refusals ---


def test_an_unknown_model_is_not_found(server):
    assert refusal(server, request("nobody", floats())) == (
        "NOT_FOUND", "Request for unknown model: 'nobody' is not found")
    with server.client() as client, pytest.raises(InferenceServerException) as error:
        client.get_model_metadata("nobody")
    assert "'nobody' is not found" in error.value.message()


def test_an_unknown_version_is_not_found(server):
    assert refusal(server, request("versions", floats(), version="99")) == (
        "NOT_FOUND", "Request for unknown model: 'versions' version 99 is not found")


@pytest.mark.parametrize("version", ["x", "-1", "1.0", "1 ", "0"])
def test_a_version_that_is_no_number_is_refused(server, version):
    code, text = refusal(server, request("versions", floats(), version=version))
    assert code == "INVALID_ARGUMENT"
    assert f"failed to get model version from specified version string '{version}'" in text


def test_a_missing_input_is_named(server):
    code, text = refusal(server, request("addsub", floats("a")))
    assert code == "INVALID_ARGUMENT"
    assert "expected 2 inputs but got 1 inputs for model 'addsub'" in text
    assert "['a']" in text and "['b']" in text


def test_an_input_that_the_model_does_not_take_is_named(server):
    code, text = refusal(server, request("identity", floats("nonsense")))
    assert code == "INVALID_ARGUMENT"
    assert "'nonsense'" in text and "'identity'" in text


def test_an_output_that_the_model_does_not_give_is_named(server):
    code, text = refusal(server, request("identity", floats(), outputs=["nonsense"]))
    assert code == "INVALID_ARGUMENT"
    assert "unexpected inference output 'nonsense' for model 'identity'" in text


def test_the_wrong_datatype_is_refused(server):
    raw = np.array([[1, 2, 3, 4]], np.int32).tobytes()
    code, text = refusal(server, request("typed", ("x", "INT32", [1, 4], raw)))
    assert code == "INVALID_ARGUMENT"
    assert "inference input 'x' data-type is 'INT32', but model 'typed' expects 'FP32'" in text


def test_a_datatype_that_does_not_exist_is_refused(server):
    code, text = refusal(server, request("identity", ("x", "FP7", [1], b"\0")))
    assert code == "INVALID_ARGUMENT" and "FP7" in text


@pytest.mark.parametrize("shape", [[1, 5], [4], [1, 1, 4]])
def test_the_wrong_shape_is_refused(server, shape):
    raw = bytes(4 * int(np.prod(shape)))
    code, text = refusal(server, request("typed", ("x", "FP32", shape, raw)))
    assert code == "INVALID_ARGUMENT"
    got = ",".join(map(str, shape))
    assert (f"unexpected shape for input 'x' for model 'typed'. Expected [-1,4], got [{got}]"
            in text)


@pytest.mark.parametrize("shape", [[-1, 4], [1 << 62, 1 << 62], [-4, -1]])
def test_a_shape_that_nothing_can_have_is_refused(server, shape):
    code, _ = refusal(server, request("identity", ("x", "FP32", shape, bytes(16))))
    assert code == "INVALID_ARGUMENT"


def test_a_batch_larger_than_the_model_takes_is_refused(server):
    values = np.ones((9, 4), np.float32)
    code, text = refusal(server, request("batched", floats(values=values)))
    assert code == "INVALID_ARGUMENT"
    assert "inference request batch-size must be <= 8 for 'batched'" in text


@pytest.mark.parametrize("size", [0, 12, 15, 20])
def test_bytes_that_do_not_fit_the_shape_are_refused(server, size):
    code, text = refusal(server, request("identity", ("x", "FP32", [1, 4], bytes(size))))
    assert code == "INVALID_ARGUMENT"
    assert ("input byte size mismatch for input 'x' for model 'identity'. "
            f"Expected 16, got {size}") in text


def test_too_few_strings_are_refused(server):
    code, text = refusal(server, request("strings", ("words", "BYTES", [3], b"\1\0\0\0a")))
    assert code == "INVALID_ARGUMENT" and "'words'" in text and "expected 3" in text


def test_too_many_strings_are_refused(server):
    code, text = refusal(server, request("strings", ("words", "BYTES", [1], b"\1\0\0\0a" * 2)))
    assert code == "INVALID_ARGUMENT" and "'words'" in text


@pytest.mark.parametrize("raw", [b"\1\0", b"\5\0\0\0abc", b"\xff\xff\xff\xffabc"])
def test_strings_cut_short_are_refused(server, raw):
    code, text = refusal(server, request("strings", ("words", "BYTES", [1], raw)))
    assert code == "INVALID_ARGUMENT" and "'words'" in text


def test_an_input_without_data_is_refused(server):
    code, text = refusal(server, request("identity", ("x", "FP32", [1, 4], None)))
    assert code == "INVALID_ARGUMENT"
    assert "'x'" in text and "'identity'" in text


def test_typed_and_raw_contents_together_are_refused(server):
    message = request("identity", floats())
    message.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])
    code, text = refusal(server, message)
    assert code == "INVALID_ARGUMENT"
    assert "contents field must not be specified when using raw_input_contents for 'x'" in text


def test_typed_contents_of_another_type_are_refused(server):
    message = request("identity", ("x", "FP32", [2], None))
    message.inputs[0].contents.int_contents.extend([1, 2])
    code, text = refusal(server, message)
    assert code == "INVALID_ARGUMENT" and "'x'" in text and "FP32" in text


def test_more_raw_contents_than_inputs_are_refused(server):
    message = request("identity", floats())
    message.raw_input_contents.append(b"")
    code, _ = refusal(server, message)
    assert code == "INVALID_ARGUMENT"


def test_an_input_given_twice_is_refused(server):
    code, text = refusal(server, request("identity", floats(), floats()))
    assert code == "INVALID_ARGUMENT"
    assert "input 'x' already exists in request" in text


def test_refusals_carry_the_request_id(server):
    _, text = refusal(server, request("identity", floats("y"), request_id="r-17"))
    assert text.startswith("[request id: r-17] ")
    _, text = refusal(server, request("identity", floats("y")))
    assert text.startswith("[request id: <id_unknown>] ")


def test_a_parameter_of_the_wrong_type_is_refused(server):
    late = {"timeout": pb.InferParameter(string_param="soon")}
    code, text = refusal(server, request("identity", floats(), parameters=late))
    assert code == "INVALID_ARGUMENT"
    assert "invalid value type for 'timeout' parameter, expected int64_param" in text


def test_what_the_model_itself_raises_reaches_the_client(server):
    positive = request("raises", floats(values=np.ones((1, 4), np.float32)))
    code, text = refusal(server, positive)
    assert code in ("INVALID_ARGUMENT", "INTERNAL", "UNKNOWN")
    assert "this model wants nothing positive" in text
    negative = request("raises", floats(values=-np.ones((1, 4), np.float32)))
    assert len(server.stub().ModelInfer(negative).outputs) == 1


def test_calls_that_hearthd_does_not_have_are_unimplemented(server):
    with server.channel() as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/inference.GRPCInferenceService/ModelDream")(b"", timeout=60)
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
