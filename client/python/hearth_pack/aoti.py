"""AOTInductor: a module or an exported program as native code, unpacked into an entry."""

import contextlib
import io
import json
import os
import pathlib
import re
import sys
import tempfile
import traceback
import zipfile

import torch

from hearth_pack import compare, entry, examples, exported, model_yaml, program, user_code, verify, weights
from hearth_pack.datatypes import PROTOCOL_NAMES
from hearth_pack.errors import PackError, UsageError, first_line

# Against eager PyTorch, whose kernels add up in another order.
TOLERANCE = 1e-5
PACKAGE = "model.pt2"
_PROGRAMS = "data/aotinductor/"
_SOURCES = (".cpp", ".h", ".o", ".txt")
# Compiler flags under which the kernel calls the CPU's features otherwise.
_FEATURES = {"avx512vnni": "avx512_vnni", "avx512bf16": "avx512_bf16", "amx-tile": "amx_tile", "amx-bf16": "amx_bf16",
             "amx-int8": "amx_int8", "amx-fp16": "amx_fp16"}


def require_compiler():
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler
        get_cpp_compiler()
    except Exception as error:  # torch's own has no public name
        raise PackError("--format aoti compiles the model, and there is no C++ compiler; install g++, or name one in "
                        "CXX") from error


def _last_words(error):
    """The C++ compiler's last error, behind pages of its command line; or what the exception begins with."""
    compilers = re.findall(r"^.*\berror: .*$", str(error), re.MULTILINE)
    return (compilers[-1].strip() if compilers else first_line(error))[:600]


@contextlib.contextmanager
def _told_briefly(failure):
    """PyTorch's compilers print the code that they stumble over; with their traceback, that is for a file."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            yield
    except Exception as error:  # the compilers' have no common base, and tracing runs foreign code
        descriptor, path = tempfile.mkstemp(prefix="hearth-pack-", suffix=".log")
        with open(descriptor, "w", encoding="utf-8") as log:
            log.write(printed.getvalue() + traceback.format_exc())
        raise PackError(f"{failure}: {_last_words(error)}{user_code.where(error)}; all of it is in {path}") from error
    sys.stderr.write(printed.getvalue())


# --- what is compiled ---

def export(module, method, example, batched, dynamic):
    """The module as torch.export has it, with open dimensions where `batched` and `dynamic` say so."""
    if not example:
        raise UsageError("--format aoti needs an --example of every input")
    foreign = [name for name, value in example.items() if not isinstance(value, torch.Tensor)]
    if foreign:
        raise UsageError(f"--example: a package of AOTInductor takes tensors only, and '{foreign[0]}' is text")
    # Export takes a size of 1 for one that never changes.
    sample = examples.twice(example, batched)
    batch = torch.export.Dim("batch", min=1)
    open_dims = {name: {**{dim: torch.export.Dim.DYNAMIC for dim in dynamic.get(name, ())},
                        **({0: batch} if name in batched else {})} for name in sample}
    if method != "forward":
        module.forward = getattr(module, method)
    with _told_briefly(f"torch.export cannot export {type(module).__name__}"), torch.no_grad():
        return torch.export.export(module, (), dict(sample), dynamic_shapes=open_dims)


def check(exported_program):
    """Refuses what could not be served."""
    mutated = exported_program.run_decompositions({}).graph_signature.buffers_to_mutate
    if mutated:
        names = ", ".join(f"'{name}'" for name in list(mutated.values())[:8])
        raise PackError(f"the model writes to its own state ({names}), which requests to an AOTInductor package would "
                        "share; use --format torchscript")


class Signature:
    """What a program takes and gives. dimensions: {name: [least, most]} of those that are open."""

    def __init__(self, exported_program, input_names):
        self.inputs, self.dimensions = [], {}
        nodes = {node.name: node for node in exported_program.graph.nodes if node.op == "placeholder"}
        user_inputs = exported_program.graph_signature.user_inputs
        for name, user_input in zip(input_names, user_inputs):
            value = nodes[user_input].meta.get("val") if user_input in nodes else None
            if len(user_inputs) != len(input_names) or not isinstance(value, torch.Tensor):
                raise PackError(f"a package of AOTInductor takes tensors only, and '{name}' is none; use --format "
                                "torchscript")
            self.inputs.append({"name": name, "datatype": _datatype(name, value.dtype),
                                "shape": [self._dimension(name, size) for size in value.shape]})
        ranges = {str(symbol): bounds for symbol, bounds in exported_program.range_constraints.items()}
        for name in self.dimensions:
            self.dimensions[name] = _range(ranges.get(name))

    def _dimension(self, name, size):
        if isinstance(size, int):
            return size
        text = str(size)
        if not text.isidentifier():
            raise PackError(f"the size of '{name}' has to be {text}, which requests cannot be checked for; export it "
                            "with dimensions that are open on their own, or use --format torchscript")
        self.dimensions[text] = None
        return text

    def open_dims(self):
        return {tensor["name"]: [i for i, size in enumerate(tensor["shape"]) if isinstance(size, str)]
                for tensor in self.inputs}


def _datatype(name, dtype):
    if dtype not in PROTOCOL_NAMES:
        raise PackError(f"the protocol has no datatype for '{name}', which is {dtype}")
    return PROTOCOL_NAMES[dtype]


def _range(bounds):
    def number(bound, otherwise):
        finite = isinstance(bound, int) or getattr(bound, "is_Integer", False)  # sympy's, or its infinity
        return int(bound) if finite else otherwise

    least = number(bounds.lower, 1) if bounds is not None else 1
    most = number(bounds.upper, 2**63 - 1) if bounds is not None else 2**63 - 1
    return [least if least > 2 else 1, most]  # export says 2 where it means any


def describe_outputs(outputs, shapes):
    """Of {name: tensor} that a run gave; shapes: what model.yaml says about them."""
    for name, value in outputs.items():
        if not isinstance(value, torch.Tensor):
            raise PackError(f"a package of AOTInductor gives tensors only, and '{name}' is text; use --format "
                            "torchscript")
    return [{"name": name, "datatype": _datatype(name, value.dtype), "shape": shapes[name]}
            for name, value in outputs.items()]


# --- compiling ---

def _cpu_features():
    """What the compiler is told that it may use, by the kernel's names."""
    from torch._inductor.cpu_vec_isa import pick_vec_isa
    isa = pick_vec_isa()
    flags = re.findall(r"-m([a-z0-9][a-z0-9.-]*)(?=\s|$)", isa.build_arch_flags()) if isa else []
    return sorted({_FEATURES.get(flag, flag) for flag in flags if not flag.startswith(("arch", "cpu", "sve"))})


