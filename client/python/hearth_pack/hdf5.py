"""Weights from HDF5, with h5py: data sets are tensors, and groups are dots, as for hearthd."""

import numpy as np
import torch

from hearth_pack.errors import PackError, first_line

_MAGIC = b"\x89HDF\r\n\x1a\n"
_TEXT = "OSU"  # kinds of numpy's


def looks_like_one(path):
    with open(path, "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _tensor(dataset):
    if dataset.is_virtual or dataset.external:
        raise PackError("it lies in another file")
    array = np.asarray(dataset[()])
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except TypeError:
        raise PackError(f"PyTorch has no type for {array.dtype}") from None


def read(path):
    """{name: tensor}; text and data sets of nothing are left out."""
    try:
        import h5py
    except ImportError:
        raise PackError(f"'{path}' is HDF5, which h5py reads: pip install 'hearth-pack[hdf5]', or save the weights as "
                        "safetensors") from None
    tensors = {}

    def take(name, item):
        if not isinstance(item, h5py.Dataset) or item.dtype.kind in _TEXT or item.shape is None:
            return
        dotted = name.replace("/", ".")
        if dotted in tensors:
            raise PackError(f"'{path}' has two data sets that are '{dotted}'")
        try:
            tensors[dotted] = _tensor(item)
        except Exception as error:  # h5py's, by what the file lacks
            raise PackError(f"'{path}': '{name}' cannot be read: {first_line(error)}") from error

    try:
        with h5py.File(path, "r") as file:
            file.visititems(take)
    except PackError:
        raise
    except Exception as error:  # OSError, KeyError, RuntimeError, by where the file is damaged
        raise PackError(f"'{path}' is not HDF5 that h5py reads: {first_line(error)}") from error
    return tensors
