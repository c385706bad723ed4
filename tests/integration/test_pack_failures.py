"""hearth pack where something is wrong: with its arguments, its files, its comparisons."""

import collections
import io
import os
import pathlib
import shutil
import sys

import h5py
import numpy as np
import pytest
import torch

import pack_nets
from hearth_pack import cli, safetensors as hearth_safetensors, verify
from hearth_pack.compare import compare
from hearth_pack.errors import PackError
from hearth_pack.progress import Progress
from test_pack import CHECKPOINTS, EXAMPLE


def test_an_entry_that_answers_differently_is_not_put_in_place(pack, tmp_path):
    told = pack("pack_nets:Ambiguous", "ambiguous", "--example", "x=2x4:FP32", code=1, repository=tmp_path)
    assert "nothing was put in place" in told
    assert "turned is not contiguous" in told and "--weights state_dict" in told
    assert list(tmp_path.iterdir()) == []
    told = pack("pack_nets:Ambiguous", "ambiguous", "--example", "x=2x4:FP32", "--tolerance", 1.5, repository=tmp_path)
    assert "largest difference 1, in OUTPUT__0" in told


def test_a_server_that_answers_differently_is_reported(pack, pack_server, tmp_path):
    """The daemon has another model of this name."""
    pack("pack_nets:Net", "elsewhere", "--args", '{"seed": 1}', *EXAMPLE)
    told = pack("pack_nets:Net", "elsewhere", *EXAMPLE, "--verify-with", pack_server.address, code=1,
                repository=tmp_path)
    assert "hearthd's answers differ" in told
    assert "hearthd at 127.0.0.1:9" in pack("pack_nets:Net", "elsewhere", *EXAMPLE, "--verify-with", "127.0.0.1:9",
                                            code=1, repository=tmp_path)


def test_a_failure_halfway_leaves_nothing_behind(pack, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "disk")

    monkeypatch.setattr(torch.jit.RecursiveScriptModule, "save", full)
    assert "No space left" in pack("pack_nets:Net", "half", *EXAMPLE, code=1, repository=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments, code, words", [
    (["no/such.pt"], 2, "is no file and not MODULE:FACTORY"),
    (["nosuchmodule:make"], 1, "could not be called"),
    (["pack_nets:not_a_module"], 1, "gave an int, which is no torch.nn.Module"),
    (["pack_nets:Net", "--args", "[1]"], 2, "JSON object"),
    (["pack_nets:Net", "--args", '{"depth": 1}'], 1, "depth"),
    (["pack_nets:Net", "--checkpoint", "no/such.bin"], 2, "there is no file"),
    (["pack_nets:Net", "--method", "backward"], 2, "no method 'backward'"),
    (["pack_nets:Net", "--example", "x"], 2, "x=1x512:FP32"),
    (["pack_nets:Net", "--example", "x=1x4:FLOAT"], 2, "is not a datatype"),
    (["pack_nets:Net", "--example", "y=1x4:FP32"], 2, "no input 'y'; it takes x"),
    (["pack_nets:Net", "--example", "x=1x5:FP32"], 1, "the model refuses the example"),
    (["pack_nets:Net", "--batch"], 2, "--batch needs"),
    (["pack_nets:Net", "--trace"], 2, "--trace needs"),
    (["pack_nets:Net", "--dynamic", "x:1"], 2, "no example of 'x'"),
    (["pack_nets:Net", "--shard-size", "big"], 2, "is not a size"),
    (["pack_nets:Net", "--name", "../up"], 2, "cannot be the name of a model"),
    (["pack_nets:Net", "--format", "aoti"], 2, "--example of every input"),
    (["pack_nets:Unreadable", "--example", "x=1x4:FP32"], 1, "cannot read the program back"),
    (["pack_nets:Unscriptable"], 1, "try --trace")])
def test_refusals_say_what_to_do(tmp_path, capsys, arguments, code, words):
    assert cli.main(["--repository", str(tmp_path / "new"), *arguments]) == code
    told = capsys.readouterr().err
    assert words in told and told.startswith("hearth-pack: ") and told.count("\n") == 1
    assert not (tmp_path / "new").exists() or list((tmp_path / "new").iterdir()) == []


def test_a_factory_that_fails_is_told_with_its_own_line(pack, tmp_path):
    (tmp_path / "below.py").write_text("def deep():\n    return {}['key']\n")
    (tmp_path / "failing.py").write_text("import torch\nfrom below import deep\n\n\ndef make(size=-1):\n"
                                         "    return torch.nn.Linear(size, 3) if size else deep()\n")
    source = f"{tmp_path / 'failing.py'}:make"
    assert f"negative dimension -1: [3, -1] ({tmp_path / 'failing.py'}:6)" in pack(source, "failing", code=1)
    told = pack(source, "failing", "--args", '{"size": 0}', code=1)
    assert f"KeyError: 'key' ({tmp_path / 'below.py'}:2)\n" in told
    assert pack(source, "failing", "--args", '{"sizes": 0}', code=1).endswith("argument 'sizes'\n")  # nothing ran


def test_a_checkpoint_of_another_module_is_refused_by_name(pack, root, tmp_path):
    torch.save(pack_nets.Plain().state_dict(), tmp_path / "weights.pt")
    told = pack("pack_nets:Net", "foreign", "--checkpoint", tmp_path / "weights.pt", code=1)
    assert "missing: 'again.bias', 'again.weight'" in told and "unknown: 'inner.bias', 'inner.weight'" in told
    torch.save(pack_nets.Net(width=5).state_dict(), tmp_path / "weights.pt")
    assert "size mismatch for first.weight" in pack("pack_nets:Net", "foreign", "--checkpoint",
                                                    tmp_path / "weights.pt", code=1)
    assert not (root / "foreign").exists()


