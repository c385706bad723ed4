"""AOTInductor packages, against Python's own loader of them and against eager PyTorch."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import shutil
import zipfile

import grpc
import numpy as np
import pytest
import torch
import torch._inductor
import tritonclient.utils as triton
from safetensors.torch import save_file

import aoti_nets
import hearthd as daemon
from hearth_pack import weights
from test_protocol import answers_of, request

OUTSIDE = {"aot_inductor.package_constants_in_so": False}
YAML = """inputs:
  - {name: x, datatype: FP32, shape: [-1, 16]}
  - {name: bias, datatype: FP32, shape: [-1, 12]}
outputs:
  - {name: y, datatype: FP32, shape: [-1, 12]}
  - {name: same, datatype: FP32, shape: [-1, 16]}
  - {name: weight, datatype: FP32, shape: [12]}
"""
SIGNATURE = {"inputs": [{"name": "x", "datatype": "FP32", "shape": ["n", 16]},
                        {"name": "bias", "datatype": "FP32", "shape": ["n", 12]}],
             "outputs": [{"name": name, "datatype": "FP32", "shape": shape}
                         for name, shape in (("y", [-1, 12]), ("same", [-1, 16]), ("weight", [12]))],
             "dimensions": {"n": [1, 64]}}


def inputs_of(batch, seed=0):
    random = np.random.default_rng(batch + seed)
    return [random.normal(size=(batch, size)).astype(np.float32) for size in (16, 12)]


def exported(module=None):
    batch = torch.export.Dim("batch", max=64)
    return torch.export.export(module or aoti_nets.net(), tuple(map(torch.from_numpy, inputs_of(4))),
                               dynamic_shapes=({0: batch}, {0: batch}))


def compiled(program, path, config):
    return torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=config)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("packages")


@pytest.fixture(scope="session")
def package(folder):
    """As anybody compiles it, with the weights outside."""
    return compiled(exported(), folder / "net.pt2", OUTSIDE)


@pytest.fixture(scope="session")
def whole(folder):
    """With its weights inside, and its signature in the metadata."""
    return compiled(exported(), folder / "whole.pt2",
                    {"aot_inductor.metadata": {"hearth": json.dumps(SIGNATURE)}})


def unpacked(package, folder):
    """Without the folder of the archive's own name."""
    with zipfile.ZipFile(package) as archive:
        for name in archive.namelist():
            target = folder / name.partition("/")[2]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(name))
    return folder


def write_model(root, name, package, module, yaml=YAML, directory=False):
    version = root / name / "1"
    version.mkdir(parents=True)
    if directory:
        unpacked(package, version / "model.pt2")
    else:
        shutil.copy(package, version / "model.pt2")
    if module is not None:
        weights.write(version, {key: value.clone() for key, value in module.state_dict().items()})
    if yaml:
        (root / name / "model.yaml").write_text(yaml)
    return version


def message(model, *arrays, names=("x", "bias"), datatype="FP32"):
    return request(model, *((name, datatype, list(array.shape), array.tobytes())
                            for name, array in zip(names, arrays)))


def ask(server, model, *arrays):
    return answers_of(server, model, *((name, "FP32", array) for name, array in zip(("x", "bias"), arrays)))


def refusal(server, text):
    with pytest.raises(grpc.RpcError) as error:
        server.stub().ModelInfer(text, timeout=60)
    assert server.alive, server.log()
    return error.value.code().name, error.value.details()


def load_refusal(server, name):
    with server.client() as client, pytest.raises(triton.InferenceServerException) as error:
        client.load_model(name)
    assert server.alive, server.log()
    return error.value.status().removeprefix("StatusCode."), error.value.message()


class Own:
    """Python's own loader of a package, with the weights of `module`."""

    def __init__(self, package, module=None):
        self._package = torch._inductor.aoti_load_package(str(package))
        if module is not None:
            state = module.state_dict()
            self._weights = {name: state[name].clone() for name in self._package.loader.get_constant_fqns()}
            self._package.loader.load_constants(self._weights, False, True, True)

    def __call__(self, *arrays):
        # Copies lie at addresses as hearthd's do: kernels round differently on others.
        with torch.inference_mode():
            return [result.numpy() for result in self._package(*(torch.from_numpy(array).clone() for array in arrays))]


def eager(module, *arrays):
    with torch.inference_mode():
        return [result.numpy() for result in module(*map(torch.from_numpy, arrays))]


def same_bits(got, expected):
    return [a.tobytes() for a in got] == [a.tobytes() for a in expected]


