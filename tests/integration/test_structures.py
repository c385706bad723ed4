"""Every kind of argument and of result that a program can have, against the same module in PyTorch."""

from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import models
from test_protocol import refusal, request
from test_rest import infer


class Pair(NamedTuple):
    low: Tensor
    high: Tensor


class Scored(NamedTuple):
    label: str
    score: float


# --- results ---

class AString(nn.Module):
    def forward(self, x: Tensor) -> str:
        return "zażółć " + str(x.size(0))


class Strings(nn.Module):
    def forward(self, x: Tensor) -> List[str]:
        out: List[str] = []
        for i in range(x.size(0)):
            out.append("row " + str(i))
        return out


class AnOptional(nn.Module):
    def forward(self, x: Tensor) -> Optional[Tensor]:
        return x * 2 if x.size(0) > 1 else None


class OptionalsAmongOthers(nn.Module):
    def forward(self, x: Tensor) -> Tuple[Optional[Tensor], Tensor, Optional[int]]:
        if x.size(0) > 1:
            return x * 2, x, x.size(0)
        return None, x, None


class ADictionary(nn.Module):
    def forward(self, x: Tensor) -> Dict[str, Tensor]:
        return {"double": x * 2, "sum": x.sum()}


class Mixed(nn.Module):
    def forward(self, x: Tensor) -> Tuple[Tensor, str, int, float, bool, List[int], List[float], List[bool], List[str]]:
        n = x.size(0)
        return x, "s", n, n / 2, n > 1, [n, 2], [0.5, float(n)], [True, n > 1], ["a", ""]


class Named(nn.Module):
    def forward(self, x: Tensor) -> Pair:
        return Pair(x - 1, x + 1)


class Nested(nn.Module):
    def forward(self, x: Tensor) -> Tuple[Tuple[Tensor, Pair], List[str], Pair]:
        return (x, Pair(x - 1, x + 1)), ["a"], Pair(x - 2, x + 2)


class Tensors(nn.Module):
    """None, or one for each row."""

    def forward(self, x: Tensor) -> List[Tensor]:
        out: List[Tensor] = []
        for i in range(x.size(0)):
            if x.size(0) > 1:
                out.append(x[i] + i)
        return out


class ListsInADictionary(nn.Module):
    def forward(self, x: Tensor) -> Dict[str, List[Tensor]]:
        return {"parts": [x, x + 1]}


class PairsInAList(nn.Module):
    def forward(self, x: Tensor) -> List[Pair]:
        return [Pair(x, x + 1), Pair(x + 2, x + 3)]


class Scalars(nn.Module):
    def forward(self, x: Tensor) -> Tuple[int, float, bool]:
        return x.size(0), float(x.sum()), bool(x.sum() > 0)


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> List[str]:
        out: List[str] = []
        return out


RESULTS = [AString, Strings, AnOptional, OptionalsAmongOthers, ADictionary, Mixed, Named, Nested, Tensors,
           ListsInADictionary, PairsInAList, Scalars, Nothing]


# --- arguments ---

class TakesAString(nn.Module):
    def forward(self, word: str, x: Tensor) -> Tuple[str, Tensor]:
        return word + "!", x


class TakesStrings(nn.Module):
    def forward(self, words: List[str]) -> Tuple[List[str], int]:
        return [word + "." for word in words], len(words)


class TakesTensors(nn.Module):
    def forward(self, xs: List[Tensor]) -> Tensor:
        return torch.cat(xs) * 2


class TakesADictionary(nn.Module):
    def forward(self, features: Dict[str, Tensor], scale: float = 1.0) -> Dict[str, Tensor]:
        return {name + "_scaled": value * scale for name, value in features.items()}


class TakesATuple(nn.Module):
    def forward(self, pair: Tuple[Tensor, int]) -> Tensor:
        return pair[0] + pair[1]


class TakesANamedTuple(nn.Module):
    def forward(self, pair: Pair, x: Tensor) -> Tensor:
        return (pair.high - pair.low) * x


class TakesAnOptional(nn.Module):
    def forward(self, x: Tensor, shift: Optional[Tensor] = None) -> Tensor:
        return x if shift is None else x + shift


class TakesAnOptionalTuple(nn.Module):
    def forward(self, x: Tensor, pair: Optional[Tuple[Tensor, Tensor]] = None) -> Tensor:
        return x if pair is None else x + pair[0] * pair[1]


class TakesNumbers(nn.Module):
    def forward(self, n: int, f: float, b: bool, ns: List[int], fs: List[float], bs: List[bool]) -> Tuple[int, float, bool]:
        return n + sum(ns), f + float(sum(fs)), b and bs[0]


class TakesTuplesInAList(nn.Module):
    def forward(self, pairs: List[Tuple[Tensor, Tensor]]) -> Tensor:
        total = torch.zeros(2)
        for a, b in pairs:
            total = total + a * b
        return total


