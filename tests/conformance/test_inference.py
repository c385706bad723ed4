"""Which outputs come back, under which names, and what of the request comes back with them."""

import threading

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.grpc import service_pb2 as pb

import wire
from wire import ONES, floats, request, simple, tensor

A = np.arange(16, dtype=np.int32).reshape(1, 16)


def test_all_outputs_come_when_none_is_named(stub):
    answer = wire.infer(stub, simple(A))
    read = {output.name: wire.array(answer, i).tolist() for i, output in enumerate(answer.outputs)}
    assert read == {"OUTPUT0": (A + 1).tolist(), "OUTPUT1": (A - 1).tolist()}
    assert (answer.model_name, answer.model_version) == ("simple", "1")


@pytest.mark.parametrize("names", [["OUTPUT0"], ["OUTPUT1"], ["OUTPUT0", "OUTPUT1"]])
def test_only_the_outputs_that_are_named_come(stub, names):
    answer = wire.infer(stub, simple(A, outputs=names))
    assert [output.name for output in answer.outputs] == names
    want = {"OUTPUT0": A + 1, "OUTPUT1": A - 1}
    assert [wire.array(answer, i).tolist() for i in range(len(names))] == [want[name].tolist() for name in names]


def test_there_is_one_raw_content_for_each_output(stub):
    """Triton's C++ client reads beyond its array otherwise."""
    for message in (simple(), simple(outputs=["OUTPUT1"]), request("identity_fp32", ("INPUT0", "FP32", [0, 2], b""))):
        answer = wire.infer(stub, message)
        assert len(answer.raw_output_contents) == len(answer.outputs) > 0


def test_inputs_are_taken_by_name_not_by_order(stub):
    answer = wire.infer(stub, request("simple", tensor("INPUT1", ONES), tensor("INPUT0", A), outputs=["OUTPUT1"]))
    assert wire.array(answer).tolist() == (A - 1).tolist()


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_batches_up_to_the_largest_are_served(stub, batch):
    values = np.arange(batch * 16, dtype=np.int32).reshape(batch, 16)
    assert wire.array(wire.infer(stub, simple(values, values))).tolist() == (values * 2).tolist()


@pytest.mark.parametrize("request_id", ["", "1", "a-b.c/d e", "ö", "x" * 1000])
def test_the_id_of_a_request_comes_back(stub, request_id):
    assert wire.infer(stub, simple(request_id=request_id)).id == request_id


@pytest.mark.model("versions")
@pytest.mark.parametrize("version, factor", [("", 10), ("1", 1), ("2", 2), ("10", 10)])
def test_the_version_asked_for_answers_and_the_highest_otherwise(stub, version, factor):
    answer = wire.infer(stub, floats("versions", [[3.0]], version=version))
    assert wire.array(answer).tolist() == [[3.0 * factor]]
    assert answer.model_version == str(factor)


@pytest.mark.parametrize("parameters", [
    {"timeout": 60_000_000}, {"timeout": 0}, {"priority": pb.InferParameter(uint64_param=0)},
    {"priority": 0}, {"sequence_id": 0}, {"sequence_start": False, "sequence_end": False},
    {"triton_enable_empty_final_response": True}, {"triton_enable_empty_final_response": False}],
    ids=lambda parameters: "+".join(parameters))
def test_the_protocols_own_parameters_are_taken(stub, parameters):
    """perf_analyzer sends the last one with everything."""
    assert wire.array(wire.infer(stub, simple(parameters=parameters))).tolist() == [[2] * 16]


@pytest.mark.parametrize("value", [True, 7, "text"], ids=["bool", "int64", "string"])
def test_parameters_of_ones_own_are_taken(stub, value):
    assert wire.array(wire.infer(stub, simple(parameters={"my_own": value}))).tolist() == [[2] * 16]


def test_a_client_reuses_its_objects(client):
    inputs = [tritonclient.grpc.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    outputs = [tritonclient.grpc.InferRequestedOutput("OUTPUT0")]
    for number in range(3):
        for given in inputs:
            given.set_data_from_numpy(np.full((1, 16), number, np.int32))
        assert client.infer("simple", inputs, outputs=outputs).as_numpy("OUTPUT0").tolist() == [[2 * number] * 16]


def test_many_requests_on_one_connection_are_answered_each_with_its_own(stub):
    calls = [stub.ModelInfer.future(floats("identity_fp32", [[number]], request_id=str(number)), timeout=wire.PATIENCE)
             for number in range(200)]
    for number, call in enumerate(calls):
        answer = call.result()
        assert answer.id == str(number) and wire.array(answer).tolist() == [[number]]


def test_many_connections_are_served_at_once(target):
    failures = []

    def ask(number):
        with tritonclient.grpc.InferenceServerClient(target.url) as client:
            given = tritonclient.grpc.InferInput("INPUT0", [1, 2], "FP32").set_data_from_numpy(
                np.full((1, 2), number, np.float32))
            for _ in range(10):
                if client.infer("identity_fp32", [given]).as_numpy("OUTPUT0").tolist() != [[number] * 2]:
                    failures.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_clients_own_callback_gets_the_answer(client):
    done, seen = threading.Event(), []

    def take(result, error):
        seen.append((result, error))
        done.set()

    given = tritonclient.grpc.InferInput("INPUT0", [1, 1], "FP32").set_data_from_numpy(np.ones((1, 1), np.float32))
    client.async_infer("identity_fp32", [given], take, request_id="later")
    assert done.wait(wire.PATIENCE)
    (result, error), = seen
    assert error is None and result.get_response().id == "later"


# --- classification ---

SCORES = np.array([[0.5, 4.0, -1.0, 2.0], [9.0, 1.0, 3.0, 2.0]], np.float32)


def classified(stub, model, values, count):
    message = floats(model, values)
    message.outputs.add(name="OUTPUT0").parameters["classification"].int64_param = count
    answer = wire.infer(stub, message)
    output, = answer.outputs
    assert output.datatype == "BYTES"
    raw, words, at = answer.raw_output_contents[0], [], 0
    while at < len(raw):
        size = int.from_bytes(raw[at:at + 4], "little")
        words.append(raw[at + 4:at + 4 + size].decode())
        at += 4 + size
    return list(output.shape), [tuple(word.split(":")) for word in words]


@pytest.mark.needs("classification")
def test_classes_come_best_first_with_their_labels(stub):
    shape, classes = classified(stub, "labelled", SCORES, 2)
    assert shape == [2, 2]
    assert classes == [("4.000000", "1", "bee"), ("2.000000", "3", "dog"),
                       ("9.000000", "0", "ant"), ("3.000000", "2", "cow")]


@pytest.mark.needs("classification")
def test_more_classes_than_there_are_give_all(stub):
    shape, classes = classified(stub, "labelled", SCORES[:1], 100)
    assert shape == [1, 4] and [word[1] for word in classes] == ["1", "3", "0", "2"]


@pytest.mark.needs("classification")
def test_classes_without_labels_have_none(stub):
    shape, classes = classified(stub, "identity_fp32", SCORES[:1], 1)
    assert [len(word) for word in classes] == [2] and float(classes[0][0]) == 4.0
