"""Clients that others wrote, as they are. scripts/bootstrap --clients gets them; each is skipped where it is missing."""

import base64
import json
import os
import pathlib
import re
import subprocess

import numpy as np
import pytest

import hearthd
import models

SOURCE = pathlib.Path(os.environ["SOURCE_DIR"])
CLIENTS = SOURCE / ".cache/clients"
PERF_ANALYZER = CLIENTS / "perf_analyzer/perf_analyzer"
BUF = CLIENTS / "npm/node_modules/.bin/buf"
GRPC_JS = CLIENTS / "npm/node_modules/@grpc/grpc-js"
PYTHON = CLIENTS / "venv/bin/python"
SCHEMATHESIS = CLIENTS / "venv/bin/schemathesis"


def needs(program):
    return pytest.mark.skipif(not program.exists(), reason=f"needs {program.name}: scripts/bootstrap --clients")


def run(*command, patience=300, **options):
    """A finished process, its output as one text."""
    return subprocess.run([str(word) for word in command], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=patience, check=False, env=hearthd.environment(options.pop("env", None)), **options)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("clients")
    models.write_model(root, "batched", models.Affine(2.0), options=(
        "max_batch_size: 8\ninputs:\n  - {name: x, datatype: FP32, shape: [-1, 4]}\n"
        "outputs:\n  - {name: y, datatype: FP32, shape: [-1, 4]}\n"))
    models.write_model(root, "typed", models.Affine(2.0), options=models.FIXED_INPUT)
    return root


@pytest.fixture(scope="module")
def server(repository, tmp_path_factory):
    """One whose clients may use shared memory, and that has Triton's metrics."""
    config = {"grpc": {"client_shared_memory": True}, "metrics": {"triton_names": True}, "logging": {"level": "info"}}
    with hearthd.Hearthd(repository, tmp_path_factory.mktemp("server"), config=config) as running:
        yield running
        assert running.alive, running.log()


# --- perf_analyzer ---

PERF = {
    "gRPC": ["-i", "grpc"],
    "gRPC, side by side": ["-i", "grpc", "--async"],
    "a stream": ["-i", "grpc", "--streaming"],
    "shared memory": ["-i", "grpc", "--shared-memory", "system"],
    "batches": ["-i", "grpc", "-b", "4"],
    "a rate": ["-i", "grpc", "--request-rate-range", "100"],
    "compressed": ["-i", "grpc", "--grpc-compression-algorithm", "gzip"],
    "HTTP": ["-i", "http"],
    "HTTP, side by side": ["-i", "http", "--async", "-b", "4"],
}


@needs(PERF_ANALYZER)
@pytest.mark.parametrize("options", PERF.values(), ids=PERF)
def test_perf_analyzer_measures_and_reads_the_servers_own_account(server, options):
    port = server.grpc_port if "grpc" in options else server.rest_port
    load = [] if "--request-rate-range" in options else ["--concurrency-range", "4"]
    before = server.metric("hearth_requests_total", model="batched", code="OK")
    done = run(PERF_ANALYZER, "-m", "batched", "-u", f"127.0.0.1:{port}", *options, *load, "--request-count", "200",
               env={"LD_LIBRARY_PATH": str(PERF_ANALYZER.parent)})
    assert done.returncode == 0, done.stdout
    client, account = done.stdout.split("Server:")
    assert number("Request count", client) >= 200, done.stdout
    assert "Failed" not in client and "Error" not in client
    batch = int(options[options.index("-b") + 1]) if "-b" in options else 1
    # Its load begins before it has asked for the first of the two accounts that it subtracts.
    successes = number("Successful request count", account)
    assert successes >= 100 and number("Inference count", account) == successes * batch
    assert server.metric("hearth_requests_total", model="batched", code="OK") - before >= 200


def number(name, text):
    return int(re.search(rf"{name}: (\d+)", text).group(1))


# --- buf: gRPC from Go, which knows nothing but what reflection says ---


def buf(server, *arguments):
    return run(BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments[:-1],
               f"http://{server.address}{arguments[-1]}")


@needs(BUF)
def test_reflection_lists_every_call_to_buf(server):
    done = buf(server, "--list-methods", "")
    listed = set(done.stdout.split())
    assert done.returncode == 0 and {"inference.GRPCInferenceService/ModelInfer", "grpc.health.v1.Health/Check",
                                     "hearth.v1.Cache/Stat"} <= listed
    assert sum(name.startswith("inference.GRPCInferenceService/") for name in listed) == 20