def libraries(server):
    """The files of all libraries of packages that the daemon has mapped."""
    with open(f"/proc/{server.process.pid}/maps", encoding="utf-8") as maps:
        return set(re.findall(r"\S+\.wrapper\.so", maps.read()))


@pytest.fixture(scope="module")
def root(tmp_path_factory, package, whole):
    root = tmp_path_factory.mktemp("models")
    write_model(root, "archive", package, aoti_nets.net(0))
    write_model(root, "variant", package, aoti_nets.net(1))
    write_model(root, "directory", package, aoti_nets.net(2), directory=True)
    write_model(root, "inside", whole, None)
    shutil.copy(whole, root / "bare.pt2")
    return root


@pytest.fixture(scope="module")
def aoti_server(root, tmp_path_factory):
    with daemon.Hearthd(root, tmp_path_factory.mktemp("server"), config={"compute": {"threads": 4, "intra_op_threads": 1}}) as running:
        yield running
        assert running.alive, running.log()


SEEDS = {"archive": 0, "variant": 1, "directory": 2, "inside": None, "bare": None}


@pytest.mark.parametrize("name", SEEDS)
def test_answers_equal_pythons_own_loader_to_the_bit(aoti_server, package, whole, name):
    seed = SEEDS[name]
    module = aoti_nets.net(seed or 0)
    own = Own(whole) if seed is None else Own(package, module)
    for batch in range(1, 17):
        arrays = inputs_of(batch)
        got = ask(aoti_server, name, *arrays)
        assert same_bits(got, own(*arrays)), batch
        for mine, expected in zip(got, eager(module, *arrays)):
            np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-5)


def test_models_of_one_package_share_its_code(aoti_server):
    for name in ("archive", "variant", "directory"):
        ask(aoti_server, name, *inputs_of(2))
    ask(aoti_server, "bare", *inputs_of(2))  # another package: its weights are inside
    assert len(libraries(aoti_server)) == 2


def test_weights_outside_are_mapped_and_those_inside_are_charged(aoti_server):
    for name in ("archive", "inside"):
        ask(aoti_server, name, *inputs_of(2))
    rows = {row["name"]: row["bytes"] for row in json.loads(aoti_server.cli("--json", "ps").stdout)["models"]}
    assert rows["archive"]["mapped"] > 0
    assert rows["inside"]["mapped"] == 0
    assert rows["inside"]["host"] > rows["archive"]["host"]


def test_many_requests_at_once_have_each_its_own_answer(aoti_server, package):
    own = Own(package, aoti_nets.net(0))
    arrays = [inputs_of(1 + i % 5, seed=i) for i in range(64)]
    expected = [own(*pair) for pair in arrays]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda pair: ask(aoti_server, "archive", *pair), arrays))
    assert all(same_bits(got, want) for got, want in zip(answers, expected))


@pytest.mark.parametrize("what, arrays", {
    "a rank": (np.zeros(16, np.float32), np.zeros((1, 12), np.float32)),
    "a higher rank": (np.zeros((2, 1, 16), np.float32), np.zeros((2, 12), np.float32)),
    "a fixed dimension": (np.zeros((2, 8), np.float32), np.zeros((2, 12), np.float32)),
    "the other input's batch": (np.zeros((64, 16), np.float32), np.zeros((1, 12), np.float32)),
    "no dimension": (np.zeros((), np.float32), np.zeros((1, 12), np.float32)),
}.items())
@pytest.mark.parametrize("name", ["archive", "bare"])
def test_what_was_not_compiled_for_is_refused(aoti_server, name, what, arrays):
    code, text = refusal(aoti_server, message(name, *arrays))
    assert code == "INVALID_ARGUMENT", (what, text)
    assert same_bits(ask(aoti_server, name, *inputs_of(3)), ask(aoti_server, name, *inputs_of(3)))


@pytest.mark.parametrize("name", ["archive", "bare"])
@pytest.mark.parametrize("datatype, dtype", [("FP64", np.float64), ("INT8", np.int8), ("FP16", np.float16)])
def test_another_datatype_is_refused(aoti_server, name, datatype, dtype):
    arrays = [array.astype(dtype) for array in inputs_of(2)]
    code, text = refusal(aoti_server, message(name, *arrays, datatype=datatype))
    assert code == "INVALID_ARGUMENT" and datatype in text


def test_a_batch_beyond_what_the_package_says_is_refused(aoti_server):
    code, text = refusal(aoti_server, message("bare", *inputs_of(65)))
    assert code == "INVALID_ARGUMENT" and "1 to 64" in text


