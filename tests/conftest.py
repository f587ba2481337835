"""Fixtures for every test: a tiny random bundle, a prompt, and the command line called in this process."""

import contextlib
import fcntl
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import structlog
import torch

from audiolm import engine
from audiolm.bundle import save_bundle
from audiolm.tiny import tiny_parts

HERE = Path(__file__).parent
RATE = 16_000
IN_REAL_TIME = ("live", "web/browser")  # folders whose tests have a sound card or a browser run beside them
os.environ.setdefault("AUDIOLM_ENGINE", "torch")  # the reference; tests of other engines name them
torch.set_num_threads(1)  # bits depend on it, and a busy neighbour makes two threads slower than one


def in_real_time(item):
    return any(item.path.is_relative_to(HERE / folder) for folder in IN_REAL_TIME)


def pytest_collection_modifyitems(items):
    """What runs in real time may be starved by a machine's other tenants: it is tried three times before it fails."""
    for item in items:
        if in_real_time(item):
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    """Where several processes run tests (pytest -n), what runs in real time has the machine for itself."""
    with alone() if in_real_time(item) else beside_others():
        return (yield)


@contextlib.contextmanager
def alone():
    """No other test of this checkout runs meanwhile. Who waits for that holds the door, so that no new one begins."""
    with locked(HERE, fcntl.LOCK_EX), locked(Path(__file__), fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def beside_others():
    with locked(HERE, fcntl.LOCK_SH):
        pass  # through the door
    with locked(Path(__file__), fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def locked(path, how):
    held = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(held, how)
        yield
    finally:
        fcntl.flock(held, fcntl.LOCK_UN)  # now, though a child that was forked still has it open
        os.close(held)


@dataclass(frozen=True)
class Result:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str


def tone(seconds, rate=RATE, pitch=220.0, channels=1):
    """A falling tone with a little noise, float64 [n] or [n, channels]."""
    time = np.arange(round(seconds * rate)) / rate
    noise = 0.01 * np.random.default_rng(0).standard_normal(len(time))
    mono = 0.3 * np.sin(2 * np.pi * pitch * time * (1 - 0.1 * time)) + noise
    return mono if channels == 1 else np.stack([mono] * channels, axis=1)


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory):
    """Tests leave nothing in the user's cache, and find nothing there."""
    os.environ["AUDIOLM_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def denormals_afterwards():
    """A stepped engine flushes denormals in its thread, on which Hypothesis' floats rightly insist: give them back."""
    yield
    torch.set_flush_denormal(False)
    engine._thread.ready = False


@pytest.fixture(autouse=True)
def logs_as_at_the_start():
    """A command that ran in this process has set up the logs of the process: every test begins without."""
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    """The path of a bundle with random weights: the whole pipeline, a few hundred kB."""
    return str(save_bundle(tiny_parts(), tmp_path_factory.mktemp("bundles") / "tiny", card="random weights, for tests"))


@pytest.fixture(scope="session")
def prompt(tmp_path_factory):
    """The path of a prompt of 0.64 s (16 ticks)."""
    path = tmp_path_factory.mktemp("prompts") / "prompt.wav"
    soundfile.write(path, tone(0.64), RATE, subtype="PCM_16")
    return str(path)


@pytest.fixture(scope="session")
def streamer():
    """`streamer(*arguments)`: the command in this process, as a `Result`."""
    from streamer.cli import app

    def call(*arguments):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            app([str(each) for each in arguments], prog_name="streamer")
        return Result(ended.value.code or 0, out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session")
def program():
    """`program(*arguments, **options)`: the command as a process of its own, a `Popen`."""

    def start(*arguments, **options):
        command = [sys.executable, "-m", "streamer", *(str(each) for each in arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - links are kept
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, **pipes)

    return start
