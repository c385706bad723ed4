"""The model repository: what there is, and what is loaded and unloaded while others are served."""

import json
import threading

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

import wire

pytestmark = pytest.mark.needs("model_repository")
controlled = pytest.mark.needs("explicit control")

GOING = "comes_and_goes_0"


def index(stub, ready=False):
    """{(name, version): (state, reason)}"""
    listed = stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=ready), timeout=wire.PATIENCE)
    return {(row.name, row.version): (row.state, row.reason) for row in listed.models}


@pytest.fixture
def going(client):
    """The name of a model that the test may unload; it is back afterwards."""
    client.load_model(GOING)
    yield GOING
    client.load_model(GOING)


def serves(stub, name):
    return wire.array(wire.infer(stub, wire.floats(name, [[3.0]]))).tolist() == [[6.0]]


# --- the index ---


def test_the_index_lists_every_model_and_version(stub):
    listed = index(stub)
    assert listed["simple", "1"] == ("READY", "")
    assert {version for name, version in listed if name == "versions"} == {"1", "2", "10"}
    assert {state for state, _ in listed.values()} <= {"READY", "UNAVAILABLE", "LOADING", "UNLOADING", "UNKNOWN", ""}


def test_the_index_of_what_is_ready_has_nothing_else(stub):
    listed = index(stub, ready=True)
    assert ("simple", "1") in listed and {state for state, _ in listed.values()} == {"READY"}


@pytest.mark.parametrize("call, message", [
    ("RepositoryIndex", pb.RepositoryIndexRequest(repository_name="mine")),
    ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(repository_name="mine", model_name="simple")),
    ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(repository_name="mine", model_name="simple"))])
def test_there_is_one_repository_and_it_has_no_name(stub, call, message):
    code, text = wire.refusal(getattr(stub, call), message)
    assert code == "UNIMPLEMENTED" and "'repository_name' specification is not supported" in text


# --- load and unload ---


@controlled
def test_an_unloaded_model_is_out_until_it_is_loaded(client, stub, going):
    assert serves(stub, going)
    client.unload_model(going)
    assert not client.is_model_ready(going) and not client.is_model_ready(going, "1")
    assert (going, "1") not in index(stub, ready=True)
    wire.wait_until(lambda: index(stub)[going, "1"][0] != "UNLOADING")
    assert index(stub)[going, "1"] == ("UNAVAILABLE", "unloaded")
    code, text = wire.refusal(stub.ModelInfer, wire.floats(going, [[1.0]], version="1"))
    assert code == "UNAVAILABLE" and f"'{going}' version 1 is not at ready state" in text
    client.load_model(going)
    assert client.is_model_ready(going) and index(stub)[going, "1"] == ("READY", "") and serves(stub, going)


@controlled
@pytest.mark.parametrize("call, message", [
    ("ModelInfer", wire.floats(GOING, [[1.0]])), ("ModelMetadata", pb.ModelMetadataRequest(name=GOING)),
    ("ModelConfig", pb.ModelConfigRequest(name=GOING))], ids=["infer", "metadata", "configuration"])
def test_without_a_version_an_unloaded_model_has_none_to_give(client, stub, going, call, message):
    client.unload_model(going)
    code, text = wire.refusal(getattr(stub, call), message)
    assert (code, f"'{going}' has no available versions" in text) == ("NOT_FOUND", True), text


@controlled
@pytest.mark.needs("statistics")
def test_an_unloaded_models_statistics_are_there_or_not_whether_a_version_is_named_or_not(client, stub, going):
    assert serves(stub, going)
    client.unload_model(going)
    assert has_statistics(stub, going, "") == has_statistics(stub, going, "1")


def has_statistics(stub, name, version):
    try:
        stub.ModelStatistics(pb.ModelStatisticsRequest(name=name, version=version), timeout=wire.PATIENCE)
    except grpc.RpcError:
        return False
    return True


