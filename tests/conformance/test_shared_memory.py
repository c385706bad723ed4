"""Tensors in POSIX shared memory, which server and client share a machine for; and CUDA's where there is none."""

import itertools
import os

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.utils.shared_memory as shm
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

import wire

system = pytest.mark.needs("system_shared_memory")

A = np.arange(16, dtype=np.int32).reshape(1, 16)
NUMBERS = itertools.count()


class Region:
    """Shared memory of this process, registered with the server under its name."""

    def __init__(self, client, size, registered=True):
        self.name = f"region-{os.getpid()}-{next(NUMBERS)}"
        self.key = "/" + self.name
        self.size = size
        self.client = client
        self.handle = shm.create_shared_memory_region(self.name, self.key, size, create_only=True)
        if registered:
            client.register_system_shared_memory(self.name, self.key, size)

    def write(self, values, offset=0):
        shm.set_shared_memory_region(self.handle, [values], offset=offset)

    def read(self, kind, shape, offset=0):
        return shm.get_contents_as_numpy(self.handle, kind, shape, offset=offset).tolist()

    def input(self, name, shape, datatype, size, offset=0):
        given = tritonclient.grpc.InferInput(name, shape, datatype)
        given.set_shared_memory(self.name, size, offset=offset)
        return given

    def output(self, name, size, offset=0):
        wanted = tritonclient.grpc.InferRequestedOutput(name)
        wanted.set_shared_memory(self.name, size, offset=offset)
        return wanted


@pytest.fixture
def regions(client):
    """regions(size) -> a Region, gone afterwards."""
    made = []

    def make(size, registered=True):
        made.append(Region(client, size, registered))
        return made[-1]

    yield make
    for region in made:
        wire.wait_until(lambda name=region.name: unregistered(client, name))
        shm.destroy_shared_memory_region(region.handle)


def unregistered(client, name):
    """Whether it is; Triton refuses while a request that has been answered still holds it."""
    try:
        client.unregister_system_shared_memory(name)
    except InferenceServerException as error:
        assert "in use" in error.message(), error
        return False
    return True


def registered(client):
    return dict(client.get_system_shared_memory_status().regions)


def refused(call, *arguments, **options):
    with pytest.raises(InferenceServerException) as error:
        call(*arguments, **options)
    return error.value.status().removeprefix("StatusCode."), error.value.message()


# --- regions ---


@system
def test_a_region_is_listed_from_its_registration_on(client, regions):
    region = regions(128)
    row = registered(client)[region.name]
    assert (row.name, row.key, row.offset, row.byte_size) == (region.name, region.key, 0, 128)
    one = client.get_system_shared_memory_status(region.name).regions
    assert list(one) == [region.name]
    client.unregister_system_shared_memory(region.name)
    assert region.name not in registered(client)


@system
def test_a_region_is_registered_once(client, regions):
    region = regions(128)
    code, text = refused(client.register_system_shared_memory, region.name, region.key, 128)
    assert code == "ALREADY_EXISTS" and f"shared memory region '{region.name}' already in manager" in text


@system
def test_all_regions_leave_at_once(client, regions):
    for _ in range(3):
        regions(64)
    assert len(registered(client)) == 3
    client.unregister_system_shared_memory()
    assert not registered(client)


@system
def test_what_is_not_registered_can_be_unregistered(client):
    client.unregister_system_shared_memory("nobody")
    client.unregister_system_shared_memory()


@system
def test_a_region_that_left_can_come_back(client, regions):
    region = regions(64)
    for _ in range(3):
        client.unregister_system_shared_memory(region.name)
        client.register_system_shared_memory(region.name, region.key, 64)
    assert registered(client)[region.name].byte_size == 64


@system
def test_the_status_of_an_unknown_region_is_not_found(client):
    code, text = refused(client.get_system_shared_memory_status, "nobody")
    assert code == "NOT_FOUND" and "Unable to find" in text and "'nobody'" in text


@system
def test_an_object_that_is_not_there_is_refused(client):
    code, text = refused(client.register_system_shared_memory, "absent", "/there-is-no-such-object", 64)
    assert code == "INTERNAL" and "Unable to open shared memory region: '/there-is-no-such-object'" in text


