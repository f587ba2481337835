"""Fixtures of the graph's tests: the fakes by name, and a heartbeat that fails a test which blocks the loop."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import fakes

LONGEST = 0.5  # seconds the loop may be held; generous, the machines of tests are noisy


@pytest.fixture
def registry():
    return fakes.registry()


@pytest.fixture
async def heartbeat():
    """Fail the test when something held the event loop; gives the list of gaps in seconds."""
    gaps = []

    async def beat():
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            gaps.append(time.perf_counter() - before)

    task = asyncio.create_task(beat(), name="heartbeat")
    yield gaps
    task.cancel()
    assert max(gaps, default=0.0) < LONGEST, f"the loop was held for {max(gaps):.3f} s"


@pytest.fixture(scope="session")
def plugin():
    """The path of the plugin with fake live ends."""
    return str(Path(__file__).parent / "live_ends.py")


@pytest.fixture(scope="session")
def start_python():
    """`start_python(*arguments, **options)`: Python with this project as a process of its own, a `Popen`."""

    def start(*arguments, **options):
        root = str(Path(__file__).parent.parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        environment = os.environ | {"PYTHONPATH": path, "TERM": "xterm"}
        return subprocess.Popen([sys.executable, *(str(each) for each in arguments)], env=environment, **options)

    return start
