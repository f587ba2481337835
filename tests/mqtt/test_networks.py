"""One graph on three machines with networks of their own: a cable that is pulled out, and one that loses and delays."""

import os
import subprocess
import sys
import time

import networks
import numpy as np
import pytest
import soundfile
from networks import HubBroker, Network

HOSTS = ("ears", "brain", "mouth")
PATIENCE = 100  # seconds
CUT = float(
    os.environ.get("TEST_CUT_SECONDS", "6")
)  # without a cable: longer than the keepalive, so that the connection is given up


@pytest.fixture(scope="module", autouse=True)
def possible():
    if why := networks.missing():
        pytest.skip(why)


@pytest.fixture
def network():
    made = Network(*HOSTS)
    yield made
    made.close()


@pytest.fixture
def hub(network, tmp_path):
    made = HubBroker(tmp_path / "broker", network, "log_type all")
    yield made.start()
    made.stop()


@pytest.fixture(scope="module")
def options(tiny_bundle):
    return ["--bundle", tiny_bundle, "--seed", "5", "--seconds", "6", "--set", "nodes.turns.detector=music"]


@pytest.fixture(scope="module")
def whole(streamer, prompt, options, tmp_path_factory):
    """What one process makes, without a network."""
    path = tmp_path_factory.mktemp("whole") / "whole.wav"
    result = streamer("run", "installation", *options, "--input", prompt, "--output", path, "--quiet")
    assert result.code == 0, result
    return soundfile.read(path, dtype="int16")[0]


@pytest.fixture
def machines(network, hub, prompt, options, tmp_path):
    """The three processes, each on its machine."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
    env = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    ends = {"ears": ["--input", prompt], "mouth": ["--output", tmp_path / "parts.wav"]}
    begun = []
    for host in HOSTS:
        command = [sys.executable, "-m", "streamer", "run", "installation", "--host", host, *options]
        command += ["--set", f"mqtt.host={network.address}", "--set", "mqtt.keepalive=4"]
        command += ends.get(host, []) if host == "ears" else ["--set", "nodes.mic.type=file", *ends.get(host, [])]
        with (tmp_path / f"{host}.log").open("wb") as log:
            whole = [str(part) for part in [*network.on(host), *command]]
            begun.append(subprocess.Popen(whole, env=env, stdout=subprocess.DEVNULL, stderr=log))
    yield begun
    for process in begun:
        process.kill()
        process.wait()


@pytest.fixture
def samples(machines, tmp_path):
    def wait():
        codes = [process.wait(PATIENCE) for process in machines]
        assert codes == [0, 0, 0], "\n".join((tmp_path / f"{host}.log").read_text() for host in HOSTS)
        return soundfile.read(tmp_path / "parts.wav", dtype="int16")[0]

    return wait


def passed(hub):
    """How many messages of the last stream the broker has taken."""
    return sum(
        "Received PUBLISH" in line and "fine/fine" in line for line in (hub.folder / "log").read_text().splitlines()
    )


def until_underway(hub, machines):
    end = time.monotonic() + PATIENCE
    while passed(hub) < 10:
        assert time.monotonic() < end
        assert all(process.poll() in (None, 0) for process in machines)
        time.sleep(0.02)


def test_a_cable_that_is_pulled_out_loses_nothing(network, hub, machines, samples, whole):
    until_underway(hub, machines)
    network.cut("brain")
    before = passed(hub)
    time.sleep(CUT)
    assert passed(hub) - before < 40  # what was under way; without the brain nothing more comes
    network.mend("brain")
    assert np.array_equal(samples(), whole)


def test_a_cable_that_loses_and_delays_changes_nothing(network, hub, machines, samples, whole):
    if not network.slow("mouth", "delay", "30ms", "10ms", "loss", "3%"):
        pytest.skip("this kernel has no netem")
    assert np.array_equal(samples(), whole)
