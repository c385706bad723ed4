"""Who may call what: by where a client is, by token, by listener; the same over gRPC and HTTP."""

import json
import signal
import subprocess
import time

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from tritonclient.utils import InferenceServerException

import hearthd
from strangers import EVERYWHERE, ask, bearer, channel_at, client_at, error_of, numbers, own_address, replace

TOKEN, NEXT_TOKEN = "a-token-that-is-long-enough", "another-token-that-is-good-too"
MODEL = "identity"


@pytest.fixture(scope="module")
def stranger():
    return own_address()


@pytest.fixture(scope="module")
def exposed(repository, tmp_path_factory, stranger):
    """One hearthd as it is by default, reachable from everywhere."""
    with hearthd.Hearthd(repository, tmp_path_factory.mktemp("exposed"), config=EVERYWHERE) as running:
        running.client().load_model(MODEL)  # so that an unload would be seen
        yield running
        assert running.alive, running.log()


def grpc_code(server, address, method, metadata=(), request=b""):
    """(code, details) of a unary call with these bytes; method: 'inference.GRPCInferenceService/ServerLive'."""
    with channel_at(server, address) as channel:
        call = channel.unary_unary(f"/{method}", request_serializer=lambda b: b, response_deserializer=lambda b: b)
        try:
            call(request, timeout=60, metadata=list(metadata))
            return grpc.StatusCode.OK, ""
        except grpc.RpcError as error:
            return error.code(), error.details()


def load_request(name):
    """A RepositoryModelLoadRequest, and an Unload's: model_name is field 2 of both."""
    return b"\x12" + bytes([len(name)]) + name.encode()


LOAD = "inference.GRPCInferenceService/RepositoryModelLoad"
UNLOAD = "inference.GRPCInferenceService/RepositoryModelUnload"
RELOAD = "hearth.v1.Config/Reload"


# --- without any configuration ---


def test_anybody_may_infer_and_ask_how_it_is(exposed, stranger):
    client = client_at(exposed, stranger)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL)
    assert client.get_server_metadata().name == "hearth"
    assert client.get_model_metadata(MODEL).name == MODEL
    assert client.get_inference_statistics(MODEL).model_stats
    assert client.get_model_repository_index().models
    assert client.infer(MODEL, [numbers()]).get_response().outputs
    for path in ("/v2/health/live", "/v2/health/ready", "/v2", f"/v2/models/{MODEL}", f"/v2/models/{MODEL}/ready",
                 f"/v2/models/{MODEL}/config", f"/v2/models/{MODEL}/stats", "/v2/models/stats", "/v2/openapi.json"):
        assert ask(stranger, exposed.rest_port, "GET", path)[0] == 200, path
    for path in ("/metrics", "/v2/health/live", "/v2/health/ready"):
        assert ask(stranger, exposed.http_port, "GET", path)[0] == 200, path


def test_a_stranger_may_change_nothing_and_hears_which_key_would_allow_it(exposed, stranger):
    for method in (LOAD, UNLOAD):
        code, details = grpc_code(exposed, stranger, method, request=load_request(MODEL))
        assert code == grpc.StatusCode.PERMISSION_DENIED
        assert "access.roles" in details and "access.open" in details and "'repository'" in details
    for method in ("Pin", "Unpin", "Evict", "Prefetch"):
        code, details = grpc_code(exposed, stranger, f"hearth.v1.Cache/{method}")
        assert code == grpc.StatusCode.PERMISSION_DENIED and "'control'" in details, method
    assert grpc_code(exposed, stranger, RELOAD)[0] == grpc.StatusCode.PERMISSION_DENIED
    for method in ("SystemSharedMemoryRegister", "SystemSharedMemoryStatus", "SystemSharedMemoryUnregister",
                   "CudaSharedMemoryRegister", "CudaSharedMemoryStatus", "CudaSharedMemoryUnregister"):
        code, _ = grpc_code(exposed, stranger, f"inference.GRPCInferenceService/{method}")
        assert code == grpc.StatusCode.PERMISSION_DENIED, method
    for what in ("load", "unload"):
        status, _, body = ask(stranger, exposed.rest_port, "POST", f"/v2/repository/models/{MODEL}/{what}")
        assert status == 403 and "access.roles" in error_of(body) and "'repository'" in error_of(body)
    for kind in ("system", "cuda"):
        for method, path in (("GET", "status"), ("POST", "unregister"), ("POST", "region/x/register")):
            assert ask(stranger, exposed.rest_port, method, f"/v2/{kind}sharedmemory/{path}")[0] == 403, path
    assert client_at(exposed, stranger).is_model_ready(MODEL)


