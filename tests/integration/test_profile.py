"""hearth profile and hearth inspect, on files and on a running server."""

import json
import os
import pickle
import subprocess
import tarfile

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import hearthd as daemon
import models


def hearth(*args, check=True):
    done = subprocess.run([daemon.HEARTH, *map(str, args)], text=True, capture_output=True, check=False,
                          timeout=daemon.PATIENCE, env={**daemon.environment(), "HEARTHD": daemon.HEARTHD})
    assert not check or done.returncode == 0, done.stderr
    return done


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(64, 64)
        self.second = torch.nn.Linear(64, 8)
        self.register_buffer("none", torch.zeros(0, 3))

    def forward(self, x):
        return self.second(torch.relu(self.first(x))) + self.none.sum()


def version(folder, weights):
    """models/net/1: a program without values, its weights beside it in one of the formats."""
    folder = folder / "net" / "1"
    folder.mkdir(parents=True)
    net = torch.jit.script(Net().eval())
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for tensor in [*net.parameters(), *net.buffers()]:
        tensor.data = torch.zeros(1, dtype=tensor.dtype).expand(tensor.shape) if tensor.numel() > 1 else tensor.data
    net.save(str(folder / "program.pt"))
    if weights == "safetensors":
        save_file(state, folder / "model.safetensors")
    elif weights == "shards":
        where = {name: f"model-{i % 2 + 1}.safetensors" for i, name in enumerate(state)}
        for file in set(where.values()):
            save_file({name: state[name] for name in where if where[name] == file}, folder / file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    elif weights == "torch.save":
        torch.save(state, folder / "weights.pth")
    else:
        with h5py.File(folder / "model.h5", "w", libver=("earliest", "v110")) as file:
            for name, tensor in state.items():
                packed = {"chunks": (8, 8), "compression": "gzip"} if tensor.dim() == 2 and tensor.numel() else {}
                file.create_dataset(name.replace(".", "/"), data=tensor.numpy(), **packed)
    return folder


def slices(trace):
    """The phases of a trace in time. On a track they nest or are disjoint: viewers drop or move what overlaps."""
    events = [event for event in json.loads(trace.read_text())["traceEvents"] if event["ph"] == "X"]
    assert events and all(event["dur"] >= 0 and event["ts"] >= 0 for event in events)
    tracks = {}
    for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
        open_until = tracks.setdefault((event["pid"], event["tid"]), [])
        begin, end = event["ts"], event["ts"] + event["dur"]
        while open_until and open_until[-1] <= begin:
            open_until.pop()
        assert not open_until or end <= open_until[-1], f"'{event['name']}' overlaps what is around it"
        open_until.append(end)
    return events


@pytest.mark.parametrize("subject", ["file", "version", "model"])
def test_profile_shows_the_phases_of_a_load_from_disk(repository, subject):
    file = models.model_file(repository, "tied")
    path = {"file": file, "version": file.parent, "model": file.parent.parent}[subject]
    report = json.loads(hearth("profile", path, "--json").stdout)
    names = [phase["name"] for phase in report["phases"]]
    assert names[:4] == ["open", "map", "parse", "bind"] and "populate" in names
    assert all(phase["ms"] > 0 for phase in report["phases"])
    assert report["weight_bytes"] > 0 and report["copied_bytes"] == 0


def test_profile_writes_a_trace_and_a_page(repository, tmp_path):
    trace, page = tmp_path / "trace.json", tmp_path / "page.html"
    text = hearth("profile", models.model_file(repository, "tied"), "--trace", trace, "--html", page).stdout
    assert "Most of the time" in text or "The largest part" in text
    assert {"map", "parse", "bind"} <= {event["name"] for event in slices(trace)}
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("weights", ["safetensors", "shards", "torch.save", "hdf5"])
def test_slices_of_a_trace_are_where_the_time_went(tmp_path, weights):
    trace = tmp_path / "trace.json"
    report = json.loads(hearth("profile", version(tmp_path, weights), "--trace", trace, "--json").stdout)
    shown = slices(trace)
    for phase in report["phases"]:
        in_trace = sum(event["dur"] for event in shown if event["name"] == phase["name"]) / 1000
        assert in_trace == pytest.approx(phase["ms"], abs=0.5), phase["name"]


def test_binding_an_archive_goes_around_its_parsing(repository, tmp_path):
    trace = tmp_path / "trace.json"
    hearth("profile", models.model_file(repository, "tied"), "--trace", trace)
    order = [event["name"] for event in sorted(slices(trace), key=lambda event: event["ts"])]
    last = len(order) - 1 - order[::-1].index("bind")
    assert "parse" in order[order.index("bind"):last], order  # the classes are compiled when an object needs them


def test_a_program_is_profiled_with_the_weights_beside_it(tmp_path):
    folder = version(tmp_path, "safetensors")
    report = json.loads(hearth("profile", folder / "program.pt", "--json").stdout)
    assert report["model"] == "net:1" and report["weight_bytes"] == 4 * (64 * 64 + 64 + 64 * 8 + 8)
    elsewhere = tmp_path / "download"
    folder.rename(elsewhere)  # no version's folder
    report = json.loads(hearth("profile", elsewhere / "program.pt", "--json").stdout)
    assert report["model"] == "program:1" and report["weight_bytes"] == 4 * (64 * 64 + 64 + 64 * 8 + 8)


def test_profile_of_a_served_model_loads_it_first(server, tmp_path):
    server.client().unload_model("frozen2")
    report = json.loads(server.cli("profile", "frozen2", "--json").stdout)
    assert report["model"] == "frozen2:1"
    assert report["phases"]
    again = json.loads(server.cli("profile", "frozen2", "--reload", "--json").stdout)
    assert again["kept_program"] is True
    assert server.metric("hearth_kept_programs") >= 1
    assert 0 < server.metric("hearth_kept_program_bytes") <= 64 << 20
    assert "parse" in {phase["name"] for phase in again["phases"]}
    for phase in again["phases"]:
        assert sum(part["ms"] for part in phase["parts"]) == pytest.approx(phase["ms"], abs=0.5), phase["name"]
    trace = tmp_path / "trace.json"
    server.cli("profile", "frozen2", "--reload", "--trace", trace)
    assert {"map", "bind"} <= {event["name"] for event in slices(trace)}


def test_profile_says_what_is_wrong_with_a_file(tmp_path):
    (tmp_path / "bad.pt").write_text("hello")
    done = hearth("profile", tmp_path / "bad.pt", check=False)
    assert done.returncode == 1
    assert "bad.pt" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["profile", "inspect"])
