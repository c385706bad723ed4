"""What Triton's tools ask beside the Open Inference Protocol, with Triton's own client."""

import os
import queue

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as shm
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FieldDescriptor
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

import hearthd
import models
from test_protocol import FLOATS, floats, infer_floats, request


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("triton")
    models.write_model(root, "batched", models.Affine(2.0), version=3, options=(
        "max_batch_size: 8\ninstances: 2\nversions: {latest: 1}\n"
        "inputs:\n  - {name: x, datatype: FP32, shape: [-1, 4]}\n"
        "outputs:\n  - {name: y, datatype: FP32, shape: [-1, 4]}\n"
        "warm_up:\n  - count: 3\n    inputs:\n      x: {datatype: FP32, shape: [2, 4], data: zeros}\n"))
    models.write_model(root, "plain", models.AddSub())
    models.write_model(root, "never", models.Identity())
    models.write_model(root, "named", models.Identity())
    return root


def test_the_messages_are_tritons(server):
    """Every field that hearth has, it has under Triton's name, number and type."""
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        check_messages(descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel)))


def test_metadata_may_name_the_model(server):
    """As ModelMesh's clients send it."""
    stub = server.stub()
    call = request("", floats())
    named = [("mm-model-id", "named")]
    assert stub.ModelInfer(call, metadata=named).model_name == "named"
    call.model_name = "named"
    assert stub.ModelInfer(call, metadata=named).model_name == "named"
    call.model_name = "plain"
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(call, metadata=named)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "for model 'plain'" in refused.value.details() and "for 'named'" in refused.value.details()
    call.model_name = ""
    with pytest.raises(grpc.RpcError):
        stub.ModelInfer(call)
    assert stub.ModelInfer(call, metadata=named * 2).model_name == "named"
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(call, metadata=[*named, ("mm-model-id", "plain")])
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "'named'" in refused.value.details() and "'plain'" in refused.value.details()


def check_messages(ours):
    compared = 0
    for file in (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR):
        for theirs in file.message_types_by_name.values():
            try:
                mine = ours.FindMessageTypeByName(theirs.full_name)
            except KeyError:
                continue
            compared += compare(mine, theirs)
    assert compared > 60


def compare(mine, theirs):
    known = {field.name: field for field in theirs.fields}
    for field in mine.fields:
        if (mine.name, field.name) == ("ModelMetadataResponse", "properties"):
            continue  # the Open Inference Protocol's, which Triton's has not
        other = known[field.name]
        assert (field.number, field.type, field.label) == (other.number, other.type, other.label), field.full_name
        if field.type == FieldDescriptor.TYPE_ENUM:
            assert {value.name: value.number for value in field.enum_type.values} == {
                value.name: value.number for value in other.enum_type.values}, field.full_name
    inner = {message.name: message for message in theirs.nested_types}
    return len(mine.fields) + sum(compare(message, inner[message.name]) for message in mine.nested_types
                                  if message.full_name != "inference.ModelMetadataResponse.PropertiesEntry")


def test_an_answer_says_how_its_model_was_found(start, repository):
    server = start(repository)
    with server.client() as client:
        tensor = triton.InferInput("x", FLOATS.shape, "FP32").set_data_from_numpy(FLOATS)
        first, second = (client.infer("batched", [tensor]).get_response().parameters for _ in range(2))
    assert first["hearth_cache"].string_param == "load" and first["hearth_load_ms"].double_param > 0
    assert second["hearth_cache"].string_param == "hit" and "hearth_load_ms" not in second


