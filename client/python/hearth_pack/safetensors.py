"""Files of safetensors whose tensors lie at multiples of 4096 bytes, with a checksum of each.

The format is 8 bytes of length, a JSON header and the tensors' bytes, which have to follow each other without a
gap. The first tensor is aligned by spaces behind the header's JSON, the others by `__padding__N` between them:
tensors of bytes, which hearthd passes over.
"""

import hashlib
import json
import mmap
import os
import struct

import torch

from hearth_pack import __version__
from hearth_pack.datatypes import SAFETENSORS, SAFETENSORS_NAMES, raw_bytes
from hearth_pack.errors import PackError

ALIGNMENT = 4096
PADDING = "__padding__"
CHECKSUM = "sha256."
_CHUNK = 16 << 20


def _describe(tensors):
    """The header's entries, and how many bytes of padding stand before each tensor."""
    header, gaps, end = {}, [], 0
    for name, tensor in tensors.items():
        gap = -end % ALIGNMENT if tensor.numel() else 0
        if gap:
            header[f"{PADDING}{len(gaps)}"] = {"dtype": "U8", "shape": [gap], "data_offsets": [end, end + gap]}
        begin = end + gap
        end = begin + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": SAFETENSORS_NAMES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [begin, end]}
        gaps.append(gap)
    return header, gaps


def write(path, tensors, progress):
    """Writes {name: tensor} and waits for the disk. Every type has to be one of SAFETENSORS."""
    header, gaps = _describe(tensors)
    checksums = {}
    for name, tensor in tensors.items():
        checksums[CHECKSUM + name] = hashlib.sha256(raw_bytes(tensor)).hexdigest()
        progress.update(tensor.numel() * tensor.element_size())
    metadata = {"format": "pt", "hearth_pack": __version__, **checksums}
    text = json.dumps({"__metadata__": metadata, **header}, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    with open(path, "xb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for gap, tensor in zip(gaps, tensors.values()):
            file.write(b"\0" * gap)
            data = raw_bytes(tensor)
            for at in range(0, len(data), _CHUNK):
                progress.update(file.write(data[at:at + _CHUNK]))
        file.flush()
        os.fsync(file.fileno())


def looks_like_one(path):
    with open(path, "rb") as file:
        begin = file.read(9)
    return len(begin) == 9 and begin[8:] == b"{" and 2 <= struct.unpack("<Q", begin[:8])[0] <= os.path.getsize(path) - 8


def read(path):
    """({name: tensor}, {name: SHA-256}) of any file of this format; the tensors are views of its mapping."""
    with open(path, "rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # torch wants it to be writable
    try:
        (length,) = struct.unpack("<Q", mapping[:8])
        header = json.loads(mapping[8:8 + length])
        metadata = header.pop("__metadata__", {})
        tensors = {name: _tensor(mapping, 8 + length, entry) for name, entry in header.items()
                   if not name.startswith(PADDING)}
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise PackError(f"'{path}' is not a safetensors file that can be read: {error}") from error
    checksums = {key[len(CHECKSUM):]: value for key, value in metadata.items() if key.startswith(CHECKSUM)}
    return tensors, checksums


def _tensor(mapping, start, entry):
    dtype, shape = SAFETENSORS[entry["dtype"]], entry["shape"]
    begin, end = entry["data_offsets"]
    if end == begin:
        return torch.empty(shape, dtype=dtype)
    # From bytes: frombuffer itself knows too few types.
    data = torch.frombuffer(mapping, dtype=torch.uint8, count=end - begin, offset=start + begin)
    if (start + begin) % dtype.itemsize:
        data = data.clone()
    return data.view(dtype).reshape(shape)
