"""TLS and mTLS on the three listeners, with certificates that are replaced while the server runs."""

import argparse
import contextlib
import http.client
import json
import pathlib
import shutil
import socket
import ssl
import subprocess
import threading
import time

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

import hearthd
from certificates import Authority
from hearth_pack import trust as pack_trust
from hearth_pack.errors import PackError
from hearth_pack.served import Server
from strangers import PATIENCE, bearer, error_of, numbers

MODEL = "identity"
HERE = ("DNS:localhost", "IP:127.0.0.1")
LISTENERS = ("grpc", "rest", "http")


class Trust:
    """Authorities, a server's folder as Kubernetes mounts a Secret, and a client's certificate."""

    def __init__(self, folder):
        self.folder = folder
        self.authority = Authority(folder / "authority")
        self.clients = Authority(folder / "clients", "clients")
        self.stranger = Authority(folder / "stranger", "stranger")
        self.client = self.clients.issue("client", ["DNS:ops.example"])
        self.mount = folder / "mount"
        self.mount.mkdir()
        self.version = 0
        for name in ("tls.crt", "tls.key", "ca.crt"):
            (self.mount / name).symlink_to(f"..data/{name}")
        self.publish()

    def publish(self, authority=None, clients=None, change=lambda folder: None):
        """A new certificate of the server's, swapped in as Kubernetes does it."""
        self.version += 1
        certificate, key = (authority or self.authority).issue(f"server-{self.version}", HERE)
        folder = self.mount / f"..{self.version}"
        folder.mkdir()
        shutil.copy(certificate, folder / "tls.crt")
        shutil.copy(key, folder / "tls.key")
        shutil.copy((clients or self.clients).certificate, folder / "ca.crt")
        change(folder)
        (self.mount / "..data_tmp").symlink_to(folder.name)
        (self.mount / "..data_tmp").rename(self.mount / "..data")

    def config(self, client_ca=False, **more):
        tls = {"certificate": str(self.mount / "tls.crt"), "key": str(self.mount / "tls.key")}
        if client_ca:
            tls["client_ca"] = str(self.mount / "ca.crt")
        return {"tls": tls, **more}


@pytest.fixture
def trust(tmp_path):
    return Trust(tmp_path / "trust")


class Tls:
    """How a client goes about it: whom it trusts, and who it is itself."""

    def __init__(self, authority, own=(None, None)):
        self.ca, (self.certificate, self.key) = authority.certificate, own

    def context(self):
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate:
            context.load_cert_chain(self.certificate, self.key)
        return context

    def channel(self, server):
        read = lambda file: pathlib.Path(file).read_bytes() if file else None
        return grpc.secure_channel(server.address, grpc.ssl_channel_credentials(read(self.ca), read(self.key),
                                                                                read(self.certificate)))

    def get(self, port, path="/v2/health/live", method="GET", headers=None):
        """(status, body)"""
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=self.context())
        try:
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def works(self, server, listener):
        """Is this client answered there?"""
        if listener != "grpc":
            try:
                return self.get({"rest": server.rest_port, "http": server.http_port}[listener])[0] == 200
            except (ssl.SSLError, ConnectionError):
                return False
        with self.channel(server) as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=3)
            except grpc.FutureTimeoutError:
                return False
            return service_pb2_grpc.GRPCInferenceServiceStub(channel).ServerLive(service_pb2.ServerLiveRequest(),
                                                                                 timeout=PATIENCE).live


