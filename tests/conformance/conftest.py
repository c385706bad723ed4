"""Fixtures of the conformance suite: what any server of KServe's V2 protocol with Triton's extensions has to do.

  python -m pytest tests/conformance --url HOST:8001 --http-url HOST:8000 --metrics-url HOST:8002

asks the server that is there, which has to serve what models.py writes. Without --url it starts a hearthd of its own.
What a server does not list among its extensions is skipped, and so is what needs a model that it does not have.
"""

import dataclasses
import os
import pathlib
import sys
import urllib.error
import urllib.request

import grpc
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

import models
import wire

PROJECT = pathlib.Path(__file__).resolve().parents[2]

# What hearth may lack: with a server of our own, any other skipped test is a failure.
HEARTH_LACKS = ("trace",)


def pytest_addoption(parser):
    group = parser.getgroup("conformance")
    group.addoption("--url", help="HOST:PORT of a server's gRPC; without it a hearthd is started")
    group.addoption("--http-url", help="HOST:PORT of its HTTP; without it nothing is asked over HTTP")
    group.addoption("--metrics-url", help="HOST:PORT of its metrics")
    group.addoption("--layout", choices=models.LAYOUTS, default="hearth",
                    help="how models are written for the hearthd that is started")


def pytest_configure(config):
    config.addinivalue_line("markers", "needs(extension): skipped where the server does not list it")
    config.addinivalue_line("markers", "model(name): skipped where the server does not have it")


@dataclasses.dataclass(frozen=True)
class Target:
    """Where the server is; an address that is None is not asked."""

    url: str
    http_url: str
    metrics_url: str
    extensions: frozenset
    controlled: bool  # models are loaded and unloaded explicitly
    process: object = None  # our own hearthd


@pytest.fixture(scope="session")
def target(request, tmp_path_factory):
    option = request.config.getoption
    if option("url"):
        yield Target(option("url"), option("http_url"), option("metrics_url"), *prepared(option("url")))
        return
    hearthd = hearthd_module()
    repository = tmp_path_factory.mktemp("repository")
    models.write(repository, option("layout"))
    config = {"grpc": {"client_shared_memory": True}, "metrics": {"triton_names": True},
              "cache": {"failure_backoff": "1ms"}}
    with hearthd.Hearthd(repository, tmp_path_factory.mktemp("hearthd"), config=config) as server:
        yield Target(server.address, f"127.0.0.1:{server.rest_port}", f"127.0.0.1:{server.http_port}",
                     *prepared(server.address), server)
        assert server.alive, server.log()


def hearthd_module():
    os.environ.setdefault("HEARTHD", str(PROJECT / "build/server/hearthd"))
    os.environ.setdefault("HEARTH", str(PROJECT / "build/client/hearth"))
    sys.path.append(str(PROJECT / "tests/integration"))
    import hearthd  # pylint: disable=import-outside-toplevel
    return hearthd


def prepared(url):
    """(the server's extensions, whether it loads what it is told to), with every model loaded that can be."""
    with wire.channel(url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        extensions = frozenset(stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=wire.PATIENCE).extensions)
        controlled = "model_repository" in extensions
        for spec in models.MODELS if controlled else []:
            if spec.module is None:
                continue  # broken: some servers are not ready as long as one of their models is not
            try:
                stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=spec.name), timeout=wire.PATIENCE)
            except grpc.RpcError as error:
                if "explicit model load / unload is not allowed" in error.details():
                    controlled = False
                    break
    return extensions, controlled


@pytest.fixture(autouse=True)
def capabilities(request, target):
    """Skips a test that needs what this server does not have."""
    for mark in request.node.iter_markers("needs"):
        what, = mark.args
        if what == "http":
            there = target.http_url is not None
        elif what == "metrics":
            there = target.metrics_url is not None
        elif what == "explicit control":
            there = target.controlled
        else:
            there = what in target.extensions
        if not there:
            pytest.skip(f"needs {what}")
    for mark in request.node.iter_markers("model"):
        name, = mark.args
        if not has_model(target, name):
            pytest.skip(f"needs the model {name}")


def has_model(target, name):
    with wire.channel(target.url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            stub.ModelMetadata(pb.ModelMetadataRequest(name=name), timeout=wire.PATIENCE)
        except grpc.RpcError:
            return False
    return True


@pytest.fixture(scope="session")
def stub(target):
    """The calls themselves, without what a client checks beforehand."""
    with wire.channel(target.url) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture(scope="session")
def client(target):
    with tritonclient.grpc.InferenceServerClient(target.url) as ours:
        yield ours


@pytest.fixture(scope="session")
def http(target):
    if target.http_url is None:
        pytest.skip("needs http")
    with tritonclient.http.InferenceServerClient(
            target.http_url, network_timeout=wire.PATIENCE, connection_timeout=wire.PATIENCE) as ours:
        yield ours


@pytest.fixture(scope="session")
def ask(target):
    """ask(method, path, body, headers) -> (status, headers, body), over HTTP."""
    def one(method, path, body=None, headers=None):
        return wire.ask(target.http_url, method, path, body, headers)
    return one


@pytest.fixture(scope="session")
def metrics(target):
    """metrics() -> {(name, ((label, value), ...)): number}."""
    def read():
        with urllib.request.urlopen(f"http://{target.metrics_url}/metrics", timeout=wire.PATIENCE) as answer:
            return wire.parse_metrics(answer.read().decode())
    return read


def pytest_sessionfinish(session, exitstatus):
    """A test that is skipped on our own server hides something, unless hearth is known to lack it."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if exitstatus != 0 or session.config.getoption("url") or reporter is None:
        return
    allowed = {f"Skipped: needs {what}" for what in HEARTH_LACKS}
    if not {report.longrepr[2] for report in reporter.stats.get("skipped", [])} <= allowed:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
