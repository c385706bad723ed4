"""Fixtures of the integration tests. Each file is one ctest.

A skipped test counts as a failure, but for what a machine may lack: its reason begins with "needs ".
"""

import os
import pathlib
import subprocess

import pytest
import torch

import hearthd as daemon_module
import models
from hearth_pack import cli

# As many as hearthd's compute.intra_op_threads: with more, sums are added up in another order on some processors, and the
# answers that tests expect would differ in their last bits.
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A model repository with the small models of models.py, one copy per test file."""
    root = tmp_path_factory.mktemp("repository")
    models.write_all(root)
    return root


@pytest.fixture(scope="module")
def server(repository, tmp_path_factory):
    """One hearthd over `repository` for the whole file; for tests that leave it as they found it."""
    with daemon_module.Hearthd(repository, tmp_path_factory.mktemp("server")) as running:
        yield running
        assert running.alive, running.log()


@pytest.fixture
def start(tmp_path):
    """Starts a hearthd of the test's own: start(repository, config={...}, ...)."""
    running = []

    def start_one(repository, **options):
        workdir = tmp_path / f"hearthd-{len(running)}"
        workdir.mkdir()
        process = daemon_module.Hearthd(repository, workdir, **options)
        running.append(process)
        return process.start()

    yield start_one
    for process in running:
        process.__exit__(None, None, None)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Shows what hearthd said beside a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        server = item.funcargs.get("server")
        if server is not None:
            report.sections.append(("hearthd", "\n".join(server.lines[-80:])))


def pytest_sessionfinish(session, exitstatus):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter is not None else []
    if exitstatus == 0 and not all(report.longrepr[2].startswith("Skipped: needs ") for report in skipped):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_configure(config):
    for name in ("HEARTHD", "HEARTH"):
        if not os.access(os.environ.get(name, ""), os.X_OK):
            raise pytest.UsageError(f"${name} must name the built program; run these through ctest")


@pytest.fixture(scope="session")
def promtool():
    def check(text):
        done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True,
                              capture_output=True, check=False)
        return done.returncode, done.stdout + done.stderr
    return check


@pytest.fixture(scope="session")
def recordings():
    """Short recordings of somebody speaking, 48 kHz, from Debian's alsa-utils."""
    folder = pathlib.Path("/usr/share/sounds/alsa")
    names = ("Front_Center", "Front_Left", "Rear_Right", "Side_Left")
    files = [folder / f"{name}.wav" for name in names]
    assert all(file.exists() for file in files), "install alsa-utils"
    return files


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("packed")


@pytest.fixture(scope="module")
def pack_server(root, tmp_path_factory):
    with daemon_module.Hearthd(root, tmp_path_factory.mktemp("server")) as running:
        yield running
        assert running.alive, running.log()


@pytest.fixture
def pack(root, capsys):
    """pack(source, name, ...) -> what it printed; fails unless it exits with `code`."""
    def run(source, name, *options, code=0, repository=root):
        got = cli.main([str(source), "--repository", str(repository), "--name", name, *map(str, options)])
        printed = capsys.readouterr()
        assert got == code, printed.err
        return printed.err if code else printed.out
    return run
