"""What is packed, whatever it came as: a module to compare with, and a program of TorchScript made of it."""

import copy
import inspect
import pathlib
import pickle
import sys
import tarfile
import zipfile

import torch

from hearth_pack import checkpoint, examples, exported, user_code
from hearth_pack.errors import PackError, UsageError, first_line, kind_of


class Source:
    """input_names: of the method, or None when only the program knows them."""

    input_names = None
    example = None  # {input: tensor} that came with it
    title = ""      # what its answers are compared with

    def reference(self):
        """A module that nothing has been run on yet."""
        raise NotImplementedError

    def program(self, method, trace_inputs=None):
        """A new ScriptModule. trace_inputs: traced with these, where that is possible."""
        raise NotImplementedError

    def exported(self, export):
        """torch.export's program, for a compiler; export(module) makes one of a module."""
        raise NotImplementedError

    def state_names(self):
        """What state_dict() has: the tensors that become weights."""
        raise NotImplementedError


class TorchScriptFile(Source):
    title = "torch.jit.load of the original"

    def __init__(self, path, dtype):
        self._path, self._dtype = path, dtype
        self._names = list(self.reference().state_dict())

    def reference(self):
        try:
            module = torch.jit.load(str(self._path), map_location="cpu").eval()
        except RuntimeError as error:
            raise PackError(f"'{self._path}' is not a TorchScript file: {first_line(error)}") from error
        return module.to(self._dtype) if self._dtype else module

    def program(self, method, trace_inputs=None):
        if trace_inputs is not None:
            raise UsageError("--trace is for Python modules; a TorchScript file is a program already")
        return self.reference()

    def exported(self, export):
        raise UsageError("--format aoti compiles Python modules and programs by torch.export.save; TorchScript cannot "
                         "be exported: pack the module that it was made of, as MODULE:FACTORY")

    def state_names(self):
        return self._names


class EagerModule(Source):
    title = "eager PyTorch"

    def __init__(self, module, dtype, method):
        self._module = (module.to(dtype) if dtype else module).cpu().eval()
        if not callable(getattr(module, method, None)):
            raise UsageError(f"{type(module).__name__} has no method '{method}'")
        parameters = inspect.signature(getattr(module, method)).parameters.values()
        self.input_names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]

    def reference(self):
        """Shares its parameters, which may be large; has buffers and attributes of its own, which runs change."""
        shared = {id(parameter): parameter for parameter in self._module.parameters()}
        return copy.deepcopy(self._module, shared)

    def program(self, method, trace_inputs=None):
        module = self.reference()
        try:
            if trace_inputs is None:
                return torch.jit.script(module)
            with torch.no_grad():
                # What it does with other values and shapes is compared later, against the module itself.
                return torch.jit.trace_module(module, {method: trace_inputs}, strict=False, check_trace=False)
        except Exception as error:  # the compiler's errors have no common base, and tracing runs foreign code
            verb, other = ("trace", "") if trace_inputs is not None else ("script", "; try --trace")
            text = " ".join(str(error).split())[:600]
            text += examples.type_hint(error, module, dict(zip(self.input_names, trace_inputs or ())))
            raise PackError(f"TorchScript cannot {verb} {type(self._module).__name__}: {text}{other}") from error

    def exported(self, export):
        return export(self.reference())

    def state_names(self):
        return list(self._module.state_dict())


class ExportedProgram(Source):
    title = "the exported program"

    def __init__(self, path, dtype):
        if dtype:
            raise UsageError("--dtype cannot change an exported program, whose code names its types; export it anew")
        self._program = exported.load(path)
        self.example = exported.example_inputs(self._program)
        self.input_names = self.reference().input_names

    def reference(self):
        return exported.Reference(self._program)

    def program(self, method, trace_inputs=None):
        if trace_inputs is not None:
            raise UsageError("--trace is for Python modules; an exported program is a graph already")
        return exported.script(self._program)

    def exported(self, export):
        return self._program

    def state_names(self):
        return self.reference().names


def call_factory(text, arguments):
    """`package.module:name(.name)*` or `file.py:name`, called; also a module that is there already."""
    name, _, path = text.rpartition(":")
    try:
        made = user_code.import_by_name(name)
        for part in path.split("."):
            made = getattr(made, part)
        if not isinstance(made, torch.nn.Module):
            made = made(**arguments)
    except Exception as error:  # foreign code
        raise PackError(f"'{text}' could not be called: {user_code.described(error)}") from error
    if not isinstance(made, torch.nn.Module):
        raise PackError(f"'{text}' gave {kind_of(made)}, which is no torch.nn.Module")
    return made


def _kind(path):
    """What a file is, by its content."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = archive.namelist()
        inside = {entry.partition("/")[2] for entry in entries} | set(entries)
        if any("data/aotinductor/" in entry for entry in entries):
            return "aoti"
        if "constants.pkl" in inside:
            return "torchscript"
        if any(entry.startswith("models/") for entry in inside) or "serialized_exported_program.json" in inside:
            return "exported"
        return "pickle" if "data.pkl" in inside else "unknown"
    if tarfile.is_tarfile(path):
        return "pickle"
    with open(path, "rb") as file:
        return "pickle" if file.read(1) == pickle.PROTO else "unknown"


def open_source(text, options):
    """`options`: args, checkpoint, trust_pickle, main, dtype, method, as on the command line."""
    path = pathlib.Path(text)
    if path.is_file():
        kind = _kind(path)
        if kind == "pickle":
            module = checkpoint.load_module(path, options.trust_pickle, options.main)
        elif options.checkpoint:
            raise UsageError("--checkpoint goes with MODULE:FACTORY; this file has its weights already")
        elif kind == "torchscript":
            return TorchScriptFile(path, options.dtype)
        elif kind == "aoti":
            raise UsageError(f"'{path}' is an AOTInductor package, compiled already; hearthd serves it as "
                             "NAME/1/model.pt2")
        elif kind == "exported":
            return ExportedProgram(path, options.dtype)
        else:
            raise UsageError(f"'{path}' is neither TorchScript nor an exported program nor a pickled module; weights "
                             "alone are packed as --checkpoint beside a MODULE:FACTORY")
    elif ":" in text:
        module = call_factory(text, options.args)
    else:
        raise UsageError(f"'{text}' is no file and not MODULE:FACTORY")
    if options.checkpoint:
        tensors = checkpoint.load(options.checkpoint, options.trust_pickle, options.main)
        checkpoint.apply(module, tensors, options.checkpoint)
    return EagerModule(module, options.dtype, options.method)