def held(server):
    """How many files and mappings the daemon holds."""
    process = pathlib.Path(f"/proc/{server.process.pid}")
    files = []
    for path in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a connection that closes meanwhile
            files.append(os.readlink(path))
    return (sum(name.endswith(".safetensors") for name in files),
            (process / "maps").read_text().count(".safetensors"))


def test_loading_again_opens_nothing_anew(start, tmp_path, package):
    root, temporary = tmp_path / "models", tmp_path / "tmp"
    temporary.mkdir()
    write_model(root, "net", package, aoti_nets.net(0))
    server = start(root, env={"TMPDIR": str(temporary)})
    expected = ask(server, "net", *inputs_of(3))
    before = libraries(server)
    assert held(server) == (1, 1)
    with server.client() as client:
        for _ in range(30):
            client.unload_model("net")
            client.load_model("net")
            assert same_bits(ask(server, "net", *inputs_of(3)), expected)
    assert libraries(server) == before and len(before) == 1
    assert held(server) == (1, 1)
    unpacked_folder, = temporary.iterdir()
    assert unpacked_folder.stat().st_mode & 0o777 == 0o700
    assert server.terminate() == 0
    assert list(temporary.iterdir()) == []


def test_a_replaced_package_is_loaded_anew(start, tmp_path, package, whole):
    root = tmp_path / "models"
    version = write_model(root, "net", package, aoti_nets.net(1), directory=True)
    server = start(root)
    assert same_bits(ask(server, "net", *inputs_of(3)), Own(package, aoti_nets.net(1))(*inputs_of(3)))
    unpacked(whole, version / "next")
    (version / "model.pt2").rename(version / "old")
    (version / "next").rename(version / "model.pt2")
    (version / "model.safetensors").unlink()
    with server.client() as client:
        client.load_model("net")
    assert same_bits(ask(server, "net", *inputs_of(3)), Own(whole)(*inputs_of(3)))


def test_a_library_that_was_written_over_is_refused(start, tmp_path, package):
    root = tmp_path / "models"
    version = write_model(root, "net", package, aoti_nets.net(0), directory=True)
    server = start(root)
    ask(server, "net", *inputs_of(1))
    library, = version.rglob("*.so")
    with server.client() as client:
        client.unload_model("net")
    with library.open("ab") as file:
        file.write(b"\0")
    code, text = load_refusal(server, "net")
    assert code == "FAILED_PRECONDITION" and "restart hearthd" in text


# --- refusals ---

def test_a_cpu_without_the_features_is_refused_before_anything_runs(start, tmp_path, package):
    root = tmp_path / "models"
    version = write_model(root, "net", package, aoti_nets.net(0), directory=True)
    for file in (version / "model.pt2").rglob("*_metadata.json"):
        metadata = json.loads(file.read_text())
        file.write_text(json.dumps({**metadata, "AOTI_CPU_ISA": metadata["AOTI_CPU_ISA"] + " AVX4096"}))
    server = start(root)
    code, text = refusal(server, message("net", *inputs_of(1)))
    assert code == "FAILED_PRECONDITION"
    assert "'avx4096'" in text and "hearth pack" in text
    assert not libraries(server)


