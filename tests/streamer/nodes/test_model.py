"""What the model nodes share: one model a graph, one slot a session, and clear words when it cannot be had."""

import numpy as np
import pytest

from audiolm.errors import EngineError
from audiolm.runner import Emitted
from audiolm.sampler import Sampling
from streamer import ConfigError
from streamer.frame import GENERATED, HEARD
from streamer.node import Build, SessionInfo
from streamer.nodes.ears import AcousticNode, DecoderNode
from streamer.nodes.model import ModelSettings, Shared, bundle_of, describe, sampling_of, shared_model, stacked
from streamer.nodes.outlet import Outlet
from streamer.nodes.stage import StageSettings
from streamer.nodes.stages import CoarseNode


def build(bundle=None, name="node", **changes):
    return Build(name, bundle=bundle, **changes)


def test_the_model_is_loaded_once_a_graph(tiny_bundle):
    together = build(tiny_bundle)
    a = AcousticNode(AcousticNode.Config(), together)
    b = DecoderNode(ModelSettings(), together)
    assert a.shared is b.shared
    assert a.engine is b.engine
    assert AcousticNode(AcousticNode.Config(), build(tiny_bundle)).shared is not a.shared


def test_a_node_may_have_a_bundle_of_its_own(tiny_bundle):
    assert bundle_of(ModelSettings(bundle="mine"), build("theirs")) == "mine"
    assert bundle_of(ModelSettings(), build("theirs")) == "theirs"
    with pytest.raises(ConfigError, match=r"'node' needs a model.*--bundle"):
        bundle_of(ModelSettings(), build())


def test_a_bundle_that_cannot_be_had_is_said_by_check_and_build(tmp_path):
    with pytest.raises(ConfigError, match="neither a bundle's name nor a folder"):
        describe(ModelSettings(), build("nowhere"))
    with pytest.raises(ConfigError, match=r"no config\.json"):
        shared_model(ModelSettings(), build(str(tmp_path)))


def test_an_unknown_engine_is_refused(tiny_bundle):
    with pytest.raises(ConfigError, match=r"unknown engine 'abacus'.*torch"):
        shared_model(ModelSettings(), build(tiny_bundle, engine="abacus"))


def test_the_nodes_of_a_session_share_a_slot_until_the_last_lets_go(tiny_bundle):
    shared = shared_model(ModelSettings(), build(tiny_bundle, slots=2))
    assert [shared.acquire("a"), shared.acquire("b"), shared.acquire("a")] == [0, 1, 0]
    shared.release("a")
    with pytest.raises(EngineError, match="all 2 slots are taken"):
        shared.acquire("c")
    shared.release("a")
    assert shared.acquire("c") == 0
    assert shared.engine.free == 0


def test_a_slot_is_fresh_for_the_next_session(tiny_bundle):
    node = AcousticNode(AcousticNode.Config(gain="off"), build(tiny_bundle))
    tick = np.random.default_rng(0).uniform(-0.3, 0.3, 640).astype(np.float32)
    seen = []
    for name in "ab":
        slot = node.shared.acquire(name)
        seen.append([node.engine.encode({slot: tick})[slot].tolist() for _ in range(3)])
        node.shared.release(name)
    assert seen[0] == seen[1]


def test_letting_go_gives_the_slot_back_only_after_an_error(tiny_bundle):
    node = DecoderNode(ModelSettings(), build(tiny_bundle))
    node.shared.acquire("a")
    with node.letting_go("a"):
        pass
    assert node.engine.free == 0
    with pytest.raises(ZeroDivisionError), node.letting_go("a"):
        _ = 1 / 0
    assert node.engine.free == 1


def test_guidance_in_the_settings_makes_room_for_it(tiny_bundle):
    together = build(tiny_bundle)
    CoarseNode(StageSettings(guidance=2.0), together)
    shared = shared_model(ModelSettings(), together)
    assert isinstance(shared, Shared)
    assert shared.engine.guided == {"coarse"}


def test_settings_override_the_bundles_sampling():
    base = Sampling(0.8, 50, 0.9)
    assert sampling_of(base, {"temperature": None, "top_k": 3, "bundle": "x"}) == Sampling(0.8, 3, 0.9)
    assert sampling_of(base, {"temperature": 0.0}).temperature == 0
    with pytest.raises(ConfigError, match="top_p"):
        sampling_of(base, {"top_p": 2.0})


def test_an_outlet_numbers_and_marks_its_frames():
    out = Outlet(SessionInfo(id="s"), "semantic")
    one, two = out.frame([1], 640, generated=False), out.frame([2], 1280, generated=True, role="voice")
    end = out.end(1920)
    assert [frame.seq for frame in (one, two, end)] == [0, 1, 2]
    assert [frame.flags for frame in (one, two)] == [HEARD, GENERATED]
    assert [frame.session for frame in (one, two, end)] == ["s"] * 3
    assert two.meta == {"role": "voice"}
    assert end.last
    assert not end.payload


def test_finished_frames_stack():
    made = stacked([Emitted(0, np.array([1, 2]), generated=True), Emitted(1, np.array([3, 4]), generated=True)])
    assert made.tolist() == [[1, 2], [3, 4]]
