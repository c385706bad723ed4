"""What a module answers, and whether what was written answers the same."""

import hashlib

import torch

from hearth_pack import compare, examples, program, weights
from hearth_pack.datatypes import byte_view, raw_bytes
from hearth_pack.errors import PackError, first_line
from hearth_pack.progress import Progress

# TorchScript's profiling executor settles after two runs of a shape, and may answer differently from then on.
RUNS = 3


class Case:
    """One example with what has to be answered to it.

    repeats: whether a second run answers the same; not so in a module that keeps state between runs.
    """

    def __init__(self, title, example, expected, repeats):
        self.title, self.example, self.expected, self.repeats = title, example, expected, repeats


def run(module, method, example, schema):
    keywords = program.keywords(example, schema)
    with torch.inference_mode():
        return program.outputs(getattr(module, method)(**keywords))


def _expect(source, method, title, example, schema):
    # A module that nothing was run on: hearthd gives every request the state of the file.
    module = source.reference()
    try:
        expected = {name: value if isinstance(value, list) else value.clone()
                    for name, value in run(module, method, example, schema).items()}
        again = run(module, method, example, schema)
        return Case(title, example, expected, compare.compare(expected, again).equal_bits)
    except PackError:
        raise
    except Exception as error:  # the model's own
        hint = examples.type_hint(error, module, example)
        raise PackError(f"the model refuses {title}: {first_line(error)}{hint}") from error


def make_cases(source, method, example, schema, batched):
    """batched: the inputs whose first dimension is a batch; then a batch of one and one twice as large are tried."""
    if not example:
        return []
    cases = [_expect(source, method, "the example", example, schema)]
    if batched:
        cases.append(_expect(source, method, "batch 1", examples.first_row(example, batched), schema))
        cases.append(_expect(source, method, "the example twice in one batch", examples.twice(example, batched),
                             schema))
    return cases


def check_weights(folder, expected):
    """Reads the weights of an entry back; {name: tensor}. Raises where they are not `expected`, bit for bit."""
    tensors, checksums = weights.read_entry(folder)
    if tensors.keys() != expected.keys():
        raise PackError("the weights that were written have other names than those of the program")
    with Progress(sum(map(weights.size_of, tensors.values())), "verifying weights") as progress:
        for name, tensor in tensors.items():
            want = expected[name]
            if tensor.dtype != want.dtype or tensor.shape != want.shape or not torch.equal(
                    byte_view(tensor), byte_view(want)):
                raise PackError(f"'{name}' does not come back as it was written; is the disk in order?")
            if name in checksums and hashlib.sha256(raw_bytes(tensor)).hexdigest() != checksums[name]:
                raise PackError(f"the checksum of '{name}' is not that of its bytes")
            progress.update(weights.size_of(tensor))
    return tensors


def load_back(folder, tensors):
    """The entry as hearthd makes it of its files: the program with the weights bound to it."""
    try:
        loaded = torch.jit.load(str(folder / "program.pt"), map_location="cpu")
    except RuntimeError as error:  # attributes with names beyond ASCII, for one
        text = " ".join(str(error).split())
        raise PackError(f"this PyTorch cannot read the program back that it wrote: {text[:600]}") from error
    program.bind(loaded, tensors)
    return loaded


def check_answers(folder, method, tensors, cases, schema):
    """[(title, Comparison)] of the entry in `folder`, run here, one for each run."""
    results = []
    for case in cases:
        loaded = load_back(folder, tensors)
        for _ in range(RUNS if case.repeats else 1):
            try:
                got = run(loaded, method, case.example, schema)
            except Exception as error:  # TorchScript's own, or the model's
                raise PackError(f"what was written fails on {case.title}: {first_line(error)}") from error
            results.append((case.title, compare.compare(case.expected, got)))
    return results


def check_served(server, name, version, cases):
    """The same, as a running hearthd answers."""
    server.load(name)
    return [(case.title, compare.compare(case.expected, server.infer(name, version, case.example)))
            for case in cases for _ in range(RUNS)]
