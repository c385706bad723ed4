"""Files in and out of the page cache, and memory that the host has given to this machine."""

import ctypes
import mmap
import os
import time

_CACHESTAT = 451  # the system call's number on every architecture
_libc = ctypes.CDLL(None, use_errno=True)


class _Range(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_uint64), ("length", ctypes.c_uint64)]


class _Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in
                ("cached", "dirty", "writeback", "evicted", "recently_evicted")]


def cached_pages(file):
    """Pages of the file in the cache; None where the kernel does not say (before 6.5)."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        counts = _Counts()
        done = _libc.syscall(_CACHESTAT, descriptor, ctypes.byref(_Range(0, 0)), ctypes.byref(counts), 0)
        return counts.cached if done == 0 else None
    finally:
        os.close(descriptor)


def warm(*files):
    buffer = bytearray(4 << 20)
    for file in files:
        with open(file, "rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def chill(*files):
    """Out of this machine's page cache; the host's own may still have them, so: guest-cold."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            for _ in range(50):  # pages that came in just now may be held by their processor for a moment
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                if not cached_pages(file):
                    break
                time.sleep(0.02)
            else:
                raise RuntimeError(f"{file} is still in the page cache; does somebody have it mapped?")
        finally:
            os.close(descriptor)


def touch_fresh_memory(size):
    """Milliseconds per 256 MB to touch `size` bytes that nobody had. Loaders that copy need such memory, and
    the first time a virtual machine uses a page its host has to find one: that is to be over before they start."""
    start = time.perf_counter()
    with mmap.mmap(-1, size) as memory:
        memory.madvise(mmap.MADV_POPULATE_WRITE if hasattr(mmap, "MADV_POPULATE_WRITE") else 23)
    return (time.perf_counter() - start) * 1e3 / (size / (256 << 20))
