"""Modules that hold more than tensors: objects of scripted classes, interfaces, enumerations, packed parameters."""

import enum
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hearthd as daemon
import models
from test_formats import write_program
from test_protocol import answers_of, refusal, request


@torch.jit.script
class Scale:
    def __init__(self, weight: Tensor, times: int):
        self.weight = weight
        self.times = times

    def apply(self, x: Tensor) -> Tensor:
        return x * self.weight * self.times

    def step(self):
        self.weight.add_(1)
        self.times += 1


@torch.jit.script
class Table:
    """An object inside an object, and a dictionary of tensors."""

    def __init__(self, scale: Scale, rows: Dict[str, Tensor]):
        self.scale = scale
        self.rows = rows

    def look(self, x: Tensor, key: str) -> Tensor:
        return self.scale.apply(x) + self.rows[key]


def scale(seed, times=1):
    return Scale(torch.randn(4, generator=torch.Generator().manual_seed(seed)), times)


class Objects(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = scale(1, 3)
        self.table = Table(scale(2), {"größe": torch.arange(4.0), "a": torch.ones(4)})

    def forward(self, x: Tensor) -> Tensor:
        return self.table.look(self.scale.apply(x), "größe")


class Collections(nn.Module):
    """Objects in every kind of collection."""

    several: List[Scale]
    named: Dict[str, Scale]
    perhaps: Optional[Scale]
    pair: Tuple[Scale, int]

    def __init__(self):
        super().__init__()
        self.several = [scale(1), scale(2, 2)]
        self.named = {"a": scale(3), "ü": scale(4)}
        self.perhaps = scale(5)
        self.pair = (scale(6), 4)

    def forward(self, x: Tensor) -> Tensor:
        for one in self.several:
            x = one.apply(x)
        perhaps = self.perhaps
        if perhaps is not None:
            x = perhaps.apply(x)
        return self.named["ü"].apply(x) + self.pair[0].apply(x) * self.pair[1]


class Stepping(nn.Module):
    """Writes to its objects, directly and through a list: each request starts with what the file has."""

    several: List[Scale]

    def __init__(self):
        super().__init__()
        self.scale = scale(1)
        self.several = [scale(2)]

    def forward(self, x: Tensor) -> Tensor:
        self.scale.step()
        self.several[0].step()
        self.several.append(Scale(torch.ones(4), len(self.several)))
        y = self.scale.apply(x)
        for one in self.several:
            y = y + one.apply(x)
        return y


@torch.jit.interface
class Layer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        pass


class Times(nn.Module):
    def __init__(self, seed: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, generator=torch.Generator().manual_seed(seed)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        return x + self.count


class Interfaces(nn.Module):
    """Which module runs is known only in a run: it depends on the batch."""

    layer: Layer

    def __init__(self):
        super().__init__()
        self.layer = Times(1)
        self.layers = nn.ModuleList([Times(2), Times(3)])

    def forward(self, x: Tensor) -> Tensor:
        chosen: Layer = self.layers[x.shape[0] % 2]
        return self.layer.forward(x) + chosen.forward(x)


class StatefulInterface(nn.Module):
    """State behind an interface, beside packed parameters, which are objects of C++."""

    layer: Layer

    def __init__(self):
        super().__init__()
        self.layer = Counting()
        torch.manual_seed(4)
        self.packed = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear})

    def forward(self, x: Tensor) -> Tensor:
        return self.layer.forward(self.layer.forward(self.packed(x)))


class Point(NamedTuple):
    weight: Tensor
    name: str
    steps: List[int]


class Color(enum.Enum):
    RED = 1.5
    BLUE = 2.5


class Word(enum.Enum):
    LONG = "größe"
    SHORT = "a"


class Records(nn.Module):
    """Named tuples and enumerations, alone and in collections."""

    point: Point
    points: List[Point]
    color: Color
    colors: List[Color]
    word: Word

    def __init__(self):
        super().__init__()
        self.point = Point(torch.arange(4.0), "ü", [1, 2])
        self.points = [Point(torch.ones(4) / 3, "a", []), Point(torch.ones(4) / 7, "b", [3])]
        self.color = Color.BLUE
        self.colors = [Color.RED, Color.BLUE]
        self.word = Word.LONG

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.point.weight * self.color.value + self.point.steps[1]
        for color, point in zip(self.colors, self.points):
            if color == Color.RED:
                y = y + point.weight * color.value
        return y + 1 if self.word == Word.LONG else y


class Remembering(nn.Module):
    """Writes to a tensor inside a named tuple."""

    point: Point

    def __init__(self):
        super().__init__()
        self.point = Point(torch.arange(4.0), "a", [1])

    def forward(self, x: Tensor) -> Tensor:
        self.point.weight.mul_(2)
        self.point.steps.append(5)
        return x * self.point.weight + len(self.point.steps)


# --- torch.classes: what quantised modules keep their weights in ---

