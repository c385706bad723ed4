"""Probes, metrics, configuration and the life of the process."""

import json
import os
import pathlib
import queue
import signal
import socket
import subprocess
import time

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, duration_pb2, message_factory
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase)
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

import hearthd
import models
from test_protocol import FLOATS, floats, infer_floats, refusal, request
from test_rest import ask

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


def run_hearthd(*args, env=None):
    return subprocess.run([hearthd.HEARTHD, *map(str, args)], text=True, capture_output=True,
                          timeout=hearthd.PATIENCE, check=False, env=hearthd.environment(env))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "repository"
    models.write_model(root, "good", models.Affine(2.0))
    models.write_model(root, "slow", models.Slow())
    return root


def slow_request(rounds):
    values = np.eye(256, dtype=np.float32)
    return request("slow", floats(values=values),
                   ("rounds", "INT64", [1], np.int64(rounds).tobytes()))


# --- probes ---


def test_http_health(server):
    assert server.get("/v2/health/live")[0] == 200
    assert server.get("/v2/health/ready")[0] == 200
    assert server.get("/v2/nothing/here")[0] == 404


def test_grpc_health_of_the_server_and_of_each_service(server):
    stub = HealthStub(server.channel())
    for service in ("", "inference.GRPCInferenceService"):
        assert stub.Check(HealthCheckRequest(service=service)).status == SERVING
    with pytest.raises(grpc.RpcError) as error:
        stub.Check(HealthCheckRequest(service="nobody"))
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_grpc_health_can_be_watched_through_a_drain(start, folder):
    server = start(folder)
    updates = HealthStub(server.channel()).Watch(HealthCheckRequest(service=""), timeout=60)
    assert next(updates).status == SERVING
    # Something that runs holds the drain open long enough to be seen.
    running = server.stub().ModelInfer.future(slow_request(800), timeout=60)
    wait_until(lambda: server.metric("hearth_pins") >= 1)
    server.process.send_signal(signal.SIGTERM)
    assert next(updates).status == NOT_SERVING
    assert running.result() is not None
    assert server.wait() == 0


def test_reflection_describes_every_service(server):
    database = ProtoReflectionDescriptorDatabase(server.channel())
    services = set(database.get_services())
    assert {"inference.GRPCInferenceService", "hearth.v1.Cache", "hearth.v1.Config",
            "grpc.health.v1.Health"} <= services
    for service in services:
        assert database.FindFileContainingSymbol(service).service, service


def test_health_needs_no_model(start, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    server = start(empty)
    assert server.get("/v2/health/ready")[0] == 200


def test_ready_waits_for_required_models(start, folder):
    models.write_model(folder, "broken", models.Affine(1.0)).write_bytes(b"")
    wanted = [{"name": "good", "required": True}, {"name": "broken", "required": True}]
    server = start(folder, config={"models": wanted}, ready=False)
    assert server.get("/v2/health/live")[0] == 200
    wait_until(lambda: server.get("/v2/health/ready") == (
        503, '{"ready":false,"reason":"waiting for \'broken\'"}'))
    with server.client() as client:
        assert client.is_server_live() and not client.is_server_ready()
        models.write_model(folder, "broken", models.Affine(1.0))
        client.load_model("broken")
        wait_until(client.is_server_ready)
    assert server.get("/v2/health/ready")[0] == 200


def test_ready_stays_when_a_required_model_leaves(start, folder):
    server = start(folder, config={"models": [{"name": "good", "required": True}]})
    with server.client() as client:
        client.unload_model("good")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("configuration reloaded")
        assert client.is_server_ready()


def wait_until(holds, patience=hearthd.PATIENCE):
    end = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.01)  # polls another process; no assertion depends on the pace


# --- metrics ---


def test_metrics_are_clean_and_count_what_happened(server, promtool):
    before = server.metrics()
    with server.client() as client:
        client.unload_model("typed")
        client.load_model("typed")
        for _ in range(3):
            infer_floats(client, "typed")
    assert refusal(server, request("typed", floats(values=FLOATS[:, :3])))[0] == "INVALID_ARGUMENT"
    status, text = server.get("/metrics")
    assert status == 200
    code, said = promtool(text)
    assert code == 0 and not said.strip(), said

    def moved(name, **labels):
        def total(samples):
            return sum(v for (n, pairs), v in samples.items()
                       if n == name and labels.items() <= dict(pairs).items())
        return total(server.metrics()) - total(before)

    assert moved("hearth_requests_total", model="typed", code="OK") == 3
    assert moved("hearth_requests_total", model="typed", code="INVALID_ARGUMENT") == 1
    assert moved("hearth_cache_hits_total", model="typed") >= 3
    assert moved("hearth_loads_total", model="typed", code="OK") == 1
    assert moved("hearth_request_duration_seconds_count", model="typed") >= 3
    build = [dict(pairs) for (name, pairs) in server.metrics() if name == "hearth_build_info"]
    assert len(build) == 1 and build[0]["torch"].startswith("2.")