def served_certificate(port):
    """What a server shows, in DER; trusted or not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain:
        with context.wrap_socket(plain) as encrypted:
            return encrypted.getpeercert(binary_form=True)


def ports(server):
    return {"grpc": server.grpc_port, "rest": server.rest_port, "http": server.http_port}


def eventually(says, patience=30):
    end = time.monotonic() + patience
    while not says():
        assert time.monotonic() < end
        time.sleep(0.05)


# --- TLS ---


def test_all_three_listeners_speak_tls_and_nothing_else(repository, start, trust):
    server = start(repository, config=trust.config())
    good, wrong = Tls(trust.authority), Tls(trust.stranger)
    for listener, port in ports(server).items():
        assert good.works(server, listener), listener
        assert not wrong.works(server, listener), listener
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as plain:
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                plain.request("GET", "/v2/health/live")
                plain.getresponse()
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as refused:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ServerLive(service_pb2.ServerLiveRequest(), timeout=5)
    assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_old_versions_of_tls_are_refused(repository, start, trust):
    server = start(repository, config=trust.config())
    for listener, port in ports(server).items():
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.set_alpn_protocols(["h2"])
            context.minimum_version = context.maximum_version = version
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain:
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    context.wrap_socket(plain)


def test_tritons_clients_infer_over_tls(repository, start, trust):
    server = start(repository, config=trust.config())
    with triton.InferenceServerClient(server.address, ssl=True,
                                      root_certificates=str(trust.authority.certificate)) as client:
        assert client.infer(MODEL, [numbers()]).get_response().outputs
        client.load_model(MODEL)
    context = Tls(trust.authority).context
    with triton_http.InferenceServerClient(f"127.0.0.1:{server.rest_port}", ssl=True, ssl_context_factory=context,
                                           network_timeout=PATIENCE) as client:
        tensor = triton_http.InferInput("x", [1, 4], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 4), np.float32))
        for _ in range(3):
            assert client.infer(MODEL, [tensor]).get_response()["outputs"]


def test_many_large_bodies_and_kept_connections_go_through_tls(repository, start, trust):
    server = start(repository, config=trust.config())
    connection = http.client.HTTPSConnection("localhost", server.rest_port, timeout=PATIENCE,
                                             context=Tls(trust.authority).context())
    values = [float(i % 97) for i in range(200_000)]
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [len(values)], "data": values}]})
    for _ in range(3):
        connection.request("POST", f"/v2/models/{MODEL}/infer", body)
        answer = connection.getresponse()
        assert answer.status == 200 and json.loads(answer.read())["outputs"][0]["data"] == values
    connection.request("POST", f"/v2/models/{MODEL}/infer", body, {"Connection": "close"})
    answer = connection.getresponse()
    assert answer.status == 200 and json.loads(answer.read())["outputs"][0]["data"] == values
    connection.close()


def test_a_client_that_never_shakes_hands_holds_up_nobody(repository, start, trust):
    server = start(repository, config=trust.config())
    silent = [socket.create_connection(("127.0.0.1", port)) for port in ports(server).values() for _ in range(20)]
    for one in silent[::2]:
        one.sendall(b"\x16\x03\x01")
    good = Tls(trust.authority)
    assert all(good.works(server, listener) for listener in LISTENERS)
    assert server.terminate() == 0
    for one in silent:
        one.close()


# --- mTLS ---


def test_with_a_client_ca_clients_need_a_certificate_of_it_but_for_probes(repository, start, trust):
    server = start(repository, config=trust.config(client_ca=True))
    ours, nobody = Tls(trust.authority, trust.client), Tls(trust.authority)
    other = Tls(trust.authority, trust.stranger.issue("other", ["DNS:ops.example"]))
    for listener in ("grpc", "rest"):
        assert ours.works(server, listener), listener
        assert not nobody.works(server, listener), listener
        assert not other.works(server, listener), listener
    assert nobody.works(server, "http")


def test_a_certificates_name_is_a_role(repository, start, trust):
    roles = [{"name": "deployer", "certificate_names": ["ops.example"], "groups": ["repository"]}]
    server = start(repository, config=trust.config(client_ca=True, rest={"tls": "request"}, grpc={"tls": "request"},
                                                   access={"local": [], "roles": roles}))
    path = f"/v2/repository/models/{MODEL}/load"

    def says(tls):
        """What gRPC and HTTP say to a load."""
        status, body = tls.get(server.rest_port, path, "POST")
        with tls.channel(server) as channel:
            try:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name=MODEL), timeout=PATIENCE)
                return "OK", status
            except grpc.RpcError as error:
                assert "access.roles" in error.details() and "access.roles" in error_of(body)
                return error.code().name, status

    assert says(Tls(trust.authority, trust.client)) == ("OK", 200)
    assert says(Tls(trust.authority)) == ("UNAUTHENTICATED", 401)
    # A common name counts only where there is no other.
    another = trust.clients.issue("a", ["DNS:xops.example"], "ops.example")
    assert says(Tls(trust.authority, another)) == ("UNAUTHENTICATED", 401)
    assert says(Tls(trust.authority, trust.clients.issue("b", (), "ops.example"))) == ("OK", 200)


# --- replaced while the server runs ---


def test_a_certificate_that_is_replaced_is_used_for_new_connections_on_all_listeners(repository, start, trust):
    server = start(repository, config=trust.config())
    old = Tls(trust.authority)
    kept = http.client.HTTPSConnection("127.0.0.1", server.rest_port, timeout=PATIENCE, context=old.context())
    kept.request("GET", "/v2/health/live")
    assert kept.getresponse().read()
    before = {name: served_certificate(port) for name, port in ports(server).items()}
    assert len(set(before.values())) == 1
    trust.publish(authority=trust.stranger)
    new = Tls(trust.stranger)
    for listener, port in ports(server).items():
        eventually(lambda p=port, n=listener: served_certificate(p) != before[n])
        assert new.works(server, listener) and not old.works(server, listener), listener
    # What was there goes on.
    kept.request("GET", "/v2/health/live")
    assert kept.getresponse().status == 200
    kept.close()


def test_another_client_ca_is_taken_too(repository, start, trust):
    server = start(repository, config=trust.config(client_ca=True))
    before, after = Tls(trust.authority, trust.client), Tls(trust.authority, trust.stranger.issue("newcomer"))
    assert before.works(server, "grpc") and not after.works(server, "grpc")
    trust.publish(clients=trust.stranger)
    for listener in ("grpc", "rest"):
        eventually(lambda n=listener: after.works(server, n))
        assert not before.works(server, listener), listener


@pytest.mark.parametrize("broken", ["no_key", "another_key", "cut_short", "nonsense"])
def test_a_replacement_that_is_no_good_leaves_the_old_one_and_is_told(repository, start, trust, broken):
    def spoil(folder):
        if broken == "no_key":
            (folder / "tls.key").unlink()
        if broken == "another_key":
            shutil.copy(trust.client[1], folder / "tls.key")
        if broken == "cut_short":
            text = (folder / "tls.crt").read_text()
            (folder / "tls.crt").write_text(text[:len(text) // 2])
        if broken == "nonsense":
            (folder / "tls.crt").write_text("nonsense\n")

    server = start(repository, config=trust.config())
    before = served_certificate(server.rest_port)
    trust.publish(change=spoil)
    line = server.wait_for("certificates not read again; the old ones stay in use")
    assert "hearth.yaml:" in line["reason"] and "tls." in line["reason"]
    good = Tls(trust.authority)
    for listener, port in ports(server).items():
        assert good.works(server, listener) and served_certificate(port) == before
    trust.publish()
    for port in ports(server).values():
        eventually(lambda p=port: served_certificate(p) != before)


def test_a_bad_token_file_hides_no_bad_key_and_each_is_told_for_itself(repository, start, trust, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("a-token-that-is-long-enough-to-be-good\n")
    role = {"name": "ops", "token_file": str(tokens), "groups": ["control"]}
    server = start(repository, config={**trust.config(), "access": {"roles": [role]}})
    tokens.write_text("short\n")
    assert str(tokens) in server.wait_for("tokens not read again; the old ones stay in use")["reason"]
    assert server.wait_for("certificates read again")
    trust.publish(change=lambda folder: (folder / "tls.key").unlink())
    reason = server.wait_for("certificates not read again; the old ones stay in use")["reason"]
    assert "tls." in reason and "tokens" not in reason
    config = json.loads(server.config_file.read_text())
    checked = subprocess.run([hearthd.HEARTHD, "--check-config", "--config", str(server.config_file)], text=True,
                             capture_output=True, timeout=60, check=False, env=hearthd.environment())
    assert config["access"] and checked.returncode != 0
    assert str(tokens) in checked.stderr and "tls.key" in checked.stderr, checked.stderr


def test_certificates_are_replaced_under_load_and_no_request_fails(repository, start, trust):
    server = start(repository, config=trust.config())
    good, failures, done = Tls(trust.authority), [], threading.Event()

    def ask(listener):
        while not done.is_set():
            if not good.works(server, listener):
                failures.append(listener)

    clients = [threading.Thread(target=ask, args=(listener,)) for listener in LISTENERS]
    for client in clients:
        client.start()
    try:
        seen = set()
        for _ in range(3):
            seen.add(served_certificate(server.rest_port))
            trust.publish()
            eventually(lambda: served_certificate(server.rest_port) not in seen and
                       served_certificate(server.grpc_port) not in seen)
    finally:
        done.set()
        for client in clients:
            client.join()
    assert not failures, server.log()


def test_when_the_certificate_expires_is_a_metric(repository, start, trust):
    server = start(repository, config=trust.config())
    _, text = Tls(trust.authority).get(server.http_port, "/metrics")
    samples = hearthd.parse_metrics(text.decode())
    left = samples["hearth_certificate_expiry_timestamp_seconds", ()] - time.time()
    assert 6 * 86400 < left <= 7 * 86400 + 60


# --- the configuration ---


def check(tmp_path, config):
    file = hearthd.write_config(tmp_path / "check.yaml", config)
    done = subprocess.run([hearthd.HEARTHD, "--config", str(file), "--check-config"], capture_output=True, text=True,
                          env=hearthd.environment(), check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_check_config_reads_the_certificates(tmp_path, trust):
    assert check(tmp_path, trust.config(client_ca=True))[0] == 0
    for key in ("certificate", "key", "client_ca"):
        config = trust.config(client_ca=True)
        config["tls"][key] = str(tmp_path / "absent.pem")
        code, said = check(tmp_path, config)
        assert code == 78 and "check.yaml:" in said and f"'tls.{key}'" in said and "absent.pem" in said, said
    config = trust.config()
    config["tls"]["key"] = str(trust.client[1])
    code, said = check(tmp_path, config)
    assert code == 78 and "'tls.key'" in said and "not the key" in said


def test_listeners_can_do_without(repository, start, trust):
    server = start(repository, config=trust.config(http={"tls": "off"}))
    assert server.get("/v2/health/live")[0] == 200
    assert Tls(trust.authority).works(server, "grpc") and Tls(trust.authority).works(server, "rest")


# --- the command-line client ---


def test_hearth_speaks_tls_and_shows_a_token(repository, start, trust, tmp_path):
    token = tmp_path / "token"
    token.write_text("# for the deployer\na-token-that-is-long-enough\nanother-one-that-is-good\n")
    roles = [{"name": "deployer", "token_file": str(token), "groups": ["repository"]}]
    server = start(repository, config=trust.config(client_ca=True, access={"local": [], "roles": roles}))
    ours = ["--ca", trust.authority.certificate, "--cert", trust.client[0], "--key", trust.client[1]]
    assert MODEL in server.cli("models", *ours).stdout
    refused = server.cli("load", MODEL, *ours, check=False)
    assert refused.returncode == 1 and "--token-file" in refused.stderr and "access.roles" in refused.stderr
    server.cli("load", MODEL, *ours, "--token-file", token)
    wrong = tmp_path / "wrong"
    wrong.write_text("a-token-that-is-no-good\n")
    refused = server.cli("load", MODEL, *ours, "--token-file", wrong, check=False)
    assert refused.returncode == 1 and "a-token-that" not in refused.stderr
    for options in ([], ["--tls"], ["--ca", trust.stranger.certificate], ["--ca", trust.authority.certificate]):
        lost = server.cli("models", "--timeout", "5s", *options, check=False)
        assert lost.returncode in (69, 75), (options, lost)
    environment = hearthd.environment({
        "HEARTH_ADDRESS": server.address, "HEARTH_TOKEN_FILE": str(token),
        "HEARTH_CA": str(trust.authority.certificate),
        "HEARTH_CERT": str(trust.client[0]), "HEARTH_KEY": str(trust.client[1])})
    done = subprocess.run([hearthd.HEARTH, "load", MODEL], env=environment, capture_output=True, text=True,
                          check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def test_hearth_pack_does_so_too(repository, start, trust, tmp_path):
    token, wrong = tmp_path / "token", tmp_path / "wrong"
    token.write_text("a-token-that-is-long-enough\n")
    wrong.write_text("a-token-that-is-no-good\n")
    roles = [{"name": "deployer", "token_file": str(token), "groups": ["repository"]}]
    server = start(repository, config=trust.config(client_ca=True, access={"local": [], "roles": roles}))

    def load(*options):
        parser = argparse.ArgumentParser()
        pack_trust.add_options(parser)
        ours = ["--ca", trust.authority.certificate, "--cert", trust.client[0], "--key", trust.client[1], *options]
        Server(server.address, pack_trust.Trust(parser.parse_args([str(option) for option in ours]))).load(MODEL)

    load("--token-file", token)
    with pytest.raises(PackError, match="access.roles"):
        load()
    with pytest.raises(PackError, match="UNAUTHENTICATED"):
        load("--token-file", wrong)


@pytest.mark.parametrize("options, said", [
    (["--cert", "x"], "--cert and --key"), (["--token-file", "absent-file"], "absent-file"),
    (["--ca", "absent-file"], "absent-file")])
def test_hearth_says_what_is_wrong_with_its_files(tmp_path, options, said):
    done = subprocess.run([hearthd.HEARTH, "models", *options], cwd=tmp_path, env=hearthd.environment(),
                          capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 2 and said in done.stderr


def test_a_token_goes_over_tls_to_the_metrics_too(repository, start, trust, tmp_path):
    token = tmp_path / "token"
    token.write_text("a-token-that-is-long-enough\n")
    server = start(repository, config=trust.config(access={
        "open": ["health"], "roles": [{"name": "scraper", "token_file": str(token), "groups": ["statistics"]}]}))
    good = Tls(trust.authority)
    assert good.get(server.http_port, "/metrics")[0] == 401
    assert good.get(server.http_port, "/metrics", headers=bearer("a-token-that-is-long-enough"))[0] == 200
    with pytest.raises(InferenceServerException, match="'inference'"):
        with triton.InferenceServerClient(server.address, ssl=True,
                                          root_certificates=str(trust.authority.certificate)) as client:
            client.infer(MODEL, [numbers()])
