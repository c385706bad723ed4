"""Index, load and unload; what happens when files are not what they should be."""

import shutil
import threading
import time
import zipfile

import grpc
import numpy as np
import pytest
import torch
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

import models
from test_protocol import FLOATS, floats, infer_floats, refusal, request, take_turns


def index_of(client):
    """{(name, version): (state, reason)}"""
    return {(m.name, m.version): (m.state, m.reason) for m in client.get_model_repository_index().models}


def state_of(client, name):
    return {state for (model, _), (state, _) in index_of(client).items() if model == name}


def load_failure(client, name):
    with pytest.raises(InferenceServerException) as error:
        client.load_model(name)
    return error.value.status().removeprefix("StatusCode."), error.value.message()


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "repository"
    root.mkdir()
    models.write_model(root, "good", models.Affine(2.0))
    return root


# --- index, load, unload ---


def test_the_index_lists_models_that_were_never_loaded(server, repository):
    with server.client() as client:
        names = {name for name, _ in index_of(client)}
    assert names == {p.name.removesuffix(".pt") for p in repository.iterdir()}


def test_load_and_unload_move_the_index(server):
    with server.client() as client:
        client.load_model("addsub")
        assert index_of(client)["addsub", "1"][0] == "READY"
        assert client.is_model_ready("addsub")
        client.unload_model("addsub")
        assert "READY" not in state_of(client, "addsub")
        assert not client.is_model_ready("addsub")
        client.load_model("addsub")
        assert client.is_model_ready("addsub")


def test_an_unloaded_model_stays_so_until_it_is_loaded(server):
    with server.client() as client:
        infer_floats(client, "typed")
        client.unload_model("typed")
        code, text = refusal(server, request("typed", floats()))
        assert code == "NOT_FOUND" and "'typed'" in text and "has no available versions" in text
        client.load_model("typed")
        assert np.array_equal(infer_floats(client, "typed"), FLOATS * 2)


def test_only_ready_models_are_listed_when_asked(server):
    with server.client() as client:
        client.load_model("identity")
        client.unload_model("table")
    answer = server.stub().RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
    rows = {m.name: m.state for m in answer.models}
    assert "identity" in rows and "table" not in rows
    assert set(rows.values()) == {"READY"}
    with server.client() as client:
        client.load_model("table")


def test_loading_what_is_not_in_the_repository_fails(server):
    with server.client() as client:
        code, text = load_failure(client, "nobody")
    assert code in ("INTERNAL", "NOT_FOUND")
    assert "failed to load 'nobody', failed to poll from model repository" in text


@pytest.mark.parametrize("name", ["../good", "a/b", "", ".", "good/../good"])
def test_a_name_never_becomes_a_path(server, name):
    with pytest.raises(grpc.RpcError) as error:
        server.stub().RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=name), timeout=60)
    assert error.value.code().name in ("INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL")
    code, _ = refusal(server, request(name, floats()))
    assert code in ("INVALID_ARGUMENT", "NOT_FOUND")


def test_another_repository_cannot_be_named(server):
    with pytest.raises(grpc.RpcError) as error:
        server.stub().RepositoryModelLoad(
            pb.RepositoryModelLoadRequest(repository_name="other", model_name="identity"), timeout=60)
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "'repository_name' specification is not supported" in error.value.details()


def test_a_model_that_appears_later_is_found_by_load(start, folder):
    server = start(folder)
    with server.client() as client:
        assert refusal(server, request("late", floats()))[0] == "NOT_FOUND"
        models.write_model(folder, "late", models.Affine(7.0))
        client.load_model("late")
        assert np.array_equal(infer_floats(client, "late"), FLOATS * 7)


def test_a_replaced_file_is_served_after_load_and_not_before(start, folder):
    server = start(folder)
    with server.client() as client:
        assert np.array_equal(infer_floats(client, "good"), FLOATS * 2)
        models.save(models.Affine(9.0), folder / "new.tmp").rename(models.model_file(folder, "good"))
        assert np.array_equal(infer_floats(client, "good"), FLOATS * 2)
        client.load_model("good")
        assert np.array_equal(infer_floats(client, "good"), FLOATS * 9)


def test_a_new_version_takes_over_at_load(start, folder):
    server = start(folder)
    with server.client() as client:
        infer_floats(client, "good")
        models.write_model(folder, "good", models.Affine(4.0), version=2)
        client.load_model("good")
        assert np.array_equal(infer_floats(client, "good"), FLOATS * 4)
        assert np.array_equal(infer_floats(client, "good", "1"), FLOATS * 2)


def test_a_load_answers_with_its_phases(server):
    with server.client() as client:
        client.unload_model("typed")
    _, call = server.stub().RepositoryModelLoad.with_call(
        pb.RepositoryModelLoadRequest(model_name="typed"), timeout=60)
    timing, = (value for key, value in call.trailing_metadata() if key == "server-timing")
    phases = dict(part.split(";dur=") for part in timing.split(", "))
    assert {"open", "map", "parse", "bind", "populate"} <= set(phases), timing
    assert all(float(ms) >= 0 for ms in phases.values()), timing


