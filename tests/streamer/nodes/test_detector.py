"""The node that watches: it changes nothing, and says by stream what the detector says of the whole."""

import shutil

import numpy as np
import pytest
import torch

from audiolm.detector import FILE, RATE, Detector, DetectorNet, Platt
from streamer import ConfigError, InputError
from streamer.frame import GENERATED, HEARD, Frame
from streamer.node import Build, SessionInfo
from streamer.nodes.detector import DetectorNode

SECONDS = 6.2


@pytest.fixture(scope="module")
def bundle(tiny_bundle, tmp_path_factory):
    """A bundle with an untrained detector."""
    folder = tmp_path_factory.mktemp("watched") / "tiny"
    shutil.copytree(tiny_bundle, folder)
    torch.manual_seed(0)
    Detector(DetectorNet(), Platt(5.0, 0.0)).save(folder / FILE)
    return str(folder)


@pytest.fixture(scope="module")
def sound():
    t = np.arange(int(SECONDS * RATE)) / RATE
    wave = 0.2 * np.sin(2 * np.pi * (200 + 100 * t) * t) + np.random.default_rng(0).normal(0, 0.02, len(t))
    return wave.astype(np.float32)


def node(bundle, shared=None):
    return DetectorNode(DetectorNode.Config(), Build("watch", bundle=bundle, shared={} if shared is None else shared))


def frames(sound, size, start=0):
    return [
        Frame.of("audio", sound[at : at + size], position=start + at, flags=GENERATED if at else HEARD)
        for at in range(0, len(sound), size)
    ]


def through(watch, given, state=None):
    """The frames of sound that came out, and what was said: `(end, probability)`."""
    state = state or watch.init_state(SessionInfo())
    out = [frame for one in given for frame in watch.step(one, state, "audio")]
    said = [(f.position, f.meta["probability"]) for f in out if f.kind == "control"]
    return [f for f in out if f.kind == "audio"], said


@pytest.mark.parametrize("size", [640, 1000, 50_001])
def test_any_chunking_says_what_the_whole_says_and_passes_sound_on(bundle, sound, size):
    given = [*frames(sound, size), Frame.end("audio", position=len(sound))]
    passed, said = through(node(bundle), given)
    assert passed == given
    whole = Detector.of(bundle).listen(sound).windows
    assert said == [(w.end, round(w.probability, 4)) for w in whole]


def test_it_goes_on_after_a_snapshot(bundle, sound):
    watch, given = node(bundle), frames(sound, 640)
    _, whole = through(watch, given)
    state = watch.init_state(SessionInfo())
    _, first = through(watch, given[:100], state)
    _, rest = through(watch, given[100:], watch.load(watch.save(state), SessionInfo()))
    assert first + rest == whole


def test_a_gap_begins_a_new_window(bundle, sound):
    later = frames(sound[:48_000], 640, start=100_000)
    _, said = through(node(bundle), [*frames(sound[:32_000], 640), *later])
    assert [end for end, _ in said] == [140_000]
    assert said[0][1] == round(Detector.of(bundle).listen(sound[:40_000]).windows[0].probability, 4)


def test_int16_and_silence(bundle, sound):
    pcm = (sound * 32767).astype(np.int16)
    _, said = through(node(bundle), frames(pcm, 640))
    assert len(said) == 4
    _, said = through(node(bundle), frames(np.zeros(48_000, np.float32), 640))
    assert said == [(40_000, -1.0)]


def test_gauges_say_the_last(bundle, sound):
    watch, info = node(bundle), SessionInfo()
    _, said = through(watch, frames(sound, 640), watch.init_state(info))
    assert info.metrics.gauges["watch.probability"] == said[-1][1]
    assert info.metrics.gauges["watch.continued"] == (said[-1][1] > 0.5)


def test_one_detector_for_all_nodes_of_a_graph(bundle):
    shared = {}
    assert node(bundle, shared).detector is node(bundle, shared).detector


def test_what_cannot_be_is_told(bundle, tiny_bundle):
    with pytest.raises(ConfigError, match="audiolm train detector"):
        node(str(tiny_bundle))
    with pytest.raises(ConfigError, match="--bundle"):
        node(None)
    odd = Frame.of("audio", np.zeros(640, np.float32), position=0, rate=44_100)
    with pytest.raises(InputError, match="resample"):
        through(node(bundle), [odd])