def test_a_name_off_the_network_makes_no_label(server):
    for i in range(5):
        with pytest.raises(grpc.RpcError):
            server.stub().ModelInfer(request(f"made-up-{i}", floats()))
    assert "made-up" not in server.get("/metrics")[1]


def test_triton_names_come_on_request(start, folder):
    server = start(folder, config={"metrics": {"triton_names": True}})
    with server.client() as client:
        infer_floats(client, "good")
    assert server.metric("nv_inference_request_success", model="good", version="1") == 1
    assert server.metric("nv_inference_count", model="good", version="1") == 1


# --- configuration ---


def test_the_example_configuration_is_accepted_and_printed():
    example = os.path.join(os.environ["SOURCE_DIR"], "config", "hearth.yaml")
    assert run_hearthd("--config", example, "--check-config").returncode == 0
    printed = run_hearthd("--config", example, "--print-config")
    assert printed.returncode == 0 and "grpc:" in printed.stdout


def test_a_bad_configuration_names_file_line_and_key_for_every_mistake(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("grpc:\n  port: 99999\n  prot: 1\nlogging:\n  format: loud\n")
    done = run_hearthd("--config", file, "--check-config")
    assert done.returncode == 78
    said = done.stdout + done.stderr
    for line, key in [(2, "grpc.port"), (3, "grpc.prot"), (5, "logging.format")]:
        assert any(f"{file}:{line}:" in row and key in row for row in said.splitlines()), said
    assert run_hearthd("--config", file).returncode == 78


def test_an_endpoint_that_is_none_is_found_before_the_start(tmp_path):
    for endpoint in ("ftp://x", "localhost:4318"):
        for check in ([], ["--check-config"]):
            done = run_hearthd("--set", f"tracing.endpoint={endpoint}", *check)
            assert done.returncode == 78 and "tracing.endpoint" in done.stderr, done.stderr


def test_every_line_of_a_complaint_says_who_complains_and_none_hides_another(tmp_path):
    done = run_hearthd("--check-config", "--set", "grpc.prot=3", "--set", "grpc.port=x", "--set",
                       "grpc=3", "--set", "nonsense")
    assert done.returncode == 2 and not done.stdout
    said = done.stderr.splitlines()
    assert len(said) == 4 and all(line.startswith("hearthd: --set ") for line in said), said
    for word in ("'grpc.prot'", "'x' is not a whole number", "'grpc': is a mapping", "'nonsense'"):
        assert sum(word in line for line in said) == 1, said


def test_a_missing_repository_is_one_sentence_that_says_what_to_set(tmp_path):
    done = run_hearthd("--model-repository", tmp_path / "none", "--grpc-port", "0", "--http-port", "0")
    assert done.returncode == 1
    (complaint,) = [line for line in done.stderr.splitlines() if line.startswith("hearthd: ")]
    assert complaint.startswith("hearthd: model repository: '"), complaint
    assert "none' cannot be read: No such file" in complaint
    assert "--model-repository DIR" in complaint and "repository.roots" in complaint


def test_a_missing_configuration_file_is_named(tmp_path):
    done = run_hearthd("--config", tmp_path / "none.yaml", "--check-config")
    assert done.returncode == 78 and "none.yaml" in done.stderr


def test_flags_win_over_variables_and_they_over_the_file(tmp_path):
    file = hearthd.write_config(tmp_path / "a.yaml", {"grpc": {"port": 1111}})

    def port(*args, env=None):
        done = run_hearthd("--config", file, "--print-config", *args, env=env)
        assert done.returncode == 0, done.stderr
        grpc_section = done.stdout.split("grpc:")[1]
        return int(grpc_section.split("port:")[1].split()[0])

    assert port() == 1111
    assert port(env={"HEARTH_GRPC__PORT": "2222"}) == 2222
    assert port("--set", "grpc.port=3333", env={"HEARTH_GRPC__PORT": "2222"}) == 3333


def test_an_unknown_flag_is_a_usage_error():
    done = run_hearthd("--no-such-flag")
    assert done.returncode not in (0, 1, 78) and "no-such-flag" in done.stderr


def test_sighup_names_what_needs_a_restart_until_there_was_one(start, folder):
    server = start(folder)
    config = json.loads(server.config_file.read_text())
    config["grpc"]["reflection"] = False
    config["shutdown"] = {"delay": "1ms"}
    hearthd.write_config(server.config_file, config)
    for _ in range(2):  # the first reload changes nothing about it
        server.process.send_signal(signal.SIGHUP)
        assert server.wait_for("configuration reloaded")["needs_restart"] == "'grpc.reflection'"


def test_sighup_reads_the_configuration_again_and_keeps_the_last_good_one(start, folder):
    server = start(folder)
    good = server.config_file.read_text()
    assert server.metric("hearth_config_last_reload_successful") == 1
    server.config_file.write_text("nonsense: 1\n")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.metric("hearth_config_last_reload_successful") == 0)
    server.config_file.write_text(good)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.metric("hearth_config_last_reload_successful") == 1)
    with server.client() as client:
        assert np.array_equal(infer_floats(client, "good"), FLOATS * 2)