def test_the_log_is_read_by_a_stranger_and_not_changed(exposed, stranger):
    client = client_at(exposed, stranger)
    assert client.get_log_settings().settings
    assert client.get_trace_settings().settings
    with pytest.raises(InferenceServerException, match="'control'"):
        client.update_log_settings({"log_verbose_level": 1})
    with pytest.raises(InferenceServerException, match="'control'"):
        client.update_trace_settings(settings={"trace_level": "OFF"})
    for path in ("/v2/logging", "/v2/trace/setting", f"/v2/models/{MODEL}/trace/setting"):
        assert ask(stranger, exposed.rest_port, "GET", path)[0] == 200
        status, _, body = ask(stranger, exposed.rest_port, "POST", path)
        assert status == 403 and "'control'" in error_of(body)


def test_this_machine_needs_nothing(exposed):
    client = exposed.client()
    client.unload_model(MODEL)
    client.load_model(MODEL)
    for what in ("unload", "load"):
        for address in ("127.0.0.1", "::1"):
            assert ask(address, exposed.rest_port, "POST", f"/v2/repository/models/{MODEL}/{what}")[0] == 200
    exposed.cli("pin", MODEL)
    exposed.cli("unpin", MODEL)
    exposed.cli("reload", "--dry-run")


@pytest.mark.parametrize("header", ["X-Forwarded-For: 203.0.113.5", "Forwarded: for=203.0.113.5", "Via: 1.1 proxy",
                                    "X-Real-IP: 203.0.113.5", "Origin: http://page.example", "ORIGIN: null"])
def test_what_a_local_proxy_or_a_browsers_page_sends_is_a_strangers(exposed, header):
    name, value = header.split(": ")
    status, _, body = ask("127.0.0.1", exposed.rest_port, "POST", f"/v2/repository/models/{MODEL}/unload",
                          headers={name: value})
    assert status == 403 and "proxy" in error_of(body)
    code, _ = grpc_code(exposed, "127.0.0.1", UNLOAD, [(name.lower(), value)], load_request(MODEL))
    assert code == grpc.StatusCode.PERMISSION_DENIED


def test_refusals_are_counted_and_logged(exposed, stranger):
    before = exposed.metric("hearth_refused_calls_total", listener="rest", group="repository", code="PERMISSION_DENIED")
    path = "/v2/repository/models/a%0Ab/load"
    for _ in range(5):
        assert ask(stranger, exposed.rest_port, "POST", path)[0] == 403
    after = exposed.metric("hearth_refused_calls_total", listener="rest", group="repository", code="PERMISSION_DENIED")
    assert after == before + 5
    lines = [json.loads(line) for line in exposed.lines if '"call refused"' in line]
    assert lines and all(line["client"] for line in lines)


# --- other ways to the same call ---


@pytest.mark.parametrize("path", [
    "/v2/repository/models/identity/unload/", "/v2/repository/models/identity/%75nload",
    "/v2/%72epository/models/identity/unload",
    "/%76%32/repository/models/identity/unload", "/v2/repository/models/identity/unload?ready=true",
    "/v2/repository/models/identity%00/unload", "http://127.0.0.1/v2/repository/models/identity/unload",
    "http://localhost:8000/v2/repository/models/identity/unload"])
def test_another_spelling_of_a_path_is_the_same_call(exposed, stranger, path):
    assert ask(stranger, exposed.rest_port, "POST", path)[0] == 403


