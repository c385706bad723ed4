"""An entry of a repository: model.yaml, and how all of it comes into being at once or not at all."""

import json
import os
import pathlib
import re
import shutil
import tempfile

from hearth_pack import __version__, examples
from hearth_pack.errors import PackError, UsageError

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


# --- model.yaml ---

def _tensor_line(name, value, shape):
    return f"  - {{name: {json.dumps(name, ensure_ascii=False)}, datatype: {examples.datatype_of(value)}, " \
           f"shape: {json.dumps(shape)}}}"


def input_shape(name, value, batched, dynamic):
    shape = examples.shape_of(value)
    if isinstance(value, list):
        return shape
    open_dims = set(dynamic.get(name, ())) | ({0} if name in batched else set())
    return [-1 if i in open_dims else dim for i, dim in enumerate(shape)]


def output_shapes(cases, dynamic):
    """{output: shape}: what differs between examples is -1; with inputs that are open elsewhere, everything is."""
    shapes = {name: examples.shape_of(value) for name, value in cases[0].expected.items()}
    for case in cases[1:]:
        for name, value in case.expected.items():
            other = examples.shape_of(value)
            if name in shapes and len(other) == len(shapes[name]):
                shapes[name] = [a if a == b else -1 for a, b in zip(shapes[name], other)]
    return {name: [-1] * len(shape) for name, shape in shapes.items()} if dynamic else shapes


def model_yaml(method, cases, batched, dynamic):
    lines = [f"# Written by hearth-pack {__version__}.", f"method: {method}"]
    if not cases:
        return "\n".join(lines) + "\n"
    example, outputs = cases[0].example, cases[0].expected
    lines.append("inputs:")
    lines += [_tensor_line(name, value, input_shape(name, value, batched, dynamic))
              for name, value in example.items()]
    if outputs:
        shapes = output_shapes(cases, dynamic)
        lines.append("outputs:")
        lines += [_tensor_line(name, value, shapes[name]) for name, value in outputs.items()]
    lines += ["warm_up:", "  - inputs:"]
    lines += [f"      {json.dumps(name, ensure_ascii=False)}: {{datatype: {examples.datatype_of(value)}, "
              f"shape: {json.dumps(examples.shape_of(value))}, data: {examples.fill_of(value)}}}"
              for name, value in example.items()]
    return "\n".join(lines) + "\n"


# --- files ---

def _sync_folder(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def write_text(path, text):
    """Whole or not at all, also over a file that is there."""
    temporary = path.parent / f".{path.name}.{os.getpid()}"
    try:
        temporary.write_text(text, encoding="utf-8")
        _sync_file(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def next_version(model_folder):
    taken = [int(path.name) for path in model_folder.glob("*") if re.fullmatch(r"[1-9]\d*", path.name)]
    return max(taken, default=0) + 1


class NewEntry:
    """A version of a model that is being written, in a hidden folder beside where it goes.

        with NewEntry(repository, name, version) as entry:
            ... write into entry.folder ...
            entry.publish(yaml)

    Left without publish(), by an exception or otherwise, nothing stays behind.
    """

    def __init__(self, repository, name, version=None):
        if not MODEL_NAME.fullmatch(name):
            raise UsageError(f"'{name}' cannot be the name of a model: letters, digits, '.', '_' and '-', at most 128, "
                             "beginning with a letter or digit; choose one with --name")
        self.repository = pathlib.Path(repository)
        self.model_folder = self.repository / name
        self.version = version or next_version(self.model_folder)
        self.target = self.model_folder / str(self.version)
        self._refuse_if_there()
        self._temporary = None
        self.folder = None

    def _refuse_if_there(self):
        if self.target.exists():
            raise UsageError(f"'{self.target}' exists already, and may be in use; choose another --model-version")

    def __enter__(self):
        try:
            self.repository.mkdir(parents=True, exist_ok=True)
            self._temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{self.model_folder.name}.", dir=self.repository))
            self.folder = self._temporary / str(self.version)
            self.folder.mkdir()
        except OSError as error:
            raise PackError(f"cannot write into '{self.repository}': {error.strerror}") from error
        return self

    def __exit__(self, *_):
        shutil.rmtree(self._temporary, ignore_errors=True)

    def publish(self, yaml, overwrite_yaml=False):
        """Renames it into place; True if model.yaml is `yaml` now, False if another one was left as it was."""
        for path in sorted(self.folder.rglob("*"), reverse=True):  # what is in a folder before the folder
            path.chmod(0o755 if path.is_dir() else 0o644)
            (_sync_folder if path.is_dir() else _sync_file)(path)
        self.folder.chmod(0o755)
        _sync_folder(self.folder)
        yaml_file = self.model_folder / "model.yaml"
        if not self.model_folder.exists():
            # The whole model at once: nobody sees it without its model.yaml.
            write_text(self._temporary / "model.yaml", yaml)
            self._temporary.chmod(0o755)
            os.rename(self._temporary, self.model_folder)
            _sync_folder(self.repository)
            return True
        if overwrite_yaml or not yaml_file.exists():
            write_text(yaml_file, yaml)
        self._refuse_if_there()
        os.rename(self.folder, self.target)
        _sync_folder(self.model_folder)
        return yaml_file.read_text(encoding="utf-8") == yaml
