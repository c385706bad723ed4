"""`hearth` as people use it, against the real hearthd."""

import json
import socket
import subprocess
import threading

import numpy as np
import pytest

import hearthd
import models


@pytest.fixture
def vector(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.array([[1, 2, 3, 4]], np.float32))
    return path


def test_infer_reads_literals_and_arrays(server, vector):
    literal = json.loads(server.cli("infer", "typed", "--input", "x=[[1,2,3,4]]", "--json").stdout)
    array = json.loads(server.cli("infer", "typed", "--input", f"x=@{vector}", "--json").stdout)
    assert literal == array
    assert literal["outputs"][0]["data"] == [2, 4, 6, 8]
    assert literal["outputs"][0]["shape"] == [1, 4]


def test_infer_saves_what_numpy_reads(server, vector, tmp_path):
    target = tmp_path / "y.npy"
    name = json.loads(server.cli("infer", "typed", "--input", f"x=@{vector}",
                                 "--json").stdout)["outputs"][0]["name"]
    server.cli("infer", "typed", "--input", f"x=@{vector}", "--save", f"{name}=@{target}")
    assert np.load(target).tolist() == [[2, 4, 6, 8]]


def test_infer_reads_strings(server):
    answer = json.loads(server.cli("infer", "strings", "--input", 'words=["good", "morning"]',
                                   "--json").stdout)
    assert answer["outputs"][0]["datatype"] == "BYTES"
    assert answer["outputs"][0]["data"] == ["good", "morning"]


def test_a_recording_becomes_samples(server, recordings):
    answer = json.loads(server.cli("infer", "identity", "--input", f"x=@{recordings[0]}:16000[0:512]",
                                   "--json").stdout)
    (output,) = answer["outputs"]
    assert (output["datatype"], output["shape"]) == ("FP32", [1, 512])
    assert max(map(abs, output["data"])) <= 1


def test_a_version_goes_with_the_name(server, vector):
    answer = json.loads(server.cli("infer", "versions:2", "--input", f"x=@{vector}", "--json").stdout)
    assert answer["model_version"] == "2" and answer["outputs"][0]["data"] == [2, 4, 6, 8]


def test_ps_shows_what_is_resident(server):
    server.cli("load", "addsub")
    models = {row["name"]: row for row in json.loads(server.cli("ps", "--json").stdout)["models"]}
    assert models["addsub"]["state"] == "ready"
    server.cli("load", "tied")
    server.cli("unload", "addsub")
    table = server.cli("ps").stdout
    assert "tied" in table and "addsub" not in table
    server.cli("load", "addsub")


def test_models_lists_the_whole_repository(server, repository):
    listed = server.cli("models").stdout
    for path in repository.iterdir():
        assert path.name.removesuffix(".pt") in listed


def test_status_and_stats_speak_of_this_server(server, vector):
    server.cli("infer", "typed", "--input", f"x=@{vector}")
    status = json.loads(server.cli("status", "--json").stdout)
    assert status["ready"] is True
    assert {b["dimension"] for b in status["budgets"]} == {"device", "host", "mapped"}
    assert all(b["used_bytes"] <= b["capacity_bytes"] for b in status["budgets"])
    stats = {row["name"]: row for row in json.loads(server.cli("stats", "--json").stdout)["models"]}
    assert stats["typed"]["requests_succeeded"] >= 1


def test_health_speaks_in_exit_codes(server):
    assert server.cli("health").returncode == 0
    assert server.cli("health", "--ready").returncode == 0
    assert server.cli("health", "nobody", check=False).returncode == 1


@pytest.mark.parametrize("command, code, word", [
    (["infer", "nobody", "--input", "x=1"], 1, "nobody"),
    (["load", "nobody"], 1, "nobody"),
    (["infer", "typed", "--input", "x=@/no/such/file.npy"], 2, "/no/such/file.npy"),
    (["infer", "typed", "--input", "nonsense"], 2, "nonsense"),
    (["dance"], 2, "dance"),
])
def test_failures_go_to_stderr_with_an_exit_code(server, command, code, word):
    done = server.cli(*command, check=False)
    assert done.returncode == code
    assert word in done.stderr and not done.stdout


def test_no_server_is_a_code_of_its_own():
    done = subprocess.run([hearthd.HEARTH, "--address", "127.0.0.1:1", "ps"], text=True,
                          capture_output=True, timeout=hearthd.PATIENCE, check=False,
                          env=hearthd.environment())
    assert done.returncode == 69 and done.stderr.startswith("hearth: ")


def test_a_configuration_that_cannot_be_read_is_a_mistake_of_the_command_line(server, tmp_path):
    done = server.cli("load", "typed", "--config", tmp_path / "missing.json", check=False)
    assert done.returncode == 2 and "missing.json" in done.stderr


def test_infer_goes_on_with_a_sequence(start, tmp_path):
    models.write_model(tmp_path / "repository", "counter", models.Counter(), options="sequences: {}\n")
    server = start(tmp_path / "repository")

    def ask(*options):
        answer = json.loads(server.cli("infer", "counter", "--input", "x:FP32=[0,0,0,0]", "--json", *options).stdout)
        return answer["outputs"][0]["data"][0]

    for sequence in ("7", "a text"):
        assert ask("--sequence-id", sequence, "--sequence-start") == 1
        assert ask("--sequence-id", sequence) == 2
        assert ask("--sequence-id", sequence, "--sequence-end", "--priority", "1") == 3
        done = server.cli("infer", "counter", "--input", "x:FP32=[0,0,0,0]", "--sequence-id", sequence, check=False)
        assert done.returncode == 1 and sequence in done.stderr
    done = server.cli("infer", "counter", "--input", "x:FP32=[0,0,0,0]", "--sequence-start", check=False)
    assert done.returncode == 2 and "--sequence-id" in done.stderr


def test_a_port_that_speaks_something_else_is_told_from_one_where_nobody_is(server):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"

        def hang_up():
            while True:
                try:
                    listener.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=hang_up, daemon=True).start()
        plain = subprocess.run([hearthd.HEARTH, "--address", address, "health"], text=True, capture_output=True,
                               timeout=60, check=False, env=hearthd.environment())
        tls = subprocess.run([hearthd.HEARTH, "--address", address, "--tls", "health"], text=True, capture_output=True,
                             timeout=60, check=False, env=hearthd.environment())
    assert plain.returncode in (1, 69) and "does it want --tls" in plain.stderr, plain.stderr
    assert tls.returncode in (1, 69) and "does --ca trust its certificate" in tls.stderr, tls.stderr