@needs(BUF)
def test_buf_asks_for_an_inference_in_json(server):
    raw = base64.b64encode(np.array([1, 2, 3, 4], np.float32).tobytes()).decode()
    message = {"model_name": "batched", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4]}],
               "raw_input_contents": [raw]}
    done = buf(server, "-d", json.dumps(message), "/inference.GRPCInferenceService/ModelInfer")
    assert done.returncode == 0, done.stdout
    answer = json.loads(done.stdout)
    assert np.frombuffer(base64.b64decode(answer["rawOutputContents"][0]), np.float32).tolist() == [2, 4, 6, 8]


@needs(BUF)
def test_buf_reads_a_refusal(server):
    done = buf(server, "-d", '{"name": "nobody"}', "/inference.GRPCInferenceService/ModelMetadata")
    assert done.returncode != 0 and "Request for unknown model: 'nobody' is not found" in done.stdout
    assert json.loads(done.stdout)["code"] == "not_found"


@needs(BUF)
def test_buf_sends_a_stream(server):
    message = json.dumps({"model_name": "batched", "id": "a", "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [1, 4], "contents": {"fp32_contents": [1, 1, 1, 1]}}]})
    done = buf(server, "-d", message * 3, "/inference.GRPCInferenceService/ModelStreamInfer")
    assert done.returncode == 0 and done.stdout.count('"inferResponse"') == 3, done.stdout


# --- gRPC in JavaScript ---


@needs(GRPC_JS)
def test_javascript_gets_what_it_asks_for(server):
    done = subprocess.run(["node", SOURCE / "tests/integration/grpc_js_asks.js", GRPC_JS.parents[1], SOURCE / "proto",
                           server.address], text=True, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["ids"] == [str(i) for i in range(100)] and said["first"] == [2] * 8
    assert said["large"] == [2_000_000, True]
    assert said["refusal"] == ["NOT_FOUND", "Request for unknown model: 'nobody' is not found"]
    assert said["cancelled"] == "CANCELLED" and said["stream"] == [str(i) for i in range(50)]


# --- KServe's own client ---


@needs(PYTHON)
def test_kserves_client_gets_what_it_asks_for(server):
    server.cli("load", "batched")
    done = subprocess.run([PYTHON, "-W", "ignore", SOURCE / "tests/integration/kserve_asks.py",
                           str(server.grpc_port), str(server.rest_port)], text=True, capture_output=True, timeout=300,
                          check=False, env=hearthd.environment())
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    want = {"id": "7", "model": "batched", "values": [[2.0, 4.0, 6.0, 8.0]]}
    for over in ("grpc", "http"):
        assert said[over]["live"] and said[over]["ready"] and said[over]["model_ready"]
        assert said[over]["infer"] == want
    assert said["http"]["json"] == want and said["grpc"]["refusal"] == "NOT_FOUND"


# --- schemathesis: requests that /v2/openapi.json allows, and some that it does not ---


def schemathesis(server, folder, unchecked, left_out):
    config = folder / "schemathesis.toml"
    config.write_text('[parameters]\nmodel = "typed"\nversion = "1"\n')
    base = f"http://127.0.0.1:{server.rest_port}"
    return run(SCHEMATHESIS, "--config-file", config, "run", f"{base}/v2/openapi.json", "--url", base, "--no-color",
               "--seed", "1", "--max-examples", "30", "--suppress-health-check", "all", "--exclude-checks", unchecked,
               "--exclude-path-regex", left_out, cwd=folder)


@needs(SCHEMATHESIS)
def test_no_request_breaks_what_the_description_promises(server, tmp_path):
    """Also none is a 5xx, while the model is there."""
    server.cli("load", "typed")
    # A request may be refused for what no schema can say. And a body may be missing where it is all of the data, of no row.
    done = schemathesis(server, tmp_path, "positive_data_acceptance,negative_data_rejection,content_type_conformance",
                        # What is not there is a 5xx, as with Triton: a model that is not ready, an object in shared memory, CUDA's.
                        "/(ready|unload|register|trace/setting)$")
    assert done.returncode == 0, done.stdout
    assert server.alive
