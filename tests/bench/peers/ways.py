"""Ways of asking a server, as bytes that a load generator can send without knowing what they mean.

    grpc     ModelInfer of the V2 protocol, raw tensors
    binary   HTTP with the tensor as bytes: V2 with binary tensors, or a body that is nothing else
    json     HTTP with the tensor as numbers: V2, or {"x": [...]}
"""

import dataclasses
import http.client
import json
import struct
import typing
import urllib.parse

import numpy as np

HEADER = "Inference-Header-Content-Length"


@dataclasses.dataclass
class Request:
    url: str
    body: bytes
    headers: dict
    read: typing.Callable  # (headers, body of the answer) -> its tensor as a flat array
    grpc: bool = False

    def send(self, timeout=60):
        """The answer's tensor, and how many bytes of body it was. Raises OSError or ValueError when there is none."""
        return self._send_grpc(timeout) if self.grpc else self._send_http(timeout)

    def _send_http(self, timeout):
        where = urllib.parse.urlsplit(self.url)
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=timeout)
        try:
            connection.request("POST", where.path, self.body, self.headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise ValueError(f"{self.url} answers {answer.status}: {body[:300].decode(errors='replace')}")
            return self.read(answer.headers, body), len(body)
        except http.client.HTTPException as error:
            raise ValueError(repr(error)) from error
        finally:
            connection.close()

    def _send_grpc(self, timeout):
        import grpc
        where = urllib.parse.urlsplit(self.url)
        with grpc.insecure_channel(where.netloc) as channel:
            try:
                answer = channel.unary_unary(where.path)(self.body[5:], timeout=timeout)
            except grpc.RpcError as error:
                raise ValueError(f"{self.url} answers {error.code().name}: {error.details()}") from error
        return self.read({}, answer), len(answer) + 5


def v2_grpc(port, model, x):
    from tritonclient.grpc import service_pb2 as pb

    def read(_, body):
        return np.frombuffer(pb.ModelInferResponse.FromString(body).raw_output_contents[0], np.float32)

    request = pb.ModelInferRequest(model_name=model, raw_input_contents=[x.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    message = request.SerializeToString()
    return Request(f"http://127.0.0.1:{port}/inference.GRPCInferenceService/ModelInfer",
                   struct.pack(">BI", 0, len(message)) + message,
                   {"content-type": "application/grpc", "te": "trailers"}, read, grpc=True)


def v2_binary(port, model, x):
    def read(headers, body):
        return np.frombuffer(body, np.float32, offset=int(headers[HEADER]))

    words = json.dumps({
        "inputs": [{"name": "x", "shape": x.shape, "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}],
        "parameters": {"binary_data_output": True}}, separators=(",", ":")).encode()
    return Request(f"http://127.0.0.1:{port}/v2/models/{model}/infer", words + x.tobytes(),
                   {HEADER: str(len(words)), "Content-Type": "application/octet-stream"}, read)


def v2_json(port, model, x):
    def read(_, body):
        return np.array(json.loads(body)["outputs"][0]["data"], np.float32).ravel()

    words = {"inputs": [{"name": "x", "shape": x.shape, "datatype": "FP32", "data": numbers(x)}]}
    return Request(f"http://127.0.0.1:{port}/v2/models/{model}/infer", json.dumps(words).encode(),
                   {"Content-Type": "application/json"}, read)


def raw(url, x):
    return Request(url, x.tobytes(), {"Content-Type": "application/octet-stream"},
                   lambda _, body: np.frombuffer(body, np.float32))


def plain_json(url, x):
    def read(_, body):
        return np.array(json.loads(body)["y"], np.float32).ravel()

    return Request(url, json.dumps({"x": numbers(x)}).encode(), {"Content-Type": "application/json"}, read)


def numbers(x):
    return [round(float(value), 2) for value in x.ravel()]  # as models.py rounded them
