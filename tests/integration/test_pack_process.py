"""hearth pack as a program: what pip installs, and a process that packs the same bytes each time."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import hearthd as daemon
import pack_nets
from test_pack import EXAMPLE, serves


def test_hearth_pack_runs_what_pip_installs(tmp_path, pack_server, root):
    source = pathlib.Path(os.environ["SOURCE_DIR"]) / "client" / "python"
    shutil.copytree(source, tmp_path / "source")  # pip builds where the source is
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation",
                    "--disable-pip-version-check", "--root-user-action=ignore", "--target", tmp_path / "site",
                    tmp_path / "source"], check=True, timeout=daemon.PATIENCE)
    environment = daemon.environment({
        "PATH": f"{tmp_path / 'site' / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": f"{tmp_path / 'site'}:{pathlib.Path(__file__).parent}"})
    for seed in ("1", "2"):
        done = subprocess.run([daemon.HEARTH, "pack", "pack_nets:Net", "--repository", root, *EXAMPLE], text=True,
                              capture_output=True, env={**environment, "PYTHONHASHSEED": seed},
                              timeout=daemon.PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == "" and done.stdout.count("equal to the bit") == 4
    assert (root / "Net/1/program.pt").read_bytes() == (root / "Net/2/program.pt").read_bytes()
    assert serves(pack_server, "Net", pack_nets.Net())


def code_of(program):
    with zipfile.ZipFile(program) as archive:
        return {name: archive.read(name) for name in archive.namelist() if "/code/" in name}


def as_a_process(*arguments, seed="random", **environment):
    path = f"{os.environ['PYTHONPATH']}:{pathlib.Path(__file__).parent}"
    environment = daemon.environment({"PYTHONPATH": path, "PYTHONHASHSEED": seed, **environment})
    return subprocess.Popen([sys.executable, "-m", "hearth_pack", *map(str, arguments)], text=True, env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_one_program_is_the_same_bytes_whichever_process_packs_it(pack_server, root):
    """With them hearthd tells that it has the program already."""
    for seed in ("1", "2", "random"):
        packing = as_a_process("pack_nets:Net", "--args", json.dumps({"seed": int(seed == "1")}), "--repository", root,
                               "--name", f"seed-{seed}", *EXAMPLE, seed=seed)
        told = packing.communicate(timeout=daemon.PATIENCE)
        assert packing.returncode == 0 and told[1] == "", told
    programs = [root / f"seed-{seed}" / "1" / "program.pt" for seed in ("1", "2", "random")]
    assert programs[1].read_bytes() == programs[2].read_bytes()
    assert code_of(programs[0]) == code_of(programs[1]) and "in_features : Final" in str(code_of(programs[0]))
    assert serves(pack_server, "seed-1", pack_nets.Net(1))
    kept = pack_server.metric("hearth_kept_programs")
    assert serves(pack_server, "seed-2", pack_nets.Net(0))
    assert pack_server.metric("hearth_kept_programs") == kept >= 1


def test_the_process_that_was_started_is_the_one_that_packs_and_is_interrupted(tmp_path):
    (tmp_path / "nets.py").write_text("import os, signal\n\n\ndef make():\n    print(os.getpid(), flush=True)\n"
                                      "    os.kill(os.getpid(), signal.SIGINT)\n")
    packing = as_a_process(tmp_path / "nets.py:make", "--repository", tmp_path / "new")
    told, complaint = packing.communicate(timeout=daemon.PATIENCE)
    assert packing.returncode == 130 and "interrupted" in complaint
    assert int(told) == packing.pid
    packing = as_a_process("no/such.pt")
    assert "is no file" in packing.communicate(timeout=daemon.PATIENCE)[1] and packing.returncode == 2
