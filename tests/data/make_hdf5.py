#!/usr/bin/env python3
"""Writes tests/data/hdf5/: files as h5py writes them, and lists of them for tests/fuzz/hdf5_listing_fuzz.cc.

The files are committed. Run this again only to add one (h5py 3.16, hearth-hdf5-list built):

    python3 tests/data/make_hdf5.py build/server/hearth-hdf5-list
"""

import pathlib
import subprocess
import sys

import h5py
import numpy as np

OUT = pathlib.Path(__file__).resolve().parent / "hdf5"
GRID = np.arange(7 * 5, dtype="<f4").reshape(7, 5)


def new(name, **options):
    """As HDF5 1.10 and older have it, which h5py's own default is, too."""
    return h5py.File(OUT / name, "w", **{"libver": ("earliest", "v110"), **options})


def write_compact(group, name, values):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(values.shape)
    data = h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(values.dtype), space, properties)
    data.write(h5py.h5s.ALL, h5py.h5s.ALL, values)


def write_unsupported(name, write):
    """A tensor, and beside it what has no place among weights."""
    with new(f"unsupported_{name}.h5") as file:
        file["fine"] = GRID
        write(file)


def write_bfloat16(file):
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_ebias(127)
    space = h5py.h5s.create_simple((2,))
    h5py.h5d.create(file.id, b"bfloat16", kind, space).write(
        h5py.h5s.ALL, h5py.h5s.ALL, np.array([1.5, -2.0], "<f4"), mtype=h5py.h5t.IEEE_F32LE)


def write_virtual(file):
    layout = h5py.VirtualLayout((7, 5), "<f4")
    layout[:] = h5py.VirtualSource("unsupported_virtual.h5", "fine", (7, 5))
    file.create_virtual_dataset("bad", layout)


def write_external(file):
    file.create_dataset("bad", (2,), "<f4", external=[("/etc/passwd", 0, 8)])


def write_listing(name, lister):
    """A list, a zero byte, and the file that it speaks of."""
    with open(OUT / name, "rb") as file:
        listed = subprocess.run(["sh", "-c", 'exec "$0" 3<&0', lister], stdin=file, capture_output=True, check=True)
    (OUT / f"{name}.listing").write_bytes(listed.stdout + b"\0" + (OUT / name).read_bytes())


def main():
    lister, = sys.argv[1:]
    OUT.mkdir(exist_ok=True)
    with new("contiguous.h5") as file:
        file["encoder/layer/weight"] = GRID
        file["encoder/layer.bias"] = GRID[0]
        file["größe"] = np.float32(2.5)
        file["empty"] = np.zeros((0, 3), "<f4")
        file.create_dataset("unwritten", (3,), "<f4")
        file.create_dataset("filled", (3,), "<i2", fillvalue=-2)
        file["tied"] = file["encoder/layer/weight"]
        write_compact(file["encoder"], "compact", GRID[:2])
    with new("aligned.h5", alignment_threshold=1, alignment_interval=64) as file:
        file["a"] = GRID
        file["b"] = GRID
    with new("types.h5") as file:
        for name in ("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64",
                     "float16", "float32", "float64"):
            file[name] = np.array([1, 0, 1], name)
        write_bfloat16(file)
    cube = np.arange(4 * 6 * 10, dtype="<i8").reshape(4, 6, 10)
    for name, libver in (("chunked.h5", ("earliest", "v110")), ("chunked_v110.h5", ("v110", "v110"))):
        with new(name, libver=libver) as file:
            file.create_dataset("plain", data=GRID, chunks=(3, 2))
            file.create_dataset("gzip", data=GRID, chunks=(3, 2), compression="gzip")
            file.create_dataset("shuffled", data=GRID, chunks=(3, 2), shuffle=True)
            file.create_dataset("both", data=GRID, chunks=(7, 2), compression="gzip", shuffle=True)
            file.create_dataset("one", data=GRID, chunks=(7, 5), compression="gzip", shuffle=True)
            file.create_dataset("growing", data=GRID, chunks=(4, 4), maxshape=(None, None), compression="gzip")
            file.create_dataset("rows", data=GRID, chunks=(2, 5), maxshape=(None, 5), shuffle=True)
            file.create_dataset("cube", data=cube, chunks=(3, 4, 10), compression="gzip", shuffle=True)
            file.create_dataset("halves", data=GRID.astype("<f2"), chunks=(3, 2), compression="gzip", shuffle=True)
            file.create_dataset("bytes", data=GRID.astype("u1"), chunks=(3, 2), compression="gzip", shuffle=True)
            file.create_dataset("empty", (0, 3), "<f4", chunks=(1, 3), maxshape=(None, 3))
            file.create_dataset("unwritten", (3, 3), "<f4", chunks=(2, 2), fillvalue=1.5)
            holes = file.create_dataset("holes", (6, 6), "<f4", chunks=(2, 4), compression="gzip", fillvalue=-1)
            holes[2:4, 4:6] = 7
            # Random bytes do not shrink: their chunk says that it went without deflate.
            noise = file.create_dataset("noise", (2, 64), "u1", chunks=(1, 64), compression="gzip")
            noise.id.write_direct_chunk((0, 0), bytes(range(64)), filter_mask=1)
            noise[1] = 3
    with new("skipped.h5") as file:
        file["a"] = GRID
        file["note"] = "text is no tensor"
        file["nothing"] = h5py.Empty("f")
        file["pointer"] = np.array([file["a"].ref], dtype=h5py.ref_dtype)
        file["type"] = np.dtype("f4")
        file["group/again"] = file["/"]
    write_unsupported("lzf", lambda file: file.create_dataset("bad", data=GRID, chunks=(3, 2), compression="lzf"))
    write_unsupported("checksum", lambda file: file.create_dataset("bad", data=GRID, chunks=(3, 2), fletcher32=True))
    write_unsupported("big_endian", lambda file: file.create_dataset("bad", data=GRID.astype(">f4")))
    write_unsupported("compound", lambda file: file.create_dataset("bad", data=GRID.astype("c8")))
    write_unsupported("enum", lambda file: file.create_dataset(
        "bad", (1,), h5py.enum_dtype({"RED": 0, "BLUE": 1}, basetype="i1")))
    write_unsupported("virtual", write_virtual)
    write_unsupported("external", write_external)
    write_unsupported("soft_link", lambda file: file.__setitem__("bad", h5py.SoftLink("/fine")))
    write_unsupported("external_link", lambda file: file.__setitem__("bad", h5py.ExternalLink("contiguous.h5", "/tied")))
    with new("same_name.h5") as file:
        file["a/b"] = GRID
        file["a.b"] = GRID
    # libhdf5 1.10.8 does not survive this byte of the enumeration.
    broken = bytearray((OUT / "unsupported_enum.h5").read_bytes())
    broken[1462] = 255
    (OUT / "crashes_libhdf5.h5").write_bytes(broken)
    for name in ("contiguous.h5", "chunked_v110.h5", "types.h5", "same_name.h5", "skipped.h5"):
        write_listing(name, lister)


if __name__ == "__main__":
    main()
