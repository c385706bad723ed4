"""A program of TorchScript: its arguments, its state, and how its weights are taken out and put back."""

import torch

from hearth_pack.errors import PackError, UsageError, kind_of, with_article

_SCALARS = {"int": int, "float": float, "bool": bool}
_LISTS = {"List[int]", "List[float]", "List[bool]"}


def arguments(program, method):
    """[(name, type, may it be left out)] of the method, by the schema that hearthd reads too."""
    try:
        schema = getattr(program, method).schema
    except (AttributeError, RuntimeError):
        raise UsageError(f"the program has no method '{method}'; methods are exported with @torch.jit.export, and "
                         "chosen with --method") from None
    result = []
    for argument in schema.arguments[1:]:
        kind = argument.type
        nullable = kind.kind() == "OptionalType"
        text = str(kind.getElementType() if nullable else kind)
        result.append((argument.name, text, nullable or argument.has_default_value()))
    return result


def check_names(example, schema):
    known = [name for name, _, _ in schema]
    for name in example:
        if name not in known:
            raise UsageError(f"--example: the program has no input '{name}'; it takes {', '.join(known)}")
    missing = [name for name, _, optional in schema if not optional and name not in example]
    if example and missing:
        raise UsageError(f"--example lacks the input{'s' * (len(missing) > 1)} {', '.join(missing)}")


def _to_argument(name, kind, value):
    """As hearthd converts a request's tensor: numbers and lists of numbers arrive as tensors."""
    if kind == "Tensor":
        return value
    if kind == "List[str]":
        return value
    if kind == "str":
        return value[0]
    if kind in _SCALARS:
        if value.numel() != 1:
            raise UsageError(f"--example: '{name}' is a number of the program; write {name}=1:INT64=16000")
        return _SCALARS[kind](value.item())
    if kind in _LISTS:
        return value.tolist()
    raise PackError(f"the protocol has no form for the argument '{name}', {with_article(kind)}; wrap the module in "
                    "one that takes tensors, numbers or strings")


def keywords(example, schema):
    """The arguments to call the method with."""
    kinds = {name: kind for name, kind, _ in schema}
    return {name: _to_argument(name, kinds[name], value) for name, value in example.items()}


def flatten(result, name=""):
    """[(own name or "", leaf)]: in the order, and under the names, that hearthd gives outputs."""
    if result is None:
        return []
    if isinstance(result, dict):
        return [leaf for key, value in result.items() for leaf in flatten(value, key if isinstance(key, str) else "")]
    if isinstance(result, tuple):
        fields = getattr(result, "_fields", [""] * len(result))
        return [leaf for field, value in zip(fields, result) for leaf in flatten(value, field)]
    if isinstance(result, list):
        if result and all(isinstance(item, (bool, int, float)) for item in result):
            return [(name, torch.tensor(result, dtype=_number_type(result[0])))]
        if not result or not all(isinstance(item, str) for item in result):
            return [leaf for item in result for leaf in flatten(item)]
    if isinstance(result, (bool, int, float)):
        return [(name, torch.tensor(result, dtype=_number_type(result)))]
    if isinstance(result, str):
        return [(name, [result])]
    if isinstance(result, (torch.Tensor, list)):
        return [(name, result)]
    raise PackError(f"the program returns {kind_of(result)}, which the protocol has no form for")


def _number_type(value):
    return torch.bool if isinstance(value, bool) else torch.int64 if isinstance(value, int) else torch.float64


def outputs(result):
    """{name: tensor or list of str}; OUTPUT__i where the program gives no name."""
    return {name or f"OUTPUT__{i}": leaf for i, (name, leaf) in enumerate(flatten(result))}


# --- state ---

def identity(tensor):
    """What makes two names one tensor."""
    if tensor.layout != torch.strided:
        return id(tensor)
    return (tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(),
            tensor.dtype)


def state(program):
    """{name: tensor} of all parameters and buffers, with tied ones under each of their names."""
    return {**dict(program.named_parameters(remove_duplicate=False)),
            **dict(program.named_buffers(remove_duplicate=False))}


def weights_of(program, names):
    """{name: tensor} of what goes into files of weights: the state of these names, tied tensors under the first.

    Quantised buffers stay in the program, for no file of weights has a form for them.
    """
    chosen, seen = {}, set()
    for name, tensor in program.state_dict(keep_vars=True).items():
        if name not in names or not isinstance(tensor, torch.Tensor) or tensor.is_quantized:
            continue
        if tensor.layout != torch.strided:
            raise PackError(f"'{name}' is a sparse tensor, which hearth does not serve; make it dense")
        if identity(tensor) not in seen:
            seen.add(identity(tensor))
            chosen[name] = tensor.detach()
    return chosen


def _hollow_twin(tensor):
    """Of its shape and type, with one element of memory behind it."""
    if tensor.numel() <= 1:
        return tensor.detach().clone()
    return torch.zeros(1, dtype=tensor.dtype).expand(tensor.shape)


def hollow(program, weights):
    """Takes the values of `weights` out of the program; ties stay, and so does everything else."""
    gone = {identity(tensor) for tensor in weights.values()}
    twins = {}
    for tensor, key in [(tensor, identity(tensor)) for tensor in state(program).values()]:
        if key in gone:
            if key not in twins:
                twins[key] = _hollow_twin(tensor)
            tensor.data = twins[key]


def bind(program, weights):
    """Puts weights into a program as hearthd does: by name, and those tied to them with them."""
    everything = state(program)
    identities = {name: identity(tensor) for name, tensor in everything.items()}
    unknown = [name for name in weights if name not in everything]
    if unknown:
        raise PackError(f"the program that was written has no {', '.join(unknown[:8])}")
    tied = {identities[name]: tensor for name, tensor in weights.items()}
    for name, tensor in everything.items():
        value = weights.get(name, tied.get(identities[name]))
        if value is not None:
            tensor.data = value.to(tensor.dtype)
