"""Weights from files of any age, and modules from pickles. Nothing here runs a file's code unless told to trust it."""

import pathlib
import pickle
import re
import tarfile
import zipfile

import torch

from hearth_pack import hdf5, program, safetensors, user_code, weights
from hearth_pack.errors import PackError, UsageError, first_line, kind_of

# Where training scripts keep the state_dict in what they save.
NESTED = ("state_dict", "model_state_dict", "model")
TRUST = "if you trust where it came from, add --trust-pickle (reading it runs the code it names)"


def _as_tensors(loaded, path):
    """The state_dict in what a file held."""
    if isinstance(loaded, torch.nn.Module):
        return loaded.state_dict()
    if isinstance(loaded, dict):
        for key in NESTED:
            if isinstance(loaded.get(key), (dict, torch.nn.Module)):
                return _as_tensors(loaded[key], path)
        tensors = {name: torch.as_tensor(value) if type(value).__module__ == "numpy" else value
                   for name, value in loaded.items()}
        if any(isinstance(value, torch.Tensor) for value in tensors.values()):
            return tensors
    raise PackError(f"'{path}' holds {kind_of(loaded)} without tensors by name; save model.state_dict()")


# --- what a file is ---

_ZIP = b"PK"
_MAGIC_NUMBER = torch.serialization.MAGIC_NUMBER.to_bytes(10, "little")  # of torch.save before PyTorch 1.6


def _is_torchs(path):
    """Whether torch.save wrote it, rather than pickle."""
    with open(path, "rb") as file:
        begin = file.read(32)
    return begin.startswith(_ZIP) or _MAGIC_NUMBER in begin or tarfile.is_tarfile(path)


def _is_pickle(path):
    """Of a protocol since 2: older ones have no mark."""
    with open(path, "rb") as file:
        return file.read(1) == pickle.PROTO


# --- pickles that run code ---

_ABSENT = re.compile(r"attribute '([^']+)' on <module '([^']+)'")


def _unreadable(path, error, main):
    """The sentence about a pickle that failed."""
    absent = _ABSENT.search(str(error)) if isinstance(error, AttributeError) else None
    if absent and main:
        return f"'{path}' needs '{absent[1]}', which '{main}' does not define outside of functions and conditions"
    if absent and absent[2].rpartition(".")[2] == "__main__":
        return (f"'{path}' needs '{absent[1]}', which was defined in the script that saved it: name this script as "
                f"--main FILE.py (it is imported, so training has to be below `if __name__ == \"__main__\":`), or pack "
                f"FILE.py:{absent[1]} with model.state_dict() as --checkpoint")
    if isinstance(error, ModuleNotFoundError):
        return f"'{path}' needs the module '{error.name}': install it, or add its folder to PYTHONPATH"
    return f"'{path}' cannot be read: {_reason(error)}"


def _load_pickle(path, main):
    """Runs whatever the file says. main: the script that is its `__main__`."""
    try:
        with user_code.as_main(main):
            if _is_torchs(path):
                return torch.load(path, map_location="cpu", weights_only=False)
            with open(path, "rb") as file:
                return pickle.load(file)
    except PackError:
        raise
    except Exception as error:  # an unpickler may raise anything
        raise PackError(_unreadable(path, error, main)) from error


# --- weights ---

def _reason(error):
    """What torch.load says, without its advice to those who program with it."""
    text = str(error).rpartition("WeightsUnpickler error:")[2]
    code = re.search(r"GLOBAL ([\w.]+)", text)
    return f"it names {code[1]}, which is code" if code else first_line(text or type(error).__name__).partition(". ")[0]


def _load_plain(path):
    if not _is_torchs(path):
        if _is_pickle(path):
            raise PackError(f"'{path}' is a pickle, and not plain weights; {TRUST}")
        raise PackError(f"'{path}' is nothing that weights are read from: safetensors, an *{weights.INDEX} of shards, "
                        "HDF5, a file of torch.save, or, with --trust-pickle, any other pickle")
    if not zipfile.is_zipfile(path) and tarfile.is_tarfile(path):
        raise PackError(f"'{path}' is an archive of PyTorch before 0.1.10, which only unpickling reads; {TRUST}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # UnpicklingError, RuntimeError, EOFError, by the file's age and kind
        if isinstance(error, pickle.UnpicklingError) or "TorchScript" in str(error):
            raise PackError(f"'{path}' is not plain weights: {_reason(error)}; {TRUST}") from error
        raise PackError(f"'{path}' cannot be read, and is not whole: {_reason(error)}") from error


def load(path, trust_pickle=False, main=None):
    """{name: tensor} of a checkpoint: safetensors, an index of shards, HDF5, or anything torch.save ever wrote."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise UsageError(f"there is no file '{path}'")
    if path.name.endswith(weights.INDEX):
        merged = {}
        for name in weights.shard_names(path):
            merged.update(load(path.parent / name, trust_pickle, main))
        return merged
    if safetensors.looks_like_one(path):
        return safetensors.read(path)[0]
    if hdf5.looks_like_one(path):
        return hdf5.read(path)
    return _as_tensors(_load_pickle(path, main) if trust_pickle else _load_plain(path), path)


def load_module(path, trust_pickle, main=None):
    """The module that torch.save(module) wrote."""
    if not trust_pickle:
        raise PackError(f"'{path}' is a pickle, of a module or of weights. For weights, name the code as "
                        f"MODULE:FACTORY and the file as --checkpoint. A module: {TRUST}")
    module = _load_pickle(path, main)
    if isinstance(module, dict) and isinstance(module.get("model"), torch.nn.Module):
        module = module["model"]
    if not isinstance(module, torch.nn.Module):
        raise PackError(f"'{path}' holds {kind_of(module)} and no module; name the code as MODULE:FACTORY "
                        "and this file as --checkpoint")
    return module


def _some(names):
    names = sorted(names)
    return ", ".join(f"'{name}'" for name in names[:8]) + (" and more" if len(names) > 8 else "")


def apply(module, tensors, path):
    """load_state_dict, strict, but that one of tied names is enough: many files have no more."""
    own = module.state_dict()
    prefix = "module."  # of DataParallel and DistributedDataParallel
    if all(name.startswith(prefix) for name in tensors) and not any(name.startswith(prefix) for name in own):
        tensors = {name[len(prefix):]: tensor for name, tensor in tensors.items()}
    identities = {name: program.identity(value) for name, value in own.items() if isinstance(value, torch.Tensor)}
    given = {identities[name] for name in tensors if name in identities}
    try:
        missing, unexpected = module.load_state_dict(tensors, strict=False)
    except RuntimeError as error:  # shapes
        reasons = "; ".join(line.strip().rstrip(".") for line in str(error).splitlines()[1:] if line.strip())
        raise PackError(f"'{path}' does not go with the module: {reasons or first_line(error)}") from error
    missing = [name for name in missing if identities.get(name) not in given]
    # Older versions of a module saved buffers that newer ones compute: fine, if they agree.
    computed = dict(module.named_buffers())
    unexpected = [name for name in unexpected
                  if name not in computed or not torch.equal(computed[name], tensors[name].to(computed[name].dtype))]
    if missing or unexpected:
        complaints = {"missing": missing, "unknown": unexpected}
        reasons = [f"{word}: {_some(names)}" for word, names in complaints.items() if names]
        raise PackError(f"'{path}' does not go with the module; {'; '.join(reasons)}")
