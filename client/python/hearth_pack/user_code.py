"""The user's own Python: how it is imported, and where in it something went wrong."""

import contextlib
import importlib
import importlib.util
import os
import pathlib
import sys

from hearth_pack.errors import PackError, first_line


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
        raise PackError(f"--main {script} could not be imported: {type(error).__name__}: "
                        f"{first_line(error)}") from error
    own, sys.modules["__main__"] = sys.modules["__main__"], module
    try:
        yield
    finally:
        sys.modules["__main__"] = own
