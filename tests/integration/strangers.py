"""Clients that do not come from this machine's loopback, and files with tokens."""

import http.client
import json
import os
import pathlib
import socket

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

PATIENCE = 60


def own_address():
    """An address of this machine that is not loopback; what connects to it comes from there."""
    for family, elsewhere in ((socket.AF_INET, "198.51.100.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((elsewhere, 9))  # sends nothing
            except OSError:
                continue
            address = probe.getsockname()[0]
            if not address.startswith("127.") and address != "::1":
                return address
    pytest.skip("needs an address of this machine that is not loopback")
    return None


def bracketed(address):
    return f"[{address}]" if ":" in address else address


# As a container has them.
EVERYWHERE = {name: {"host": "[::]" if name == "grpc" else "::"} for name in ("grpc", "rest", "http")}


def ask(address, port, method, path, body=None, headers=None):
    """(status, headers, body) of one HTTP request on a connection of its own."""
    connection = http.client.HTTPConnection(address, port, timeout=PATIENCE)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def error_of(body):
    return json.loads(body)["error"]


def client_at(server, address):
    return triton.InferenceServerClient(f"{bracketed(address)}:{server.grpc_port}")


def channel_at(server, address):
    return grpc.insecure_channel(f"{bracketed(address)}:{server.grpc_port}")


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def replace(path, text):
    """In one step, as whoever rotates secrets does it."""
    path = pathlib.Path(path)
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    os.replace(new, path)


def numbers():
    """An input of the model `identity`."""
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 4), np.float32))
    return tensor
