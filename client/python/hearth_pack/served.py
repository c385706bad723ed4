"""The entry as a running hearthd serves it."""

import struct

import torch

from hearth_pack import examples
from hearth_pack.datatypes import PROTOCOL, raw_bytes
from hearth_pack.errors import PackError


def _bytes_elements(words):
    return b"".join(struct.pack("<I", len(word.encode())) + word.encode() for word in words)


def _strings(raw):
    words, at = [], 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        words.append(raw[at + 4:at + 4 + length].decode())
        at += 4 + length
    return words


def _output(described, raw):
    if described.datatype == "BYTES":
        return _strings(raw)
    if not raw:
        return torch.empty(list(described.shape), dtype=PROTOCOL[described.datatype])
    data = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
    return data.view(PROTOCOL[described.datatype]).reshape(list(described.shape))


class Server:
    """Messages are filled in by hand: tritonclient's own calls take numpy arrays, which have no BF16."""

    def __init__(self, address, trust):
        try:
            import grpc
            from tritonclient.grpc import service_pb2, service_pb2_grpc
        except ImportError:
            raise PackError("--verify-with needs tritonclient: pip install 'hearth-pack[serve]'") from None
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._grpc, self._messages, self._address = grpc, service_pb2, address
        credentials = trust.credentials(grpc)
        channel = (grpc.secure_channel(address, credentials, options=unlimited) if credentials else
                   grpc.insecure_channel(address, options=unlimited))
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self._metadata = trust.metadata()

    def _call(self, what, method, message):
        try:
            return method(message, timeout=600, metadata=self._metadata)
        except self._grpc.RpcError as error:
            raise PackError(f"{what}: hearthd at {self._address} says: {error.details()} "
                            f"({error.code().name})") from error

    def load(self, name):
        """Has the daemon look at the repository again."""
        self._call(f"'{name}' could not be loaded", self._stub.RepositoryModelLoad,
                   self._messages.RepositoryModelLoadRequest(model_name=name))

    def infer(self, name, version, example):
        request = self._messages.ModelInferRequest(model_name=name, model_version=str(version))
        for input_name, value in example.items():
            request.inputs.add(name=input_name, datatype=examples.datatype_of(value),
                               shape=examples.shape_of(value))
            request.raw_input_contents.append(
                _bytes_elements(value) if isinstance(value, list) else bytes(raw_bytes(value)))
        answer = self._call(f"'{name}' version {version}", self._stub.ModelInfer, request)
        return {output.name: _output(output, raw)
                for output, raw in zip(answer.outputs, answer.raw_output_contents)}
