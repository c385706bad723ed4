"""A server that runs while its configuration and its repository change."""

import json
import os
import shutil
import time

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

import hearthd
import models
from test_protocol import FLOATS, floats, infer_floats, refusal, request

POLL = 0.1  # seconds


def wait_until(condition):
    end = time.monotonic() + hearthd.PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "repository"
    models.write_model(root, "good", models.Affine(2.0))
    models.write_model(root, "other", models.Affine(3.0))
    return root


def put(root, name, module, version=1):
    """Renamed into place: the whole version if it is new, else its file."""
    staging = root.parent / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    file = models.write_model(staging, name, module, version)
    target = models.model_file(root, name, version)
    if target.exists():
        os.rename(file, target)
    else:
        target.parent.parent.mkdir(exist_ok=True)
        os.rename(file.parent, target.parent)
    return target


def write(server, changes):
    """The server's configuration with `changes`, renamed into place."""
    config = hearthd.merged(json.loads(server.config_file.read_text()), changes)
    new = hearthd.write_config(server.config_file.with_suffix(".new"), config)
    os.rename(new, server.config_file)


def reload(server, *options, **changes):
    """`hearth reload --json`, after these changes: {key: (before, after, needs_restart)}."""
    write(server, changes)
    answer = json.loads(server.cli("reload", "--json", *options).stdout)
    return {c["key"]: (c["before"], c["after"], c["needs_restart"]) for c in answer["changes"]}


def resident(server):
    rows = json.loads(server.cli("ps", "--json").stdout)["models"]
    return {row["name"] for row in rows if row["state"] == "ready"}


def answers(server, name, factor):
    with server.client() as client:
        try:
            return np.array_equal(infer_floats(client, name), FLOATS * factor)
        except InferenceServerException:
            return False


# --- the configuration ---


def test_a_reload_applies_what_it_can_and_names_what_needs_a_restart(start, folder):
    server = start(folder)
    changes = {"limits": {"max_dimensions": 1}, "grpc": {"completion_queues": 2}}
    expected = {"limits.max_dimensions": ("32", "1", False), "grpc.completion_queues": ("1", "2", True)}
    assert reload(server, **changes) == expected
    code, text = refusal(server, request("good", floats(values=np.ones((1, 4), np.float32))))
    assert code == "INVALID_ARGUMENT" and "dimensions" in text
    assert reload(server) == {"grpc.completion_queues": ("1", "2", True)}, "until there was a restart"
    logged = [json.loads(line) for line in server.lines if '"configuration changed"' in line]
    assert [(e["key"], e["before"], e["after"], e["needs_restart"]) for e in logged[:2]] == [
        ("grpc.completion_queues", "1", "2", True), ("limits.max_dimensions", "32", "1", False)]
    text = server.cli("reload", "--dry-run").stdout
    assert "needs a restart" in text


def test_a_dry_run_shows_what_would_change_and_changes_nothing(start, folder):
    server = start(folder)
    models.write_model(folder, "late", models.Affine(4.0))
    assert reload(server, "--dry-run", limits={"max_dimensions": 1}) == {
        "limits.max_dimensions": ("32", "1", False)}
    with server.client() as client:
        infer_floats(client, "good", values=np.ones((2, 4), np.float32))
        assert not client.is_model_ready("late")
    assert refusal(server, request("late", floats()))[0] == "NOT_FOUND"
    assert "configuration reloaded" not in server.log()
    assert reload(server, limits={"max_dimensions": 2}) == {"limits.max_dimensions": ("32", "2", False)}
    assert answers(server, "late", 4)


def test_a_bad_file_changes_nothing_and_every_mistake_is_said(start, folder):
    server = start(folder)
    write(server, {"limits": {"max_dimensions": 0}, "cache": {"budget": {"host": "lots"}}, "nonsense": 1})
    for options in ([], ["--dry-run"]):
        done = server.cli("reload", *options, check=False)
        assert done.returncode == 1 and done.stdout == ""
        for mistake in ("limits.max_dimensions", "cache.budget.host", "nonsense"):
            assert mistake in done.stderr
    refused = server.wait_for("configuration not reloaded; the old one stays in force")["reason"]
    assert "limits.max_dimensions" in refused and "nonsense" in refused
    with server.client() as client:
        infer_floats(client, "good", values=np.ones((2, 4), np.float32))


def test_a_file_that_is_watched_is_applied_when_it_changes_and_not_before(start, folder):
    server = start(folder, config={"config": {"watch": True}})
    write(server, {"limits": {"max_dimensions": 1}})
    server.wait_for("configuration reloaded")
    assert refusal(server, request("good", floats(values=np.ones((1, 4), np.float32))))[0] == "INVALID_ARGUMENT"
    write(server, {"config": {"watch": False}})
    server.wait_for("configuration reloaded")
    write(server, {"limits": {"max_dimensions": 2}})
    assert set(reload(server, "--dry-run")) == {"limits.max_dimensions"}


