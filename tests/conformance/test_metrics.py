"""Metrics under the names that dashboards made for Triton have."""

import urllib.request

import numpy as np
import pytest

import wire

pytestmark = pytest.mark.needs("metrics")

COUNTERS = ("nv_inference_request_success", "nv_inference_count", "nv_inference_exec_count",
            "nv_inference_request_duration_us", "nv_inference_queue_duration_us", "nv_inference_compute_infer_duration_us")


def total(samples, name, model, **labels):
    return sum(value for (sample, pairs), value in samples.items()
               if sample == name and {"model": model, **labels}.items() <= dict(pairs).items())


def test_metrics_are_text_for_prometheus(target):
    with urllib.request.urlopen(f"http://{target.metrics_url}/metrics", timeout=wire.PATIENCE) as answer:
        assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain")
        assert b"# HELP nv_inference_count" in answer.read()


def test_counters_grow_with_the_requests(stub, metrics):
    wire.infer(stub, wire.simple())
    before = metrics()
    for batch in (1, 3):
        values = np.ones((batch, 16), np.int32)
        wire.infer(stub, wire.simple(values, values))
    wire.wait_until(lambda: total(metrics(), "nv_inference_count", "simple") >=
                    total(before, "nv_inference_count", "simple") + 4)
    after = metrics()
    grown = {name: total(after, name, "simple", version="1") - total(before, name, "simple", version="1")
             for name in COUNTERS}
    assert grown["nv_inference_request_success"] == 2 and grown["nv_inference_count"] == 4
    assert 1 <= grown["nv_inference_exec_count"] <= 2
    assert all(grown[name] >= 0 for name in COUNTERS) and grown["nv_inference_request_duration_us"] > 0


@pytest.mark.model("fails")
def test_failures_are_counted(stub, metrics):
    wire.infer(stub, wire.floats("fails", [[-1.0]]))
    before = total(metrics(), "nv_inference_request_failure", "fails")
    wire.refusal(stub.ModelInfer, wire.floats("fails", [[1.0]]))
    wire.wait_until(lambda: total(metrics(), "nv_inference_request_failure", "fails") == before + 1)