def _configuration(metadata, threads):
    config = {
        "aot_inductor.package_constants_in_so": False,
        "always_keep_tensor_constants": True,       # else small weights become part of the code
        "aot_inductor.check_lowerbound": False,     # a batch of 1 is fine
        "aot_inductor.metadata": {"hearth": json.dumps(metadata)},
        "cpp.march": "",                            # the vector extensions that are recorded, and no others
        "cpp.dynamic_threads": threads != 1,        # as many threads as hearthd is configured for
        "cpp.threads": threads,
    }
    return {key: value for key, value in config.items() if _has(key)}


def _has(key):
    from torch._inductor import config
    where = config
    for part in key.split("."):
        if not hasattr(where, part):
            return False
        where = getattr(where, part)
    return True


def _throws_in_parallel(archive):
    """Whether an index out of range would end the process: an exception must not leave a parallel loop."""
    with zipfile.ZipFile(archive) as package:
        code = b"".join(package.read(name) for name in package.namelist() if name.endswith(".so"))
    return b"\0aoti_torch_check\0" in code and (b"\0GOMP_parallel\0" in code or b"\0__kmpc_fork_call\0" in code)


def compile_package(exported_program, metadata, archive):
    metadata = {"cpu_features": _cpu_features(), **metadata}
    with _told_briefly("AOTInductor cannot compile the model"):
        for threads in (-1, 1):
            torch._inductor.aoti_compile_and_package(
                exported_program, package_path=str(archive), inductor_configs=_configuration(metadata, threads))
            if not _throws_in_parallel(archive):
                return


def keep_constants(exported_program):
    """Gives tensors that are neither parameters nor buffers names that the package keeps."""
    from torch.export.graph_signature import InputKind
    for spec in exported_program.graph_signature.input_specs:
        if spec.kind == InputKind.CONSTANT_TENSOR:
            spec.kind, spec.persistent = InputKind.BUFFER, False


def unpack(archive, folder):
    """What loading needs of the archive; sources stay behind."""
    with zipfile.ZipFile(archive) as package:
        for name in package.namelist():
            at = name.find(_PROGRAMS)
            if at < 0 or name.endswith(_SOURCES + ("/",)):
                continue
            target = folder / name[at:]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(package.read(name))


# --- running it ---

class Compiled:
    """A package with weights, as hearthd runs it: named inputs to named outputs."""

    def __init__(self, loader, tensors, input_names, output_names):
        self._loader, self._inputs, self._outputs = loader, input_names, output_names
        self._constants = {name: tensors[name] for name in loader.get_constant_fqns()}
        if self._constants:
            loader.load_constants(self._constants, False, True, True)

    def run(self, example):
        with torch.inference_mode():
            results = self._loader.run([example[name].contiguous() for name in self._inputs])
        return dict(zip(self._outputs, [result.clone() for result in results], strict=True))


