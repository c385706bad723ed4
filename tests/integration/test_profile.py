"""hearth profile and hearth inspect, on files and on a running server."""

import json
import os
import subprocess

import pytest
import torch

import hearthd as daemon
import models


def hearth(*args, check=True):
    done = subprocess.run([daemon.HEARTH, *map(str, args)], text=True, capture_output=True, check=False,
                          timeout=daemon.PATIENCE, env={**daemon.environment(), "HEARTHD": daemon.HEARTHD})
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("subject", ["file", "version", "model"])
def test_profile_shows_the_phases_of_a_load_from_disk(repository, subject):
    file = models.model_file(repository, "tied")
    path = {"file": file, "version": file.parent, "model": file.parent.parent}[subject]
    report = json.loads(hearth("profile", path, "--json").stdout)
    names = [phase["name"] for phase in report["phases"]]
    assert names[:3] == ["map", "parse", "bind"] and "populate" in names
    assert all(phase["ms"] > 0 for phase in report["phases"])
    assert report["weight_bytes"] > 0 and report["copied_bytes"] == 0


def test_profile_writes_a_trace_and_a_page(repository, tmp_path):
    trace, page = tmp_path / "trace.json", tmp_path / "page.html"
    text = hearth("profile", models.model_file(repository, "tied"), "--trace", trace, "--html", page).stdout
    assert "Most of the time" in text
    events = json.loads(trace.read_text())["traceEvents"]
    assert {"map", "parse", "bind"} <= {event["name"] for event in events if event["ph"] == "X"}
    assert all(event["dur"] >= 0 and event["ts"] >= 0 for event in events if event["ph"] == "X")
    assert page.read_text().startswith("<!doctype html>")


def test_profile_of_a_served_model_loads_it_first(server):
    server.client().unload_model("frozen2")
    report = json.loads(server.cli("profile", "frozen2", "--json").stdout)
    assert report["model"] == "frozen2:1"
    assert report["phases"]
    again = json.loads(server.cli("profile", "frozen2", "--reload", "--json").stdout)
    assert again["kept_program"] is True
    assert server.metric("hearth_kept_programs") >= 1
    assert 0 < server.metric("hearth_kept_program_bytes") <= 64 << 20
    assert "parse" in {phase["name"] for phase in again["phases"]}


def test_profile_says_what_is_wrong_with_a_file(tmp_path):
    (tmp_path / "bad.pt").write_text("hello")
    done = hearth("profile", tmp_path / "bad.pt", check=False)
    assert done.returncode == 1
    assert "bad.pt" in done.stderr


def test_inspect_lists_an_archives_tensors_and_code(repository):
    file = models.model_file(repository, "tied")
    seen = json.loads(hearth("inspect", file, "--json").stdout)
    assert seen["format"] == "torchscript" and seen["bytes"] == os.path.getsize(file)
    assert seen["mappable_bytes"] == seen["weight_bytes"] > 0
    assert any(record["name"].startswith("code/__torch__") for record in seen["code"])
    assert all(tensor["mappable"] for tensor in seen["tensors"])


def test_inspect_lists_a_state_dict_by_name(tmp_path):
    file = tmp_path / "w.pth"
    torch.save({"a": torch.ones(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}, file)
    seen = json.loads(hearth("inspect", file, "--json").stdout)
    assert [(t["name"], t["type"], t["shape"], t["bytes"]) for t in seen["tensors"]] == [
        ("a", "float32", [2, 3], 24), ("b", "bfloat16", [4], 8)]
    assert "bfloat16" in hearth("inspect", file).stdout


def test_inspect_refuses_what_a_load_would_refuse(tmp_path):
    torch.save(torch.nn.Linear(1, 1), tmp_path / "w.pth")
    done = hearth("inspect", tmp_path / "w.pth", check=False)
    assert done.returncode == 1 and "hearth pack" in done.stderr
