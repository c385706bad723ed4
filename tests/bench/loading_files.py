"""The models that loading.py times: a stack of square layers in every format, made once."""

import dataclasses
import pathlib
import sys
import warnings

import safetensors.torch
import torch

import common

sys.path.insert(0, str(common.ROOT / "client" / "python"))
from hearth_pack import safetensors as packed  # noqa: E402  (the writer of `hearth pack`)
from hearth_pack.progress import Progress  # noqa: E402

warnings.filterwarnings("ignore", category=DeprecationWarning)


@dataclasses.dataclass(frozen=True)
class Size:
    width: int
    layers: int

    @property
    def dims(self):
        return f"1,{self.width}"

    @property
    def bytes(self):
        return 4 * self.width * self.width * self.layers


SIZES = {"8MB": Size(512, 8), "400MB": Size(2048, 24), "2GB": Size(4096, 32)}


class Wide(torch.nn.Module):
    def __init__(self, width: int, layers: int):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(width, width, bias=False) for _ in range(layers)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x)) + x
        return x


class Headed(torch.nn.Module):
    """A base that others have too, and a head of its own."""

    def __init__(self, width: int, layers: int):
        super().__init__()
        self.base = Wide(width, layers)
        self.head = torch.nn.Linear(width, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.base(x))


def make(module_class, size, seed):
    """Layers that neither blow up nor die out, whatever their number."""
    torch.manual_seed(seed)
    module = module_class(size.width, size.layers).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.2)
    return module


def once(path, write):
    """Calls write(path) unless it is there; half a file is never left behind."""
    if not path.exists():
        common.say(f"writing {path.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(path.suffix + ".part")
        part.unlink(missing_ok=True)
        write(part)
        part.rename(path)
    return path


def hollow(module):
    """The program with the weights' shapes and none of their values (docs/formats.md)."""
    scripted = torch.jit.script(module)
    for tensor in [*scripted.parameters(), *scripted.buffers()]:
        if tensor.numel() > 1:
            tensor.data = torch.zeros(1, dtype=tensor.dtype).expand(tensor.shape)
    return scripted


def write_packed(path, module):
    state = dict(module.state_dict())
    with Progress(2 * sum(tensor.nbytes for tensor in state.values()), path.name) as bar:
        packed.write(path, state, bar)


@dataclasses.dataclass(frozen=True)
class Files:
    """One set of weights in every format."""
    torchscript: pathlib.Path
    pickled: pathlib.Path
    safetensors: pathlib.Path
    packed: str  # program and weights, as load_bench takes them

    def all(self):
        return [self.torchscript, self.pickled, self.safetensors, *map(pathlib.Path, self.packed.split(","))]


def files_of(name):
    size = SIZES[name]
    cell = []  # made only if some file is missing

    def module():
        if not cell:
            cell.append(make(Wide, size, 7))
        return cell[0]

    folder = common.CACHE / name
    return Files(
        once(folder / "model.pt", lambda path: torch.jit.script(module()).save(str(path))),
        once(folder / "model.pth", lambda path: torch.save(module().state_dict(), path)),
        once(folder / "model.safetensors",
             lambda path: safetensors.torch.save_file(module().state_dict(), path)),
        ",".join(map(str, (
            once(folder / "program.pt", lambda path: hollow(make(Wide, size, 7)).save(str(path))),
            once(folder / "packed.safetensors", lambda path: write_packed(path, module()))))))


def variant_of(name):
    """Another set of weights for the same program."""
    size = SIZES[name]
    folder = common.CACHE / name
    weights = once(folder / "variant.safetensors", lambda path: write_packed(path, make(Wide, size, 8)))
    return f"{folder / 'program.pt'},{weights}"


def heads_on_one_base(count):
    """Packed entries, each a whole file, whose base is the same bytes."""
    size = Size(2048, 6)
    folder = common.CACHE / "heads"
    program = once(folder / "program.pt", lambda path: hollow(make(Headed, size, 7)).save(str(path)))
    models = []
    for number in range(count):
        def write(path, number=number):
            module = make(Headed, size, 7)
            torch.manual_seed(100 + number)
            torch.nn.init.normal_(module.head.weight)
            write_packed(path, module)
        models.append(f"{program},{once(folder / f'head{number}.safetensors', write)}")
    return size, models