def test_a_file_that_is_not_there_is_a_wrong_command_line(tmp_path, command):
    done = hearth(command, tmp_path / "none.pt", check=False)
    assert done.returncode == 2
    assert "none.pt" in done.stderr and len(done.stderr.splitlines()) == 1
    assert hearth(command, tmp_path / "none" / "1", check=False).returncode == 2


@pytest.mark.parametrize("command", ["profile", "inspect"])
def test_a_folder_that_is_no_model_is_told_once(tmp_path, command):
    done = hearth(command, tmp_path, check=False)
    assert done.returncode == 1
    assert "has no version of the model" in done.stderr and len(done.stderr.splitlines()) == 1


def test_whatever_old_torch_save_wrote_is_sent_to_hearth_pack_also_where_the_model_should_be(tmp_path):
    root = tmp_path / "models"

    def told(write):
        root.mkdir(exist_ok=True)
        write(root / "net.pt")
        done = hearth("profile", root / "net.pt", check=False)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
        return done.stderr

    def tar(path):
        (tmp_path / "storages").write_bytes(b"x" * 10)
        with tarfile.open(path, "w") as archive:
            archive.add(tmp_path / "storages", "storages")

    assert "hearth pack" in told(lambda path: torch.save(torch.nn.Linear(1, 1), path))
    assert "hearth pack" in told(lambda path: torch.save(torch.nn.Linear(1, 1), path, _use_new_zipfile_serialization=False))
    assert "hearth pack" in told(tar)
    for protocol in (2, 3, 4, 5):
        assert "hearth pack" in told(lambda path, p=protocol: path.write_bytes(pickle.dumps({"a": [1.0]}, protocol=p)))