class TakesWhatNobodyCanSend(nn.Module):
    def forward(self, x: Tensor, d: Dict[str, Optional[Dict[int, Tensor]]]) -> Tensor:
        return x


X, Y, Z = (torch.tensor([1.0, 2.0]), torch.tensor([3.0, -4.0]), torch.tensor([0.5, 0.25]))


def declared(*names, **more):
    return "inputs:\n" + "".join(f"  - {{name: {name}, datatype: FP32{', optional: true' if name in more.get('optional', ()) else ''}}}\n"
                                 for name in names)


# (module, model.yaml, arguments of forward, the same as inputs)
ARGUMENTS = [
    (TakesAString, "", {"word": "zażółć", "x": X}, {"word": "zażółć", "x": X}),
    (TakesStrings, "", {"words": ["a", "", "c d"]}, {"words": ["a", "", "c d"]}),
    (TakesStrings, "", {"words": []}, {"words": []}),
    (TakesTensors, declared("xs__0", "xs__1", "xs__2"), {"xs": [X, Y, Z]}, {"xs__0": X, "xs__1": Y, "xs__2": Z}),
    (TakesADictionary, declared("features__age", "features__height"), {"features": {"age": X, "height": Y}},
     {"features__age": X, "features__height": Y}),
    (TakesADictionary, declared("features__age", "features__height", optional=["features__height"]),
     {"features": {"age": X}}, {"features__age": X}),
    (TakesATuple, "", {"pair": (X, 3)}, {"pair__0": X, "pair__1": 3}),
    (TakesANamedTuple, "", {"pair": Pair(X, Y), "x": Z}, {"pair__low": X, "pair__high": Y, "x": Z}),
    (TakesAnOptional, "", {"x": X}, {"x": X}),
    (TakesAnOptional, "", {"x": X, "shift": Y}, {"x": X, "shift": Y}),
    (TakesAnOptionalTuple, "", {"x": X}, {"x": X}),
    (TakesAnOptionalTuple, "", {"x": X, "pair": (Y, Z)}, {"x": X, "pair__0": Y, "pair__1": Z}),
    (TakesNumbers, "", {"n": 2, "f": 0.5, "b": True, "ns": [3, 4], "fs": [0.25], "bs": [True]},
     {"n": 2, "f": 0.5, "b": True, "ns": [3, 4], "fs": [0.25], "bs": [True]}),
    (TakesTuplesInAList, declared("pairs__0__0", "pairs__0__1", "pairs__1__0", "pairs__1__1"),
     {"pairs": [(X, Y), (Z, X)]}, {"pairs__0__0": X, "pairs__0__1": Y, "pairs__1__0": Z, "pairs__1__1": X}),
]
REFUSED = [(TakesTensors, "xs__0"), (TakesADictionary, "features__KEY")]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("structures")
    for module in RESULTS:
        models.write_model(root, module.__name__, module())
    for number, (module, options, _, _) in enumerate(ARGUMENTS):
        models.write_model(root, f"arguments-{number}", module(), options=options)
    for module, _ in REFUSED:
        models.write_model(root, f"undeclared-{module.__name__}", module())
    models.write_model(root, "unsendable", TakesWhatNobodyCanSend(), options=declared("d__a", optional=["d__a"]))
    models.write_model(root, "identity", models.Identity())
    return root


TYPES = {torch.float32: ("FP32", np.float32), torch.int64: ("INT64", np.int64)}


def packed(words):
    return b"".join(len(word.encode()).to_bytes(4, "little") + word.encode() for word in words)


def as_wire(name, value):
    """(name, datatype, shape, bytes) of what Python has."""
    if isinstance(value, Tensor):
        kind, dtype = TYPES[value.dtype]
        return name, kind, list(value.shape), value.numpy().astype(dtype).tobytes()
    values = value if isinstance(value, list) else [value]
    shape = [len(values)]
    if not values or isinstance(values[0], str):
        return name, "BYTES", shape, packed(values)
    if isinstance(values[0], bool):
        return name, "BOOL", shape, np.array(values, np.bool_).tobytes()
    if isinstance(values[0], int):
        return name, "INT64", shape, np.array(values, np.int64).tobytes()
    return name, "FP64", shape, np.array(values, np.float64).tobytes()


def leaves(value, own=""):
    """[(own name or "", value or None)] of a result, as docs/models.md counts outputs. An empty list is one of strings."""
    if isinstance(value, tuple):
        names = getattr(value, "_fields", [""] * len(value))
        return [leaf for name, part in zip(names, value) for leaf in leaves(part, name)]
    if isinstance(value, dict):
        return [leaf for name, part in value.items() for leaf in leaves(part, name)]
    if isinstance(value, list) and value and isinstance(value[0], (Tensor, tuple)):
        return [leaf for part in value for leaf in leaves(part)]
    return [(own, value)]