@system
@pytest.mark.parametrize("size, offset", [(129, 0), (128, 1), (1, 128), (1 << 40, 0), ((1 << 64) - 1, 1)])
def test_a_region_beyond_its_object_is_refused(client, regions, size, offset):
    region = regions(128, registered=False)
    code, _ = refused(client.register_system_shared_memory, region.name, region.key, size, offset=offset)
    assert code in ("INVALID_ARGUMENT", "INTERNAL")
    assert region.name not in registered(client)


# --- tensors ---


@system
def test_inputs_and_outputs_go_through_memory(client, regions):
    inputs, outputs = regions(128), regions(128)
    inputs.write(A)
    inputs.write(A, offset=64)
    result = client.infer("simple", [inputs.input("INPUT0", [1, 16], "INT32", 64),
                                     inputs.input("INPUT1", [1, 16], "INT32", 64, offset=64)],
                          outputs=[outputs.output("OUTPUT0", 64), outputs.output("OUTPUT1", 64, offset=64)])
    answer = result.get_response()
    assert list(answer.raw_output_contents) == [b"", b""]
    assert outputs.read(np.int32, [1, 16]) == (A * 2).tolist()
    assert outputs.read(np.int32, [1, 16], offset=64) == [[0] * 16]


@system
def test_some_tensors_go_through_memory_and_others_do_not(client, regions):
    region = regions(128)
    region.write(A)
    given = tritonclient.grpc.InferInput("INPUT1", [1, 16], "INT32").set_data_from_numpy(A)
    result = client.infer("simple", [region.input("INPUT0", [1, 16], "INT32", 64), given],
                          outputs=[tritonclient.grpc.InferRequestedOutput("OUTPUT0"),
                                   region.output("OUTPUT1", 64, offset=64)])
    assert result.as_numpy("OUTPUT0").tolist() == (A * 2).tolist()
    assert region.read(np.int32, [1, 16], offset=64) == [[0] * 16]


@system
def test_an_input_can_be_the_output_as_well(client, regions):
    region = regions(64)
    region.write(A)
    client.infer("simple", [region.input("INPUT0", [1, 16], "INT32", 64), region.input("INPUT1", [1, 16], "INT32", 64)],
                 outputs=[region.output("OUTPUT0", 64)])
    assert region.read(np.int32, [1, 16]) == (A * 2).tolist()


@system
def test_what_is_written_between_requests_is_seen(client, regions):
    region = regions(8)
    for number in range(3):
        region.write(np.array([[number, number]], np.float32))
        got = client.infer("identity_fp32", [region.input("INPUT0", [1, 2], "FP32", 8)]).as_numpy("OUTPUT0")
        assert got.tolist() == [[number] * 2]


@system
@pytest.mark.model("identity_bytes")
def test_strings_go_through_memory(client, regions):
    region = regions(128)
    raw = wire.strings(b"one", b"", b"\0two")
    shm.set_shared_memory_region(region.handle, [np.frombuffer(raw, np.uint8)])
    client.infer("identity_bytes", [region.input("INPUT0", [3], "BYTES", len(raw))],
                 outputs=[region.output("OUTPUT0", 64, offset=64)])
    assert bytes(shm.get_contents_as_numpy(region.handle, np.uint8, [len(raw)], offset=64)) == raw


@system
def test_an_output_may_have_more_room_than_it_needs(client, regions):
    region = regions(1000)
    region.write(np.ones((1, 2), np.float32))
    result = client.infer("identity_fp32", [region.input("INPUT0", [1, 2], "FP32", 8)],
                          outputs=[region.output("OUTPUT0", 900, offset=100)])
    assert list(result.get_output("OUTPUT0").shape) == [1, 2]
    assert region.read(np.float32, [1, 2], offset=100) == [[1, 1]]


@system
def test_a_stream_carries_tensors_in_memory(client, target, regions):
    region = regions(16)
    region.write(np.ones((1, 2), np.float32))
    with wire.Stream(target.url) as stream:
        stream.client.async_stream_infer("identity_fp32", [region.input("INPUT0", [1, 2], "FP32", 8)],
                                         outputs=[region.output("OUTPUT0", 8, offset=8)])
        result, error = stream.next()
        assert error is None and list(result.get_response().raw_output_contents) == [b""]
    assert region.read(np.float32, [1, 2], offset=8) == [[1, 1]]