def test_another_machine_is_refused(start, tmp_path, package):
    root = tmp_path / "models"
    version = write_model(root, "net", package, aoti_nets.net(0), directory=True)
    for file in (version / "model.pt2").rglob("*_metadata.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "AOTI_MACHINE": "s390x"}))
    code, text = refusal(start(root), message("net", *inputs_of(1)))
    assert code == "FAILED_PRECONDITION" and "s390x" in text


def test_an_exported_program_that_is_not_compiled_says_what_to_do(start, tmp_path):
    root = tmp_path / "models"
    (root / "net" / "1").mkdir(parents=True)
    torch.export.save(exported(), str(root / "net" / "1" / "model.pt2"))
    code, text = refusal(start(root), message("net", *inputs_of(1)))
    assert code == "INVALID_ARGUMENT" and "hearth pack --format aoti" in text


def test_names_that_lead_out_of_the_archive_are_refused(start, tmp_path, package):
    root = tmp_path / "models"
    version = write_model(root, "net", package, aoti_nets.net(0))
    with zipfile.ZipFile(version / "model.pt2", "a") as archive:
        archive.writestr("net/data/aotinductor/model/../../../../../evil.so", b"x")
    code, text = refusal(start(root), message("net", *inputs_of(1)))
    assert code == "INVALID_ARGUMENT" and "leads out of the archive" in text


def test_a_package_without_a_signature_says_what_to_declare(start, tmp_path, package):
    root = tmp_path / "models"
    write_model(root, "net", package, aoti_nets.net(0), yaml="")
    code, text = refusal(start(root), message("net", *inputs_of(1)))
    assert code == "INVALID_ARGUMENT" and "model.yaml" in text and "2 inputs" in text


def test_missing_and_misfitting_weights_are_named(start, tmp_path, package):
    root = tmp_path / "models"
    version = write_model(root, "net", package, aoti_nets.net(0))
    state = aoti_nets.net(0).state_dict()
    del state["first.weight"]
    state["second.weight"] = torch.zeros(7, 3)
    save_file(state, version / "model.safetensors")
    code, text = refusal(start(root), message("net", *inputs_of(1)))
    assert code == "INVALID_ARGUMENT"
    assert "missing: 'first.weight'" in text and "'second.weight' has shape [7,3]" in text


def test_weights_with_less_memory_than_elements_are_not_read_beyond(start, tmp_path, package):
    root = tmp_path / "models"
    version = write_model(root, "net", package, None)
    module = aoti_nets.net(0)
    with torch.no_grad():
        module.first.weight.fill_(0.5)
    state = module.state_dict()
    state["first.weight"] = torch.full((1, 1), 0.5).expand(24, 16)
    torch.save(state, version / "weights.pth")
    server = start(root)
    assert same_bits(ask(server, "net", *inputs_of(3)), Own(package, module)(*inputs_of(3)))


def test_small_weights_that_may_be_part_of_the_code_are_refused(start, tmp_path, package):
    root = tmp_path / "models"
    version = write_model(root, "net", package, aoti_nets.net(0))
    save_file({**aoti_nets.net(0).state_dict(), "scale": torch.ones(3)}, version / "model.safetensors")
    code, text = refusal(start(root), message("net", *inputs_of(1)))
    assert code == "INVALID_ARGUMENT" and "'scale'" in text and "always_keep_tensor_constants" in text


def test_a_program_that_writes_to_its_buffers_is_refused(start, tmp_path, folder):
    program = torch.export.export(aoti_nets.counter(), (torch.zeros(3, 12),))
    package = compiled(program, folder / "counter.pt2", OUTSIDE)
    root = tmp_path / "models"
    write_model(root, "net", package, aoti_nets.counter(), "inputs: [{name: x, datatype: FP32, shape: [3, 12]}]\n")
    code, text = refusal(start(root), message("net", np.zeros((3, 12), np.float32)))
    assert code == "FAILED_PRECONDITION" and "--format torchscript" in text


def test_a_program_that_an_index_could_end_is_refused(start, tmp_path, folder):
    batch = torch.export.Dim("batch")
    program = torch.export.export(aoti_nets.lookup(), (torch.zeros(4, 300, dtype=torch.int64),),
                                  dynamic_shapes=({0: batch},))
    package = compiled(program, folder / "lookup.pt2", {**OUTSIDE, "cpp.threads": 4})
    root = tmp_path / "models"
    write_model(root, "net", package, aoti_nets.lookup(), "inputs: [{name: x, datatype: INT64, shape: [-1, 300]}]\n")
    code, text = refusal(start(root), message("net", np.full((4, 300), 10**9), datatype="INT64"))
    assert code == "FAILED_PRECONDITION" and "cpp.threads=1" in text


def test_without_a_place_to_unpack_an_archive_says_what_to_do(start, tmp_path, package):
    root = tmp_path / "models"
    write_model(root, "archive", package, aoti_nets.net(0))
    write_model(root, "directory", package, aoti_nets.net(0), directory=True)
    server = start(root, env={"TMPDIR": "/proc"})
    code, text = refusal(server, message("archive", *inputs_of(1)))
    assert code == "FAILED_PRECONDITION" and "TMPDIR" in text and "hearth pack" in text
    ask(server, "directory", *inputs_of(1))  # needs none


def test_hearth_inspect_tells_what_a_package_is(aoti_server, root):
    told = aoti_server.cli("inspect", root / "bare.pt2").stdout
    assert "AOTInductor package" in told and "input x" in told and "[n,16]" in told
    listed = json.loads(aoti_server.cli("--json", "inspect", root / "directory" / "1" / "model.pt2").stdout)
    assert listed["format"] == "aoti" and listed["missing_features"] == []
