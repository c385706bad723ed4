"""Which version of a model answers, and how long a model stays, on a live daemon with real files."""

import signal
import threading

import pytest

import models
from test_operations import wait_until
from test_protocol import FLOATS, floats, infer_floats, refusal, request


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "repository"
    root.mkdir()
    return root


def add_version(folder, version, options=None):
    """Version N multiplies by N."""
    models.write_model(folder, "net", models.Affine(float(version)), version=version, options=options)


def answering(server, version=""):
    """The version that answers, by what it answers."""
    with server.client() as client:
        return int(infer_floats(client, "net", version)[0, 1] / FLOATS[0, 1])


def rescan(server):
    server.process.send_signal(signal.SIGHUP)  # and wait for what comes of it


def is_resident(server, version, model="net"):
    with server.client() as client:
        rows = client.get_model_repository_index().models
    return any((row.name, row.version, row.state) == (model, str(version), "READY") for row in rows)


def evictions(server, reason):
    return server.metric("hearth_evictions_total", reason=reason)


# --- which version answers ---


def test_the_policy_decides_which_versions_there_are(start, folder):
    for version in (1, 2, 3):
        add_version(folder, version, "versions: {specific: [1, 2]}\n")
    server = start(folder)
    assert answering(server) == 2
    assert answering(server, "1") == 1
    code, text = refusal(server, request("net", floats(), version="3"))
    assert code == "NOT_FOUND" and "leaves it out" in text
    with server.client() as client:
        assert {m.version for m in client.get_model_repository_index().models} == {"1", "2"}


def test_a_new_version_takes_over_when_it_is_ready_and_the_one_before_leaves(start, folder):
    add_version(folder, 1, "versions: {latest: 1}\n")
    server = start(folder)
    assert answering(server) == 1
    add_version(folder, 2)
    rescan(server)
    server.wait_for("another version answers")
    assert answering(server) == 2
    wait_until(lambda: evictions(server, "replaced") == 1)
    assert refusal(server, request("net", floats(), version="1"))[0] == "NOT_FOUND"


@pytest.mark.parametrize("poll", ["0s", "50ms"])
def test_nobody_hears_of_a_new_version_but_by_its_answers(start, folder, poll):
    add_version(folder, 1, "versions: {latest: 1}\n")
    server = start(folder, config={"repository": {"poll": poll}})
    assert answering(server) == 1
    stop, seen = threading.Event(), []

    def ask():
        with server.client() as client:
            while not stop.is_set():
                seen.append(int(infer_floats(client, "net")[0, 1] / FLOATS[0, 1]))

    clients = [threading.Thread(target=ask) for _ in range(2)]
    for client in clients:
        client.start()
    wait_until(lambda: seen)  # both versions at the ends are to be seen
    for version in (2, 3, 4):
        add_version(folder, version)
        if poll == "0s":
            rescan(server)
        server.wait_for("another version answers")
    wait_until(lambda: seen and seen[-1] == 4)
    stop.set()
    for client in clients:
        client.join()
    assert set(seen) >= {1, 4} and server.metric("hearth_requests_refused_total") == 0
    assert server.metric("hearth_cache_misses_total", model="net") <= 1  # the first request of all


def test_a_broken_version_leaves_the_one_before_in_service(start, folder):
    add_version(folder, 1)
    server = start(folder)
    assert answering(server) == 1
    models.model_file(folder, "net", 2).parent.mkdir()
    models.model_file(folder, "net", 2).write_bytes(b"no archive")
    rescan(server)
    server.wait_for("the version before goes on, for the other one was not loaded")
    assert answering(server) == 1
    add_version(folder, 2)
    with server.client() as client:
        client.load_model("net")
    assert answering(server) == 2


