"""Triton's model configuration: config.pbtxt, a load's `config`, and classification, with Triton's own clients."""

import json
import queue
import urllib.request

import grpc
import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from google.protobuf import text_format
from torch import Tensor, nn
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

import hearthd
import models

# As one finds it beside Triton's example models.
SIMPLE = """\
name: "simple"
platform: "pytorch_libtorch"
max_batch_size: 8
input [
  {
    name: "INPUT__0"
    data_type: TYPE_FP32
    dims: [ 16 ]
  },
  {
    name: "INPUT__1"
    data_type: TYPE_FP32
    dims: [ 16 ]
  }
]
output [
  {
    name: "OUTPUT__0"
    data_type: TYPE_FP32
    dims: [ 16 ]
  },
  {
    name: "OUTPUT__1"
    data_type: TYPE_FP32
    dims: [ 16 ]
    label_filename: "letters.txt"
  }
]
instance_group [ { count: 2 kind: KIND_CPU } ]
model_warmup [
  {
    name: "zeros"
    batch_size: 2
    inputs { key: "INPUT__0" value { data_type: TYPE_FP32 dims: 16 zero_data: true } }
    inputs { key: "INPUT__1" value { data_type: TYPE_FP32 dims: 16 zero_data: true } }
  }
]
parameters: { key: "DISABLE_OPTIMIZED_EXECUTION" value: { string_value: "true" } }
metric_tags { key: "team" value: "examples" }
"""
LETTERS = "abcdefghijklmnop"
A = np.arange(32, dtype=np.float32).reshape(2, 16)
B = np.linspace(5, -5, 32, dtype=np.float32).reshape(2, 16)


class Sum(nn.Module):
    """Wants pictures of 4 by 4."""

    def forward(self, picture: Tensor) -> Tensor:
        assert picture.shape[1] == 4 and picture.shape[2] == 4
        return picture.sum(2)