def reload_with(server, **changes):
    config = json.loads(server.config_file.read_text())
    hearthd.write_config(server.config_file, {**config, **changes})
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("configuration reloaded")


def pins(server):
    return {row["name"]: row["pinned"] for row in json.loads(server.cli("ps", "--json").stdout)["models"]}


def test_a_pin_is_in_force_for_as_long_as_the_configuration_says_so(start, folder):
    models.write_model(folder, "other", models.Affine(3.0))
    server = start(folder, config={"models": [{"name": "good", "pin": True}]})
    with server.client() as client:
        client.unload_model("good")
        client.load_model("good")
        client.load_model("other")
        assert pins(server) == {"good": True, "other": False}
        reload_with(server, models=[{"name": "other", "pin": True}])
        assert pins(server) == {"good": False, "other": True}
        reload_with(server, models=[])
        assert pins(server) == {"good": False, "other": False}


def test_a_slip_in_model_yaml_takes_no_model_down(start, folder):
    server = start(folder)
    with server.client() as client:
        infer_floats(client, "good")
        (folder / "good" / "model.yaml").write_text("metod: x\n")
        reload_with(server)
        assert np.array_equal(infer_floats(client, "good"), FLOATS * 2)
        assert "metod" in server.cli("models").stdout
        with pytest.raises(InferenceServerException, match="metod"):
            client.load_model("good")
        assert np.array_equal(infer_floats(client, "good"), FLOATS * 2)


# --- the access log ---


def test_a_request_that_cannot_be_read_has_its_line_in_the_access_log(start, repository):
    server = start(repository, config={"logging": {"access": True}})
    before = server.metric("hearth_requests_refused_total", code="INVALID_ARGUMENT")
    status, _, _ = ask(server, "POST", "/v2/models/identity/versions/1/infer", b"{nonsense")
    assert status == 400
    line = server.wait_for("request")
    assert (line["model"], line["version"], line["code"]) == ("identity", "1", "INVALID_ARGUMENT") and line["reason"]
    message = request("identity", ("x", "NONE", [1], b"1234"), request_id="seven")
    assert refusal(server, message)[0] == "INVALID_ARGUMENT"
    line = server.wait_for("request")
    assert (line["model"], line["id"], line["code"]) == ("identity", "seven", "INVALID_ARGUMENT")
    assert server.metric("hearth_requests_refused_total", code="INVALID_ARGUMENT") == before + 2


def test_the_access_log_tells_how_a_request_came_by_its_model(start, folder):
    models.write_model(folder, "bad", models.Affine(1.0)).write_bytes(b"")
    server = start(folder, config={"logging": {"access": True}})
    with server.client() as client:
        infer_floats(client, "good")
        infer_floats(client, "good")
    refusal(server, request("bad", floats()))
    refusal(server, request("nobody", floats()))
    said = [server.wait_for("request") for _ in range(4)]
    assert [(line["model"], line["cache"]) for line in said] == [
        ("good", "load"), ("good", "hit"), ("bad", "none"), ("nobody", "none")]


# --- starting and stopping ---


