"""The cache explains itself: hearth why, events, pin, evict and prefetch, and Watch, on a live daemon."""

import json
import signal
import threading

import grpc
import pytest
import torch
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase)

import hearthd
import models
from test_operations import slow_request, wait_until
from test_protocol import floats, infer_floats, refusal, request

MIB = 1 << 20


class Weighty(torch.nn.Module):
    """8 MiB of weights, of which it needs one number."""

    def __init__(self, number):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((2 * MIB,), number), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.weight[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("repository")
    for number, name in enumerate(["a", "b", "c"]):
        models.write_model(root, name, Weighty(float(number)))
    models.write_model(root, "slow", models.Slow())
    models.write_model(root, "broken", models.Affine(1.0)).write_bytes(b"no archive")
    return root


# Room for two of three; who goes can be told from the order of requests.
TWO_FIT = {"cache": {"budget": {"mapped": "20MiB"}, "eviction": "lru"}}


@pytest.fixture
def small(start, folder):
    return start(folder, config=TWO_FIT)


def ask(server, model):
    with server.client() as client:
        infer_floats(client, model)


class Cache:
    """hearth.v1.Cache, by what reflection says of it."""

    def __init__(self, server):
        self._channel = server.channel()
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(self._channel))
        self._methods = pool.FindServiceByName("hearth.v1.Cache").methods_by_name

    def __getattr__(self, name):
        method = self._methods[name]
        wanted = message_factory.GetMessageClass(method.input_type)
        given = message_factory.GetMessageClass(method.output_type)
        kind = self._channel.unary_stream if method.server_streaming else self._channel.unary_unary
        stub = kind(f"/hearth.v1.Cache/{name}", request_serializer=wanted.SerializeToString,
                    response_deserializer=given.FromString)
        return lambda **fields: stub(wanted(**fields), timeout=hearthd.PATIENCE)


def code_of(call):
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value.code().name, error.value.details()


def why(server, model):
    return json.loads(server.cli("why", model, "--json").stdout)


def test_an_eviction_is_explained_from_every_side(small, promtool):
    ask(small, "a")
    ask(small, "a")
    ask(small, "b")
    ask(small, "c")
    said = small.cli("why", "a").stdout
    assert said.startswith("a:1 is not resident: evicted ")
    assert " for c:1: " in said and "8.00 MiB of mapped memory held by it alone" in said, said
    assert "the coldest of 2 candidates by score" in said and "resident for" in said and "idle for" in said, said

    explained = why(small, "a")
    assert explained["state"] == "absent" and explained["evictions"] == 1
    eviction = explained["last_eviction"]
    assert eviction["reason"] == "capacity" and eviction["hits"] == 1
    assert 8 * MIB <= eviction["bytes"]["mapped"] < 9 * MIB
    assert eviction["cause"]["model"] == "c" and eviction["cause"]["rank"] == 1
    assert 8 * MIB <= eviction["cause"]["needed"]["mapped"] < 9 * MIB
    assert 1.9 < eviction["cause"]["demand"] <= 2.0
    assert 0 <= eviction["idle_seconds"] <= eviction["resident_seconds"]

    events = [json.loads(line) for line in small.cli("events", "a", "--json").stdout.splitlines()]
    assert [event["kind"] for event in events] == ["queued", "loading", "ready", "evicted"]
    table = small.cli("events").stdout
    assert "a:1 evicted for c:1: " in table and "c:1 ready after " in table

    ask(small, "a")  # back within the minute
    assert small.metric("hearth_thrash_total") == 1
    assert small.metric("hearth_eviction_away_seconds_count") == 1
    assert small.metric("hearth_eviction_idle_seconds_count") == 2  # b made room for it
    assert small.cli("why", "a").stdout.startswith("a:1 is resident for ")
    assert "; before that evicted " in small.cli("why", "a").stdout
    code, text = promtool(small.get("/metrics")[1])
    assert code == 0 and not text.strip(), text


def test_what_nobody_asked_for_and_what_does_not_exist(small):
    assert small.cli("why", "c").stdout == (
        "c:1 is not resident: nobody has asked for it since the server started\n")
    for command in ("why", "pin", "unpin", "evict", "prefetch", "events"):
        done = small.cli(command, "nobody", check=False)
        assert done.returncode == 1 and "nobody" in done.stderr, command
    assert small.cli("events").stdout == "nothing has happened yet\n"


def test_a_watch_hears_of_every_step(small):
    ask(small, "a")
    stream = Cache(small).Watch(model="b")
    stream.initial_metadata()  # it is open, and misses nothing from now on
    ask(small, "b")
    ask(small, "a")
    ask(small, "c")
    kinds = [next(stream).event.kind for _ in range(4)]
    assert kinds == ["queued", "loading", "ready", "evicted"]
    stream.cancel()
    history = [answer.event.kind for answer in Cache(small).Watch(model="b", history=True, until_now=True)]
    assert history == kinds


