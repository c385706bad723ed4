"""Counters that grow with the requests, and the settings of log and trace."""

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

import wire

PARTS = ("queue", "compute_input", "compute_infer", "compute_output")


def statistics(stub, name="simple", version=""):
    message = pb.ModelStatisticsRequest(name=name, version=version)
    row, = stub.ModelStatistics(message, timeout=wire.PATIENCE).model_stats
    return row


def after_answers(stub, before, count, name="simple"):
    """The statistics once `count` more requests have been counted, which may be after their answers."""
    def counted(row):
        return row.inference_stats.success.count + row.inference_stats.fail.count

    wire.wait_until(lambda: counted(statistics(stub, name)) >= counted(before) + count)
    return statistics(stub, name)


def grown(before, after, field):
    was, now = getattr(before.inference_stats, field), getattr(after.inference_stats, field)
    return now.count - was.count, now.ns - was.ns


@pytest.mark.needs("statistics")
def test_every_request_is_counted_with_its_batch(stub):
    before = statistics(stub)
    for batch in (1, 4, 4):
        values = np.ones((batch, 16), np.int32)
        wire.infer(stub, wire.simple(values, values))
    after = after_answers(stub, before, 3)
    assert (after.name, after.version) == ("simple", "1") and int(after.version) == 1
    assert after.inference_count - before.inference_count == 9
    assert 1 <= after.execution_count - before.execution_count <= 3
    assert grown(before, after, "success")[0] == 3 and grown(before, after, "fail")[0] == 0
    assert after.last_inference >= before.last_inference > 0


@pytest.mark.needs("statistics")
def test_what_perf_analyzer_reckons_with_adds_up(stub):
    """It finds the version by queue.count, throws when the compute counts differ, and subtracts the times."""
    before = statistics(stub)
    for _ in range(5):
        wire.infer(stub, wire.simple())
    after = after_answers(stub, before, 5)
    assert [grown(before, after, field)[0] for field in PARTS] == [5] * 4
    assert all(grown(before, after, field)[1] >= 0 for field in PARTS)
    assert grown(before, after, "success")[1] >= sum(grown(before, after, field)[1] for field in PARTS)
    assert grown(before, after, "compute_infer")[1] > 0


@pytest.mark.needs("statistics")
def test_batches_are_told_apart_by_size(stub):
    before = statistics(stub)
    for batch in (2, 7):
        values = np.ones((batch, 16), np.int32)
        wire.infer(stub, wire.simple(values, values))
    by_size = {row.batch_size: row.compute_infer.count for row in after_answers(stub, before, 2).batch_stats}
    assert by_size[2] >= 1 and by_size[7] >= 1


@pytest.mark.needs("statistics")
@pytest.mark.model("fails")
def test_a_failure_is_counted_as_one(stub):
    before = statistics(stub, "fails")
    wire.infer(stub, wire.floats("fails", [[-1.0]]))
    before = after_answers(stub, before, 1, "fails")
    wire.refusal(stub.ModelInfer, wire.floats("fails", [[1.0]]))
    after = after_answers(stub, before, 1, "fails")
    assert grown(before, after, "fail")[0] == 1 and grown(before, after, "success")[0] == 0


@pytest.mark.needs("statistics")
@pytest.mark.model("versions")
def test_versions_are_counted_apart(stub):
    for versions in (["1", "2"], ["2"]):
        want = counts(stub)
        for version in versions:
            wire.infer(stub, wire.floats("versions", [[1.0]], version=version))
            want[version] += 1
        wire.wait_until(lambda want=want: counts(stub) == want)


def counts(stub):
    return {version: statistics(stub, "versions", version).inference_count for version in ("1", "2")}


@pytest.mark.needs("statistics")
def test_statistics_of_all_models_come_at_once(stub):
    wire.infer(stub, wire.simple())
    rows = stub.ModelStatistics(pb.ModelStatisticsRequest(), timeout=wire.PATIENCE).model_stats
    assert "simple" in {row.name for row in rows}


@pytest.mark.needs("statistics")
@pytest.mark.parametrize("name, version", [("nobody", ""), ("simple", "99"), ("nobody", "1")])
def test_statistics_of_what_is_unknown_are_refused(stub, name, version):
    code, text = wire.refusal(stub.ModelStatistics, pb.ModelStatisticsRequest(name=name, version=version))
    assert code == "INVALID_ARGUMENT" and text.startswith("requested model ")
    assert f"'{name}'" in text and "is not available" in text


# --- log and trace ---


@pytest.mark.needs("logging")
def test_the_log_has_its_settings(client):
    settings = client.get_log_settings(as_json=True)["settings"]
    assert {"log_error", "log_warning", "log_info", "log_verbose_level", "log_format"} <= set(settings)


@pytest.mark.needs("logging")
def test_a_setting_of_the_log_is_changed_and_changed_back(client):
    before = client.get_log_settings().settings["log_verbose_level"].uint32_param
    try:
        answer = client.update_log_settings({"log_verbose_level": 1 - min(before, 1)})
        assert answer.settings["log_verbose_level"].uint32_param == 1 - min(before, 1)
        assert client.get_log_settings().settings["log_verbose_level"].uint32_param == 1 - min(before, 1)
    finally:
        client.update_log_settings({"log_verbose_level": before})


@pytest.mark.needs("logging")
@pytest.mark.parametrize("name, value", [
    ("log_format", "no such format"), ("log_info", "yes"), ("log_verbose_level", True)])
def test_a_setting_that_the_log_cannot_have_is_refused(stub, client, name, value):
    before = client.get_log_settings()
    message = pb.LogSettingsRequest()
    setting = message.settings[name]
    setattr(setting, "bool_param" if isinstance(value, bool) else "string_param", value)
    wire.refusal(stub.LogSettings, message)
    assert client.get_log_settings() == before


@pytest.mark.needs("trace")
def test_a_setting_of_the_trace_is_changed_and_cleared(client):
    client.update_trace_settings(settings={"trace_rate": None})
    before = client.get_trace_settings().settings["trace_rate"].value
    client.update_trace_settings(settings={"trace_rate": "1234"})
    assert client.get_trace_settings().settings["trace_rate"].value == ["1234"]
    client.update_trace_settings(settings={"trace_rate": None})
    assert client.get_trace_settings().settings["trace_rate"].value == before


def test_a_server_can_always_be_asked_whether_it_traces(client):
    assert client.get_trace_settings().settings["trace_level"].value