# --- files that are not models ---


def spoil_truncated(file):
    data = file.read_bytes()
    file.write_bytes(data[:len(data) // 2])


def spoil_emptied(file):
    file.write_bytes(b"")


def spoil_text(file):
    file.write_text("this is no archive\n" * 50)


def spoil_pickle(file):
    torch.save({"weight": torch.ones(3)}, file)


def spoil_old_pickle(file):
    torch.save({"weight": torch.ones(3)}, file, _use_new_zipfile_serialization=False)


def spoil_other_zip(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "nothing here")


def spoil_without_weights(file):
    """The archive without one of its weights' records."""
    with zipfile.ZipFile(file) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in records.items():
            if not name.endswith("/data/0"):
                archive.writestr(name, data)


def spoil_missing(file):
    file.unlink()


def spoil_directory(file):
    file.unlink()
    file.mkdir()


def spoil_dangling(file):
    file.unlink()
    file.symlink_to("nowhere")


SPOILS = [spoil_truncated, spoil_emptied, spoil_text, spoil_pickle, spoil_old_pickle, spoil_other_zip,
          spoil_without_weights, spoil_missing, spoil_directory, spoil_dangling]


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda f: f.__name__.removeprefix("spoil_"))
def test_a_bad_file_is_a_clear_error_and_the_daemon_lives(start, folder, spoil):
    server = start(folder)
    models.write_model(folder, "bad", models.Affine(3.0))
    spoil(models.model_file(folder, "bad"))
    with server.client() as client:
        code, text = load_failure(client, "bad")
        assert code not in ("UNKNOWN", "OK"), text
        assert "bad" in text and len(text) > 40, text
        assert "c10::" not in text and "Exception raised from" not in text, text
        assert np.array_equal(infer_floats(client, "good"), FLOATS * 2)
        # Mended and loaded again, it works.
        file = models.model_file(folder, "bad")
        if file.is_dir() and not file.is_symlink():
            file.rmdir()
        else:
            file.unlink(missing_ok=True)
        models.write_model(folder, "bad", models.Affine(3.0))
        client.load_model("bad")
        assert np.array_equal(infer_floats(client, "bad"), FLOATS * 3)
    assert server.alive


def test_an_unreadable_file_is_a_clear_error(start, folder):
    file = models.write_model(folder, "secret", models.Affine(3.0))
    file.chmod(0)
    server = start(folder, unprivileged=True)
    with server.client() as client:
        code, text = load_failure(client, "secret")
        assert "'secret/1/model.pt' may not be read" in text, (code, text)
        assert str(folder) not in text, "clients need not know the folders of the machine"
        assert np.array_equal(infer_floats(client, "good"), FLOATS * 2)


def test_a_bad_model_yaml_names_file_line_and_key(start, folder):
    server = start(folder)
    models.write_model(folder, "odd", models.Affine(3.0), options="method: forward\nspeed: 11\n")
    with server.client() as client:
        _, text = load_failure(client, "odd")
        assert "model.yaml:2:" in text and "speed" in text, text
        assert np.array_equal(infer_floats(client, "good"), FLOATS * 2)


def test_a_file_cut_short_while_it_is_served_is_noticed(start, folder):
    """The mapping loses its pages: DATA_LOSS or an old answer, never a crash, and then a reload."""
    big = models.Affine(2.0, size=4 << 20)  # 16 MiB, so that the cut takes pages away
    file = models.write_model(folder, "cut", big)
    server = start(folder)
    values = np.ones((1, 4 << 20), np.float32)
    with server.client() as client:
        assert infer_floats(client, "cut", values=values)[0, -1] == 2
        with file.open("r+b") as handle:
            handle.truncate(8192)
        for _ in range(3):
            with pytest.raises(InferenceServerException):
                infer_floats(client, "cut", values=values)
        assert server.metric("hearth_evictions_total", reason="unload") == 0
        models.save(big, folder / "new.tmp").rename(file)
        client.load_model("cut")
        assert infer_floats(client, "cut", values=values)[0, -1] == 2
        assert np.array_equal(infer_floats(client, "good"), FLOATS * 2)
    assert server.alive


def test_a_file_overwritten_in_place_is_noticed(start, folder):
    """Same size, other weights: no answer mixes the two."""
    file = models.write_model(folder, "over", models.Affine(2.0))
    other = models.write_model(folder, "other", models.Affine(5.0))
    server = start(folder)
    with server.client() as client:
        assert np.array_equal(infer_floats(client, "over"), FLOATS * 2)
        with file.open("r+b") as handle:
            handle.write(other.read_bytes())
        with pytest.raises(InferenceServerException, match="written to while in use"):
            infer_floats(client, "over")
        assert np.array_equal(infer_floats(client, "over"), FLOATS * 5)
        assert server.metric("hearth_evictions_total", reason="data_loss") == 1


# --- failing loads ---


def test_every_waiter_of_a_failing_load_gets_the_same_answer(start, folder):
    models.write_model(folder, "bad", models.Affine(3.0))
    spoil_truncated(models.model_file(folder, "bad"))
    server = start(folder, config={"cache": {"failure_backoff": "1h", "max_failure_backoff": "1h"}})
    stub = server.stub()
    calls = [stub.ModelInfer.future(request("bad", floats()), timeout=60) for _ in range(20)]
    texts = {(call.code(), call.details()) for call in calls}
    assert {code for code, _ in texts} != {grpc.StatusCode.OK}
    assert all("bad" in text for _, text in texts), texts
    # Those that came after the failure were told about it: no second attempt was made.
    loads = server.metric("hearth_loads_total", model="bad")
    assert loads == 1, (loads, texts)
    with pytest.raises(grpc.RpcError) as error:
        stub.ModelInfer(request("bad", floats()), timeout=60)
    assert {error.value.code()} == {code for code, _ in texts}
    assert server.metric("hearth_loads_total", model="bad") == 1


def test_an_explicit_load_does_not_wait_for_the_back_off(start, folder):
    models.write_model(folder, "bad", models.Affine(3.0))
    spoil_truncated(models.model_file(folder, "bad"))
    server = start(folder, config={"cache": {"failure_backoff": "1h", "max_failure_backoff": "1h"}})
    refusal(server, request("bad", floats()))
    models.save(models.Affine(3.0), folder / "new.tmp").rename(models.model_file(folder, "bad"))
    with server.client() as client:
        client.load_model("bad")
        assert np.array_equal(infer_floats(client, "bad"), FLOATS * 3)


# --- many at once ---


def test_a_hundred_requests_for_a_cold_model_load_it_once(start, folder):
    models.write_model(folder, "cold", models.Affine(3.0))
    server = start(folder)
    channels = [server.channel() for _ in range(4)]
    answers, errors = [None] * 100, []
    barrier = threading.Barrier(100)

    def ask(i):
        values = np.full((1, 4), i, np.float32)
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channels[i % 4])
        barrier.wait()
        try:
            answer = stub.ModelInfer(request("cold", floats(values=values)), timeout=100)
            answers[i] = np.frombuffer(answer.raw_output_contents[0], np.float32).tolist()
        except grpc.RpcError as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert answers == [[i * 3.0] * 4 for i in range(100)]
    assert server.metric("hearth_loads_total", model="cold") == 1