def test_a_watch_ends_with_the_server_and_does_not_hold_it_up(small):
    ask(small, "a")
    stream = Cache(small).Watch()
    stream.initial_metadata()
    stuck = Cache(small).Watch(history=True)  # nobody reads this one
    stuck.initial_metadata()
    heard = []

    def read():
        try:
            for answer in stream:
                heard.append(answer.event)
        except grpc.RpcError as error:
            heard.append(error.code())

    reader = threading.Thread(target=read)
    reader.start()
    small.process.send_signal(signal.SIGTERM)
    assert small.wait() == 0
    reader.join(hearthd.PATIENCE)
    assert [(event.kind, event.reason) for event in heard[:-1]] == [("unloaded", "shutdown")]
    assert heard[-1] == grpc.StatusCode.UNAVAILABLE


def test_a_pin_holds_until_it_is_lifted(small):
    ask(small, "a")
    assert small.cli("pin", "a").stdout == "a is pinned, version 1\n"
    for model in ("b", "c", "b"):
        ask(small, model)
    assert "pinned on request" in small.cli("why", "a").stdout
    assert why(small, "a")["state"] == "ready"
    small.cli("pin", "b")
    code, text = refusal(small, request("c", floats()))
    assert code == "RESOURCE_EXHAUSTED" and "pinned" in text
    small.process.send_signal(signal.SIGHUP)
    small.wait_for("configuration reloaded")
    assert why(small, "a")["pinned_on_request"]
    small.cli("unpin", "a", "b")
    ask(small, "c")
    assert why(small, "a")["state"] == "absent"


def test_the_configurations_pin_is_not_ours_to_lift(start, folder):
    server = start(folder, config={**TWO_FIT, "models": [{"name": "a", "pin": True}]})
    done = server.cli("unpin", "a", check=False)
    assert done.returncode == 1 and "the configuration pins it" in done.stderr
    assert "is pinned" in server.cli("evict", "a", check=False).stderr
    assert why(server, "a")["pinned_by_configuration"]


def test_evict_lets_an_idle_model_go_and_nobody_else(small):
    running = small.stub().ModelInfer.future(slow_request(3000), timeout=hearthd.PATIENCE)
    wait_until(lambda: small.metric("hearth_pins") >= 1)
    code, text = code_of(lambda: Cache(small).Evict(model="slow"))
    assert code == "FAILED_PRECONDITION" and "in use" in text
    assert why(small, "slow")["state"] == "ready"
    assert running.result() is not None
    wait_until(lambda: small.metric("hearth_pins") == 0)
    assert small.cli("evict", "slow").stdout == "slow is evicted\n"
    assert small.cli("evict", "slow").stdout == "slow was not resident\n"
    assert "evicted" in small.cli("why", "slow").stdout and "on request" in small.cli("why", "slow").stdout
    assert small.metric("hearth_evictions_total", reason="evict") == 1
    ask(small, "a")
    small.cli("evict", "a")
    ask(small, "a")  # not refused, as it would be after an unload


def test_prefetch_is_a_hint_and_returns(small):
    assert small.cli("prefetch", "a").stdout == "a is being loaded\n"
    wait_until(lambda: why(small, "a")["state"] == "ready")
    assert small.cli("prefetch", "a").stdout == "a is resident already\n"
    ask(small, "a")
    assert small.metric("hearth_cache_hits_total", model="a") == 1
    assert small.metric("hearth_cache_misses_total", model="a") == 0


def test_a_failure_and_whom_it_refuses_are_explained(small):
    for _ in range(3):
        assert refusal(small, request("broken", floats()))[0] == "INVALID_ARGUMENT"
    explained = why(small, "broken")
    assert explained["state"] == "failed" and explained["refused"] == 2
    assert explained["last_failure"]["code"] == "INVALID_ARGUMENT"
    assert "requests are refused for another " in small.cli("why", "broken").stdout
    assert small.metric("hearth_cache_refusals_total", model="broken") == 2
    events = small.cli("events", "broken").stdout
    assert events.count(" refused ") == 1 and events.count(" failed after ") == 1


def test_looking_changes_nothing(small):
    ask(small, "a")
    ask(small, "b")
    for _ in range(3):
        small.cli("why", "a")
        small.cli("events", "a")
        small.cli("top")
    ask(small, "c")
    assert why(small, "a")["state"] == "absent" and why(small, "b")["state"] == "ready"


def test_plan_says_what_more_memory_would_have_spared(small):
    for model in ["a", "b", "c", "a", "b", "c"]:  # LRU: each comes back just after it went
        ask(small, model)
    plan = json.loads(small.cli("--json", "plan").stdout)
    mapped = next(memory for memory in plan["memory"] if memory["dimension"] == "mapped")
    assert mapped["capacity_bytes"] == 20 * MIB
    assert round(mapped["loads"]) == 6 and round(mapped["returns"]) == 3
    spared = {point["more_bytes"]: round(point["loads"]) for point in mapped["points"]}
    assert max(spared.values()) == 3
    assert all(8 * MIB <= more <= 10 * MIB for more in spared), "one model more"
    text = small.cli("plan").stdout
    assert "50 % fewer loads" in text and "host memory" in text