@pytest.mark.parametrize("path", [
    "//v2/repository/models/identity/unload", "/v2//repository/models/identity/unload",
    "/v2/models/../repository/models/identity/unload",
    "/v2/models/%2e%2e/repository/models/identity/unload", "/v2/repository%2fmodels/identity/unload",
    "/V2/repository/models/identity/unload", "/v2/Repository/models/identity/unload",
    "/v2/repository/models/identity/UNLOAD",
    "/v2/repository/models/identity/unload;x", "/v2/repository/models/identity/unload%20",
    "/v2/repository/models/identity/unload%",
    "/models", "/models/identity", "/v1/models/identity", "/v2/models", "/v2/models/", "/invocations", "/ping",
    "/v2/Logging", "/v2/logging/x", "/v2/trace/setting/x", "/v2/systemsharedmemory/region/x/register/y",
    "/v2/systemsharedmemory", "/v2/cudasharedmemory/region/register", "/metrics", "*"])
def test_what_is_no_path_of_ours_does_nothing_whoever_asks(exposed, stranger, path):
    for address in (stranger, "127.0.0.1"):
        for method in ("GET", "POST", "PUT", "DELETE", "CONNECT"):
            assert ask(address, exposed.rest_port, method, path)[0] in (400, 404, 405), (method, path)
            assert ask(address, exposed.http_port, method, path)[0] in (400, 404, 405) or path == "/metrics"
    assert exposed.client().is_model_ready(MODEL)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "post"])
def test_another_method_is_refused_like_the_right_one(exposed, stranger, method):
    status, _, _ = ask(stranger, exposed.rest_port, method, f"/v2/repository/models/{MODEL}/unload")
    assert status in (400, 403)


def test_a_method_override_is_not_heard(exposed, stranger):
    for name in ("X-HTTP-Method-Override", "X-Original-URL", "X-Rewrite-URL"):
        status, _, _ = ask(stranger, exposed.rest_port, "GET", "/v2/health/live",
                           headers={name: f"/v2/repository/models/{MODEL}/unload"})
        assert status == 200
    assert exposed.client().is_model_ready(MODEL)


def test_methods_of_grpc_that_are_none_of_ours_are_unimplemented(exposed, stranger):
    for method in ("inference.GRPCInferenceService/repositorymodelunload",
                   "inference.grpcinferenceservice/RepositoryModelUnload",
                   "hearth.v1.Cache/evict", "grpc.channelz.v1.Channelz/GetServers", "hearth.v1.Config/Shutdown"):
        for address in (stranger, "127.0.0.1"):
            assert grpc_code(exposed, address, method)[0] == grpc.StatusCode.UNIMPLEMENTED, method


# --- roles ---


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


@pytest.fixture
def roles(token_file):
    return {**EVERYWHERE,
            "access": {"roles": [{"name": "deployer", "token_file": str(token_file), "groups": ["repository"]}]}}