def test_a_models_configuration_is_completed_from_its_program(server):
    with server.client() as client:
        config = client.get_model_config("batched").config
        assert client.get_model_config("batched", "3", as_json=True)["config"]["name"] == "batched"
        plain = client.get_model_config("plain").config
    assert (config.name, config.platform, config.backend) == ("batched", "pytorch_libtorch", "pytorch")
    assert config.max_batch_size == 8 and config.default_model_filename == "model.pt"
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [("x", model_config_pb2.TYPE_FP32, [4])]
    assert [(t.name, t.data_type, list(t.dims)) for t in config.output] == [("y", model_config_pb2.TYPE_FP32, [4])]
    group, = config.instance_group
    assert (group.count, group.kind) == (2, model_config_pb2.ModelInstanceGroup.KIND_CPU)
    assert config.version_policy.latest.num_versions == 1
    sample, = config.model_warmup
    assert (sample.count, sample.batch_size) == (3, 2)
    assert list(sample.inputs["x"].dims) == [4] and sample.inputs["x"].zero_data
    assert not config.model_transaction_policy.decoupled
    assert not config.HasField("dynamic_batching") and not config.HasField("sequence_batching")
    assert plain.max_batch_size == 0 and [t.name for t in plain.input] == ["a", "b"]
    assert list(plain.input[0].dims) == [-1] and plain.version_policy.HasField("all")


def test_statistics_follow_every_request(server):
    with server.client() as client:
        assert {"statistics", "model_configuration"} <= set(client.get_server_metadata().extensions)

        def stats():
            row, = client.get_inference_statistics("batched").model_stats
            return row

        before = stats()
        for batch in (1, 4, 4):
            infer_floats(client, "batched", values=np.ones((batch, 4), np.float32))
        with pytest.raises(InferenceServerException):
            infer_floats(client, "batched", values=np.ones((1, 5), np.float32))
        after = stats()
        everything = client.get_inference_statistics().model_stats
    assert after.version == "3" and after.last_inference > before.last_inference
    assert after.inference_count - before.inference_count == 9
    assert after.execution_count - before.execution_count == 3
    was, now = before.inference_stats, after.inference_stats
    assert now.fail.count - was.fail.count == 1
    for name in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert getattr(now, name).count - getattr(was, name).count == 3, name
    parts = now.queue.ns + now.compute_input.ns + now.compute_infer.ns + now.compute_output.ns
    assert now.compute_infer.ns > was.compute_infer.ns and now.success.ns >= parts
    by_size = {row.batch_size: row.compute_infer.count for row in after.batch_stats}
    assert by_size[4] >= 2 and by_size[1] >= 1
    assert after.memory_usage[0].type == "CPU" and after.memory_usage[0].byte_size > 0
    names = [row.name for row in everything]
    assert "batched" in names and "never" not in names


def test_statistics_load_nothing_and_outlive_their_model(start, repository):
    server = start(repository)
    with server.client() as client:
        row, = client.get_inference_statistics("never").model_stats
        assert row.inference_count == 0 and not row.memory_usage
        assert client.is_model_ready("never"), "the next request would load it"
        assert ("never", "") in [(row.name, row.state) for row in client.get_model_repository_index().models]
        infer_floats(client, "batched")
        server.cli("evict", "batched")
        row, = [row for row in client.get_inference_statistics().model_stats if row.name == "batched"]
        assert row.inference_count == len(FLOATS) and not row.memory_usage


@pytest.mark.parametrize("name, version", [("absent", ""), ("batched", "99"), ("absent", "1")])
def test_statistics_of_what_is_not_there_are_refused_as_triton_does(server, name, version):
    with server.client() as client, pytest.raises(InferenceServerException) as refused:
        client.get_inference_statistics(name, version)
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert refused.value.message().startswith(f"requested model '{name}'")
    assert refused.value.message().endswith("is not available")


def test_a_configuration_of_what_is_not_there_is_refused(server):
    with server.client() as client, pytest.raises(InferenceServerException) as refused:
        client.get_model_config("absent")
    assert refused.value.status() == "StatusCode.NOT_FOUND"
    assert server.alive


# --- streams ---


class Stream:
    """tritonclient's stream; answers and errors in the order in which they came."""

    def __init__(self, server, **options):
        self.client = server.client()
        self.answers = queue.Queue()
        self.client.start_stream(lambda result, error: self.answers.put((result, error)), **options)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.client.stop_stream(cancel_requests=kind is not None)
        self.client.close()

    def send(self, model, request_id, values=FLOATS, **options):
        tensor = triton.InferInput("x", list(values.shape), "FP32")
        tensor.set_data_from_numpy(values)
        self.client.async_stream_infer(model, [tensor], request_id=request_id, **options)

    def next(self):
        return self.answers.get(timeout=60)