def as_outputs(value):
    """{output's name: (datatype, shape, bytes)}, of what PyTorch returned."""
    expected, taken = {}, set()
    for number, (own, leaf) in enumerate(leaves(value)):
        name = own if own and own not in taken else f"OUTPUT__{number}"
        taken.add(own)
        if leaf is None:
            continue
        _, kind, shape, raw = as_wire(name, leaf)
        expected[name] = (kind, shape if isinstance(leaf, (Tensor, list)) else [], raw)
    return expected


def answer_of(server, message):
    answer = server.stub().ModelInfer(message, timeout=60)
    return {output.name: (output.datatype, list(output.shape), raw)
            for output, raw in zip(answer.outputs, answer.raw_output_contents)}


@pytest.mark.parametrize("module, rows", [(module, rows) for module in RESULTS for rows in (1, 3)
                                          if (module, rows) != (Tensors, 1)],  # which gives an empty list: below
                         ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_result_is_answered_as_pytorch_returns_it(server, module, rows):
    x = torch.arange(rows * 2, dtype=torch.float32).reshape(rows, 2)
    assert answer_of(server, request(module.__name__, as_wire("x", x))) == as_outputs(module()(x))


def test_an_empty_list_of_tensors_is_no_output(server):
    assert Tensors()(torch.ones(1, 2)) == []
    assert answer_of(server, request("Tensors", as_wire("x", torch.ones(1, 2)))) == {}


@pytest.mark.parametrize("number", range(len(ARGUMENTS)), ids=lambda n: f"{ARGUMENTS[n][0].__name__}-{n}")
def test_an_argument_is_made_of_the_inputs_that_the_metadata_names(server, number):
    module, _, arguments, inputs = ARGUMENTS[number]
    expected = as_outputs(module()(**arguments))
    message = request(f"arguments-{number}", *(as_wire(name, value) for name, value in inputs.items()))
    assert answer_of(server, message) == expected
    with server.client() as client:
        metadata = client.get_model_metadata(f"arguments-{number}", as_json=True)
    assert set(inputs) <= {one["name"] for one in metadata["inputs"]}


def test_json_takes_and_gives_the_same(server):
    number = next(i for i, one in enumerate(ARGUMENTS) if one[0] is TakesANamedTuple)
    status, answer = infer(server, f"arguments-{number}", {"inputs": [
        {"name": name, "datatype": "FP32", "shape": [2], "data": value.tolist()}
        for name, value in ARGUMENTS[number][3].items()]})
    assert status == 200 and answer["outputs"][0]["data"] == ((Y - X) * Z).tolist()


def test_part_of_an_optional_tuple_is_refused_with_what_is_missing(server):
    number = next(i for i, one in enumerate(ARGUMENTS) if one[0] is TakesAnOptionalTuple)
    code, text = refusal(server, request(f"arguments-{number}", as_wire("x", X), as_wire("pair__0", Y)))
    assert code == "INVALID_ARGUMENT" and "'pair__1' is missing" in text, text


def test_an_output_that_is_none_cannot_be_asked_for(server):
    message = request("AnOptional", as_wire("x", torch.ones(1, 2)), outputs=["OUTPUT__0"])
    code, text = refusal(server, message)
    assert code == "INVALID_ARGUMENT" and "OUTPUT__0" in text
    assert answer_of(server, request("AnOptional", as_wire("x", torch.ones(2, 2)), outputs=["OUTPUT__0"]))


@pytest.mark.parametrize("module, part", REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_what_only_model_yaml_can_say_is_asked_for(server, module, part):
    code, text = refusal(server, request(f"undeclared-{module.__name__}", as_wire("x", X)))
    assert code == "INVALID_ARGUMENT" and "declare its parts in model.yaml" in text and part in text, text


def test_a_part_that_is_declared_and_cannot_be_read_is_no_part_of_another_argument(server):
    code, text = refusal(server, request("unsendable"))
    assert code == "INVALID_ARGUMENT" and "input 'd__a' is declared" in text and "no form for" in text, text


def test_strings_for_a_tensor_are_refused_before_the_model_sees_them(server):
    runs = server.metric("hearth_requests_total", model="identity", code="INVALID_ARGUMENT")
    code, text = refusal(server, request("identity", ("x", "BYTES", [1], packed(["a"]))))
    assert code == "INVALID_ARGUMENT" and "data-type is 'BYTES'" in text and "any but BYTES" in text, text
    assert server.metric("hearth_requests_total", model="identity", code="INVALID_ARGUMENT") == runs + 1
    assert not [line for line in server.lines if "CHECK" in line]
