"""Is it there, who is it, and what does it serve?"""

import grpc
import pytest
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc import service_pb2 as pb

import models
import wire

HEALTH = "/grpc.health.v1.Health/Check"
UNKNOWN_MODEL = "Request for unknown model: 'nobody' is not found"


def test_a_running_server_is_live_and_ready(client):
    assert client.is_server_live() and client.is_server_ready()


def test_grpcs_own_health_check_says_so_too(target):
    with wire.channel(target.url) as channel:
        answer = channel.unary_unary(HEALTH)(b"", timeout=wire.PATIENCE)
    assert answer == b"\x08\x01"  # SERVING


def test_the_server_has_a_name_a_version_and_extensions(client):
    metadata = client.get_server_metadata()
    assert metadata.name and metadata.version
    extensions = list(metadata.extensions)
    assert extensions and len(set(extensions)) == len(extensions)


def test_a_loaded_model_is_ready(client):
    assert client.is_model_ready("simple") and client.is_model_ready("simple", "1")


@pytest.mark.parametrize("name, version", [("nobody", ""), ("nobody", "1"), ("simple", "99")])
def test_what_is_unknown_is_not_ready_which_is_no_error(client, name, version):
    assert not client.is_model_ready(name, version)


def test_metadata_names_every_tensor_with_its_batch(client):
    metadata = client.get_model_metadata("simple")
    assert (metadata.name, list(metadata.versions)) == ("simple", ["1"]) and metadata.platform
    for listed, names in ((metadata.inputs, ["INPUT0", "INPUT1"]), (metadata.outputs, ["OUTPUT0", "OUTPUT1"])):
        assert sorted((t.name, t.datatype, list(t.shape)) for t in listed) == [
            (name, "INT32", [-1, 16]) for name in names]


@pytest.mark.parametrize("datatype", models.DATATYPES)
def test_metadata_calls_every_datatype_by_the_protocols_name(target, client, datatype):
    name = f"identity_{datatype.lower()}"
    if not has(client, name):
        pytest.skip(f"needs the model {name}")
    metadata = client.get_model_metadata(name)
    assert [t.datatype for t in (*metadata.inputs, *metadata.outputs)] == [datatype] * 2


def has(client, name):
    return client.is_model_ready(name)


@pytest.mark.model("versions")
def test_metadata_lists_every_version(client):
    assert sorted(client.get_model_metadata("versions").versions, key=int) == ["1", "2", "10"]
    assert "2" in client.get_model_metadata("versions", "2").versions


@pytest.mark.parametrize("call, message", [
    ("ModelMetadata", pb.ModelMetadataRequest), ("ModelConfig", pb.ModelConfigRequest)])
def test_metadata_and_configuration_of_what_is_unknown_are_not_found(target, stub, call, message):
    if call == "ModelConfig" and "model_configuration" not in target.extensions:
        pytest.skip("needs model_configuration")
    assert wire.refusal(getattr(stub, call), message(name="nobody")) == ("NOT_FOUND", UNKNOWN_MODEL)
    assert wire.refusal(getattr(stub, call), message(name="simple", version="99")) == (
        "NOT_FOUND", "Request for unknown model: 'simple' version 99 is not found")
    code, text = wire.refusal(getattr(stub, call), message(name="simple", version="x"))
    assert code == "INVALID_ARGUMENT" and "failed to get model version from specified version string 'x'" in text


@pytest.mark.needs("model_configuration")
def test_the_configuration_agrees_with_the_metadata(client):
    config = client.get_model_config("simple").config
    metadata = client.get_model_metadata("simple")
    assert config.name == "simple" and config.max_batch_size == 8
    assert config.platform or config.backend
    for listed, described in ((config.input, metadata.inputs), (config.output, metadata.outputs)):
        assert [(t.name, t.data_type, [-1, *t.dims]) for t in listed] == [
            (t.name, model_config_pb2.TYPE_INT32, list(t.shape)) for t in described]
    assert not config.model_transaction_policy.decoupled
    assert config.instance_group and all(group.count > 0 for group in config.instance_group)


@pytest.mark.needs("model_configuration")
def test_a_model_without_batches_has_its_shapes_as_they_are(client):
    config = client.get_model_config("identity_fp32").config
    assert config.max_batch_size == 0 and list(config.input[0].dims) == [-1, -1]


@pytest.mark.needs("model_configuration")
@pytest.mark.parametrize("datatype", [name for name in models.DATATYPES if name != "BYTES"])
def test_the_configuration_knows_every_datatype(client, datatype):
    name = f"identity_{datatype.lower()}"
    if not has(client, name):
        pytest.skip(f"needs the model {name}")
    config = client.get_model_config(name).config
    assert config.input[0].data_type == getattr(model_config_pb2, f"TYPE_{datatype}")


@pytest.mark.needs("model_configuration")
@pytest.mark.model("identity_bytes")
def test_the_configuration_calls_bytes_strings(client):
    assert client.get_model_config("identity_bytes").config.input[0].data_type == model_config_pb2.TYPE_STRING


def test_a_call_that_nobody_has_is_unimplemented(target):
    with wire.channel(target.url) as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/inference.GRPCInferenceService/ModelDream")(b"", timeout=wire.PATIENCE)
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
