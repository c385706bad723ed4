"""Requests that are late, or given up, end at once and leave nothing behind."""

import threading
import time

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

import wire

pytestmark = pytest.mark.model("slow")

# Rounds of the model `slow`: long beside a request, short beside a test.
LONG = 1500


def test_a_slow_answer_comes(stub):
    assert wire.array(wire.infer(stub, wire.slow(5))).tolist() == [1] * 4


def test_a_deadline_that_passes_is_deadline_exceeded(stub):
    begin = time.monotonic()
    with pytest.raises(grpc.RpcError) as error:
        stub.ModelInfer(wire.slow(LONG), timeout=0.1)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - begin < wire.PATIENCE / 2
    wire.infer(stub, wire.slow(1))  # and what it asked for does not stay in anybody's way for ever


def test_a_request_that_is_given_up_is_cancelled(stub):
    call = stub.ModelInfer.future(wire.slow(LONG), timeout=wire.PATIENCE)
    call.cancel()
    with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)):
        call.result()
    assert call.code() == grpc.StatusCode.CANCELLED
    wire.infer(stub, wire.slow(1))


def test_what_waits_behind_a_slow_request_can_be_given_up(stub):
    first = stub.ModelInfer.future(wire.slow(300), timeout=wire.PATIENCE)
    waiting = [stub.ModelInfer.future(wire.slow(2000), timeout=wire.PATIENCE) for _ in range(3)]
    time.sleep(0.05)  # they are on their way, whether they got there or not
    for call in waiting:
        call.cancel()
    assert first.result().outputs
    wire.infer(stub, wire.slow(1))


def test_a_stream_that_is_given_up_takes_its_requests_along(stub):
    hold = threading.Event()

    def requests():
        yield wire.slow(300, request_id="first")
        for _ in range(5):
            yield wire.slow(LONG)
        hold.wait(wire.PATIENCE)

    call = stub.ModelStreamInfer(requests())
    assert next(call).infer_response.id == "first"
    call.cancel()
    hold.set()
    wire.infer(stub, wire.slow(1))


@pytest.mark.needs("statistics")
def test_requests_that_are_given_up_are_no_successes(stub):
    def successes():
        row, = stub.ModelStatistics(pb.ModelStatisticsRequest(name="slow"), timeout=wire.PATIENCE).model_stats
        return row.inference_stats.success.count

    wire.infer(stub, wire.slow(1))
    before = successes()
    first = stub.ModelInfer.future(wire.slow(300), timeout=wire.PATIENCE)
    for _ in range(3):
        with pytest.raises(grpc.RpcError):
            stub.ModelInfer(wire.slow(1), timeout=0.001)
    first.result()
    wire.wait_until(lambda: successes() >= before + 1)
    assert successes() <= before + 4  # one may have been done before its caller knew