def test_a_stream_answers_in_order(server):
    with Stream(server) as stream:
        for number in range(300):  # more than may be in flight
            stream.send("batched", str(number), np.full((1, 4), number, np.float32))
        for number in range(300):
            result, error = stream.next()
            assert error is None
            answer = result.get_response()
            assert answer.id == str(number) and answer.parameters["triton_final_response"].bool_param
            assert result.as_numpy("y").tolist() == [[2.0 * number] * 4]
    assert server.alive


def test_a_stream_survives_a_request_that_fails(server):
    with Stream(server) as stream:
        stream.send("batched", "good")
        stream.send("absent", "bad", enable_empty_final_response=True)
        stream.send("batched", "odd", np.ones((1, 5), np.float32))
        stream.send("batched", "again", enable_empty_final_response=True)
        assert stream.next()[1] is None
        result, error = stream.next()
        assert result is None and "Request for unknown model: 'absent'" in error.message()
        assert "unexpected shape for input 'x'" in stream.next()[1].message()
        result, error = stream.next()
        assert error is None and result.get_response().id == "again"


def test_a_stream_ends_with_a_status_if_the_client_wants_it(server):
    with Stream(server, headers={"triton_grpc_error": "true"}) as stream:
        stream.send("batched", "good")
        stream.send("absent", "bad")
        assert stream.next()[1] is None
        error = stream.next()[1]
        assert error.status() == "StatusCode.NOT_FOUND" and "'absent'" in error.message()


def test_a_streams_errors_have_their_requests_id(server):
    bad = request("absent", floats(), request_id="mine")
    answer, = server.stub().ModelStreamInfer(iter([bad]), timeout=60)
    assert answer.infer_response.id == "mine" and answer.error_message


def test_a_stream_ends_when_the_server_does(start, repository):
    server = start(repository)
    with Stream(server) as stream:
        stream.send("batched", "a")
        assert stream.next()[1] is None
        assert server.terminate() == 0, server.log()
        assert stream.next()[1].status() == "StatusCode.UNAVAILABLE"


# --- shared memory ---


@pytest.fixture(scope="module")
def sharing(repository, tmp_path_factory):
    """A hearthd whose clients may use shared memory."""
    config = {"grpc": {"client_shared_memory": True}}
    with hearthd.Hearthd(repository, tmp_path_factory.mktemp("sharing"), config=config) as running:
        yield running
        assert running.alive, running.log()


@pytest.fixture
def region(request):
    """region(size) -> (the client's handle, key); destroyed afterwards."""
    made = []

    def make(size):
        key = f"/hearth-test-{os.getpid()}-{len(made)}"
        made.append(shm.create_shared_memory_region("r", key, size, create_only=True))
        return made[-1], key

    yield make
    for handle in made:
        shm.destroy_shared_memory_region(handle)


def shared_input(name, values, offset=0):
    tensor = triton.InferInput(name, list(values.shape), "FP32")
    tensor.set_shared_memory("r", values.nbytes, offset=offset)
    return tensor


def test_tensors_travel_through_shared_memory(sharing, region):
    values = np.arange(8, dtype=np.float32).reshape(2, 4)
    handle, key = region(128)
    shm.set_shared_memory_region(handle, [values], offset=16)
    with sharing.client() as client:
        assert "system_shared_memory" in client.get_server_metadata().extensions
        client.register_system_shared_memory("r", key, 128)
        status = client.get_system_shared_memory_status("r").regions["r"]
        assert (status.key, status.offset, status.byte_size) == (key, 0, 128)
        output = triton.InferRequestedOutput("y")
        output.set_shared_memory("r", 64, offset=64)
        result = client.infer("batched", [shared_input("x", values, 16)], outputs=[output])
        answer = result.get_response()
        assert list(answer.raw_output_contents) == [b""] and list(answer.outputs[0].shape) == [2, 4]
        got = shm.get_contents_as_numpy(handle, np.float32, [2, 4], offset=64)
        assert got.tolist() == (values * 2).tolist()
        # With an input in the message, and the output too.
        assert client.infer("batched", [shared_input("x", values, 16)]).as_numpy("y").tolist() == (values * 2).tolist()
        client.unregister_system_shared_memory("r")
        assert not client.get_system_shared_memory_status().regions
        with pytest.raises(InferenceServerException) as refused:
            client.infer("batched", [shared_input("x", values)])
        assert refused.value.status() == "StatusCode.NOT_FOUND"
        assert "Unable to find shared memory region: 'r'" in refused.value.message()


