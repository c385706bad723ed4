"""A server as the kernel sees it: the processes that descend from this one."""

import contextlib
import ctypes
import os
import pathlib
import resource
import signal
import socket
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
TICKS = os.sysconf("SC_CLK_TCK")


def adopt_orphans():
    """Whoever loses its parent becomes this process's child, so that a server's processes can always be found."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants():
    """Their ids, those of zombies as well: the first thread of a process may have ended before its others."""
    children = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            children.setdefault(int(words_of(stat)[1]), []).append(int(stat.parent.name))
    found, ahead = [], [os.getpid()]
    while ahead:
        mine = children.get(ahead.pop(), [])
        found += mine
        ahead += mine
    return found


def words_of(stat):
    """What follows the program's name, which may have anything in it."""
    return stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def memory(pids):
    """Bytes, as proportional set size: a page that two processes share counts once for both of them."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
            total += sum(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Pss:"))
    return total


def processor_seconds(pids):
    """What they have used so far, of those that still run."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            ticks += sum(map(int, words_of(pathlib.Path(f"/proc/{pid}/stat"))[11:13]))
    return ticks / TICKS


class Strangers:
    """How many processors somebody else had, between start and stop of this. None of ours may end between them, but for
    children that are waited for."""

    def __init__(self):
        self._began, self._used = time.monotonic(), self._strangers()

    def processors(self):
        return round((self._strangers() - self._used) / (time.monotonic() - self._began), 2)

    @staticmethod
    def _strangers():
        user, nice, system, _, _, interrupts, soft_interrupts = map(
            int, pathlib.Path("/proc/stat").read_text(encoding="ascii").split(maxsplit=8)[1:8])
        waited_for = resource.getrusage(resource.RUSAGE_CHILDREN)
        return ((user + nice + system + interrupts + soft_interrupts) / TICKS - time.process_time() -
                processor_seconds(descendants()) - waited_for.ru_utime - waited_for.ru_stime)


def stop(process, grace=20):
    """Asks the first of them to end, and ends whatever is left after the grace."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    until = time.monotonic() + grace
    while descendants() and time.monotonic() < until:
        process.poll()
        reap()
        time.sleep(0.05)
    end_all()


def end_all(grace=120):
    """When this returns, there is none left."""
    until = time.monotonic() + grace
    while left := descendants():
        if time.monotonic() > until:
            sys.exit(f"these processes do not end, not even when they are killed: {left}")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        reap()
        time.sleep(0.05)


def reap():
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