def test_models_in_the_configuration_are_resident_before_it_is_ready(start, folder):
    server = start(folder, config={"models": [{"name": "good", "required": True}]})
    with server.client() as client:
        assert client.is_server_ready() and client.is_model_ready("good")
        assert np.array_equal(infer_floats(client, "good"), FLOATS * 2)
    assert server.metric("hearth_cache_misses_total", model="good") == 0


def test_threads_that_load_ahead_of_need_count_for_less_and_nobody_else_with_them(start, folder):
    models.write_model(folder, "forks", models.Forks(),
                       options="inputs:\n  - {name: x, datatype: FP32, shape: [4]}\n")
    server = start(folder, config={"models": [{"name": "forks", "required": False}]})
    wait_until(lambda: server.metric("hearth_resident_models") == 1)
    assert server.metric("hearth_load_queue_seconds_count", priority="background") == 1
    niceness = {}
    for task in pathlib.Path(f"/proc/{server.process.pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        niceness.setdefault(os.getpriority(os.PRIO_PROCESS, int(task.name)), set()).add(name)
    assert niceness.pop(os.getpriority(os.PRIO_PROCESS, 0) + 10) == {"preload-0"}
    assert len(niceness) == 1, niceness


def test_a_second_daemon_on_the_port_is_an_error_that_says_so(server, repository, tmp_path):
    for section, port in (("grpc", server.grpc_port), ("http", server.http_port), ("rest", server.rest_port)):
        workdir = tmp_path / section
        workdir.mkdir()
        second = hearthd.Hearthd(repository, workdir, config={section: {"port": port}})
        second.spawn()
        assert second.wait() == 1
        assert str(port) in second.log() and "in use" in second.log(), second.log()


def test_sigterm_finishes_what_runs_and_exits_0(start, folder):
    server = start(folder)
    with server.client() as client:
        client.load_model("slow")
    running = [server.stub().ModelInfer.future(slow_request(500), timeout=100) for _ in range(4)]
    wait_until(lambda: server.metric("hearth_pins") >= 4)
    server.process.send_signal(signal.SIGTERM)
    assert all(len(call.result().outputs) == 1 for call in running)
    assert server.wait() == 0


def rpc_messages():
    """google.rpc.Status and RetryInfo as Google's own packages have them, which need not be installed."""
    file = descriptor_pb2.FileDescriptorProto(name="test/error_model.proto", package="google.rpc", syntax="proto3",
                                              dependency=[any_pb2.DESCRIPTOR.name, duration_pb2.DESCRIPTOR.name])
    kinds = descriptor_pb2.FieldDescriptorProto
    status = file.message_type.add(name="Status")
    status.field.add(name="code", number=1, type=kinds.TYPE_INT32, label=kinds.LABEL_OPTIONAL)
    status.field.add(name="message", number=2, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    status.field.add(name="details", number=3, type=kinds.TYPE_MESSAGE, label=kinds.LABEL_REPEATED,
                     type_name=".google.protobuf.Any")
    retry = file.message_type.add(name="RetryInfo")
    retry.field.add(name="retry_delay", number=1, type=kinds.TYPE_MESSAGE, label=kinds.LABEL_OPTIONAL,
                    type_name=".google.protobuf.Duration")
    pool = descriptor_pool.DescriptorPool()
    for known in (any_pb2, duration_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return [message_factory.GetMessageClass(pool.FindMessageTypeByName(f"google.rpc.{name}"))
            for name in ("Status", "RetryInfo")]


def retry_hints(error):
    """When to ask again, in seconds: as gRPC's own retries read it, and as people's code does."""
    status_class, retry_class = rpc_messages()
    trailers = dict(error.trailing_metadata())
    status = status_class.FromString(trailers["grpc-status-details-bin"])
    # What grpc_status.rpc_status.from_call insists on:
    assert (status.code, status.message) == (error.code().value[0], error.details())
    [detail] = status.details
    assert detail.type_url == "type.googleapis.com/google.rpc.RetryInfo"
    delay = retry_class.FromString(detail.value).retry_delay
    return int(trailers["grpc-retry-pushback-ms"]) / 1000, delay.seconds + delay.nanos / 1e9


def refused_call(server, message):
    with pytest.raises(grpc.RpcError) as error:
        server.stub().ModelInfer(message, timeout=60)
    return error.value


def test_a_refusal_that_may_be_over_soon_says_when_to_ask_again(start, folder):
    models.model_file(folder, "broken").parent.mkdir(parents=True)
    models.model_file(folder, "broken").write_bytes(b"no model")
    server = start(folder, config={"cache": {"failure_backoff": "90s"}})
    assert retry_hints(refused_call(server, request("broken", floats()))) == (90.0, 90.0)
    pushback, delay = retry_hints(refused_call(server, request("broken", floats())))
    assert 0 < pushback == delay <= 90
    assert "grpc-status-details-bin" not in dict(
        refused_call(server, request("unheard_of", floats())).trailing_metadata())


def test_too_many_requests_are_told_to_come_back_soon(start, folder):
    server = start(folder, config={"grpc": {"max_in_flight": 1}})
    running = server.stub().ModelInfer.future(slow_request(500), timeout=100)
    wait_until(lambda: server.metric("hearth_pins") >= 1)
    refused = refused_call(server, request("good", floats()))
    assert refused.code() == grpc.StatusCode.UNAVAILABLE
    assert retry_hints(refused) == (0.1, 0.1)
    assert running.result() is not None


def test_while_draining_new_requests_are_unavailable(start, folder):
    server = start(folder)
    stub, another = server.stub(), server.stub()
    another.ServerLive(pb.ServerLiveRequest())  # its connection stands before the drain begins
    running = stub.ModelInfer.future(slow_request(1500), timeout=100)
    wait_until(lambda: server.metric("hearth_pins") >= 1)
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("draining")
    refused = None
    while refused is None:  # the door closes a moment after it was announced
        try:
            another.ModelInfer(request("good", floats()), timeout=60)
        except grpc.RpcError as error:
            refused = error
    assert refused.code() == grpc.StatusCode.UNAVAILABLE, refused.details()
    assert retry_hints(refused) == (1.0, 1.0)
    assert running.result() is not None
    assert server.wait() == 0


def test_a_drain_that_takes_too_long_ends_with_1_and_names_what_hung(start, folder):
    server = start(folder, config={"shutdown": {"drain_timeout": "100ms"}})
    running = server.stub().ModelInfer.future(slow_request(10**6), timeout=100)
    wait_until(lambda: server.metric("hearth_pins") >= 1)
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 1
    assert "slow" in server.log()
    assert running.exception() is not None


def test_a_second_signal_forces_the_end(start, folder):
    server = start(folder, config={"shutdown": {"drain_timeout": "10m"}})
    running = server.stub().ModelInfer.future(slow_request(10**6), timeout=100)
    wait_until(lambda: server.metric("hearth_pins") >= 1)
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("draining")
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() != 0
    assert running.exception() is not None


def test_an_idle_daemon_stops_at_once(start, folder):
    server = start(folder)
    assert server.terminate() == 0
    assert not [line for line in server.lines if json.loads(line)["level"] == "error"]


def test_who_never_hangs_up_does_not_hold_a_stopping_daemon(start, folder):
    """A TCP connection without a word on it, and a stream of reflection that stays open."""
    server = start(folder, config={"shutdown": {"drain_timeout": "10m"}})
    with server.client() as client:
        client.load_model("good")
    questions = queue.Queue()
    questions.put(ServerReflectionRequest(list_services=""))
    stream = ServerReflectionStub(server.channel()).ServerReflectionInfo(iter(questions.get, None))
    next(stream)
    with socket.create_connection(("127.0.0.1", server.grpc_port)) as silent:
        assert silent.recv(1)  # the daemon has taken it
        assert server.terminate() == 0
    questions.put(None)
    said = [json.loads(line)["msg"] for line in server.lines]
    assert said.index("model unloaded") < said.index("gRPC connections that do not end are cut off")


def test_systemd_is_told(start, folder, tmp_path):
    """READY=1 once it listens, RELOADING=1 and READY=1 around a reload, STOPPING=1 at the end."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path)
        notify.settimeout(hearthd.PATIENCE)

        def wait_message(wanted):
            while True:
                fields = notify.recv(4096).decode().splitlines()
                if wanted in fields:
                    return fields

        server = start(folder, env={"NOTIFY_SOCKET": path})
        wait_message("READY=1")
        server.process.send_signal(signal.SIGHUP)
        reloading = wait_message("RELOADING=1")
        assert any(field.startswith("MONOTONIC_USEC=") for field in reloading)
        wait_message("READY=1")
        server.process.send_signal(signal.SIGTERM)
        wait_message("STOPPING=1")
        assert server.wait() == 0
