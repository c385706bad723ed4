"""A control group with a limit of memory, where this process may make one."""

import contextlib
import os
import pathlib

import pytest

MOUNT = pathlib.Path("/sys/fs/cgroup")


class MemoryGroup:
    """Of version 1 or 2. Processes join with join(); gone at the end of its `with`."""

    def __init__(self, folder, limit):
        self.folder = folder
        self.second = (folder / "memory.max").exists()
        self._write("memory.max" if self.second else "memory.limit_in_bytes", limit)
        if self.second:
            self._write("memory.swap.max", 0)

    def join(self):
        """Of the calling process; what it has touched before stays charged where it was."""
        self._write("cgroup.procs", os.getpid())

    def out_of_memory_kills(self):
        return self._counter("memory.events" if self.second else "memory.oom_control", "oom_kill")

    def limit_hits(self):
        """How often something had to go before more could come."""
        return self._counter("memory.events", "max") if self.second else int(self._read("memory.failcnt"))

    def _counter(self, file, name):
        return int(dict(line.split() for line in self._read(file).splitlines())[name])

    def _read(self, file):
        return (self.folder / file).read_text()

    def _write(self, file, value):
        (self.folder / file).write_text(str(value))


def _parents():
    """Where a group may be made: beside or below our own."""
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = MOUNT / "memory" if controllers else MOUNT
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            if not folder.is_relative_to(root):
                break
            delegated = folder / "cgroup.subtree_control"
            if controllers or (delegated.exists() and "memory" in delegated.read_text().split()):
                yield folder


@contextlib.contextmanager
def memory_group(limit):
    """A MemoryGroup. Skips the test where none can be made."""
    reasons = []
    for parent in _parents():
        folder = parent / f"hearth-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError as error:
            reasons.append(str(error))
            continue
        try:
            yield MemoryGroup(folder, limit)
        finally:
            folder.rmdir()
        return
    pytest.skip(f"needs a control group of its own: {'; '.join(reasons) or 'no memory controller'}")