class Scores(nn.Module):
    """The input in another element type."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype: torch.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)


def write_config(root, name, text):
    (root / name / "config.pbtxt").write_text(text)


def write_triton_model(root, name, module, text, version=1):
    models.write_model(root, name, module, version=version)
    write_config(root, name, text)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("triton_config")
    write_triton_model(root, "simple", models.AddSub(), SIMPLE)
    (root / "simple" / "letters.txt").write_text("\n".join(LETTERS) + "\n")
    write_triton_model(root, "swapped", models.AddSub(), """
        backend: "pytorch"
        input { name: "right__1" data_type: TYPE_FP32 dims: -1 } input { name: "left__0" data_type: TYPE_FP32 dims: -1 }
        output { name: "difference__1" data_type: TYPE_FP32 dims: -1 } output { name: "sum__0" data_type: TYPE_FP32 dims: -1 }
        """)
    write_triton_model(root, "arguments", models.AddSub(), """
        input { name: "b" data_type: TYPE_FP32 dims: 2 } input { name: "a" data_type: TYPE_FP32 dims: 2 }""")
    write_triton_model(root, "reshaped", Sum(), """
        max_batch_size: 4
        input { name: "flat" data_type: TYPE_FP32 dims: 16 reshape { shape: [ 4, 4 ] } }
        output { name: "rows" data_type: TYPE_FP32 dims: [ 2, 2 ] reshape { shape: [ 4 ] } }""")
    models.save(models.Affine(3.0), root / "named" / "1" / "net_v2.pt")
    write_config(root, "named", 'default_model_filename: "net_v2.pt"')
    write_triton_model(root, "onnx", models.Identity(), 'backend: "onnxruntime"')
    write_triton_model(root, "typo", models.Identity(), 'max_batch_size: 8\ninputs { name: "x" }\n')
    write_triton_model(root, "both", models.Affine(2.0), SIMPLE_BOTH)
    (root / "both" / "model.yaml").write_text("max_batch_size: 4\ninstances: 3\nlabels: {stable: 1}\n")
    for version in (1, 2, 3):
        write_triton_model(root, "versions", models.Affine(float(version)), "version_policy { latest { num_versions: 2 } }",
                           version=version)
    for name, dtype in models.TORCH_TYPES.items():
        if name not in ("BOOL", "UINT16", "UINT32", "UINT64"):
            models.write_model(root, f"scores_{name}", Scores(dtype))
    models.write_model(root, "yaml_names", models.Identity(), options=(
        "outputs:\n  - {name: x, datatype: FP32, shape: [-1], class_names: colours.txt}\n"))
    (root / "yaml_names" / "colours.txt").write_text("red\n\ngreen\r\n")
    models.write_model(root, "overridden", models.Affine(2.0))
    models.write_model(root, "strings", models.Strings())
    return root


SIMPLE_BOTH = """
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 4 }
instance_group { count: 2 }
"""


def infer(client, name, inputs, outputs=None, **options):
    """{output: array} of one inference over gRPC or HTTP; inputs: {name: array}."""
    kind = triton if isinstance(client, triton.InferenceServerClient) else triton_http
    tensors = []
    for key, values in inputs.items():
        tensor = kind.InferInput(key, values.shape, {"float32": "FP32", "int64": "INT64"}[values.dtype.name])
        tensor.set_data_from_numpy(values)
        tensors.append(tensor)
    result = client.infer(name, tensors, outputs=outputs, **options)
    response = result.get_response()
    names = ([output["name"] for output in response["outputs"]] if isinstance(response, dict)
             else [output.name for output in response.outputs])
    return {key: result.as_numpy(key) for key in names}


def http_client(server):
    return triton_http.InferenceServerClient(f"127.0.0.1:{server.rest_port}")


def refused(call, *args, **options):
    with pytest.raises(InferenceServerException) as error:
        call(*args, **options)
    return error.value.status().removeprefix("StatusCode."), error.value.message()


# --- config.pbtxt ---


def test_a_model_of_tritons_is_served_as_its_configuration_says(server):
    with server.client() as client:
        answer = infer(client, "simple", {"INPUT__0": A, "INPUT__1": B})
        assert np.array_equal(answer["OUTPUT__0"], A + B) and np.array_equal(answer["OUTPUT__1"], A - B)
        code, text = refused(infer, client, "simple", {"INPUT__0": np.ones((9, 16), np.float32),
                                                       "INPUT__1": np.ones((9, 16), np.float32)})
        assert code == "INVALID_ARGUMENT" and "batch-size must be <= 8" in text
        code, text = refused(infer, client, "simple", {"INPUT__0": A[:, :8], "INPUT__1": B[:, :8]})
        assert code == "INVALID_ARGUMENT" and "Expected [-1,16], got [2,8]" in text
        metadata = client.get_model_metadata("simple")
    assert [list(tensor.shape) for tensor in metadata.inputs] == [[-1, 16], [-1, 16]]


def test_its_configuration_is_what_the_file_says_and_what_it_leaves_out(server):
    expected = text_format.Parse(SIMPLE, model_config_pb2.ModelConfig())
    with server.client() as client:
        config = client.get_model_config("simple").config
        as_json = client.get_model_config("simple", as_json=True)["config"]
        completed = client.get_model_config("arguments").config
    expected.backend = "pytorch"
    expected.default_model_filename = "model.pt"
    expected.version_policy.all.SetInParent()
    expected.model_transaction_policy.SetInParent()
    expected.instance_group[0].name = "simple_0"
    expected.model_warmup[0].count = 2
    assert config == expected
    assert as_json["metric_tags"] == {"team": "examples"} and as_json["output"][1]["label_filename"] == "letters.txt"
    assert completed.platform == "pytorch_libtorch" and [tensor.name for tensor in completed.input] == ["a", "b"]
    assert [tensor.name for tensor in completed.output] == ["OUTPUT__0", "OUTPUT__1"]
    with http_client(server) as client:
        assert client.get_model_config("simple")["max_batch_size"] == 8


def test_what_of_it_has_no_effect_is_said_once(start, repository):
    server = start(repository)
    said = [json.loads(line) for line in server.lines if "Triton configuration" in line and '"simple"' in line]
    assert len(said) == 2
    assert "DISABLE_OPTIMIZED_EXECUTION" in said[0]["remark"] and "metric_tags" in said[1]["remark"]
    server.cli("reload")
    with server.client() as client:
        client.load_model("simple")
    assert sum("Triton configuration" in line and '"simple"' in line for line in server.lines) == 2


def test_numbers_in_names_and_arguments_of_forward_say_which_tensor_is_meant(server):
    a, b = np.array([1, 2], np.float32), np.array([10, 20], np.float32)
    with server.client() as client:
        answer = infer(client, "swapped", {"right__1": b, "left__0": a})
        assert np.array_equal(answer["difference__1"], a - b) and np.array_equal(answer["sum__0"], a + b)
        answer = infer(client, "arguments", {"b": b, "a": a})
        assert np.array_equal(answer["OUTPUT__1"], a - b)


def test_a_reshape_is_between_requests_and_program(server):
    values = np.arange(48, dtype=np.float32).reshape(3, 16)
    with server.client() as client:
        answer = infer(client, "reshaped", {"flat": values})
        config = client.get_model_config("reshaped").config
    assert np.array_equal(answer["rows"], values.reshape(3, 4, 4).sum(2).reshape(3, 2, 2))
    assert list(config.input[0].dims) == [16] and list(config.input[0].reshape.shape) == [4, 4]


def test_the_programs_file_may_have_another_name(server):
    with server.client() as client:
        assert np.array_equal(infer(client, "named", {"x": A[:, :4]})["OUTPUT__0"], A[:, :4] * 3)
        assert client.get_model_config("named").config.default_model_filename == "net_v2.pt"


def test_versions_are_those_of_its_policy(server):
    with server.client() as client:
        assert list(client.get_model_metadata("versions").versions) == ["2", "3"]
        code, text = refused(infer, client, "versions", {"x": A[:, :4]}, model_version="1")
    assert code == "NOT_FOUND" and "the policy in its config.pbtxt" in text


def test_keys_of_model_yaml_take_the_place_of_what_it_says(server):
    with server.client() as client:
        config = client.get_model_config("both", "stable").config
    assert (config.max_batch_size, config.instance_group[0].count) == (4, 3)
    assert [(tensor.name, list(tensor.dims)) for tensor in config.input] == [("x", [4])]


@pytest.mark.parametrize("name, why", [
    ("onnx", "onnx/config.pbtxt: backend 'onnxruntime' is not there"),
    ("typo", "typo/config.pbtxt:2:8: Message type \"inference.ModelConfig\" has no field named \"inputs\""),
])
def test_a_bad_one_breaks_its_model_and_no_other(server, name, why):
    with server.client() as client:
        code, text = refused(infer, client, name, {"x": A})
        assert code == "INVALID_ARGUMENT" and why in text
        code, text = refused(client.load_model, name)
        assert code == "INVALID_ARGUMENT" and why in text
        infer(client, "simple", {"INPUT__0": A, "INPUT__1": B})
    assert why in server.cli("models").stdout


def test_one_that_changes_is_another_model(start, tmp_path):
    root = tmp_path / "repository"
    write_triton_model(root, "net", models.Affine(2.0), "max_batch_size: 8 input { name: 'x' dims: 4 data_type: TYPE_FP32 }")
    server = start(root, config={"repository": {"watch": True}})
    with server.client() as client:
        infer(client, "net", {"x": A[:, :4]})
        write_config(root, "net", "max_batch_size: 1 input { name: 'x' dims: 4 data_type: TYPE_FP32 }")
        server.wait_for("model changed in the repository")
        client.load_model("net")
        assert client.get_model_config("net").config.max_batch_size == 1
        code, _ = refused(infer, client, "net", {"x": A[:, :4]})
        assert code == "INVALID_ARGUMENT"
        write_config(root, "net", "max_batch_sise: 1")
        server.wait_for("model's configuration is bad; the one before stays in force")
        infer(client, "net", {"x": A[:1, :4]})


def test_dynamic_batching_is_batching(start, tmp_path):
    root = tmp_path / "repository"
    write_triton_model(root, "net", models.Affine(2.0), """
        max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: 4 }
        dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 10000000 }""")
    server = start(root)
    with server.client() as client:
        config = client.get_model_config("net").config
        assert list(config.dynamic_batching.preferred_batch_size) == [4]
        assert config.dynamic_batching.max_queue_delay_microseconds == 10000000
        tensors = [triton.InferInput("x", (1, 4), "FP32").set_data_from_numpy(A[:1, :4] + i) for i in range(4)]
        answers = queue.Queue()
        for tensor in tensors:
            client.async_infer("net", [tensor], callback=lambda result, error: answers.put((result, error)))
        for _ in tensors:
            _, error = answers.get(timeout=hearthd.PATIENCE)
            assert error is None
        row, = client.get_inference_statistics("net").model_stats
    assert (row.inference_count, row.execution_count) == (4, 1), "four that waited for each other ran as one batch"


# --- a load's config ---


def override(**fields):
    return json.dumps(fields)


def test_a_loads_config_holds_until_the_next_load(server):
    with server.client() as client:
        client.load_model("overridden")
        before = client.get_model_config("overridden").config
        client.load_model("overridden", config=override(max_batch_size="2", input=[
            {"name": "x", "data_type": "TYPE_FP32", "dims": ["4"]}], instance_group=[{"count": 3}]))
        config = client.get_model_config("overridden").config
        assert (config.max_batch_size, config.instance_group[0].count) == (2, 3)
        code, text = refused(infer, client, "overridden", {"x": A[:, :3]})
        assert code == "INVALID_ARGUMENT" and "Expected [-1,4]" in text
        server.cli("evict", "overridden")
        assert np.array_equal(infer(client, "overridden", {"x": A[:, :4]})["OUTPUT__0"], A[:, :4] * 2)
        assert client.get_model_config("overridden").config.max_batch_size == 2, "an eviction is no unload"
        client.load_model("overridden")
        assert client.get_model_config("overridden").config == before


def test_an_unload_lifts_it(server):
    with server.client() as client:
        client.load_model("overridden", config=override(max_batch_size=2))
        client.unload_model("overridden")
        client.load_model("overridden")
        assert client.get_model_config("overridden").config.max_batch_size == 0


def loads_of(server, name):
    return sum('"model ready"' in line and f'"{name}"' in line for line in server.lines)


def test_only_another_config_is_another_load(start, repository):
    server = start(repository)
    config = override(max_batch_size=2)
    with server.client() as client:
        for _ in range(2):
            client.load_model("overridden", config=config)
        server.wait_for("model ready")
        client.load_model("overridden", config=override(max_batch_size=3))
        server.wait_for("model ready")
        client.load_model("overridden")
        server.wait_for("model ready")
    assert loads_of(server, "overridden") == 3


@pytest.mark.parametrize("config, why", [
    ("{", "parameter 'config' is no model configuration in JSON"),
    (override(max_batch_sise=1), "max_batch_sise"),
    (override(backend="onnxruntime"), "backend 'onnxruntime' is not there"),
    (override(name="other"), "its name is 'other'"),
    (override(default_model_filename="../../1/model.pt"), "is not the name of a file"),
    (override(default_model_filename="absent.pt"), "overridden/1/absent.pt"),
    (override(output=[{"name": "y", "label_filename": "../simple/letters.txt"}]), "is not the name of a file"),
    (override(output=[{"name": "y", "label_filename": "absent.txt"}]), "class names of 'y'"),
    (override(input=[{"name": "p"}, {"name": "q"}, {"name": "r"}]), "declares 3 inputs, but the program has 1"),
    (override(model_warmup=[{"inputs": {"x": {"data_type": "TYPE_FP32", "dims": [7], "zero_data": True}}}]), "warm-up"),
])
def test_a_config_that_cannot_be_leaves_the_model_as_it_is(server, config, why):
    with server.client() as client:
        client.load_model("overridden", config=override(max_batch_size=2))
        before = client.get_model_config("overridden").config
        code, text = refused(client.load_model, "overridden", config=config)
        assert code == "INVALID_ARGUMENT" and why in text
        assert client.is_model_ready("overridden")
        assert client.get_model_config("overridden").config == before
        server.cli("evict", "overridden")
        assert np.array_equal(infer(client, "overridden", {"x": A[:, :4]})["OUTPUT__0"], A[:, :4] * 2)
        assert client.get_model_config("overridden").config == before


def test_files_of_clients_are_refused(server):
    with server.client() as client:
        code, text = refused(client.load_model, "overridden", config="{}", files={"file:1/model.pt": b"PK"})
    assert code == "INVALID_ARGUMENT" and "hearth takes no files from clients" in text


def test_a_config_comes_over_http_too(server):
    with http_client(server) as client:
        client.load_model("overridden", config=override(max_batch_size=5))
        assert client.get_model_config("overridden")["max_batch_size"] == 5
    body = json.dumps({"parameters": {"config": {"max_batch_size": 6}}}).encode()
    url = f"http://127.0.0.1:{server.rest_port}/v2/repository/models/overridden/load"
    with urllib.request.urlopen(urllib.request.Request(url, body, method="POST"), timeout=60) as answer:
        assert answer.status == 200
    with http_client(server) as client:
        assert client.get_model_config("overridden")["max_batch_size"] == 6
        code, text = refused(client.load_model, "overridden", config="[")
        assert code == "400" and "parameter 'config'" in text


def test_hearth_load_takes_a_file(server, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(override(max_batch_size=7))
    server.cli("load", "overridden", "--config", file)
    with server.client() as client:
        assert client.get_model_config("overridden").config.max_batch_size == 7
    file.write_text(override(max_batch_size=-1))
    failed = server.cli("load", "overridden", "--config", file, check=False)
    assert failed.returncode != 0 and "max_batch_size -1 is not from 0" in failed.stderr
    assert "cannot" in server.cli("load", "overridden", "--config", tmp_path / "absent", check=False).stderr
    server.cli("load", "overridden")


# --- classification ---


def classes(values, top, names=None):
    """What Triton says of a row: the highest first, ties by index."""
    order = sorted(range(len(values)), key=lambda i: (-float(values[i]), i))[:top]
    number = "%d" if isinstance(values[0], int) else "%f"
    return [((number % values[i]) + f":{i}" + (f":{names[i]}" if names and names[i] else "")).encode() for i in order]


def wanted(kind, name, top):
    return [kind.InferRequestedOutput(name, class_count=top)]


@pytest.mark.parametrize("top", [1, 3, 99])
def test_classes_are_the_highest_values_with_their_names(server, top):
    expected = [classes((A - B)[row].tolist(), top, LETTERS) for row in range(2)]
    inputs = {"INPUT__0": A, "INPUT__1": B}
    with server.client() as client, http_client(server) as http:
        over_grpc = infer(client, "simple", inputs, wanted(triton, "OUTPUT__1", top))["OUTPUT__1"]
        over_http = infer(http, "simple", inputs, wanted(triton_http, "OUTPUT__1", top))["OUTPUT__1"]
        text = [triton_http.InferRequestedOutput("OUTPUT__1", binary_data=False, class_count=top)]
        as_json = infer(http, "simple", inputs, text)["OUTPUT__1"]
    assert over_grpc.shape == (2, min(top, 16)) and over_grpc.tolist() == expected
    assert over_http.tolist() == expected
    assert [[word.encode() if isinstance(word, str) else word for word in row] for row in as_json.tolist()] == expected


def test_classes_come_over_streams_beside_plain_outputs(server):
    answers = []
    with server.client() as client:
        client.start_stream(lambda result, error: answers.append((result, error)))
        outputs = [triton.InferRequestedOutput("OUTPUT__0"), *wanted(triton, "OUTPUT__1", 2)]
        tensors = [triton.InferInput(key, A.shape, "FP32").set_data_from_numpy(values)
                   for key, values in (("INPUT__0", A), ("INPUT__1", B))]
        client.async_stream_infer("simple", tensors, outputs=outputs)
        client.stop_stream()
    (result, error), = answers
    assert error is None and np.array_equal(result.as_numpy("OUTPUT__0"), A + B)
    assert result.as_numpy("OUTPUT__1").tolist() == [classes((A - B)[row].tolist(), 2, LETTERS) for row in range(2)]


@pytest.mark.parametrize("datatype", ["UINT8", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64"])
def test_every_type_that_has_an_order_has_classes(server, datatype):
    values = np.array([[3, 7, 1], [120, 0.5, 7]], np.float32)
    scores = torch.from_numpy(values).to(models.TORCH_TYPES[datatype])
    flat = scores.flatten().tolist()
    with server.client() as client:
        answer = infer(client, f"scores_{datatype}", {"x": values}, wanted(triton, "OUTPUT__0", 4))["OUTPUT__0"]
    assert answer.shape == (4,), "of the whole tensor where there is no batch"
    assert answer.tolist() == classes(flat, 4)


def test_names_of_classes_may_be_model_yamls(server):
    values = np.array([1, 3, 2], np.float32)
    with server.client() as client:
        answer = infer(client, "yaml_names", {"x": values}, wanted(triton, "x", 3))["x"]
        assert client.get_model_config("yaml_names").config.output[0].label_filename == "colours.txt"
    assert answer.tolist() == [b"3.000000:1", b"2.000000:2:green", b"1.000000:0:red"]


def test_classes_are_announced_and_do_not_go_to_shared_memory(start, repository):
    server = start(repository, config={"grpc": {"client_shared_memory": True}})
    with server.client() as client:
        assert "classification" in client.get_server_metadata().extensions
    request = service_pb2.ModelInferRequest(model_name="simple")
    output = request.outputs.add(name="OUTPUT__0")
    output.parameters["classification"].int64_param = 2
    output.parameters["shared_memory_region"].string_param = "region"
    output.parameters["shared_memory_byte_size"].int64_param = 64
    with pytest.raises(grpc.RpcError) as error:
        server.stub().ModelInfer(request, timeout=60)
    assert error.value.code().name == "INVALID_ARGUMENT" and "do not go to shared memory" in error.value.details()


def test_words_have_no_classes(server):
    words = np.array([b"a", b"b"], np.object_)
    tensor = triton.InferInput("words", words.shape, "BYTES").set_data_from_numpy(words)
    with server.client() as client:
        code, text = refused(client.infer, "strings", [tensor], outputs=wanted(triton, "OUTPUT__0", 1))
    assert code == "INVALID_ARGUMENT" and "unsupported type 'BYTES'" in text