def test_a_config_map_that_is_swapped_is_applied(start, folder, tmp_path):
    """Kubernetes leaves the file alone and renames a link to the folder that it leads to."""
    server = start(folder)
    config = json.loads(server.config_file.read_text())
    mount = server.config_file.parent

    def publish(number, changes):
        (mount / f"..{number}").mkdir()
        hearthd.write_config(mount / f"..{number}" / "hearth.yaml", hearthd.merged(config, changes))
        os.symlink(f"..{number}", mount / "..data_tmp")
        os.rename(mount / "..data_tmp", mount / "..data")

    publish(1, {"config": {"watch": True}})
    server.config_file.unlink()
    server.config_file.symlink_to("..data/hearth.yaml")
    server.cli("reload")
    server.wait_for("configuration reloaded")
    publish(2, {"config": {"watch": True}, "limits": {"max_dimensions": 1}})
    shutil.rmtree(mount / "..1")
    server.wait_for("configuration reloaded")
    assert refusal(server, request("good", floats(values=np.ones((1, 4), np.float32))))[0] == "INVALID_ARGUMENT"


def test_a_smaller_budget_evicts_what_is_idle_and_spares_what_is_pinned(start, folder):
    models.write_model(folder, "third", models.Affine(1.0))
    server = start(folder, config={"models": [{"name": "good", "pin": True}]})
    with server.client() as client:
        for name in ("good", "other", "third"):
            infer_floats(client, name)
    assert resident(server) == {"good", "other", "third"}
    changed = reload(server, cache={"budget": {"mapped": 1}})
    assert changed == {"cache.budget.mapped": ("80%", "1", False)}
    assert "cache.budget.mapped" in server.wait_for("configuration applied in part")["reason"]
    wait_until(lambda: resident(server) == {"good"})
    assert server.metric("hearth_budget_bytes", dimension="mapped") == 1
    with server.client() as client:
        infer_floats(client, "good")
    reload(server, cache={"budget": {"mapped": "80%"}})
    assert answers(server, "other", 3) and resident(server) == {"good", "other"}


# --- the repository ---


LOOKS = pytest.mark.parametrize("looks", [{"poll": f"{POLL}s"}, {"watch": True}], ids=["poll", "watch"])


@LOOKS
def test_a_model_that_is_put_there_is_served_and_one_that_is_removed_is_not(start, folder, looks):
    server = start(folder, config={"repository": looks})
    assert refusal(server, request("late", floats()))[0] == "NOT_FOUND"
    put(folder, "late", models.Affine(4.0))
    wait_until(lambda: answers(server, "late", 4))
    put(folder, "late", models.Affine(5.0), version=2)
    wait_until(lambda: answers(server, "late", 5))
    shutil.rmtree(folder / "late")
    wait_until(lambda: "late" not in resident(server))
    assert refusal(server, request("late", floats()))[0] == "NOT_FOUND"
    assert answers(server, "good", 2)


@LOOKS
def test_a_model_that_is_replaced_answers_anew_without_a_request_that_fails(start, folder, looks):
    server = start(folder, config={"repository": looks})
    assert answers(server, "good", 2)
    put(folder, "good", models.Affine(7.0))
    seen = set()

    def is_new():
        with server.client() as client:
            seen.add(float(infer_floats(client, "good").ravel()[1] / FLOATS.ravel()[1]))
        return 7.0 in seen

    wait_until(is_new)
    assert seen <= {2.0, 7.0}


def test_a_replacement_that_is_bad_leaves_the_old_one_in_service(start, folder):
    server = start(folder, config={"repository": {"poll": f"{POLL}s"}})
    assert answers(server, "good", 2)
    broken = folder.parent / "broken.pt"
    broken.write_bytes(b"no archive")
    os.rename(broken, models.model_file(folder, "good"))
    server.wait_for("model not loaded")
    assert answers(server, "good", 2)


def test_a_broken_model_that_is_mended_is_served_at_once_whatever_its_back_off(start, folder):
    models.model_file(folder, "good").write_bytes(b"no archive")
    server = start(folder, config={"cache": {"failure_backoff": "1h", "max_failure_backoff": "1h"}})
    for _ in range(2):
        assert refusal(server, request("good", floats()))[0] == "INVALID_ARGUMENT"
    assert server.metric("hearth_loads_total", model="good", code="INVALID_ARGUMENT") == 1
    put(folder, "good", models.Affine(2.0))
    assert answers(server, "good", 2)
