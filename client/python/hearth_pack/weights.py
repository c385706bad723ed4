"""The weights of an entry: which tensors, in which files."""

import json
import os
import pathlib
import re

import torch
import torch.utils.serialization

from hearth_pack import safetensors
from hearth_pack.datatypes import SAFETENSORS_NAMES
from hearth_pack.errors import PackError, UsageError
from hearth_pack.progress import Progress

INDEX = ".index.json"
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(text):
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", text.strip())
    if not match or match[2].upper() not in _UNITS or float(match[1]) <= 0:
        raise UsageError(f"'{text}' is not a size; write 500MB or 2GiB")
    return max(1, int(float(match[1]) * _UNITS[match[2].upper()]))


def size_of(tensor):
    return tensor.numel() * tensor.element_size()


def split(tensors, shard_size):
    """Runs of tensors, in order, of at most so many bytes each; one that is larger stands alone."""
    shards, size = [{}], 0
    for name, tensor in tensors.items():
        if shard_size and shards[-1] and size + size_of(tensor) > shard_size:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += size_of(tensor)
    return shards


def _compact(tensor):
    """Without the rest of a storage that it is only a part of; its strides stay."""
    if tensor.untyped_storage().nbytes() == size_of(tensor):
        return tensor
    return tensor.clone(memory_format=torch.preserve_format)


def _write_state_dict(path, tensors, progress):
    config = torch.utils.serialization.config
    if not hasattr(config, "save") or not hasattr(config.save, "storage_alignment"):
        raise PackError(f"PyTorch {torch.__version__} cannot align what torch.save writes; leave out "
                        "`--weights state_dict`")
    with config.patch({"save.storage_alignment": safetensors.ALIGNMENT}), open(path, "xb") as file:
        torch.save({name: _compact(tensor) for name, tensor in tensors.items()}, file)
        file.flush()
        os.fsync(file.fileno())
    progress.update(2 * sum(map(size_of, tensors.values())))


# What --weights takes: (the stem of the files' names, their ending, what writes one).
FORMATS = {
    "safetensors": ("model", ".safetensors", safetensors.write),
    "state_dict": ("weights", ".pth", _write_state_dict),
}


def check_types(tensors, weights_format):
    if weights_format != "safetensors":
        return
    foreign = [f"'{name}' ({tensor.dtype})" for name, tensor in tensors.items()
               if tensor.dtype not in SAFETENSORS_NAMES]
    if foreign:
        raise PackError(f"safetensors has no type for {', '.join(foreign[:8])}; use `--weights state_dict`")


def write(folder, tensors, weights_format="safetensors", shard_size=None):
    """Writes `tensors` as one file, or as shards and their index; the names of the files with tensors."""
    check_types(tensors, weights_format)
    stem, ending, write_one = FORMATS[weights_format]
    shards = split(tensors, shard_size)
    names = [stem + ending]
    if len(shards) > 1:
        names = [f"{stem}-{number:05}-of-{len(shards):05}{ending}" for number in range(1, len(shards) + 1)]
    total = sum(map(size_of, tensors.values()))
    with Progress(2 * total, "writing weights") as progress:
        for name, shard in zip(names, shards):
            write_one(folder / name, shard, progress)
    if len(shards) > 1:
        weight_map = {tensor: name for name, shard in zip(names, shards) for tensor in shard}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        with open(folder / (stem + ending + INDEX), "x", encoding="utf-8") as file:
            json.dump(index, file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
    return names


def shard_names(index):
    """The files that an index names: plain names beside it."""
    try:
        names = sorted(set(json.loads(pathlib.Path(index).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise PackError(f"'{index}' is not an index of shards: {error}") from error
    for name in names:
        if not isinstance(name, str) or pathlib.PurePath(name).name != name:
            raise PackError(f"'{index}' names '{name}', which is not a file beside it")
    return names


def read_entry(folder):
    """(tensors, checksums) of the weights that write() left in `folder`."""
    tensors, checksums = {}, {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            shard, sums = safetensors.read(path)
            tensors.update(shard)
            checksums.update(sums)
        elif path.suffix == ".pth":
            tensors.update(torch.load(path, weights_only=True, mmap=True))
    return tensors, checksums