def test_unloading_under_traffic_hurts_no_answer(start, folder):
    server = start(folder)
    stop = threading.Event()
    wrong, good = [], [0]

    def ask():
        stub = server.stub()
        while not stop.is_set():
            try:
                answer = stub.ModelInfer(request("good", floats()), timeout=60)
                if answer.raw_output_contents[0] != (FLOATS * 2).tobytes():
                    wrong.append(answer)
                good[0] += 1
            except grpc.RpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND):
                    wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    with server.client() as client:
        for _ in range(25):
            client.unload_model("good")
            client.load_model("good")
            before, end = good[0], time.monotonic() + 60
            while good[0] == before and time.monotonic() < end:
                threading.Event().wait(0.001)  # until somebody has been answered
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong and good[0] >= 25


def test_eviction_under_traffic_hurts_no_answer(start, tmp_path):
    """Eight models of 8 MiB where two fit: everybody is answered, and rightly."""
    root = tmp_path / "many"
    size = 1 << 20
    for i in range(8):
        models.write_model(root, f"m{i}", models.Affine(float(i), size=size))
    server = start(root, config={"cache": {"budget": {"mapped": "20MiB"}}})
    failures = take_turns(server, 8, size, steps=24)
    assert not failures, failures[:5]
    assert server.metric("hearth_evictions_total", reason="capacity") > 0


def test_a_model_larger_than_the_budget_is_refused_for_good(start, folder):
    models.write_model(folder, "private", models.Counter())
    server = start(folder, config={"cache": {"budget": {"host": "64KiB"}}})
    code, text = refusal(server, request("good", floats()))
    assert code == "FAILED_PRECONDITION", text
    assert server.alive


def test_the_repository_may_vanish_under_the_daemon(start, folder):
    server = start(folder)
    with server.client() as client:
        assert np.array_equal(infer_floats(client, "good"), FLOATS * 2)
        shutil.rmtree(folder)
        assert np.array_equal(infer_floats(client, "good"), FLOATS * 2)  # still mapped
        client.unload_model("good")
        load_failure(client, "good")
        assert client.is_server_live()
