"""Tensors of every type, size and value come back as they went."""

import numpy as np
import pytest
import tritonclient.grpc

import models
import wire

FIELDS = {"BOOL": "bool_contents", "UINT64": "uint64_contents", "INT64": "int64_contents", "FP32": "fp32_contents",
          "FP64": "fp64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
          "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents"}


@pytest.fixture(params=[name for name in models.DATATYPES if name != "BYTES"])
def datatype(request, client):
    needs_model(client, request.param)
    return request.param


def needs_model(client, datatype):
    name = f"identity_{datatype.lower()}"
    if not client.is_model_ready(name):
        pytest.skip(f"needs the model {name}")


def bits(datatype, count):
    """`count` elements with telling bits."""
    size = wire.NUMPY[datatype].itemsize
    if datatype == "BOOL":
        return bytes(i % 3 == 0 for i in range(count))
    return bytes((i * 37 + 11) % 120 for i in range(count * size))


def echo(stub, datatype, shape, raw):
    answer = wire.infer(stub, wire.request(f"identity_{datatype.lower()}", ("INPUT0", datatype, shape, raw)))
    output, = answer.outputs
    assert (output.name, output.datatype) == ("OUTPUT0", datatype) and not output.HasField("contents")
    got, = answer.raw_output_contents
    return list(output.shape), got


def test_raw_bytes_come_back(stub, datatype):
    raw = bits(datatype, 15)
    assert echo(stub, datatype, [3, 5], raw) == ([3, 5], raw)


@pytest.mark.parametrize("shape", [[0, 5], [5, 0], [0, 0]])
def test_an_empty_tensor_is_a_tensor(stub, datatype, shape):
    assert echo(stub, datatype, shape, b"") == (shape, b"")


def test_one_element_is_a_tensor(stub, datatype):
    raw = bits(datatype, 1)
    assert echo(stub, datatype, [1, 1], raw) == ([1, 1], raw)


def test_the_client_reads_back_what_it_wrote(client, datatype):
    values = np.array([[0, 1, 2], [3, 4, 100]]).astype(wire.NUMPY[datatype])
    given = tritonclient.grpc.InferInput("INPUT0", values.shape, datatype).set_data_from_numpy(values)
    got = client.infer(f"identity_{datatype.lower()}", [given]).as_numpy("OUTPUT0")
    assert got.dtype == values.dtype and got.tolist() == values.tolist()


def test_typed_contents_are_read_like_raw_ones(stub, datatype):
    if datatype not in FIELDS:
        return  # FP16 and BF16 have none
    values = np.array([[1, 0, 100]]).astype(wire.NUMPY[datatype])
    message = wire.request(f"identity_{datatype.lower()}", ("INPUT0", datatype, [1, 3], None))
    getattr(message.inputs[0].contents, FIELDS[datatype]).extend(values.flatten().tolist())
    assert wire.array(wire.infer(stub, message)).tolist() == values.tolist()


@pytest.mark.parametrize("datatype", [name for name in FIELDS if name.startswith(("INT", "UINT"))])
def test_the_extremes_of_whole_numbers_survive(client, stub, datatype):
    needs_model(client, datatype)
    limits = np.iinfo(wire.NUMPY[datatype])
    values = np.array([[limits.min, limits.max]], wire.NUMPY[datatype])
    message = wire.request(f"identity_{datatype.lower()}", ("INPUT0", datatype, [1, 2], None))
    getattr(message.inputs[0].contents, FIELDS[datatype]).extend(values.flatten().tolist())
    assert wire.array(wire.infer(stub, message)).tolist() == values.tolist()


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "BF16"])
def test_what_is_no_number_comes_back_bit_by_bit(client, stub, datatype):
    needs_model(client, datatype)
    values = np.array([[np.nan, np.inf, -np.inf, -0.0, 0.0]], np.float64).astype(wire.NUMPY[datatype])
    assert echo(stub, datatype, [1, 5], values.tobytes()) == ([1, 5], values.tobytes())


# --- strings ---

WORDS = {
    "plain": [b"one", b"two"],
    "empty": [b"", b"", b""],
    "null characters": [b"a\0b", b"\0", b"\0\0end\0"],
    "not UTF-8": [b"\xff\xfe\x80", bytes(range(256))],
    "unicode": ["źdźbło".encode(), "😀".encode()],
    "long": [b"x" * 100_000, b"y"],
    "none": [],
}


@pytest.mark.model("identity_bytes")
@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_strings_come_back(stub, words):
    raw = wire.strings(*words)
    assert echo(stub, "BYTES", [len(words)], raw) == ([len(words)], raw)


@pytest.mark.model("identity_bytes")
def test_typed_strings_are_read_like_raw_ones(stub):
    message = wire.request("identity_bytes", ("INPUT0", "BYTES", [3], None))
    message.inputs[0].contents.bytes_contents.extend([b"a", b"", b"\xff\x00"])
    assert list(wire.infer(stub, message).raw_output_contents) == [wire.strings(b"a", b"", b"\xff\x00")]


@pytest.mark.model("identity_bytes")
def test_the_client_reads_strings(client):
    words = np.array([b"one", b"", "źdźbło".encode()], np.object_)
    given = tritonclient.grpc.InferInput("INPUT0", words.shape, "BYTES").set_data_from_numpy(words)
    assert client.infer("identity_bytes", [given]).as_numpy("OUTPUT0").tolist() == words.tolist()


# --- sizes ---

@pytest.mark.parametrize("mebibytes", [5, 24])
def test_a_large_tensor_passes(stub, mebibytes):
    """More than gRPC's 4 MiB."""
    values = np.arange(mebibytes << 18, dtype=np.float32).reshape(mebibytes, -1)
    assert np.array_equal(wire.array(wire.infer(stub, wire.floats("identity_fp32", values))), values)


def test_large_tensors_pass_at_the_same_time(stub):
    values = [np.full((4, 1 << 18), number, np.float32) for number in range(4)]
    calls = [stub.ModelInfer.future(wire.floats("identity_fp32", v), timeout=wire.PATIENCE) for v in values]
    for call, want in zip(calls, values):
        assert np.array_equal(wire.array(call.result()), want)


@pytest.mark.model("identity_bytes")
def test_many_strings_pass(stub):
    words = [str(i).encode() for i in range(100_000)]
    raw = wire.strings(*words)
    assert echo(stub, "BYTES", [len(words)], raw) == ([len(words)], raw)
