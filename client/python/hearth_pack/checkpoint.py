"""Weights from files of any age, and modules from pickles. Nothing here runs a file's code unless told to trust it."""

import pathlib
import pickle
import tarfile
import zipfile

import torch

from hearth_pack import program, safetensors, weights
from hearth_pack.errors import PackError, UsageError, first_line

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
    raise PackError(f"'{path}' holds a {type(loaded).__name__} without tensors by name; save model.state_dict()")


def _load_pickle(path):
    """Runs whatever the file says."""
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as torchs:  # an unpickler may raise anything
        try:
            with open(path, "rb") as file:
                return pickle.load(file)
        except Exception as error:
            raise PackError(f"'{path}' cannot be read, neither by torch.load ({first_line(torchs)}) nor as a "
                            f"pickle ({first_line(error)})") from error


def load(path, trust_pickle=False):
    """{name: tensor} of a checkpoint: safetensors, an index of shards, or anything torch.save ever wrote."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise UsageError(f"there is no file '{path}'")
    if path.name.endswith(weights.INDEX):
        merged = {}
        for name in weights.shard_names(path):
            merged.update(load(path.parent / name, trust_pickle))
        return merged
    if safetensors.looks_like_one(path):
        return safetensors.read(path)[0]
    if trust_pickle:
        return _as_tensors(_load_pickle(path), path)
    if not zipfile.is_zipfile(path) and tarfile.is_tarfile(path):
        raise PackError(f"'{path}' is an archive of PyTorch before 0.1.10, which only unpickling reads; {TRUST}")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # UnpicklingError, RuntimeError, EOFError, by the file's age and kind
        raise PackError(f"'{path}' is not plain weights: {first_line(error)}; {TRUST}") from error
    return _as_tensors(loaded, path)


def load_module(path, trust_pickle):
    """The module that torch.save(module) wrote."""
    if not trust_pickle:
        raise PackError(f"'{path}' is a pickle, of a module or of weights. For weights, name the code as "
                        f"MODULE:FACTORY and the file as --checkpoint. A module: {TRUST}")
    module = _load_pickle(path)
    if isinstance(module, dict) and isinstance(module.get("model"), torch.nn.Module):
        module = module["model"]
    if not isinstance(module, torch.nn.Module):
        raise PackError(f"'{path}' holds a {type(module).__name__} and no module; name the code as MODULE:FACTORY "
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
