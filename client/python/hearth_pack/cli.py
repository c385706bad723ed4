"""hearth-pack: the command line."""

import argparse
import json
import os
import pathlib
import sys
import time
import warnings

from hearth_pack import __version__, trust
from hearth_pack.errors import PackError, UsageError

_DTYPES = ("float16", "bfloat16", "float32", "float64")
_EPILOG = """examples:
  hearth pack model.pt --repository models --example x=1x512:FP32 --batch
  hearth pack mypackage.nets:make --args '{"layers": 4}' --checkpoint weights.bin --example x=1x3x224x224:FP32
  hearth pack exported.pt2 --name net --verify-with localhost:8001
  hearth pack nets.py:make --format aoti --example x=4x512:FP32 --batch

exit codes: 0 packed, and the answers are the same; 1 not packed, or they differ; 2 the command line is wrong"""


def _parser():
    parser = argparse.ArgumentParser(
        prog="hearth-pack", epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Makes a hearth repository entry of a PyTorch model, and compares what it answers.")
    parser.add_argument("source", help="a TorchScript file, MODULE:FACTORY or FILE.py:FACTORY, a program by "
                        "torch.export.save, or a pickled module")
    parser.add_argument("--version", action="version", version=f"hearth-pack {__version__}")

    where = parser.add_argument_group("where it goes: REPOSITORY/NAME/VERSION/")
    where.add_argument("--repository", default="models", metavar="FOLDER", help="default: %(default)s")
    where.add_argument("--name", help="default: of the file or factory")
    where.add_argument("--model-version", type=int, metavar="N", help="default: one above the highest there")
    where.add_argument("--overwrite-yaml", action="store_true",
                       help="replace the model.yaml of earlier versions, which holds for all")

    model = parser.add_argument_group("the model")
    model.add_argument("--args", default="{}", metavar="JSON", help="an object: the factory's keyword arguments")
    model.add_argument("--checkpoint", metavar="FILE", help="weights for the factory's module: safetensors, an index "
                       "of shards, HDF5, or anything of torch.save")
    model.add_argument("--trust-pickle", action="store_true", help="read pickles that can run code")
    model.add_argument("--main", metavar="FILE.py", help="the script that saved the pickle, if it defined the classes "
                       "in it; it is imported")
    model.add_argument("--method", default="forward", help="default: %(default)s")
    model.add_argument("--trace", action="store_true", help="trace with the example instead of scripting")
    model.add_argument("--dtype", choices=_DTYPES, help="convert floating weights to this")

    files = parser.add_argument_group("the files")
    files.add_argument("--format", default="torchscript", choices=("torchscript", "aoti"), 
                       help="default: %(default)s; aoti compiles the model, for CPUs like this machine's")
    files.add_argument("--weights", default="safetensors", choices=("safetensors", "state_dict"),
                       help="default: %(default)s; state_dict keeps strides, and every type")
    files.add_argument("--shard-size", metavar="SIZE", help="at most so much in a file: 500MB, 2GiB")

    check = parser.add_argument_group("examples and checks")
    check.add_argument("--example", action="append", default=[], metavar="NAME=SHAPE:DATATYPE[=FILL]",
                       help="an input, x=1x512:FP32 or sr=1:INT64=16000, of random values unless filled with zeros or "
                       "a number; or a .npz with all of them")
    check.add_argument("--batch", action="store_true", help="the first dimension of tensors may be of any size")
    check.add_argument("--dynamic", action="append", default=[], metavar="NAME:DIM",
                       help="so may this dimension of this input")
    check.add_argument("--tolerance", type=float, metavar="X",
                       help="accept differences up to this; default: 0, equal to the bit, and 1e-5 for aoti")
    check.add_argument("--verify-with", metavar="HOST:PORT", help="ask a hearthd that serves the repository, too")
    trust.add_options(parser.add_argument_group("that hearthd"))
    return parser


def _parse(argv):
    options = _parser().parse_args(argv)
    try:
        options.args = json.loads(options.args)
    except ValueError as error:
        raise UsageError(f"--args is not JSON: {error}") from error
    if not isinstance(options.args, dict):
        raise UsageError("--args has to be a JSON object, like '{\"layers\": 4}'")
    if options.model_version is not None and options.model_version < 1:
        raise UsageError("--model-version counts from 1")
    if options.tolerance is None:
        options.tolerance = 1e-5 if options.format == "aoti" else 0.0
    if not options.tolerance >= 0:
        raise UsageError("--tolerance has to be 0 or more")
    if options.name is None:
        text = options.source
        options.name = pathlib.Path(text).stem if os.path.isfile(text) else text.rpartition(":")[2]
    dynamic = {}
    for text in options.dynamic:
        name, _, dim = text.rpartition(":")
        if not name or not dim.isdigit():
            raise UsageError(f"--dynamic: '{text}' is not NAME:DIM, like x:1")
        dynamic.setdefault(name, []).append(int(dim))
    options.dynamic = dynamic
    return options


def _run(argv):
    options = _parse(argv)
    began = time.monotonic()
    # After the command line was understood: importing torch takes seconds.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    from hearth_pack import pack
    return pack.pack(options, began)


def main(argv=None):
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        print(f"hearth-pack: {error}", file=sys.stderr)
        return 2
    except PackError as error:
        print(f"hearth-pack: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"hearth-pack: {error.filename or 'the file system'}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("hearth-pack: interrupted; nothing was put in place", file=sys.stderr)
        return 130


def command():
    """What `hearth-pack` and `python -m hearth_pack` run: main(), in a process whose sets have one order.

    TorchScript writes constants in the order that a set of names has, which Python makes anew for every process. The
    same program has to come out as the same bytes: hearthd keeps one for all models that have it.
    """
    if sys.executable and os.environ.get("PYTHONHASHSEED") != "0":  # read only when Python starts
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})
    return main()
