"""One graph as three processes with a broker between them: the samples are those of one process."""

import subprocess
import time

import numpy as np
import pytest
import soundfile

HOSTS = ("ears", "brain", "mouth")
PATIENCE = 90  # seconds until a process must have ended; three of them share two cores
SHORT = {"nodes.turns.hangover_ms": 120, "nodes.turns.detector": "music"}


@pytest.fixture(scope="module")
def sound(prompt, tmp_path_factory):
    """The prompt and two seconds of silence: in real time, the continuation comes tick by tick."""
    path = tmp_path_factory.mktemp("sounds") / "sound.wav"
    samples, rate = soundfile.read(prompt)
    soundfile.write(path, np.concatenate([samples, np.zeros(2 * rate)]), rate, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def options(tiny_bundle):
    sets = [part for name, value in SHORT.items() for part in ("--set", f"{name}={value}")]
    return ["--bundle", tiny_bundle, "--seed", "3", "--seconds", "2.4", *sets]


@pytest.fixture(scope="module")
def whole(streamer, sound, options, tmp_path_factory):
    """The samples that one process makes, without a broker."""
    path = tmp_path_factory.mktemp("whole") / "whole.wav"
    result = streamer("run", "installation", *options, "--input", sound, "--output", path, "--quiet")
    assert result.code == 0, result
    return soundfile.read(path, dtype="int16")[0]


@pytest.fixture
def begin(program, sound, options, tmp_path):
    """`begin(host, port)`: the process of one host; what still runs at the end of the test is ended."""
    begun = []

    def start(host, port, *more):
        own = {"ears": ["--input", sound, "--realtime"], "mouth": ["--output", tmp_path / "parts.wav"]}.get(host, [])
        own += [] if host == "ears" else ["--set", "nodes.mic.type=file"]
        command = ["run", "installation", "--host", host, "--set", f"mqtt.port={port}", *options, *own, *more]
        with (tmp_path / f"{host}.log").open("wb") as log:
            begun.append(program(*command, stdout=subprocess.DEVNULL, stderr=log))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.wait()


@pytest.fixture
def samples(tmp_path):
    """`samples(processes)`: wait for all to end well; what the mouth has written."""

    def wait(processes):
        codes = [process.wait(PATIENCE) for process in processes]
        said = "\n".join(f"{host}: {(tmp_path / f'{host}.log').read_text()}" for host in HOSTS)
        assert codes == [0] * len(processes), said
        return soundfile.read(tmp_path / "parts.wav", dtype="int16")[0]

    return wait


def until(happened, process):
    """Wait for something that a process does."""
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end
        assert process.poll() in (None, 0)
        time.sleep(0.02)


@pytest.mark.parametrize("order", [("ears", "mouth", "brain"), ("brain", "mouth", "ears")], ids="-".join)
def test_three_processes_give_the_samples_of_one(make_broker, begin, samples, whole, order):
    broker = make_broker("connection_messages true")
    log, begun = broker.folder / "log", []
    for host in order:
        begun.append(begin(host, broker.port))
        until(lambda host=host: f"-{host}" in log.read_text() or f"/{host}" in log.read_text(), begun[-1])
    assert np.array_equal(samples(begun), whole)
    assert len(whole) > 0.64 * 16_000 + 2 * 16_000
    assert np.abs(whole[-16_000:]).max() > 0


def test_a_broker_that_dies_in_the_middle_loses_nothing(make_broker, begin, samples, whole):
    broker = make_broker("log_type all")
    begun = [begin(host, broker.port) for host in HOSTS]
    log = broker.folder / "log"

    def passed():
        return [line for line in log.read_text().splitlines() if "Received PUBLISH" in line and "fine/fine" in line]

    until(lambda: len(passed()) > 15, begun[0])
    broker.kill()
    before = len(passed())
    broker.start()
    made = samples(begun)
    assert len(passed()) > before, "the stream had not ended when the broker died"
    assert np.array_equal(made, whole)


def test_a_share_can_be_looked_at_without_a_broker(streamer, tiny_bundle):
    said = streamer("check", "installation", "--bundle", tiny_bundle, "--host", "brain").out
    assert "from-ears-acoustic (mqtt_in)" in said
    assert "to-mouth-fine (mqtt_out)" in said
    assert "turns (turns)" not in said
    drawn = streamer("graph", "installation", "--bundle", tiny_bundle, "--host", "mouth").out
    assert "n_from_mbrain_mfine" in drawn
