"""The user's own Python: how it is imported, and where in it something went wrong."""

import contextlib
import importlib
import importlib.util
import os
import pathlib
import sys
import sysconfig
import traceback

import torch

from hearth_pack.errors import PackError, first_line


_INSTALLED = ("site-packages", "dist-packages")
_NOT_USERS = [pathlib.Path(path).resolve() for path in (
    pathlib.Path(__file__).parent, pathlib.Path(torch.__file__).parent, sysconfig.get_path("stdlib"))]


def where(error):
    """' (FILE:LINE)' of the innermost frame in the user's code, or else in a library beside PyTorch; '' in neither."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    inside = [(frame, pathlib.Path(frame.filename).resolve()) for frame in frames]
    installed = [(frame, path) for frame, path in inside if any(part in _INSTALLED for part in path.parts)]
    own = [(frame, path) for frame, path in inside if (frame, path) not in installed]
    for candidates in (own, installed):
        for frame, path in reversed(candidates):
            if not any(folder in path.parents for folder in _NOT_USERS):
                return f" ({frame.filename}:{frame.lineno})"
    return ""


def described(error):
    """One that the user's code raised."""
    return f"{type(error).__name__}: {first_line(error)}{where(error)}"


def import_by_name(name):
    """A module by its name, or a file `x.py`; what lies beside it can be imported too."""
    if not name.endswith(".py"):
        sys.path.insert(0, os.getcwd())
        return importlib.import_module(name)
    path = pathlib.Path(name).resolve()
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def as_main(script):
    """Meanwhile this script, if there is one, is what pickles find as `__main__`. It is imported, not run."""
    if script is None:
        yield
        return
    try:
        module = import_by_name(script)
    except Exception as error:  # foreign code
        raise PackError(f"--main {script} could not be imported: {described(error)}") from error
    own, sys.modules["__main__"] = sys.modules["__main__"], module
    try:
        yield
    finally:
        sys.modules["__main__"] = own
