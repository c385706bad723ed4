"""Every kind of tensor beside an AOTInductor package, in every format, against Python's own loader of it."""

import copy
import json

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import hearthd as daemon
import models
import tensor_nets
import test_aoti
from hearth_pack import aoti
from test_formats import tensors
from test_protocol import refusal, request
from test_tensors import TIED, VIEWS, apart, raw, values_of, write_shards

KINDS = (*tensor_nets.KINDS, "unicode")
# What inductor computes with fewer bits than float has is rounded at other places than eager PyTorch rounds.
TOLERANCES = {"fp16": 1e-2, "bf16": 1e-1}


def constants(net):
    """All of its tensors: code knows those by name, too, that state_dict() leaves out."""
    return {**net.state_dict(), "steps": net.steps}


def state_dict(folder, net):
    torch.save(constants(net), folder / "weights.pth")


def state_dict_shards(folder, net):
    write_shards(folder, apart(constants(net), *TIED, *VIEWS), "pytorch_model", ".bin", torch.save)


def contiguous(net):
    return {**tensors(net), "steps": net.steps}


def safetensors(folder, net):
    save_file(contiguous(net), folder / "model.safetensors")


def safetensors_shards(folder, net):
    write_shards(folder, apart(contiguous(net), *TIED, *VIEWS), "model", ".safetensors", save_file)


def hdf5(folder, net, **options):
    """What h5py lacks lies beside it in another format."""
    named = contiguous(net)
    save_file({"wave": named.pop("wave")}, folder / "complex.safetensors")
    with h5py.File(folder / "größe.h5", "w", libver=("earliest", "v110")) as file:
        for name, tensor in named.items():
            values = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
            file.create_dataset(name.replace(".", "/"), data=values,
                                **(options if values.ndim and values.size else {}))


def hdf5_gzip(folder, net):
    hdf5(folder, net, chunks=True, compression="gzip", shuffle=True)


WRITERS = [state_dict, state_dict_shards, safetensors, safetensors_shards, hdf5, hdf5_gzip]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Its code and layout are those of any seed."""
    program = torch.export.export(tensor_nets.named(), (values := torch.from_numpy(values_of(4)),),
                                  dynamic_shapes=({0: torch.export.Dim("batch", max=64)},))
    outputs = [{"name": kind, "datatype": next(name for name, dtype in models.TORCH_TYPES.items() if dtype == y.dtype),
                "shape": [-1] * y.dim()} for kind, y in zip(KINDS, tensor_nets.named()(values))]
    signature = {"inputs": [{"name": "x", "datatype": "FP32", "shape": ["n", 4]}], "outputs": outputs,
                 "dimensions": {"n": [1, 64]}, **aoti.layout_of(program)}
    return test_aoti.compiled(program, tmp_path_factory.mktemp("package") / "every.pt2", {
        **test_aoti.OUTSIDE, "always_keep_tensor_constants": True,
        "aot_inductor.metadata": {"hearth": json.dumps(signature)}})


@pytest.fixture(scope="module")
def every(package, tmp_path_factory):
    root = tmp_path_factory.mktemp("every")
    for seed, write in enumerate(WRITERS):
        version = test_aoti.write_model(root, write.__name__, package, None, yaml="")
        write(version, tensor_nets.named(seed))
    with daemon.Hearthd(root, tmp_path_factory.mktemp("server"), config={
            "compute": {"threads": 2, "intra_op_threads": 1}}) as running:
        yield running
        assert running.alive, running.log()


def test_views_are_read_where_they_lie_though_the_package_does_not_say_how(package, start, owns, tmp_path):
    version = test_aoti.write_model(tmp_path / "models", "net", package, None, yaml="", directory=True)
    for file in version.rglob("*_metadata.json"):
        metadata = json.loads(file.read_text())
        signature = {key: value for key, value in json.loads(metadata["hearth"]).items()
                     if key not in ("constants", "strides")}
        file.write_text(json.dumps({**metadata, "hearth": json.dumps(signature)}))
    state_dict(version, tensor_nets.named(WRITERS.index(state_dict)))
    server, values = start(tmp_path / "models"), values_of(3)
    answer = server.stub().ModelInfer(request("net", ("x", "FP32", [3, 4], values.tobytes())))
    assert list(answer.raw_output_contents) == [raw(want) for want in owns[state_dict](values)]


def test_a_conjugated_tensor_is_given_to_the_code_as_it_reads(package, start, owns, tmp_path):
    """Which knows nothing of flags."""
    version = test_aoti.write_model(tmp_path / "models", "net", package, None, yaml="")
    net = tensor_nets.named(WRITERS.index(state_dict))
    flagged = net.wave.conj().resolve_conj().conj()
    assert flagged.is_conj() and torch.equal(flagged, net.wave)
    torch.save({**constants(net), "wave": flagged}, version / "weights.pth")
    server, values = start(tmp_path / "models"), values_of(3)
    answer = server.stub().ModelInfer(request("net", ("x", "FP32", [3, 4], values.tobytes())))
    assert list(answer.raw_output_contents) == [raw(want) for want in owns[state_dict](values)]


def test_elements_that_are_one_in_the_code_have_to_be_equal(package, start, tmp_path):
    version = test_aoti.write_model(tmp_path / "models", "net", package, None, yaml="")
    save_file({**contiguous(tensor_nets.named()), "repeated": torch.arange(4.0)}, version / "model.safetensors")
    code, text = refusal(start(tmp_path / "models"), request("net", ("x", "FP32", [3, 4], bytes(48))))
    assert code == "INVALID_ARGUMENT" and "'repeated'" in text, text


class Own:
    """Python's own loader, with the tensors of `net` as they lie there."""

    def __init__(self, package, net):
        self._package = torch._inductor.aoti_load_package(str(package))
        known = constants(copy.deepcopy(net))
        self._weights = {name: known[name] for name in self._package.loader.get_constant_fqns()}
        self._package.loader.load_constants(self._weights, False, True, True)

    def __call__(self, values):
        with torch.inference_mode():
            return [result.clone() for result in self._package(torch.from_numpy(values).clone())]


@pytest.fixture(scope="module")
def owns(package):
    return {write: Own(package, tensor_nets.named(seed)) for seed, write in enumerate(WRITERS)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_each_kind_of_tensor_answers_as_pythons_own_loader_to_the_bit(every, owns, write, kind):
    at = KINDS.index(kind)
    for batch in range(1, 17):
        values = values_of(batch)
        answer = every.stub().ModelInfer(request(write.__name__, ("x", "FP32", list(values.shape), values.tobytes())))
        want = owns[write](values)[at]
        assert answer.outputs[at].name == kind
        assert list(answer.outputs[at].shape) == list(want.shape)
        assert answer.raw_output_contents[at] == raw(want), batch
        with torch.inference_mode():
            expected = tensor_nets.named(WRITERS.index(write))(torch.from_numpy(values))[at]
        np.testing.assert_allclose(want.double().numpy(), expected.double().numpy(), rtol=0,
                                   atol=TOLERANCES.get(kind, 1e-5))