def _known(exported_program):
    return {**exported_program.state_dict, **exported_program.constants}


def layout_of(exported_program):
    """What hearthd has to know of the weights, for the package tells sizes only."""
    tensors = {name: tensor for name, tensor in _known(exported_program).items() if isinstance(tensor, torch.Tensor)}
    return {"constants": {name: list(tensor.shape) for name, tensor in tensors.items()},
            "strides": {name: list(tensor.stride()) for name, tensor in tensors.items() if not tensor.is_contiguous()}}


def constants_of(exported_program, archive):
    """{name: tensor} of what the package reads, as it lies in the module."""
    loader = torch._inductor.aoti_load_package(str(archive)).loader
    known = _known(exported_program)
    missing = [name for name in loader.get_constant_fqns() if not isinstance(known.get(name), torch.Tensor)]
    if missing:
        raise PackError(f"the package needs {', '.join(missing[:8])}, which the module does not have")
    return {name: known[name].detach() for name in sorted(loader.get_constant_fqns())}


def check_answers(folder, archive, tensors, read_back, cases, signature, output_names):
    """[(title, Comparison)] with the module. Raises where PyTorch's own loader answers otherwise."""
    names = [tensor["name"] for tensor in signature.inputs]
    try:
        packed = Compiled(torch._C._aoti.AOTIModelPackageLoader(str(folder / PACKAGE), "model", False, 1, -1),
                          read_back, names, output_names)
        own = Compiled(torch._inductor.aoti_load_package(str(archive)).loader, tensors, names, output_names)
        results = []
        for case in cases:
            for _ in range(verify.RUNS if case.repeats else 1):
                got = packed.run(case.example)
                if not compare.compare(own.run(case.example), got).equal_bits:
                    raise PackError(f"what was written does not answer {case.title} as PyTorch's own loader of the "
                                    "package does")
                results.append((case.title, compare.compare(case.expected, got)))
        return results
    except PackError:
        raise
    except Exception as error:  # the package's own
        raise PackError(f"what was written fails: {first_line(error)}") from error


def program_of(origin, options, example, batched):
    """(the exported program, the names of its inputs)."""
    made = origin.exported(lambda module: export(module, options.method, example, batched, options.dynamic))
    names = exported.Reference(made).input_names
    if example and set(names) != set(example):
        raise UsageError(f"--example: the program takes {', '.join(names)}")
    return made, names


def write(origin, options, example, batched, new, say):
    """Compiles into the entry `new`; (model.yaml, [(title, Comparison)], cases)."""
    require_compiler()
    made, names = program_of(origin, options, example, batched)
    check(made)
    signature = Signature(made, names)
    example = {name: example[name] for name in names}
    open_dims = signature.open_dims()
    fixed = [name for name in batched if 0 not in open_dims[name]]
    if fixed:
        raise UsageError(f"--batch: the program has a fixed first dimension of '{fixed[0]}'; export it anew, with "
                         "dynamic_shapes")
    schema = [(name, "Tensor", False) for name in names]
    cases = verify.make_cases(origin, options.method, example, schema, batched)
    dynamic = {name: [dim for dim in dims if dim > 0 or name not in batched] for name, dims in open_dims.items()}
    dynamic = {name: dims for name, dims in dynamic.items() if dims}
    model_yaml.refuse_another(options, "forward", names, cases)
    yaml = entry.model_yaml("forward", cases, batched, dynamic)
    outputs = describe_outputs(cases[0].expected, entry.output_shapes(cases, dynamic))

    archive = pathlib.Path(new.folder).parent / "package.pt2"
    say("compiling")
    keep_constants(made)
    compile_package(made, {"inputs": signature.inputs, "outputs": outputs, "dimensions": signature.dimensions,
                           **layout_of(made)}, archive)
    tensors = constants_of(made, archive)
    strided = [name for name, tensor in tensors.items() if not tensor.is_contiguous()]
    if strided and options.weights == "safetensors":
        raise PackError(f"safetensors keeps no strides, and '{strided[0]}' is not contiguous, which the compiled code "
                        "counts on: use --weights state_dict")
    unpack(archive, new.folder / PACKAGE)
    if tensors:
        weights.write(new.folder, tensors, options.weights,
                      weights.parse_size(options.shard_size) if options.shard_size else None)
    read_back = verify.check_weights(new.folder, tensors)
    say(f"weights: {len(tensors)} tensors, {sum(map(weights.size_of, tensors.values()))} bytes, read back: equal to "
        "the bit")
    results = check_answers(new.folder, archive, tensors, read_back, cases, signature,
                            [output["name"] for output in outputs])
    os.unlink(archive)
    return yaml, results, cases
