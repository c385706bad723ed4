"""The load generator for gRPC and HTTP alike: nghttp2's h2load, one process with one thread, a connection for each client.

What it sends are bytes made once; of the answers it counts bytes and statuses. That an answer of so many bytes is right
was checked before.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import numpy as np

PACKAGE = "nghttp2-client"


class H2load:
    def __init__(self, cache):
        self._folder = cache / "h2load"
        self._environment = dict(os.environ)
        self._program = shutil.which("h2load")

    def install(self):
        """Unless there is one, Debian's, unpacked together with those of its libraries that are missing."""
        if self._program:
            return
        if not (self._folder / "usr/bin/h2load").exists():
            with tempfile.TemporaryDirectory() as folder:
                try:
                    depends = subprocess.run(["apt-cache", "depends", "--important", PACKAGE], check=True, text=True,
                                             capture_output=True).stdout
                    names = [PACKAGE, *(name for name in re.findall(r"Depends: ([a-z0-9.+-]+)$", depends, re.M)
                                        if not installed(name))]
                    subprocess.run(["apt-get", "download", "-qq", *names], cwd=folder, check=True,
                                   stdout=sys.stderr)
                    for package in pathlib.Path(folder).glob("*.deb"):
                        subprocess.run(["dpkg-deb", "-x", package, self._folder], check=True)
                except (OSError, subprocess.CalledProcessError) as error:
                    sys.exit(f"h2load could not be had: install {PACKAGE} ({error})")
        self._program = str(self._folder / "usr/bin/h2load")
        libraries = next((self._folder / "usr/lib").glob("*-linux-gnu"), self._folder)
        self._environment["LD_LIBRARY_PATH"] = f"{libraries}:{os.environ.get('LD_LIBRARY_PATH', '')}".rstrip(":")

    def run(self, request, length, clients, seconds, warm_up):
        """Of one closed loop, whose answers should be so long: requests per second and quantiles of their latency.

        Raises ValueError where requests failed. gRPC's failures have HTTP's status 200, but no message.
        """
        with tempfile.TemporaryDirectory() as folder:
            body, log = pathlib.Path(folder, "body"), pathlib.Path(folder, "log")
            body.write_bytes(request.body)
            command = [self._program, "-t", "1", "-c", str(clients), "-m", "1", "-d", str(body), f"--log-file={log}",
                       "-D", f"{round((seconds + warm_up) * 1e3)}ms", *([] if request.grpc else ["--h1"])]
            for name, value in request.headers.items():
                command += ["-H", f"{name}: {value}"]
            done = subprocess.run([*command, request.url], text=True, check=False, env=self._environment,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds + warm_up + 60)
            rows = np.loadtxt(log, dtype=np.int64, ndmin=2) if done.returncode == 0 else np.empty((0, 3), np.int64)
        bytes_read = re.search(r"\((\d+)\) data", done.stdout)
        if not len(rows) or not bytes_read:
            raise ValueError(f"no request was answered: {done.stdout[-200:].strip()}")
        # 0 is what h2load makes of a status line without a phrase (TorchServe's).
        failed = np.count_nonzero(~np.isin(rows[:, 1], (0, 200)))
        if failed or not 0.98 * length * len(rows) <= int(bytes_read[1]) <= 1.02 * length * (len(rows) + clients):
            raise ValueError(f"of {len(rows)} requests {failed} failed, {bytes_read[1]} bytes came back")
        return figures(rows[:, 0], rows[:, 2], seconds, warm_up)


def figures(start, took, seconds, warm_up):
    """Of the requests that began and ended in the measured time; `requests` are those before it, too."""
    requests, begin = len(start), start.min() + warm_up * 1e6
    took = np.sort(took[(start >= begin) & (start + took <= begin + seconds * 1e6)])
    if not len(took):
        raise ValueError(f"no request was answered within {seconds} s")

    def quantile(q):
        return int(took[int(q * (len(took) - 1))])

    return {"requests_per_second": round(len(took) / seconds, 1), "p50_us": quantile(0.5), "p99_us": quantile(0.99),
            "requests": requests}


def installed(name):
    query = subprocess.run(["dpkg-query", "-W", "-f=${db:Status-Status}", name], text=True, capture_output=True,
                           check=False)
    return query.stdout == "installed"