class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.lstm = nn.LSTM(4, 8)
        self.cell = nn.GRUCell(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(self.lstm(x.unsqueeze(1))[0][:, 0])


def recurrent():
    return torch.ao.quantization.quantize_dynamic(Recurrent().eval(), {nn.LSTM, nn.GRUCell}, dtype=torch.qint8)


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.quant, self.dequant = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        self.conv, self.relu, self.linear = nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.conv(self.quant(x.reshape(-1, 1, 2, 2))))
        return self.dequant(self.linear(y.flatten(1)))


def static():
    """Calibrated: convolution and product run on eight bits."""
    net = Layers().eval()
    net.qconfig = torch.ao.quantization.get_default_qconfig("x86")
    prepared = torch.ao.quantization.prepare(net)
    prepared(torch.randn(64, 4, generator=torch.Generator().manual_seed(3)))
    return torch.ao.quantization.convert(prepared)


class Halves(nn.Module):
    """Products with packed weights of 16 bits."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def halves():
    return torch.ao.quantization.quantize_dynamic(Halves().eval(), {nn.Linear}, dtype=torch.float16)


MADE = {"objects": Objects, "collections": Collections, "stepping": Stepping, "interfaces": Interfaces,
        "stateful_interface": StatefulInterface, "records": Records, "remembering": Remembering,
        "recurrent": recurrent, "static": static, "halves": halves}


def values_of(batch):
    return np.random.default_rng(batch).normal(size=(batch, 4)).astype(np.float32)


def eager(name, values):
    """Of a module that nothing was run on."""
    with torch.inference_mode():
        return MADE[name]().eval()(torch.from_numpy(values)).numpy()


def answer(server, name, values):
    got, = answers_of(server, name, ("x", "FP32", values))
    return got


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    root = tmp_path_factory.mktemp("classes")
    for name, make in MADE.items():
        models.write_model(root, name, make())
    with daemon.Hearthd(root, tmp_path_factory.mktemp("server")) as running:
        yield running
        assert running.alive, running.log()


@pytest.mark.parametrize("name", MADE)
def test_what_a_module_holds_answers_as_eager_pytorch_to_the_bit(classes, name):
    for batch in range(1, 17):
        values = values_of(batch)
        assert answer(classes, name, values).tobytes() == eager(name, values).tobytes(), batch


@pytest.mark.parametrize("name", ["stepping", "stateful_interface", "remembering"])
def test_what_requests_write_to_objects_none_of_them_sees(classes, name):
    values = values_of(2)
    calls = [classes.stub().ModelInfer.future(request(name, ("x", "FP32", [2, 4], values.tobytes())), timeout=60)
             for _ in range(30)]
    expected = eager(name, values).tobytes()
    assert all(call.result().raw_output_contents[0] == expected for call in calls)


# --- beside weights in files of their own ---

class Mixed(nn.Module):
    """Objects with tensors, which state_dict() leaves out, beside parameters."""

    def __init__(self, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.table = Table(scale(2), {"größe": torch.arange(4.0)})
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.table.look(self.inner(x), "größe")


def test_objects_stay_in_the_program_when_weights_are_apart(start, tmp_path):
    for seed in (1, 2):
        folder = tmp_path / "models" / f"net{seed}" / "1"
        write_program(folder, Mixed(seed).eval(), keep=())
        torch.save(Mixed(seed).state_dict(), folder / "weights.pth")
    server, values = start(tmp_path / "models"), values_of(3)
    for seed in (1, 2):
        with torch.inference_mode():
            expected = Mixed(seed)(torch.from_numpy(values)).numpy()
        assert answer(server, f"net{seed}", values).tobytes() == expected.tobytes()


@pytest.mark.parametrize("weights", ["safetensors", "state_dict"])
@pytest.mark.parametrize("name", ["objects", "collections", "interfaces", "records", "recurrent", "static"])
def test_hearth_pack_takes_what_a_module_holds(pack, pack_server, name, weights):
    made = f"{name}-{weights}"
    pack(f"test_classes:{MADE[name].__name__}", made, "--weights", weights, "--example", "x=2x4:FP32", "--batch")
    with pack_server.client() as client:
        client.load_model(made)
    for batch in (1, 2, 16):
        values = values_of(batch)
        assert answer(pack_server, made, values).tobytes() == eager(name, values).tobytes()


@pytest.mark.parametrize("name", ["recurrent", "static", "halves"])
def test_a_state_dict_of_packed_parameters_is_refused_with_the_way_out(start, tmp_path, name):
    """Of packed parameters it has tuples and objects, which nobody could bind."""
    folder = tmp_path / "models" / "net" / "1"
    models.save(MADE[name](), folder / "program.pt")
    torch.save(MADE[name]().state_dict(), folder / "weights.pth")
    code, text = refusal(start(tmp_path / "models"), request("net", ("x", "FP32", [1, 4], bytes(16))))
    assert code == "INVALID_ARGUMENT" and "hearth pack" in text, text
