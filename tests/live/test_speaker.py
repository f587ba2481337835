"""The speaker on the virtual sound card: a tone comes out as a tone, and a device that vanished is played on again."""

import asyncio

import numpy as np
import soundfile
from card import RATE, until

from streamer import Graph, Session, run

TEXT = """
nodes:
  input: {{type: file, path: {path}}}
  speaker: {{type: speaker, device: pulse, most_ms: 200}}
edges: [input -> speaker.audio]
"""
TONE = 1000.0
WINDOW = RATE // 20


def graph_of(tmp_path, seconds):
    path = tmp_path / "tone.wav"
    samples = 0.5 * np.sin(2 * np.pi * TONE * np.arange(16000 * seconds) / 16000)
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    return Graph.parse(TEXT.format(path=path), overrides=["session.mode=reconstruct"])


def pure(samples):
    """How many windows of 50 ms hold the tone, and nothing else within 40 dB."""
    count = 0
    for window in samples[: len(samples) // WINDOW * WINDOW].reshape(-1, WINDOW):
        power = np.abs(np.fft.rfft(window * np.blackman(WINDOW))) ** 2
        near = np.abs(np.fft.rfftfreq(WINDOW, 1 / RATE) - TONE) < 80
        count += bool(power[near].sum() > 1e4 * power[~near].sum() and np.abs(window).max() > 0.4)
    return count


async def test_a_tone_comes_out_as_a_tone(here, tmp_path):
    with here.recording() as tape, graph_of(tmp_path, 600) as graph:
        session = Session(graph)
        task = asyncio.create_task(run(graph, session))
        await asyncio.to_thread(tape.wait, lambda got: pure(got) >= 40, "two seconds of a pure tone", 60)
        session.stop()
        await task
    assert session.metrics.gauges["speaker.device"] == "pulse"
    assert session.metrics.counters["speaker.lost_samples"] == 0


async def test_a_device_that_vanishes_and_comes_back_plays_on(here, tmp_path):
    with graph_of(tmp_path, 600) as graph:
        session = Session(graph)
        task = asyncio.create_task(run(graph, session))
        with here.recording() as tape:
            await asyncio.to_thread(tape.wait, lambda got: pure(got) >= 5, "the tone")
        await asyncio.to_thread(here.kill)
        metrics = session.metrics
        await asyncio.to_thread(until, lambda: not metrics.gauges["speaker.connected"], "the loss to be noticed")
        await asyncio.to_thread(until, lambda: metrics.counters["speaker.lost_samples"], "sound to be discarded")
        await asyncio.to_thread(here.restart)
        with here.recording() as tape:
            await asyncio.to_thread(tape.wait, lambda got: pure(got) >= 5, "the tone again", 40)
        assert session.metrics.gauges["speaker.connected"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