def test_an_object_that_is_cut_short_hurts_nobody(sharing, region):
    values = np.ones((1024, 4), np.float32)
    handle, key = region(values.nbytes)
    with sharing.client() as client:
        client.register_system_shared_memory("r", key, values.nbytes)
        os.truncate(f"/dev/shm{key}", 100)
        with pytest.raises(InferenceServerException) as refused:
            client.infer("batched", [shared_input("x", values)])
        assert "is longer than its object" in refused.value.message()
        client.unregister_system_shared_memory()
        assert infer_floats(client, "batched").shape == (1, 4)
    assert sharing.alive


def test_an_output_that_does_not_fit_its_place_is_refused(sharing, region):
    values = np.ones((2, 4), np.float32)
    handle, key = region(64)
    with sharing.client() as client:
        client.register_system_shared_memory("r", key, 64)
        output = triton.InferRequestedOutput("y")
        output.set_shared_memory("r", 31)
        with pytest.raises(InferenceServerException) as refused:
            client.infer("batched", [shared_input("x", values)], outputs=[output])
        assert "(31 bytes) should be at least 32 bytes to hold the results" in refused.value.message()
        client.unregister_system_shared_memory()


def test_shared_memory_is_off_unless_it_is_allowed(server, region):
    handle, key = region(64)
    with server.client() as client:
        assert "system_shared_memory" not in client.get_server_metadata().extensions
        with pytest.raises(InferenceServerException) as refused:
            client.register_system_shared_memory("r", key, 64)
        assert "Client shared memory is disabled" in refused.value.message()
        assert not client.get_system_shared_memory_status().regions
        client.unregister_system_shared_memory()


def test_there_is_no_memory_of_cuda_to_share(server):
    with server.client() as client:
        assert not client.get_cuda_shared_memory_status().regions
        client.unregister_cuda_shared_memory()
        with pytest.raises(InferenceServerException) as refused:
            client.register_cuda_shared_memory("r", b"A" * 64, 0, 64)
    assert refused.value.status() == "StatusCode.UNIMPLEMENTED"


# --- settings, and all there is ---


def test_a_client_changes_the_level_of_the_log(start, repository):
    server = start(repository)
    with server.client() as client:
        settings = client.get_log_settings(as_json=True)["settings"]
        assert settings["log_info"]["bool_param"] and settings["log_verbose_level"]["uint32_param"] == 1
        client.update_log_settings({"log_info": False, "log_verbose_level": 0})
        infer_floats(client, "batched")
        settings = client.update_log_settings({"log_verbose_level": 1}).settings
        assert settings["log_info"].bool_param and settings["log_verbose_level"].uint32_param == 1
        infer_floats(client, "never")
        assert server.wait_for("model ready")["model"] == "never"
        with pytest.raises(InferenceServerException) as refused:
            client.update_log_settings({"log_file": "elsewhere"})
        assert "standard error" in refused.value.message()


def test_requests_are_not_traced(server):
    with server.client() as client:
        assert client.get_trace_settings().settings["trace_level"].value == ["OFF"]
        client.update_trace_settings(settings={"trace_rate": None})
        with pytest.raises(InferenceServerException) as refused:
            client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})
    assert refused.value.status() == "StatusCode.UNIMPLEMENTED"


def test_every_call_of_triton_is_there(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        ours = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        mine = ours.FindServiceByName("inference.GRPCInferenceService").methods_by_name
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert set(mine) == set(theirs) and len(mine) == 20