# --- refusals ---


@system
def test_an_unknown_region_is_not_found(client):
    given = tritonclient.grpc.InferInput("INPUT0", [1, 2], "FP32")
    given.set_shared_memory("nobody", 8)
    code, text = refused(client.infer, "identity_fp32", [given])
    assert code == "NOT_FOUND" and "Unable to find shared memory region: 'nobody'" in text


@system
def test_an_unknown_region_for_an_output_is_not_found(client):
    given = tritonclient.grpc.InferInput("INPUT0", [1, 2], "FP32").set_data_from_numpy(np.ones((1, 2), np.float32))
    wanted = tritonclient.grpc.InferRequestedOutput("OUTPUT0")
    wanted.set_shared_memory("nobody", 8)
    code, text = refused(client.infer, "identity_fp32", [given], outputs=[wanted])
    assert code == "NOT_FOUND" and "Unable to find shared memory region: 'nobody'" in text


@system
@pytest.mark.parametrize("size, offset", [(8, 60), (8, 64), (8, 1 << 40), (128, 0)])
def test_a_tensor_beyond_its_region_is_refused(client, regions, size, offset):
    region = regions(64)
    code, text = refused(client.infer, "identity_fp32", [region.input("INPUT0", [1, 2], "FP32", size, offset)])
    assert code == "INVALID_ARGUMENT" and "Invalid offset" in text


@system
@pytest.mark.parametrize("size", [4, 12])
def test_a_size_that_does_not_fit_the_shape_is_refused(client, regions, size):
    region = regions(64)
    code, text = refused(client.infer, "identity_fp32", [region.input("INPUT0", [1, 2], "FP32", size)])
    assert code == "INVALID_ARGUMENT" and "input byte size mismatch for input 'INPUT0'" in text


@system
def test_an_output_that_does_not_fit_is_refused(client, regions):
    region = regions(64)
    region.write(np.ones((1, 2), np.float32))
    code, text = refused(client.infer, "identity_fp32", [region.input("INPUT0", [1, 2], "FP32", 8)],
                         outputs=[region.output("OUTPUT0", 7, offset=8)])
    assert code == "INTERNAL" and "should be at least 8 bytes to hold the results" in text


@system
def test_a_region_without_a_size_is_refused(client, stub, regions):
    region = regions(64)
    message = wire.request("identity_fp32", ("INPUT0", "FP32", [1, 2], None))
    message.inputs[0].parameters["shared_memory_region"].string_param = region.name
    code, text = wire.refusal(stub.ModelInfer, message)
    assert code == "INVALID_ARGUMENT" and "shared_memory_byte_size" in text


@system
@pytest.mark.needs("classification")
def test_classes_do_not_go_through_memory(stub, regions):
    region = regions(256)
    region.write(np.ones((1, 4), np.float32))
    message = wire.floats("identity_fp32", np.ones((1, 4)))
    output = message.outputs.add(name="OUTPUT0")
    output.parameters["classification"].int64_param = 1
    output.parameters["shared_memory_region"].string_param = region.name
    output.parameters["shared_memory_byte_size"].int64_param = 64
    assert wire.refusal(stub.ModelInfer, message)[0] == "INVALID_ARGUMENT"


# --- CUDA ---


def test_unregistering_cudas_memory_is_always_done(client):
    """perf_analyzer does so before and after every run."""
    client.unregister_cuda_shared_memory()
    client.unregister_cuda_shared_memory("nobody")


def test_the_status_of_cudas_memory_lists_none(client):
    assert not client.get_cuda_shared_memory_status().regions


def test_a_handle_that_is_none_is_refused(stub):
    message = pb.CudaSharedMemoryRegisterRequest(name="r", raw_handle=b"A" * 64, device_id=0, byte_size=64)
    code, _ = wire.refusal(stub.CudaSharedMemoryRegister, message)
    assert code in ("UNIMPLEMENTED", "INVALID_ARGUMENT", "INTERNAL", "UNAVAILABLE")
