"""Packing, from the source to the entry that was compared and put in place."""

import time

import torch

from hearth_pack import aoti, entry, examples, model_yaml, program, source, verify, weights
from hearth_pack.errors import PackError, UsageError


def _say(text):
    print(text, flush=True)


def _count(things, word):
    return f"{len(things)} {word}{'s' * (len(things) != 1)}"


def _example(options, origin):
    example = examples.parse(options.example)
    if example or not origin.example:
        return example
    _say("example: what the program was exported with")
    return dict(origin.example)


def _trace_inputs(options, origin, example):
    if not options.trace:
        return None
    if origin.input_names is None:
        return ()
    if not example:
        raise UsageError("--trace needs an --example of every input")
    given = [name for name in origin.input_names if name in example]
    if given != origin.input_names[:len(given)] or len(given) != len(example):
        raise UsageError(f"--example: to be traced are {', '.join(origin.input_names)}, in this order; an input can "
                         "be left out only at the end")
    if not all(isinstance(example[name], torch.Tensor) for name in given):
        raise UsageError("--trace: a traced program takes tensors only")
    return tuple(example[name] for name in given)


def _tensor_inputs(example, schema):
    kinds = {name: kind for name, kind, _ in schema}
    return [name for name, value in example.items() if kinds.get(name) == "Tensor" and examples.batched(value)]


def _check_dynamic(options, example):
    for name, dims in options.dynamic.items():
        if name not in example or isinstance(example[name], list) or max(dims) >= example[name].dim():
            raise UsageError(f"--dynamic: there is no example of '{name}' with a dimension {max(dims)}")


def _report(kind, results, tolerance):
    """Prints the worst run of each case; whether all are within the tolerance."""
    worst = {}
    for title, result in results:
        if title not in worst or result.badness > worst[title].badness:
            worst[title] = result
    for title, result in worst.items():
        _say(f"{kind}: {title}: {result}")
    return all(result.within(tolerance) for result in worst.values())


def _write(folder, made, tensors, options):
    strided = [name for name, tensor in tensors.items() if not tensor.is_contiguous()]
    files = weights.write(folder, tensors, options.weights,
                          weights.parse_size(options.shard_size) if options.shard_size else None)
    program.hollow(made, tensors)
    made.save(str(folder / "program.pt"))
    return files, strided


_STRIDES = ("; safetensors keeps no strides, and {} is not contiguous, which makes kernels round differently: use "
            "--weights state_dict")


def pack(options, began):
    options.dtype = getattr(torch, options.dtype) if options.dtype else None
    origin = source.open_source(options.source, options)
    example = _example(options, origin)
    make = _pack_aoti if options.format == "aoti" else _pack_torchscript
    new, cases = make(options, origin, example)
    _say(f"packed: {new.target} in {time.monotonic() - began:.1f} s")
    return _verify_served(options, new, cases, origin)


def _pack_aoti(options, origin, example):
    if options.trace:
        raise UsageError("--trace is for --format torchscript; AOTInductor compiles what torch.export makes")
    if not example:
        raise UsageError("--format aoti needs an --example of every input")
    _check_dynamic(options, example)
    batched = [name for name, value in example.items() if examples.batched(value)] if options.batch else []
    with entry.NewEntry(options.repository, options.name, options.model_version) as new:
        yaml, results, cases = aoti.write(origin, options, example, batched, new, _say)
        _say("compared with PyTorch's own loader of the package: equal to the bit")
        _finish(options, new, yaml, results, origin, "")
    return new, cases


def _finish(options, new, yaml, results, origin, hint):
    """Puts the entry in place, if it answers as it should."""
    if not _report(f"compared with {origin.title}", results, options.tolerance):
        raise PackError(f"the answers differ by more than --tolerance {options.tolerance:g}, so nothing was put "
                        f"in place{hint}")
    if not results:
        _say("answers: not compared, because there is no --example")
    if not new.publish(yaml, options.overwrite_yaml):
        _say("model.yaml: another one is there and was left as it is; --overwrite-yaml replaces it")


def _pack_torchscript(options, origin, example):
    made = origin.program(options.method, _trace_inputs(options, origin, example))
    schema = program.arguments(made, options.method)
    program.check_names(example, schema)
    # As hearthd orders them.
    example = {name: example[name] for name, _, _ in schema if name in example}
    if options.batch and not example:
        raise UsageError("--batch needs an --example of every input")
    if options.verify_with and not example:
        raise UsageError("--verify-with needs an --example of every input")
    _check_dynamic(options, example)
    batched = _tensor_inputs(example, schema) if options.batch else []
    cases = verify.make_cases(origin, options.method, example, schema, batched)
    model_yaml.refuse_another(options, options.method, [name for name, _, _ in schema], cases)
    yaml = entry.model_yaml(options.method, cases, batched, options.dynamic)
    tensors = program.weights_of(made, set(origin.state_names()))

    with entry.NewEntry(options.repository, options.name, options.model_version) as new:
        files, strided = _write(new.folder, made, tensors, options)
        read_back = verify.check_weights(new.folder, tensors)
        _say(f"weights: {_count(tensors, 'tensor')}, {sum(map(weights.size_of, tensors.values()))} bytes in "
             f"{_count(files, 'file')}{' and an index' * (len(files) > 1)}, read back: equal to the bit")
        results = verify.check_answers(new.folder, options.method, read_back, cases, schema)
        hint = _STRIDES.format(strided[0]) if strided and options.weights == "safetensors" else ""
        _finish(options, new, yaml, results, origin, hint)
    return new, cases


def _verify_served(options, new, cases, origin):
    if not options.verify_with:
        return 0
    from hearth_pack.served import Server
    from hearth_pack.trust import Trust

    results = verify.check_served(Server(options.verify_with, Trust(options)), options.name, new.version, cases)
    if _report(f"served, compared with {origin.title}", results, options.tolerance):
        return 0
    raise PackError(f"hearthd's answers differ by more than --tolerance {options.tolerance:g}; '{new.target}' was "
                    "left in place")
