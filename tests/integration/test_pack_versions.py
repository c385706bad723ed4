"""`hearth pack` of another version: whether the model.yaml of those before, which is for all, goes with it."""

import numpy as np
import pytest
import torch

import pack_nets
from test_models import ask
from test_pack import EXAMPLE, serves


class Renamed(torch.nn.Module):
    """Takes and gives what pack_nets.Plain does, under another name."""

    def __init__(self):
        super().__init__()
        self.inner = pack_nets.Plain()

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return self.inner(y)


class Wider(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(5, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


class Two(torch.nn.Module):
    def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, z], 1)


class Narrower(torch.nn.Module):
    """Gives three columns instead of eight, or has another method for it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :3]

    @torch.jit.export
    def other(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x], 1)


def folder_of(root, name):
    return sorted(path.name for path in (root / name).iterdir())


CONTRADICTIONS = {
    "another_shape": (["test_pack_versions:Wider", "--example", "x=2x5:FP32"],
                      "input 'x' is FP32 [-1, 4] there and FP32 [2, 5] here"),
    "another_type": (["pack_nets:Plain", "--dtype", "float64", "--example", "x=2x4:FP64"],
                     "input 'x' is FP32 [-1, 4] there and FP64 [2, 4] here"),
    "more_under_another_name": (["test_pack_versions:Two", "--example", "x=2x4:FP32", "--example", "z=2x4:FP32"],
                                "it has the inputs first, and the program takes x, z"),
    "another_output": (["test_pack_versions:Narrower", "--example", "x=2x4:FP32"],
                       "output 'OUTPUT__0' is FP32 [-1, 8] there and FP32 [2, 3] here"),
    "another_method": (["test_pack_versions:Narrower", "--method", "other", "--example", "x=2x4:FP32"],
                       "method is forward there and other here"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_version_that_model_yaml_contradicts_is_refused_with_the_way_out(pack, pack_server, root, case):
    """Put in place it would be the one that requests get, and could not be loaded."""
    arguments, words = CONTRADICTIONS[case]
    pack("pack_nets:Plain", case, *EXAMPLE)
    yaml = root / case / "model.yaml"
    if case == "more_under_another_name":
        yaml.write_text(yaml.read_text().replace('"x"', "first"))
    before = yaml.read_text()
    told = pack(arguments[0], case, *arguments[1:], code=2)
    assert words in told and "--overwrite-yaml" in told and "--name" in told and told.count("\n") == 1
    assert folder_of(root, case) == ["1", "model.yaml"] and yaml.read_text() == before
    if case != "more_under_another_name":
        assert serves(pack_server, case, pack_nets.Plain())


def test_with_overwrite_yaml_the_new_version_is_served(pack, pack_server, root):
    pack("pack_nets:Plain", "rewritten", *EXAMPLE)
    pack("test_pack_versions:Wider", "rewritten", "--example", "x=2x5:FP32", "--overwrite-yaml", "--verify-with",
         pack_server.address)
    assert "[2, 5]" in (root / "rewritten" / "model.yaml").read_text()
    assert ask(pack_server, "rewritten", np.zeros((2, 5), np.float32)).shape == (2, 8)


@pytest.mark.parametrize("yaml", [
    "instances: 1\n", "", "inputs:\n  - {name: x}\n", "max_batch_size: 8\ninputs:\n  - {name: x, shape: [-1, -1]}\n",
    "inputs:\n  - name: 'größe'  # by order\n    datatype: FP32\n"])
def test_a_model_yaml_that_goes_with_a_version_stays(pack, pack_server, tmp_path, root, yaml):
    name = f"kept-{sum(map(ord, yaml))}"
    (root / name).mkdir()
    (root / name / "model.yaml").write_text(yaml)
    assert "left as it is" in pack("test_pack_versions:Renamed" if "größe" in yaml else "pack_nets:Plain", name,
                                   "--example", "y=2x4:FP32" if "größe" in yaml else "x=2x4:FP32")
    assert (root / name / "model.yaml").read_text() == yaml
    with pack_server.client() as client:
        client.load_model(name)


def test_a_model_yaml_that_is_none_is_named(pack, root):
    (root / "broken").mkdir()
    (root / "broken" / "model.yaml").write_text("inputs: [\n")
    told = pack("pack_nets:Plain", "broken", *EXAMPLE, code=1)
    assert "model.yaml' cannot be read" in told and "--overwrite-yaml" in told and told.count("\n") == 1
    assert folder_of(root, "broken") == ["model.yaml"]
