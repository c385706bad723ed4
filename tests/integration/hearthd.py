"""The real hearthd, run for a test: on free ports, in a folder of its own, and gone afterwards."""

import ctypes
import json
import os
import pathlib
import queue
import re
import resource
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

import grpc
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2_grpc

HEARTHD = os.environ["HEARTHD"]
HEARTH = os.environ["HEARTH"]
# Long enough for a loaded machine; nothing waits this long unless it has failed.
PATIENCE = 120.0


class Failed(Exception):
    """hearthd ended, or did not do in time what it should have."""


def environment(changes=None):
    """This process's variables without those that hearthd would take for settings."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("HEARTH_")}
    return {**mine, **(changes or {})}


def merged(base, changes):
    """`base` with `changes` over it, key by key."""
    result = dict(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            value = merged(result[key], value)
        result[key] = value
    return result


def base_config(repository):
    """Free ports, this machine only, log lines that a program can read."""
    return {
        "repository": {"roots": [str(repository)]},
        "grpc": {"host": "127.0.0.1", "port": 0},
        "http": {"host": "127.0.0.1", "port": 0},
        "rest": {"host": "127.0.0.1", "port": 0},
        "logging": {"format": "json", "level": "debug"},
    }


def write_config(path, config):
    path = pathlib.Path(path)
    path.write_text(json.dumps(config, indent=2) + "\n")  # JSON is YAML
    return path


def drop_file_privileges():
    """Root without the capabilities that let it read every file; in force after the next exec."""
    libc = ctypes.CDLL(None, use_errno=True)
    pr_capbset_drop, dac_override, dac_read_search = 24, 1, 2
    for capability in (dac_override, dac_read_search):
        if libc.prctl(pr_capbset_drop, capability, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


class Hearthd:
    """One process. As a context manager: waits until it is ready, kills it at the end.

    ready=False: only until it listens. data_limit: RLIMIT_DATA, in bytes. unprivileged: without root's
    right to read every file. join: called in the process before it becomes hearthd.
    """

    def __init__(self, repository, workdir, config=None, args=(), env=None, data_limit=None,
                 unprivileged=False, join=None, ready=True):
        self.workdir = pathlib.Path(workdir)
        self.config_file = write_config(
            self.workdir / "hearth.yaml", merged(base_config(repository), config or {}))
        self._args = [HEARTHD, "--config", str(self.config_file), *args]
        # Killed at the end, it leaves behind what it unpacked.
        self._env = environment({"TMPDIR": str(self.workdir), **(env or {})})
        self._data_limit = data_limit
        self._unprivileged = unprivileged
        self._join = join
        self._wait_until_ready = ready
        self.lines = []
        self._events = queue.Queue()
        self._ended = threading.Event()
        self.process = None
        self.grpc_port = self.http_port = self.rest_port = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, value, trace):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if kind is not None:
            print(f"--- what hearthd said ({' '.join(self._args)}):\n" + self.log())

    # --- life ---

    def spawn(self):
        def restrict():
            if self._data_limit:
                resource.setrlimit(resource.RLIMIT_DATA, (self._data_limit, self._data_limit))
            if self._unprivileged and os.geteuid() == 0:
                drop_file_privileges()
            if self._join:
                self._join()

        restricted = self._data_limit or self._unprivileged or self._join
        self.process = subprocess.Popen(
            self._args, env=self._env, cwd=self.workdir, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            preexec_fn=restrict if restricted else None)
        threading.Thread(target=self._read, daemon=True).start()

    def start(self):
        self.spawn()
        event = self.wait_for("listening")
        self.grpc_port, self.http_port = int(event["grpc_port"]), int(event["http_port"])
        self.rest_port = int(event["rest_port"])
        if self._wait_until_ready:
            self.wait_for("ready")
        return self

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                self._events.put(event)
        self._ended.set()
        self._events.put(None)

    def wait_for(self, message, patience=PATIENCE):
        """The next log event whose msg is `message`."""
        end = time.monotonic() + patience
        while True:
            try:
                event = self._events.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise Failed(f"no '{message}' in {patience:g} s:\n{self.log()}") from None
            if event is None:
                self._events.put(None)
                raise Failed(f"hearthd ended before '{message}' with "
                             f"{self.process.wait()}:\n{self.log()}")
            if event.get("msg") == message:
                return event

    def log(self):
        return "\n".join(self.lines)

    def terminate(self, patience=PATIENCE):
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(patience)

    def wait(self, patience=PATIENCE):
        code = self.process.wait(timeout=patience)
        self._ended.wait(timeout=patience)  # all it said has been read
        return code

    @property
    def alive(self):
        return self.process.poll() is None

    # --- clients ---

    @property
    def address(self):
        return f"127.0.0.1:{self.grpc_port}"

    def client(self):
        return triton.InferenceServerClient(self.address)

    def channel(self):
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        return grpc.insecure_channel(self.address, options=unlimited)

    def stub(self):
        """Calls without the checks that tritonclient makes beforehand."""
        return service_pb2_grpc.GRPCInferenceServiceStub(self.channel())

    def get(self, path):
        """(status, text) of an HTTP GET."""
        url = f"http://127.0.0.1:{self.http_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def cli(self, *args, check=True):
        """`hearth ARGS` against this server, as a finished process."""
        done = subprocess.run([HEARTH, "--address", self.address, *map(str, args)], text=True,
                              capture_output=True, timeout=PATIENCE, check=False, env=environment())
        if check and done.returncode != 0:
            raise Failed(f"hearth {args} gave {done.returncode}: {done.stderr}")
        return done

    # --- numbers ---

    def metrics(self):
        """Every sample of /metrics: {(name, ((label, value), ...)): number}."""
        status, text = self.get("/metrics")
        assert status == 200, text
        return parse_metrics(text)

    def metric(self, name, **labels):
        """The sum of the samples of `name` that have these labels."""
        return sum(value for (sample, pairs), value in self.metrics().items()
                   if sample == name and labels.items() <= dict(pairs).items())

    def memory(self, field="VmRSS"):
        """Bytes, from the kernel's account of the process: VmRSS, RssAnon, VmData ..."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.M).group(1)) * 1024


SAMPLE = re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')


def parse_metrics(text):
    samples = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, labels, value = SAMPLE.match(line).groups()
            samples[name, tuple(LABEL.findall(labels or ""))] = float(value)
    return samples