@controlled
def test_a_loaded_model_can_be_loaded_again(client, stub, going):
    for _ in range(3):
        client.load_model(going)
        assert client.is_model_ready(going) and serves(stub, going)


@controlled
def test_an_unloaded_model_can_be_unloaded_again(client, going):
    for _ in range(3):
        client.unload_model(going)
        assert not client.is_model_ready(going)


@controlled
@pytest.mark.parametrize("dependents", [True, False])
def test_unloading_takes_the_parameter_that_clients_send(client, going, dependents):
    client.unload_model(going, unload_dependents=dependents)
    assert not client.is_model_ready(going)


@controlled
def test_loading_what_is_not_there_is_refused(client, stub):
    code, text = wire.refusal(stub.RepositoryModelLoad, pb.RepositoryModelLoadRequest(model_name="nobody"))
    assert code == "INTERNAL" and "failed to load 'nobody'" in text


@controlled
def test_unloading_what_is_not_there_is_harmless(client, stub):
    try:
        stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="nobody"), timeout=wire.PATIENCE)
    except grpc.RpcError as error:
        assert "nobody" in error.details()
    assert client.is_server_live()


@controlled
@pytest.mark.parametrize("name", ["", "../simple", "a/b", "..", "simple/../simple"])
def test_a_name_that_leads_elsewhere_is_refused(client, stub, name):
    code, _ = wire.refusal(stub.RepositoryModelLoad, pb.RepositoryModelLoadRequest(model_name=name))
    assert code in ("INVALID_ARGUMENT", "INTERNAL", "NOT_FOUND")
    assert client.is_server_live() and client.is_model_ready("simple")


@controlled
def test_a_model_that_does_not_load_says_why(client, stub):
    code, text = wire.refusal(stub.RepositoryModelLoad, pb.RepositoryModelLoadRequest(model_name="broken"))
    assert code in ("INVALID_ARGUMENT", "INTERNAL") and "broken" in text
    assert not client.is_model_ready("broken")
    state, reason = index(stub)["broken", "1"]
    assert state == "UNAVAILABLE" and reason
    client.unload_model("broken")
    assert client.is_model_ready("simple")


@controlled
def test_a_parameter_that_no_load_has_is_refused(stub):
    message = pb.RepositoryModelLoadRequest(model_name=GOING)
    message.parameters["colour"].string_param = "blue"
    code, text = wire.refusal(stub.RepositoryModelLoad, message)
    assert code == "INVALID_ARGUMENT" and "colour" in text


@controlled
def test_a_parameter_of_another_type_is_refused(stub):
    message = pb.RepositoryModelLoadRequest(model_name=GOING)
    message.parameters["config"].int64_param = 1
    code, text = wire.refusal(stub.RepositoryModelLoad, message)
    if code == "UNIMPLEMENTED":
        pytest.skip("needs model_configuration in a load")
    assert code == "INVALID_ARGUMENT" and "config" in text


# --- a configuration in the load itself ---


def overridden(client, name, config):
    """Loads with a configuration; skips where the server does not take one."""
    try:
        client.load_model(name, config=json.dumps(config))
    except InferenceServerException as error:
        if error.status() == "StatusCode.UNIMPLEMENTED":
            pytest.skip("needs model_configuration in a load")
        raise


@controlled
@pytest.mark.needs("model_configuration")
def test_a_load_brings_its_own_configuration(client, stub, going):
    config = {
        "name": going, "max_batch_size": 4,
        "input": [{"name": "INPUT0", "data_type": "TYPE_FP32", "dims": [-1]}],
        "output": [{"name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": [-1]}]}
    current = client.get_model_config(going, as_json=True)["config"]
    config.update({key: current[key] for key in ("backend", "platform") if key in current})
    overridden(client, going, config)
    assert client.get_model_config(going).config.max_batch_size == 4
    code, text = wire.refusal(stub.ModelInfer, wire.floats(going, np.ones((5, 2))))
    assert code == "INVALID_ARGUMENT" and "batch-size must be <= 4" in text
    client.unload_model(going)
    client.load_model(going)
    assert client.get_model_config(going).config.max_batch_size == 0  # the files' own again