def test_inspect_lists_an_archives_tensors_and_code(repository):
    file = models.model_file(repository, "tied")
    seen = json.loads(hearth("inspect", file, "--json").stdout)
    assert seen["format"] == "torchscript" and seen["bytes"] == os.path.getsize(file)
    assert seen["mappable_bytes"] == seen["weight_bytes"] > 0
    assert any(record["name"].startswith("code/__torch__") for record in seen["code"])
    assert all(tensor["mappable"] == (tensor["bytes"] > 0) for tensor in seen["tensors"])
    names = set(torch.jit.load(str(file)).state_dict())
    assert {tensor["name"] for tensor in seen["tensors"]} <= names  # of tied ones the first


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


@pytest.mark.parametrize("subject", ["version", "model"])
def test_inspect_shows_all_files_of_a_version(tmp_path, subject):
    folder = version(tmp_path, "shards")
    seen = json.loads(hearth("inspect", folder if subject == "version" else folder.parent, "--json").stdout)
    assert (seen["model"], seen["version"]) == ("net", 1)
    assert [os.path.basename(file["file"]) for file in seen["files"]] == [
        "program.pt", "model-1.safetensors", "model-2.safetensors"]
    names = {tensor["name"] for file in seen["files"][1:] for tensor in file["tensors"]}
    assert names == set(Net().state_dict())
    text = hearth("inspect", folder).stdout
    assert text.startswith("net:1: 3 files\n") and "first.weight" in text


def test_inspect_follows_an_index_to_its_shards(tmp_path):
    index = version(tmp_path, "shards") / "model.safetensors.index.json"
    seen = json.loads(hearth("inspect", index, "--json").stdout)
    assert seen["format"] == "index" and len(seen["files"]) == 2
    assert "2 files" in hearth("inspect", index).stdout
    (index.parent / "model-2.safetensors").unlink()
    done = hearth("inspect", index, check=False)
    assert done.returncode == 2 and "model-2.safetensors" in done.stderr


def row(text, name):
    return next(line for line in text.splitlines() if line.startswith(name + " ")).split()


def test_inspect_shows_places_only_of_what_has_one(tmp_path):
    folder = version(tmp_path, "hdf5")
    seen = {tensor["name"]: tensor for tensor in json.loads(
        hearth("inspect", folder / "model.h5", "--json").stdout)["tensors"]}
    assert seen["first.weight"]["offset"] is None and not seen["first.weight"]["mappable"]  # in packed chunks
    assert seen["first.bias"]["offset"] > 0
    text = hearth("inspect", folder / "model.h5").stdout
    assert row(text, "first.weight")[-2:] == ["-", "copied"]
    assert row(text, "none")[-2:] == ["-", "-"]  # of no elements


def test_hdf5_of_any_version_is_read_except_the_chunks_of_2_0(tmp_path):
    def seen(libver, **options):
        file = tmp_path / "w.h5"
        with h5py.File(file, "w", libver=libver) as out:
            out.create_dataset("a", data=np.ones((64, 64), "f4"), **options)
        return hearth("inspect", file, check=False)

    for libver in ("earliest", "v108", "v110", "v112", "v114"):
        assert seen(libver).returncode == 0, libver
        assert seen(libver, chunks=(8, 8), compression="gzip").returncode == 0, libver
    assert seen("latest").returncode == 0
    done = seen("v200", chunks=(8, 8), compression="gzip")
    assert done.returncode == 1 and "'a'" in done.stderr
