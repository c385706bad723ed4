"""Requests that are computed together, and requests that belong together."""

import threading

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

import wire

batched = pytest.mark.needs("schedule_policy")
sequenced = pytest.mark.needs("sequence")


def statistics(stub, name):
    row, = stub.ModelStatistics(pb.ModelStatisticsRequest(name=name), timeout=wire.PATIENCE).model_stats
    return row


# --- dynamic batching ---


@batched
def test_the_configuration_says_that_a_model_is_batched(client):
    config = client.get_model_config("queued").config
    assert config.HasField("dynamic_batching") and config.max_batch_size == 8


@batched
def test_requests_that_come_together_are_computed_together(stub):
    wire.infer(stub, wire.floats("queued", np.ones((1, 4))))
    before = statistics(stub, "queued")
    calls = [stub.ModelInfer.future(wire.floats("queued", np.full((1, 4), number), request_id=str(number)),
                                    timeout=wire.PATIENCE) for number in range(16)]
    for number, call in enumerate(calls):
        answer = call.result()
        assert answer.id == str(number) and wire.array(answer).tolist() == [[number] * 4]
    after = statistics(stub, "queued")
    assert after.inference_count - before.inference_count == 16
    assert after.execution_count - before.execution_count < 16
    assert max(row.batch_size for row in after.batch_stats) > 1
    counts = [getattr(after.inference_stats, field).count - getattr(before.inference_stats, field).count
              for field in ("success", "queue", "compute_input", "compute_infer", "compute_output")]
    assert counts == [16] * 5


@batched
def test_batches_are_put_together_from_requests_of_all_sizes(stub):
    sizes = [1, 2, 3, 8, 4, 1, 7, 5]
    calls = [stub.ModelInfer.future(wire.floats("queued", np.full((size, 4), size)), timeout=wire.PATIENCE)
             for size in sizes]
    for size, call in zip(sizes, calls):
        assert wire.array(call.result()).tolist() == [[size] * 4] * size


@batched
def test_a_batch_keeps_its_limit_and_a_bad_request_hurts_no_other(stub):
    bad = stub.ModelInfer.future(wire.floats("queued", np.ones((9, 4))), timeout=wire.PATIENCE)
    good = [stub.ModelInfer.future(wire.floats("queued", np.full((2, 4), number)), timeout=wire.PATIENCE)
            for number in range(8)]
    assert bad.exception().code().name == "INVALID_ARGUMENT"
    for number, call in enumerate(good):
        assert wire.array(call.result()).tolist() == [[number] * 4] * 2
    assert max(row.batch_size for row in statistics(stub, "queued").batch_stats) <= 8


@batched
def test_who_is_given_up_leaves_the_batch(stub):
    for _ in range(5):
        calls = [stub.ModelInfer.future(wire.floats("queued", np.full((1, 4), number)), timeout=wire.PATIENCE)
                 for number in range(8)]
        for call in calls[::2]:
            call.cancel()
        for number, call in enumerate(calls):
            if number % 2:
                assert wire.array(call.result()).tolist() == [[number] * 4]


# --- sequences ---


def step(value, sequence, start=False, end=False):
    return wire.floats("accumulator", [[value]], parameters={
        "sequence_id": sequence, "sequence_start": start, "sequence_end": end})


def run(stub, sequence, values):
    """The answers to a sequence of values."""
    return [float(wire.array(wire.infer(stub, step(value, sequence, i == 0, i == len(values) - 1)))[0, 0])
            for i, value in enumerate(values)]


@sequenced
def test_the_configuration_says_that_a_model_takes_sequences(client):
    assert client.get_model_config("accumulator").config.HasField("sequence_batching")


@sequenced
def test_a_sequence_has_a_state(stub):
    assert run(stub, 101, [1, 2, 3, 4]) == [1, 3, 6, 10]


@sequenced
def test_a_sequence_begins_anew(stub):
    assert run(stub, 102, [5, 5]) == [5, 10] and run(stub, 102, [7, 1]) == [7, 8]


@sequenced
def test_a_sequence_may_be_named_by_a_string(stub):
    assert run(stub, "one hundred and three", [1, 1]) == [1, 2]


@sequenced
def test_sequences_do_not_mix(stub):
    first = wire.array(wire.infer(stub, step(1, 104, start=True)))[0, 0]
    other = wire.array(wire.infer(stub, step(10, 105, start=True)))[0, 0]
    assert (first, other) == (1, 10)
    assert wire.array(wire.infer(stub, step(2, 104)))[0, 0] == 3
    assert wire.array(wire.infer(stub, step(20, 105)))[0, 0] == 30
    assert wire.array(wire.infer(stub, step(3, 104, end=True)))[0, 0] == 6
    assert wire.array(wire.infer(stub, step(30, 105, end=True)))[0, 0] == 60


@sequenced
def test_sequences_run_side_by_side(stub):
    results = {}
    threads = [threading.Thread(target=lambda s=s: results.__setitem__(s, run(stub, 200 + s, [s] * 5)))
               for s in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(wire.PATIENCE)
    assert results == {s: [s * i for i in range(1, 6)] for s in range(1, 5)}


@sequenced
def test_a_sequence_over_a_stream_keeps_its_order(target):
    with wire.Stream(target.url) as stream:
        for i in range(10):
            stream.send("accumulator", np.ones((1, 1), np.float32), str(i), sequence_id=106, sequence_start=i == 0,
                        sequence_end=i == 9)
        for i in range(10):
            result, error = stream.next()
            assert error is None and result.as_numpy("OUTPUT0").tolist() == [[i + 1]]


@sequenced
def test_a_sequence_that_did_not_begin_is_refused(stub):
    code, text = wire.refusal(stub.ModelInfer, step(1, 107))
    assert code == "INVALID_ARGUMENT" and "must specify the START flag on the first request of the sequence" in text


@sequenced
def test_after_its_end_a_sequence_is_unknown(stub):
    run(stub, 108, [1, 1])
    assert wire.refusal(stub.ModelInfer, step(1, 108))[0] == "INVALID_ARGUMENT"


@sequenced
def test_a_request_without_a_sequence_is_refused_or_has_no_part_in_any(stub):
    for _ in range(2):
        try:
            assert wire.array(wire.infer(stub, wire.floats("accumulator", [[5.0]]))).tolist() == [[5.0]]
        except grpc.RpcError as error:
            assert error.code().name == "INVALID_ARGUMENT"
            assert "must specify a non-zero or non-empty correlation ID" in error.details()
