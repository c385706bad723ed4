"""Requests as they go over the wire, and what comes back; nothing in here knows a server."""

import http.client
import json
import queue
import re
import struct
import time

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.grpc import service_pb2 as pb

# Nothing waits this long unless it has failed.
PATIENCE = 60

NUMPY = {
    "BOOL": np.dtype(bool), "UINT8": np.dtype("u1"), "UINT16": np.dtype("<u2"), "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"), "INT8": np.dtype("i1"), "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"), "FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"),
    "BF16": np.dtype(ml_dtypes.bfloat16)}

ONES = np.ones((1, 16), np.int32)


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def channel(url):
    return grpc.insecure_channel(url, options=[("grpc.max_receive_message_length", -1),
                                               ("grpc.max_send_message_length", -1)])


def strings(*words):
    """The bytes of a BYTES tensor."""
    return b"".join(struct.pack("<I", len(word)) + word for word in words)


def param(value):
    """The InferParameter that tritonclient would make of it."""
    if isinstance(value, pb.InferParameter):
        return value
    kind = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}[type(value)]
    return pb.InferParameter(**{kind: value})


def request(model, *inputs, outputs=(), version="", request_id="", parameters=None):
    """A ModelInferRequest. Each input is (name, datatype, shape, raw bytes or None)."""
    message = pb.ModelInferRequest(model_name=model, model_version=version, id=request_id)
    for name, datatype, shape, raw in inputs:
        message.inputs.add(name=name, datatype=datatype, shape=shape)
        if raw is not None:
            message.raw_input_contents.append(raw)
    for name in outputs:
        message.outputs.add(name=name)
    for name, value in (parameters or {}).items():
        message.parameters[name].CopyFrom(param(value))
    return message


def tensor(name, values, datatype=None):
    """An input for `request`, of a numpy array."""
    values = np.ascontiguousarray(values)
    datatype = datatype or next(key for key, kind in NUMPY.items() if kind == values.dtype)
    return name, datatype, list(values.shape), values.tobytes()


def simple(a=ONES, b=ONES, **more):
    """A request for the model `simple`."""
    return request("simple", tensor("INPUT0", a), tensor("INPUT1", b), **more)


def floats(model, values, **more):
    return request(model, tensor("INPUT0", np.asarray(values, np.float32)), **more)


def slow(rounds, **more):
    """A request for the model `slow`, which takes about a millisecond a round."""
    return request("slow", tensor("INPUT0", np.ones(4, np.float32)), tensor("INPUT1", np.array([rounds], np.int64)),
                   **more)


def infer(stub, message, **options):
    return stub.ModelInfer(message, timeout=PATIENCE, **options)


def array(answer, index=0):
    """Output number `index` of an answer whose contents are raw."""
    output = answer.outputs[index]
    return np.frombuffer(answer.raw_output_contents[index], NUMPY[output.datatype]).reshape(output.shape)


def refusal(call, message):
    """(name of the code, text) with which `call` refuses `message`."""
    with pytest.raises(grpc.RpcError) as error:
        call(message, timeout=PATIENCE)
    return error.value.code().name, error.value.details()


class Stream:
    """tritonclient's stream; answers and errors in the order in which they came."""

    def __init__(self, url, **options):
        self.client = tritonclient.grpc.InferenceServerClient(url)
        self.answers = queue.Queue()
        self.client.start_stream(lambda result, error: self.answers.put((result, error)), **options)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.client.stop_stream(cancel_requests=kind is not None)
        self.client.close()

    def send(self, model, values, request_id="", **options):
        values = np.asarray(values)
        name = next(key for key, kind in NUMPY.items() if kind == values.dtype)
        given = tritonclient.grpc.InferInput("INPUT0", list(values.shape), name).set_data_from_numpy(values)
        self.client.async_stream_infer(model, [given], request_id=request_id, **options)

    def next(self):
        """(result, error)"""
        return self.answers.get(timeout=PATIENCE)


def ask(url, method, path, body=None, headers=None):
    """(status, headers, body) of one HTTP request on a connection of its own."""
    connection = http.client.HTTPConnection(url, timeout=PATIENCE)
    try:
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


SAMPLE = re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')


def parse_metrics(text):
    samples = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, labels, value = SAMPLE.match(line).groups()
            samples[name, tuple(LABEL.findall(labels or ""))] = float(value)
    return samples