def test_with_resource_preserving_the_one_before_leaves_first_where_both_do_not_fit(start, folder):
    add_version(folder, 1, "resource_preserving: true\n")
    size = (folder / "net" / "1" / "model.pt").stat().st_size
    server = start(folder, config={"cache": {"budget": {"mapped": size * 3 // 2}}})
    assert answering(server) == 1
    add_version(folder, 2)
    rescan(server)
    wait_until(lambda: is_resident(server, 2))
    assert evictions(server, "replaced") == 1
    assert not is_resident(server, 1)
    assert answering(server) == 2


def test_a_label_moves_onto_a_version_that_is_ready(start, folder):
    add_version(folder, 1, "labels: {stable: 1, canary: 2}\n")
    add_version(folder, 2)
    server = start(folder)
    assert answering(server, "stable") == 1
    assert answering(server, "canary") == 2
    assert server.cli("health", "net:stable").returncode == 0
    assert "stable=1" in server.cli("metadata", "net:stable").stdout
    assert "net:1" in server.cli("why", "net:stable").stdout
    nobody = server.cli("metadata", "net:stabel", check=False)
    assert nobody.returncode == 1 and "canary, stable" in nobody.stderr
    add_version(folder, 3, "labels: {stable: 3, canary: 2}\n")
    rescan(server)
    server.wait_for("another version answers")
    wait_until(lambda: answering(server, "stable") == 3)
    assert answering(server, "canary") == 2
    with server.client() as client:
        assert client.is_model_ready("net", "stable")
        assert client.get_model_metadata("net", "stable").versions == ["1", "2", "3"]
    answer = server.stub().ModelInfer(request("net", floats(), version="stable"))
    assert answer.model_version == "3"
    code, text = refusal(server, request("net", floats(), version="stabel"))
    assert code == "INVALID_ARGUMENT" and "canary, stable" in text


# --- how long it stays ---


def test_a_model_that_nobody_asks_for_leaves_and_comes_back(start, folder):
    add_version(folder, 1, "idle_unload: 200ms\n")
    server = start(folder)
    assert answering(server) == 1
    wait_until(lambda: evictions(server, "idle") == 1)
    assert not is_resident(server, 1)
    assert "because nobody asked for it" in server.cli("why", "net").stdout
    assert answering(server) == 1


def test_the_configuration_says_it_for_all_and_pinned_models_stay(start, folder):
    add_version(folder, 1)
    models.write_model(folder, "other", models.Affine(1.0))
    server = start(folder, config={"cache": {"idle_unload": "200ms"}})
    server.cli("pin", "net")
    with server.client() as client:
        infer_floats(client, "net")
        infer_floats(client, "other")
        wait_until(lambda: not is_resident(server, 1, "other"))
        assert is_resident(server, 1)
    assert evictions(server, "idle") == 1


def with_keep_alive(value):
    message = request("net", floats())
    if isinstance(value, str):
        message.parameters["keep_alive"].string_param = value
    elif isinstance(value, bool):
        message.parameters["keep_alive"].bool_param = value
    else:
        message.parameters["keep_alive"].int64_param = value
    return message


@pytest.mark.parametrize("value", ["0s", 0])
def test_a_request_may_let_its_model_go(start, folder, value):
    add_version(folder, 1)
    server = start(folder)
    server.stub().ModelInfer(with_keep_alive(value))
    wait_until(lambda: evictions(server, "idle") == 1)
    assert not is_resident(server, 1)


def test_a_request_may_keep_its_model(start, folder):
    add_version(folder, 1, "idle_unload: 1ms\n")
    models.write_model(folder, "other", models.Affine(1.0), options="idle_unload: 1ms\n")
    server = start(folder)
    server.stub().ModelInfer(with_keep_alive("-1"))
    with server.client() as client:
        infer_floats(client, "other")
    wait_until(lambda: evictions(server, "idle") >= 1)
    assert is_resident(server, 1)


@pytest.mark.parametrize("value", ["5", "soon", "-5m", True])
def test_a_hint_that_says_nothing_is_refused(server, value):
    message = with_keep_alive(value)
    message.model_name = "typed"
    code, text = refusal(server, message)
    assert code == "INVALID_ARGUMENT" and "'keep_alive'" in text
    assert "expected" in text
