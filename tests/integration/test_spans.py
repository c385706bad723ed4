"""Traces: W3C's header in, OTLP out, read with OpenTelemetry's own messages."""

import base64
import http.client
import http.server
import json
import queue
import threading

import grpc
import numpy as np
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from test_protocol import floats, request

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PATIENCE = 30


@pytest.fixture
def collector():
    """Yields (url, queue of the spans that were posted); answers what `status` says."""
    spans = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/json")
            body = self.rfile.read(int(self.headers["Content-Length"]))
            # OTLP's JSON writes ids in hex, where protobuf's would have base64.
            message = json.loads(body)
            for resource in message["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    for span in scope["spans"]:
                        for key in ("traceId", "spanId", "parentSpanId"):
                            if key in span:
                                span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
            parsed = json_format.ParseDict(message, trace_service_pb2.ExportTraceServiceRequest())
            for resource in parsed.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        spans.put((span, {a.key: a.value.string_value for a in resource.resource.attributes}))
            self.send_response(self.server.status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.status = 200
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", spans, server
    server.shutdown()
    server.server_close()


def take(spans, count):
    return [spans.get(timeout=PATIENCE)[0] for _ in range(count)]


def attributes(span):
    return {a.key: a.value.string_value or a.value.int_value for a in span.attributes}


def test_a_sampled_request_is_told_with_its_load_its_queue_and_its_run(start, repository, collector):
    url, spans, _ = collector
    server = start(repository, config={"tracing": {"endpoint": url}, "logging": {"access": True}})
    stub = server.stub()
    call = request("identity", floats())
    call.id = "one"
    _, rpc = stub.ModelInfer.with_call(call, metadata=[("traceparent", f"00-{TRACE}-{SPAN}-01")])
    found, resource = spans.get(timeout=PATIENCE)
    assert resource["service.name"] == "hearth" and resource["service.instance.id"]
    by_name = {span.name: span for span in [found, *take(spans, 3)]}
    assert set(by_name) == {"infer identity", "load", "queue", "compute"}
    whole = by_name["infer identity"]
    assert whole.trace_id.hex() == TRACE and whole.parent_span_id.hex() == SPAN
    assert whole.kind == trace_pb2.Span.SPAN_KIND_SERVER
    told = attributes(whole)
    assert (told["hearth.model"], told["hearth.version"], told["hearth.request_id"], told["hearth.cache"],
            told["rpc.grpc.status_code"]) == ("identity", 1, "one", "load", 0)
    at = whole.start_time_unix_nano
    for name in ("load", "queue", "compute"):
        part = by_name[name]
        assert part.trace_id == whole.trace_id and part.parent_span_id == whole.span_id
        assert at <= part.start_time_unix_nano <= part.end_time_unix_nano <= whole.end_time_unix_nano
        at = part.end_time_unix_nano
    passed_on = dict(rpc.initial_metadata())["traceparent"]
    assert passed_on == f"00-{TRACE}-{whole.span_id.hex()}-01"
    line = server.wait_for("request")
    assert (line["id"], line["trace"]) == ("one", TRACE)


def slow_request(rounds):
    return request("slow", floats(values=np.zeros((256, 256), np.float32)),
                   ("rounds", "INT64", [1], np.array([rounds], np.int64).tobytes()))


def test_a_request_that_gives_up_in_the_queue_says_how_long_it_was_there(start, repository, collector):
    url, spans, _ = collector
    server = start(repository, config={"tracing": {"endpoint": url}, "compute": {"threads": 1}})
    stub = server.stub()
    stub.ModelInfer(slow_request(1), timeout=60)  # it is there
    running = stub.ModelInfer.future(slow_request(2000), timeout=60)
    while server.metric("hearth_runs") < 1:
        assert not running.done()
    waiting = stub.ModelInfer.future(slow_request(1), metadata=[("traceparent", f"00-{TRACE}-{SPAN}-01")])
    while server.metric("hearth_queued_requests", model="slow") < 1:
        assert not running.done()
    waiting.cancel()
    whole, queued = take(spans, 2)
    assert attributes(whole)["rpc.grpc.status_code"] == grpc.StatusCode.CANCELLED.value[0]
    assert queued.name == "queue" and queued.parent_span_id == whole.span_id
    assert queued.start_time_unix_nano < queued.end_time_unix_nano <= whole.end_time_unix_nano
    assert running.result().outputs


def test_http_takes_the_header_too_and_a_refusal_says_why(start, repository, collector):
    url, spans, _ = collector
    server = start(repository, config={"tracing": {"endpoint": url}})
    client = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=PATIENCE)
    body = json.dumps({"inputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [1]}]})
    client.request("POST", "/v2/models/typed/infer", body, {"traceparent": f"00-{TRACE}-{SPAN}-01"})
    assert client.getresponse().status == 400
    whole = take(spans, 1)[0]
    assert whole.status.code == trace_pb2.Status.STATUS_CODE_ERROR and "'y'" in whole.status.message
    assert attributes(whole)["rpc.grpc.status_code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_what_is_not_sampled_is_not_told_and_one_in_so_many_begins_a_trace(start, repository, collector):
    url, spans, _ = collector
    server = start(repository, config={"tracing": {"endpoint": url, "one_in": 1}})
    stub = server.stub()
    stub.ModelInfer(request("identity", floats()), metadata=[("traceparent", f"00-{TRACE}-{SPAN}-00")])
    stub.ModelInfer(request("identity", floats()))
    whole = take(spans, 1)[0]
    assert whole.trace_id.hex() != TRACE and not whole.parent_span_id
    assert attributes(whole)["hearth.cache"] == "hit"


def test_a_collector_that_takes_nothing_costs_nobody_anything(start, repository, collector):
    url, spans, collecting = collector
    collecting.status = 503
    server = start(repository, config={"tracing": {"endpoint": url, "one_in": 1}})
    stub = server.stub()
    stub.ModelInfer(request("identity", floats()))
    assert "status 503" == server.wait_for("traces not taken by the collector; dropped until it does")["reason"]
    assert server.metric("hearth_traced_requests_dropped_total") == 1
    collecting.status = 200
    stub.ModelInfer(request("identity", floats()))
    while server.metric("hearth_traced_requests_total") == 0:
        pass


def test_a_server_that_stops_sends_what_it_has(start, repository, collector):
    url, spans, _ = collector
    server = start(repository, config={"tracing": {"endpoint": url, "one_in": 1}})
    server.stub().ModelInfer(request("identity", floats()))
    server.terminate()
    assert take(spans, 1)[0].name.startswith("infer")


def test_a_bad_endpoint_is_named(start, repository):
    with pytest.raises(Exception, match="tracing.endpoint"):
        start(repository, config={"tracing": {"endpoint": "https://collector"}})