def test_hdf5_is_read_as_hearthd_reads_it_or_refused_by_name(pack, tmp_path, monkeypatch):
    arguments = ["pack_nets:Plain", "hierarchical", "--checkpoint", tmp_path / "weights", *EXAMPLE]
    plain = pack_nets.Plain()
    with h5py.File(tmp_path / "weights", "w") as file:
        file["inner/weight"] = plain.inner.weight.detach().numpy().astype(">f4")
        file.create_dataset("inner/bias", data=plain.inner.bias.detach().numpy(), chunks=(3,), compression="lzf")
    pack(*arguments)
    with h5py.File(tmp_path / "weights", "a") as file:
        del file["inner/bias"]
        file["inner/bias"] = np.zeros(8, [("a", "f4"), ("b", "i4")])
    told = pack(*arguments, code=1)
    assert "'inner/bias' cannot be read: PyTorch has no type for" in told and "--trust-pickle" not in told
    with h5py.File(tmp_path / "weights", "a") as file:
        del file["inner/bias"]
        file.create_dataset("inner/bias", (8,), "f4", external=[("/dev/zero", 0, 32)])
    assert "'inner/bias' cannot be read: it lies in another file" in pack(*arguments, code=1)
    data = pathlib.Path(os.environ["SOURCE_DIR"]) / "tests/data/hdf5"
    for name, words in (("crashes_libhdf5.h5", "is not HDF5 that h5py reads"), ("skipped.h5", "unknown: "),
                        ("same_name.h5", "two data sets that are")):
        shutil.copy(data / name, tmp_path / "weights")
        told = pack(*arguments, code=1)
        assert words in told and told.count("\n") == 1
    monkeypatch.setitem(sys.modules, "h5py", None)
    told = pack(*arguments, code=1)
    assert "hearth-pack[hdf5]" in told and "safetensors" in told and "--trust-pickle" not in told


def test_what_a_pickle_holds_instead_of_weights_is_named(pack, tmp_path):
    for value, words in ((collections.OrderedDict(a=1), "an OrderedDict without"), ([1], "a list without")):
        torch.save(value, tmp_path / "weights")
        assert f"holds {words}" in pack("pack_nets:Plain", "nothing", "--checkpoint", tmp_path / "weights", code=1)


def test_what_is_no_file_of_weights_is_not_called_a_pickle(pack, tmp_path):
    file = tmp_path / "weights"
    for content in (b"", b"hello", bytes(range(200, 256))):
        file.write_bytes(content)
        told = pack("pack_nets:Plain", "nothing", "--checkpoint", file, code=1)
        assert "is nothing that weights are read from: safetensors" in told and told.count("\n") == 1
    for kind in ("state_dict", "legacy"):
        CHECKPOINTS[kind](pack_nets.Plain(), file)
        file.write_bytes(file.read_bytes()[:-200])
        told = pack("pack_nets:Plain", "nothing", "--checkpoint", file, code=1)
        assert "is not whole" in told and "--trust-pickle" not in told


def test_a_saved_buffer_that_the_module_computes_itself_has_to_agree(pack, root, tmp_path):
    state = pack_nets.Net().state_dict()
    torch.save({**state, "steps": torch.arange(4.0) + 1}, tmp_path / "weights.pt")
    assert "unknown: 'steps'" in pack("pack_nets:Net", "computed", "--checkpoint", tmp_path / "weights.pt", code=1)
    torch.save({**state, "steps": torch.arange(4.0)}, tmp_path / "weights.pt")
    pack("pack_nets:Net", "computed", *EXAMPLE, "--checkpoint", tmp_path / "weights.pt")
    assert (root / "computed" / "1" / "program.pt").exists()


def test_comparisons_see_every_difference():
    def between(a, b):
        return compare({"y": torch.tensor(a)}, {"y": torch.tensor(b)})

    nan = float("nan")
    assert between([1.0, nan], [1.0, nan]).within(0)
    assert between([1.0, 2.0], [1.0, 2.5]).difference == 0.5
    assert not between([1.0, 2.0], [1.0, 2.5]).within(0.4) and between([1.0, 2.0], [1.0, 2.5]).within(0.5)
    assert not between([1.0, nan], [1.0, 2.0]).within(1e300)
    assert not between([0.0], [-0.0]).within(0)
    assert between([2**62 + 1], [2**62]).difference == 1
    assert not between([1], [1.0]).within(9)
    assert not between([[1]], [1]).within(9)
    assert not compare({"y": ["a"]}, {"y": ["b"]}).within(9)
    assert not compare({"y": ["a"]}, {"z": ["a"]}).within(9)


def test_bytes_that_do_not_come_back_are_noticed(pack, root):
    pack("pack_nets:Plain", "spoiled", "--example", "x=2x4:FP32")
    folder = root / "spoiled" / "1"
    tensors = pack_nets.Plain().state_dict()
    assert verify.check_weights(folder, tensors).keys() == tensors.keys()
    file = folder / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(PackError, match="does not come back as it was written"):
        verify.check_weights(folder, tensors)
    spoiled, _ = hearth_safetensors.read(file)
    with pytest.raises(PackError, match="the checksum of"):
        verify.check_weights(folder, spoiled)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_shown_on_a_terminal_and_wiped_off(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress(2_000_000, "writing") as progress:
        progress.update(500_000)
        progress.update(1_500_000)
    shown = sys.stderr.getvalue()
    assert "writing   0% of 2.0 MB" in shown and "writing 100%" in shown and shown.endswith("\r\033[K")