def load_codes(server, address, token):
    """What gRPC and HTTP say to a load with this token."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    headers = bearer(token) if token else {}
    code, _ = grpc_code(server, address, LOAD, metadata, load_request(MODEL))
    return code, ask(address, server.rest_port, "POST", f"/v2/repository/models/{MODEL}/load", headers=headers)[0]


GOOD = (grpc.StatusCode.OK, 200)
UNKNOWN = (grpc.StatusCode.UNAUTHENTICATED, 401)
FORBIDDEN = (grpc.StatusCode.PERMISSION_DENIED, 403)


def eventually(says, expected, patience=20):
    end = time.monotonic() + patience
    while (got := says()) != expected:
        assert time.monotonic() < end, got
        time.sleep(0.02)
    return got


def test_a_token_allows_its_roles_groups_and_no_others(repository, start, roles, stranger):
    server = start(repository, config=roles)
    assert load_codes(server, stranger, TOKEN) == GOOD
    assert load_codes(server, stranger, None) == UNKNOWN
    for wrong in (TOKEN[:-1], TOKEN + "x", TOKEN.upper(), TOKEN[::-1], NEXT_TOKEN, "x"):
        assert load_codes(server, stranger, wrong) == UNKNOWN, wrong
    code, details = grpc_code(server, stranger, RELOAD, [("authorization", f"Bearer {TOKEN}")])
    assert code == grpc.StatusCode.PERMISSION_DENIED and "'deployer'" in details and "access.roles" in details
    status, headers, _ = ask(stranger, server.rest_port, "POST", f"/v2/repository/models/{MODEL}/load")
    assert status == 401 and headers["WWW-Authenticate"] == "Bearer"
    for scheme in (f"Basic {TOKEN}", TOKEN, "Bearer"):
        status, _, _ = ask(stranger, server.rest_port, "POST", f"/v2/repository/models/{MODEL}/load",
                           headers={"Authorization": scheme})
        assert status == 401
    # What is open to all is open to whoever brings a wrong token, too.
    assert ask(stranger, server.rest_port, "GET", "/v2/health/ready", headers=bearer("wrong"))[0] == 200
    assert TOKEN not in server.log() and NEXT_TOKEN not in server.log()


def test_tokens_are_rotated_without_a_restart(repository, start, roles, stranger, token_file):
    server = start(repository, config=roles)
    replace(token_file, f"# both, until everybody has the new one\n{TOKEN}\n{NEXT_TOKEN}\n")
    eventually(lambda: load_codes(server, stranger, NEXT_TOKEN), GOOD)
    assert load_codes(server, stranger, TOKEN) == GOOD
    token_file.write_text(NEXT_TOKEN + "\n")  # in place
    eventually(lambda: load_codes(server, stranger, TOKEN), UNKNOWN)
    assert load_codes(server, stranger, NEXT_TOKEN) == GOOD


def test_a_token_file_that_becomes_unreadable_leaves_the_old_tokens_good(repository, start, roles, stranger,
                                                                         token_file):
    server = start(repository, config=roles)
    replace(token_file, "short\n")
    line = server.wait_for("tokens not read again; the old ones stay in use")
    assert str(token_file) in line["reason"] and "short" not in line["reason"].replace("too short", "")
    assert load_codes(server, stranger, TOKEN) == GOOD
    replace(token_file, NEXT_TOKEN)
    eventually(lambda: load_codes(server, stranger, NEXT_TOKEN), GOOD)


def test_a_secret_of_kubernetes_is_swapped(repository, start, roles, stranger, tmp_path, token_file):
    folder = tmp_path / "secret"

    def publish(version, token):
        (folder / version).mkdir(parents=True)
        (folder / version / "token").write_text(token)
        (folder / "..data_tmp").symlink_to(version)
        (folder / "..data_tmp").rename(folder / "..data")

    publish("..1", TOKEN)
    token_file.unlink()
    token_file.symlink_to(folder / "token")
    (folder / "token").symlink_to("..data/token")
    server = start(repository, config=roles)
    assert load_codes(server, stranger, TOKEN) == GOOD
    publish("..2", NEXT_TOKEN)
    eventually(lambda: load_codes(server, stranger, NEXT_TOKEN), GOOD)
    assert load_codes(server, stranger, TOKEN) == UNKNOWN


def test_a_role_that_is_taken_away_by_a_reload_is_gone_at_once(repository, start, roles, stranger):
    server = start(repository, config=roles)
    hearthd.write_config(server.config_file, hearthd.merged(json.loads(server.config_file.read_text()),
                                                            {"access": {"roles": [], "open": ["health"]}}))
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("configuration reloaded")
    assert load_codes(server, stranger, TOKEN) == FORBIDDEN
    assert ask(stranger, server.rest_port, "GET", "/v2/health/ready")[0] == 200
    assert ask(stranger, server.rest_port, "GET", "/v2")[0] == 403
    assert ask(stranger, server.http_port, "GET", "/metrics")[0] == 403
    with pytest.raises(InferenceServerException, match="'inference'"):
        client_at(server, stranger).infer(MODEL, [numbers()])


def test_a_reload_with_a_token_file_that_is_not_there_changes_nothing(repository, start, roles, stranger, token_file):
    server = start(repository, config=roles)
    token_file.unlink()
    server.process.send_signal(signal.SIGHUP)
    line = server.wait_for("configuration not reloaded; the old one stays in force")
    assert str(token_file) in line["reason"]
    assert load_codes(server, stranger, TOKEN) == GOOD


def test_a_stream_is_asked_once_when_it_begins(repository, start, stranger):
    server = start(repository, config={**EVERYWHERE, "access": {"open": ["health"]}})
    with channel_at(server, stranger) as channel:
        call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        with pytest.raises(grpc.RpcError) as refused:
            list(call(iter([Empty().SerializeToString()] * 3), timeout=60))
        assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
        watch = channel.unary_stream("/hearth.v1.Cache/Watch")
        with pytest.raises(grpc.RpcError) as refused:
            list(watch(b"", timeout=60))
        assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
        health = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=60)
        assert next(health) == b"\x08\x01"
        health.cancel()
    # Reflection asks nobody who they are, so it is there only where everybody may know what there is.
    code, _ = grpc_code(server, "127.0.0.1", "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    assert code == grpc.StatusCode.UNIMPLEMENTED


def test_a_listener_serves_its_groups_only(repository, start, roles, stranger):
    server = start(repository, config={**roles, "rest": {"host": "::", "groups": ["health", "inference"]},
                                       "http": {"host": "::", "groups": ["health"]}})
    for address in (stranger, "127.0.0.1"):
        status, _, body = ask(address, server.rest_port, "POST", f"/v2/repository/models/{MODEL}/load",
                              headers=bearer(TOKEN))
        assert status == 403 and "rest.groups" in error_of(body)
        assert ask(address, server.rest_port, "GET", "/v2")[0] == 403
        assert ask(address, server.rest_port, "GET", "/v2/health/live")[0] == 200
        assert ask(address, server.http_port, "GET", "/metrics")[0] == 403
        assert ask(address, server.http_port, "GET", "/v2/health/live")[0] == 200
    code, _ = grpc_code(server, stranger, LOAD, [("authorization", f"Bearer {TOKEN}")], load_request(MODEL))
    assert code == grpc.StatusCode.OK


def test_metrics_may_need_a_token_and_probes_do_not(repository, start, roles, stranger, token_file):
    server = start(repository, config=hearthd.merged(roles, {"access": {"open": ["health", "inference"], "roles": [
        {"name": "scraper", "token_file": str(token_file), "groups": ["statistics"]}]}}))
    assert ask(stranger, server.http_port, "GET", "/metrics")[0] == 401
    assert ask(stranger, server.http_port, "GET", "/metrics", headers=bearer("wrong"))[0] == 401
    assert ask(stranger, server.http_port, "GET", "/metrics", headers=bearer(TOKEN))[0] == 200
    assert ask(stranger, server.http_port, "GET", "/v2/health/ready")[0] == 200


def test_without_local_groups_loopback_is_no_better_than_elsewhere(repository, start, roles):
    server = start(repository, config=hearthd.merged(roles, {"access": {"local": []}}))
    assert load_codes(server, "127.0.0.1", None) == UNKNOWN
    assert load_codes(server, "127.0.0.1", TOKEN) == GOOD


# --- the configuration ---


def check(tmp_path, config):
    """(exit code, what it says) of hearthd --check-config."""
    file = hearthd.write_config(tmp_path / "check.yaml", config)
    done = subprocess.run([hearthd.HEARTHD, "--config", str(file), "--check-config"], capture_output=True, text=True,
                          env=hearthd.environment(), check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_check_config_reads_the_files_with_tokens(tmp_path, roles, token_file):
    assert check(tmp_path, roles)[0] == 0
    token_file.write_text("short\n")
    code, said = check(tmp_path, roles)
    assert code == 78 and "check.yaml:" in said and f"{token_file}:1" in said and "short\n" not in said
    token_file.unlink()
    code, said = check(tmp_path, roles)
    assert code == 78 and "check.yaml:" in said and "'deployer'" in said and str(token_file) in said


def test_a_server_whose_tokens_cannot_be_read_does_not_start(repository, tmp_path, roles, token_file):
    token_file.unlink()
    server = hearthd.Hearthd(repository, tmp_path, config=roles)
    server.spawn()
    assert server.wait() != 0
    assert str(token_file) in server.log()