@controlled
@pytest.mark.needs("model_configuration")
@pytest.mark.parametrize("config", ["{", "[]", '{"max_batch_size": "many"}'])
def test_a_configuration_that_is_none_is_refused_and_the_model_stays(client, stub, going, config):
    with pytest.raises(InferenceServerException) as error:
        client.load_model(going, config=config)
    if error.value.status() == "StatusCode.UNIMPLEMENTED":
        pytest.skip("needs model_configuration in a load")
    assert serves(stub, going)


# --- many at once ---


def at_once(*jobs):
    """Runs the functions on threads of their own; what they raised."""
    failures = []

    def run(job):
        try:
            job()
        except Exception as error:  # of whatever kind: it is reported
            failures.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * wire.PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    return failures


@controlled
def test_several_models_load_at_once(client, stub):
    names = [f"comes_and_goes_{i}" for i in range(3)]
    for name in names:
        client.unload_model(name)
    assert not at_once(*(lambda name=name: client.load_model(name) for name in names))
    assert all(serves(stub, name) for name in names)


@controlled
def test_one_model_loads_once_for_all_who_ask(client, stub, going):
    client.unload_model(going)
    assert not at_once(*[lambda: client.load_model(going)] * 6)
    assert serves(stub, going) and index(stub)[going, "1"] == ("READY", "")


@controlled
def test_loads_and_unloads_of_one_model_leave_it_in_one_state(client, stub, going):
    failures = []

    def churn(seed):
        for step in range(6):
            try:
                (client.load_model if (seed + step) % 2 else client.unload_model)(going)
            except InferenceServerException as error:  # another one's unload may win
                failures.append(error.message())

    assert not at_once(*(lambda seed=seed: churn(seed) for seed in range(4)))
    assert all(going in text for text in failures)
    client.load_model(going)
    assert client.is_model_ready(going) and serves(stub, going)
    client.unload_model(going)
    assert not client.is_model_ready(going)


@controlled
def test_requests_are_answered_rightly_or_refused_while_their_model_comes_and_goes(client, stub, going):
    """Right, or UNAVAILABLE or NOT_FOUND: never a wrong answer, never another error."""
    odd, right, done = [], [], threading.Event()

    def ask():
        while not done.is_set():
            try:
                if not serves(stub, going):
                    odd.append("a wrong answer")
                right.append(1)
            except grpc.RpcError as error:
                if error.code().name not in ("UNAVAILABLE", "NOT_FOUND"):
                    odd.append(f"{error.code()} {error.details()}")

    def churn():
        try:
            for _ in range(10):
                client.unload_model(going)
                client.load_model(going)
                serves(stub, going)
        finally:
            done.set()

    assert not at_once(ask, ask, churn)
    assert not odd and right


@controlled
def test_others_are_served_while_a_model_comes_and_goes(client, stub, going):
    done = threading.Event()

    def ask():
        while not done.is_set():
            assert wire.array(wire.infer(stub, wire.simple())).tolist() == [[2] * 16]

    def churn():
        try:
            for _ in range(10):
                client.unload_model(going)
                client.load_model(going)
        finally:
            done.set()

    assert not at_once(ask, ask, churn)


@controlled
@pytest.mark.model("slow")
def test_a_request_that_runs_ends_well_though_its_model_is_unloaded(client, stub):
    running = stub.ModelInfer.future(wire.slow(300), timeout=wire.PATIENCE)
    client.unload_model("slow")
    try:
        answer = running.result()
        assert wire.array(answer).tolist() == [1] * 4
    except grpc.RpcError as error:  # the unload was there first
        assert error.code().name in ("UNAVAILABLE", "NOT_FOUND")
    finally:
        client.load_model("slow")
    assert wire.array(wire.infer(stub, wire.slow(1))).tolist() == [1] * 4
