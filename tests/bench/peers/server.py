"""What a server has to be able to do to be compared: be installed, start, say where it is asked, stop."""

import dataclasses
import importlib.util
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

import common
from . import process

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
HERE = pathlib.Path(__file__).resolve().parent


class Unavailable(Exception):
    """Why a server cannot be compared here: it gets a row that says so."""


@dataclasses.dataclass
class Model:
    name: str
    file: pathlib.Path
    input: np.ndarray
    output: np.ndarray


@dataclasses.dataclass
class Settings:
    models: list    # of Model
    threads: int    # that run models at the same time: hearthd's compute threads, the peers' processes
    cache: pathlib.Path  # where installations stay
    build: pathlib.Path


class Server:
    """Subclasses say what they are (name, title, remark, ways) and how install(), launch() and request() go."""

    name = title = remark = ""
    ways = ()       # of ways.py: gRPC where it speaks V2, and over HTTP the quicker of the others
    patience = 300  # seconds until all models have answered

    def __init__(self, settings):
        self.settings = settings
        self.process = None
        self.not_mine = ()

    def install(self):
        """Gets it, unless that was done before. Raises Unavailable."""

    def launch(self, folder):
        """(command, variables) that serve all models, with files of its own in the folder."""
        raise NotImplementedError

    def request(self, way, model):
        """What to send to have this model's output."""
        raise NotImplementedError

    def start(self, folder):
        """Seconds until each model has answered rightly. Raises Unavailable."""
        self.log = self.settings.cache / f"{self.name}.log"
        began = time.monotonic()
        command, variables = self.launch(pathlib.Path(folder))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
                env={**common.quiet_environment(), **ONE_THREAD, "PYTHONDONTWRITEBYTECODE": "1", **variables})
        for model in self.settings.models:
            for way in self.ways:
                self._await(self.request(way, model), model, began + self.patience)
        return time.monotonic() - began

    def _await(self, request, model, until):
        while True:
            try:
                check(request, model)
                return
            except (OSError, ValueError) as error:
                if self.process.poll() is not None:
                    raise Unavailable(f"{self.title} ended with {self.process.returncode}: {self.last_words()}") from error
                if time.monotonic() > until:
                    raise Unavailable(f"{model.name}: {error}; its log ends: {self.last_words()}") from error
                time.sleep(0.1)

    def last_words(self):
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        return f"{' / '.join(lines)[-300:]} (all of it in {self.log.name})"

    def pids(self):
        """Of its processes. Until it is stopped, whatever runs and is not in `not_mine` is its own."""
        return [pid for pid in process.descendants() if pid not in self.not_mine]

    def stop(self):
        if self.process is not None:
            process.stop(self.process)


def check(request, model):
    """The length of the answer's body, which has the right tensor in it. Raises ValueError where it is another."""
    got, length = request.send()
    if got.shape != model.output.shape or not np.allclose(got, model.output, rtol=1e-3, atol=1e-4):
        raise ValueError(f"{request.url} answers {got[:4]}..., which is not {model.output[:4]}...")
    return length


class PythonServer(Server):
    """One that pip installs, into an environment of its own. It sees the torch that hearth is built with."""

    package = ""       # what its environment is called
    requirements = ()

    @property
    def venv(self):
        return self.settings.cache / self.package

    @property
    def python(self):
        return self.venv / "bin" / "python"

    @property
    def site(self):
        return next(self.venv.glob("lib/python3*/site-packages"))

    def install(self):
        wanted = "\n".join(self.requirements)
        stamp = self.venv / "requirements.txt"
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
            common.say(f"installing {self.title}")
            try:
                for command in ([sys.executable, "-m", "venv", "--clear", self.venv],
                                [self.python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "-q",
                                 *self.requirements]):
                    subprocess.run([str(word) for word in command], check=True, text=True, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT)
            except subprocess.CalledProcessError as error:
                raise Unavailable(f"could not be installed: {error.stdout.strip().splitlines()[-1]}") from error
            stamp.write_text(wanted, encoding="utf-8")
        # Behind its own packages, which may be older: numpy's are. Triton's interpreter looks at no PYTHONPATH.
        torch = pathlib.Path(importlib.util.find_spec("torch").origin).parents[1]
        (self.site / "peers.pth").write_text(f"{HERE / 'served'}\n{torch}\n", encoding="utf-8")

    def variables(self):
        return {"PATH": f"{self.venv / 'bin'}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(self.venv)}
