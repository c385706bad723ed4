"""Compressed requests and answers are the same as others."""

import gzip
import json
import zlib

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

import wire

VALUES = np.arange(40000, dtype=np.float32).reshape(100, 400)
ALGORITHMS = ["gzip", "deflate"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_grpc_is_compressed(client, algorithm):
    given = tritonclient.grpc.InferInput("INPUT0", VALUES.shape, "FP32").set_data_from_numpy(VALUES)
    got = client.infer("identity_fp32", [given], compression_algorithm=algorithm).as_numpy("OUTPUT0")
    assert np.array_equal(got, VALUES)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_stream_is_compressed(target, algorithm):
    with wire.Stream(target.url, compression_algorithm=algorithm) as stream:
        for number in range(3):
            stream.send("identity_fp32", VALUES, str(number))
        for number in range(3):
            result, error = stream.next()
            assert error is None and result.get_response().id == str(number)
            assert np.array_equal(result.as_numpy("OUTPUT0"), VALUES)


@pytest.mark.needs("http")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_http_is_compressed(http, algorithm, binary):
    given = tritonclient.http.InferInput("INPUT0", VALUES.shape, "FP32").set_data_from_numpy(VALUES, binary_data=binary)
    wanted = [tritonclient.http.InferRequestedOutput("OUTPUT0", binary_data=binary)]
    got = http.infer("identity_fp32", [given], outputs=wanted, request_compression_algorithm=algorithm,
                     response_compression_algorithm=algorithm)
    assert np.array_equal(got.as_numpy("OUTPUT0"), VALUES)


@pytest.mark.needs("http")
@pytest.mark.parametrize("accepted, unpack", [("gzip", gzip.decompress), ("deflate", zlib.decompress)])
def test_an_answer_over_http_is_compressed_for_who_takes_it(ask, accepted, unpack):
    body = {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 1000], "data": [0.5] * 1000}]}
    status, headers, answer = ask("POST", "/v2/models/identity_fp32/infer", body, {"Accept-Encoding": accepted})
    assert status == 200 and headers["Content-Encoding"] == accepted
    assert json.loads(unpack(answer))["outputs"][0]["data"] == [0.5] * 1000


@pytest.mark.needs("http")
@pytest.mark.parametrize("body", [b"not compressed", gzip.compress(b"{}")[:-3]])
def test_a_body_over_http_that_is_not_what_it_says_is_refused(ask, body):
    status, _, answer = ask("POST", "/v2/models/identity_fp32/infer", body, {"Content-Encoding": "gzip"})
    assert 400 <= status <= 500 and json.loads(answer)["error"]
