"""ModelStreamInfer: many requests on one stream."""

import grpc
import numpy as np
import pytest

import wire


def test_answers_come_in_the_order_of_their_requests(target):
    with wire.Stream(target.url) as stream:
        for number in range(100):
            stream.send("identity_fp32", np.full((1, 2), number, np.float32), str(number))
        for number in range(100):
            result, error = stream.next()
            assert error is None and result.get_response().id == str(number)
            assert result.as_numpy("OUTPUT0").tolist() == [[number] * 2]


def test_every_answer_says_that_it_is_the_last_of_its_request(target):
    with wire.Stream(target.url) as stream:
        for enabled in (True, False):
            stream.send("identity_fp32", np.ones((1, 1), np.float32), enable_empty_final_response=enabled)
        for _ in range(2):
            result, error = stream.next()
            assert error is None
            assert result.get_response().parameters["triton_final_response"].bool_param


def test_an_error_is_an_answer_and_the_stream_goes_on(target):
    with wire.Stream(target.url) as stream:
        stream.send("identity_fp32", np.ones((1, 1), np.float32), "first")
        stream.send("nobody", np.ones((1, 1), np.float32), "bad")
        stream.send("identity_fp32", np.ones((1, 1, 1), np.float32), "odd")
        stream.send("identity_fp32", np.ones((1, 1), np.float32), "last")
        assert stream.next()[0].get_response().id == "first"
        result, error = stream.next()
        assert result is None and "Request for unknown model: 'nobody'" in error.message()
        assert "unexpected shape for input 'INPUT0'" in stream.next()[1].message()
        assert stream.next()[0].get_response().id == "last"


def test_a_stream_ends_with_a_status_for_who_asks_for_it(target):
    with wire.Stream(target.url, headers={"triton_grpc_error": "true"}) as stream:
        stream.send("identity_fp32", np.ones((1, 1), np.float32))
        assert stream.next()[1] is None
        stream.send("nobody", np.ones((1, 1), np.float32))
        error = stream.next()[1]
        if error.status() is None:
            pytest.skip("needs triton_grpc_error")
        assert error.status() == "StatusCode.NOT_FOUND" and "'nobody'" in error.message()


def test_a_stream_carries_requests_for_different_models(target, stub):
    answers = list(stub.ModelStreamInfer(iter([
        wire.simple(request_id="a"), wire.floats("identity_fp32", [[1.0]], request_id="b"), wire.simple(request_id="c"),
    ]), timeout=wire.PATIENCE))
    assert [answer.infer_response.id for answer in answers] == ["a", "b", "c"]
    assert [answer.infer_response.model_name for answer in answers] == ["simple", "identity_fp32", "simple"]


def test_a_stream_without_requests_ends(stub):
    assert not list(stub.ModelStreamInfer(iter([]), timeout=wire.PATIENCE))


def test_what_was_sent_before_the_end_is_answered(stub):
    messages = [wire.floats("identity_fp32", [[number]], request_id=str(number)) for number in range(20)]
    answers = list(stub.ModelStreamInfer(iter(messages), timeout=wire.PATIENCE))
    assert [answer.infer_response.id for answer in answers] == [str(number) for number in range(20)]


def test_a_stream_that_is_given_up_hurts_nobody(stub):
    call = stub.ModelStreamInfer(iter([wire.floats("identity_fp32", [[number]]) for number in range(50)]))
    next(call)
    call.cancel()
    with pytest.raises(grpc.RpcError) as error:
        list(call)
    assert error.value.code() == grpc.StatusCode.CANCELLED
    assert wire.array(wire.infer(stub, wire.simple())).tolist() == [[2] * 16]


def test_large_tensors_go_through_a_stream(target):
    values = np.arange(2 << 20, dtype=np.float32).reshape(2, -1)
    with wire.Stream(target.url) as stream:
        for _ in range(3):
            stream.send("identity_fp32", values)
        for _ in range(3):
            result, error = stream.next()
            assert error is None and np.array_equal(result.as_numpy("OUTPUT0"), values)


def test_streams_run_side_by_side(target):
    streams = [wire.Stream(target.url) for _ in range(4)]
    try:
        for round_ in range(20):
            for number, stream in enumerate(streams):
                stream.send("identity_fp32", np.full((1, 1), number, np.float32), f"{number}-{round_}")
        for number, stream in enumerate(streams):
            for round_ in range(20):
                result, error = stream.next()
                assert error is None and result.get_response().id == f"{number}-{round_}"
                assert result.as_numpy("OUTPUT0").tolist() == [[number]]
    finally:
        for stream in streams:
            stream.__exit__(None, None, None)
