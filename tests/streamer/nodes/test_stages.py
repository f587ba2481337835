"""The three stages as nodes: forced and sampled, lost and late frames, control, snapshots, sessions side by side."""

import numpy as np
import pytest

from audiolm.bundle import save_bundle
from audiolm.tiny import tiny_parts
from streamer import ConfigError, InputError
from streamer.frame import GENERATED, HEARD, LAST, Frame
from streamer.node import Build, SessionInfo
from streamer.nodes.stage import StageSettings
from streamer.nodes.stages import HELD, CoarseNode, FineNode, SemanticNode

TICK = 640
LOOKAHEAD = AHEAD = 2
KINDS = {"semantic": SemanticNode, "coarse": CoarseNode, "fine": FineNode}
INPUTS = {
    "semantic": frozenset({"semantic", "tick"}),
    "coarse": frozenset({"semantic", "acoustic"}),
    "fine": frozenset({"coarse", "acoustic"}),
}


def made(name, bundle, slots=4, **config):
    return KINDS[name](StageSettings(**config), Build(name, bundle=str(bundle), slots=slots))


@pytest.fixture(scope="module")
def nodes(tiny_bundle):
    return {name: made(name, tiny_bundle) for name in KINDS}


@pytest.fixture(scope="module")
def delayed(tmp_path_factory):
    """A bundle whose coarse and fine levels come out one frame after another."""
    parts = tiny_parts(0, pattern="delay")
    return save_bundle(parts, tmp_path_factory.mktemp("delay") / "tiny", card="A random model for tests.\n")


def info_for(name, id="main", **changes):  # noqa: A002 - as the session calls it
    return SessionInfo(id=id, inputs=INPUTS[name], **changes)


def tokens(values, start=0, flags=HEARD, kind="semantic"):
    return [Frame.of(kind, [v], position=(start + i) * TICK, flags=flags) for i, v in enumerate(values)]


def ticks(count):
    return [Frame.of("tick", None, position=i * TICK, flags=LAST if i + 1 == count else 0) for i in range(count)]


def codes(kind, count, start=0, levels=6, *, seed=0, flags=HEARD):
    made = np.random.default_rng(seed).integers(0, 32, (count, 2, levels))
    return [Frame.of(kind, c, position=(start + i) * TICK, flags=flags) for i, c in enumerate(made)]


def end(kind, tick):
    return Frame.end(kind, position=tick * TICK)


def prompt_for(name, heard=5, more=4, seed=0):
    """Frames in an order in which the lane would take them: what was heard, its end, and what lets the stage go on."""
    rng = np.random.default_rng(seed)
    semantic = rng.integers(0, 24, heard + more + AHEAD)
    if name == "semantic":
        listened = heard - LOOKAHEAD
        return [*tokens(semantic[:listened]), end("semantic", heard), *ticks(more)]
    if name == "coarse":
        given = tokens(semantic)
        acoustic = codes("acoustic", heard, seed=seed)
        return [*given[:3], *acoustic, end("acoustic", heard), *given[3:], end("semantic", len(semantic))]
    made = codes("coarse", more, heard, 2, seed=seed, flags=GENERATED)
    return [*codes("acoustic", heard, seed=seed), end("acoustic", heard), *made, end("coarse", heard + more)]


def step(node, frame, state):
    return [out for out in node.step(frame, state, frame.kind) if out is not None]


def through(node, frames, info):
    state = node.init_state(info)
    try:
        found = [out for frame in frames for out in step(node, frame, state)]
    finally:
        node.close(state)
    return found


def plain(frames):
    return [(frame.position, frame.flags, frame.array.tolist()) for frame in frames]


# -- what comes out --


def test_the_semantic_stage_passes_on_what_is_heard_and_goes_on(nodes):
    frames = prompt_for("semantic")
    found = through(nodes["semantic"], frames, info_for("semantic"))
    assert [frame.position for frame in found] == [i * TICK for i in range(5 + 4 + AHEAD + 1)]
    assert [frame.flags for frame in found[:-1]] == [HEARD] * 3 + [GENERATED] * 8
    assert found[-1].last
    assert plain(found[:3]) == plain(frames[:3])


def test_the_first_tick_makes_up_for_the_look_ahead(nodes):
    node = nodes["semantic"]
    state = node.init_state(info_for("semantic"))
    frames = prompt_for("semantic")
    counts = [len(step(node, frame, state)) for frame in frames]
    node.close(state)
    assert counts == [1, 1, 1, 0, LOOKAHEAD + 1 + AHEAD, 1, 1, 2]


def test_the_semantic_stage_wants_ticks_only_after_the_end_of_what_is_heard(nodes):
    node = nodes["semantic"]
    state = node.init_state(info_for("semantic"))
    assert node.wants(state) == {"semantic"}
    step(node, end("semantic", 0), state)
    assert node.wants(state) == {"tick"}
    node.close(state)
    alone = SessionInfo(inputs=frozenset({"tick"}), mode="dream")
    state = node.init_state(alone)
    assert node.wants(state) == {"tick"}
    node.close(state)


def test_an_end_that_brings_tokens_is_the_same(nodes):
    frames = prompt_for("semantic", heard=3 + LOOKAHEAD)
    joined = [*frames[:2], frames[2].replace(flags=HEARD | LAST), *frames[4:]]
    found = through(nodes["semantic"], joined, info_for("semantic"))
    assert [frame.flags for frame in found[:3]] == [HEARD] * 3
    assert found[3].flags == GENERATED


def test_the_coarse_stage_gives_only_what_it_made(nodes):
    found = through(nodes["coarse"], prompt_for("coarse"), info_for("coarse"))
    assert [frame.position for frame in found] == [i * TICK for i in range(5, 10)]
    assert {frame.flags for frame in found[:-1]} == {GENERATED}
    assert {frame.shape for frame in found[:-1]} == {(2, 2)}


def test_the_fine_stage_gives_whole_stacks(nodes):
    frames = prompt_for("fine")
    found = through(nodes["fine"], frames, info_for("fine"))
    assert [frame.position for frame in found] == [i * TICK for i in range(10)]
    assert plain(found[:5]) == plain(frames[:5]), "what was heard goes through as it is"
    assert {frame.flags for frame in found[5:-1]} == {GENERATED}
    for out, coarse in zip(found[5:-1], frames[6:-1], strict=True):
        assert out.shape == (2, 6)
        np.testing.assert_array_equal(out.array[:, :2], coarse.array)


def test_the_order_in_which_inputs_arrive_changes_nothing(nodes):
    frames = prompt_for("coarse")
    semantic = [frame for frame in frames if frame.kind == "semantic"]
    acoustic = [frame for frame in frames if frame.kind == "acoustic"]
    wanted = plain(through(nodes["coarse"], frames, info_for("coarse")))
    assert plain(through(nodes["coarse"], [*acoustic, *semantic], info_for("coarse"))) == wanted
    assert plain(through(nodes["coarse"], [*semantic[:-1], *acoustic, semantic[-1]], info_for("coarse"))) == wanted


def test_nothing_is_sampled_before_it_could_be_heard(delayed):
    """A delay pattern begins its last levels ahead of time; conditioning that is early must not let it."""
    node = made("coarse", delayed)
    frames = prompt_for("coarse")
    semantic = [frame for frame in frames if frame.kind == "semantic"]
    acoustic = [frame for frame in frames if frame.kind == "acoustic"]
    wanted = plain(through(node, [*acoustic, *semantic], info_for("coarse")))
    early = plain(through(node, [*semantic[:4], *acoustic, *semantic[4:]], info_for("coarse")))
    assert [(at, values) for at, _, values in early] == [(at, values) for at, _, values in wanted]


def test_the_coarse_stage_takes_no_more_than_it_needs(nodes):
    node = nodes["coarse"]
    state = node.init_state(info_for("coarse"))
    for frame in tokens(range(AHEAD)):
        assert node.wants(state) == {"acoustic", "semantic"}
        step(node, frame, state)
    assert node.wants(state) == {"acoustic"}, "the continuation waits for the end of what is heard"
    for frame in codes("acoustic", HELD // 2):
        assert "acoustic" in node.wants(state)
        step(node, frame, state)
    assert node.wants(state) == {"semantic"}, "what is heard waits for its conditioning"
    step(node, end("acoustic", HELD // 2), state)
    assert node.wants(state) == {"semantic"}
    node.close(state)


def test_the_fine_stage_takes_what_was_heard_first(nodes):
    node = nodes["fine"]
    state = node.init_state(info_for("fine"))
    assert node.wants(state) == {"acoustic"}
    step(node, end("acoustic", 0), state)
    assert node.wants(state) == {"coarse"}
    node.close(state)


def test_the_prompts_end_is_marked_for_the_first_sample_time(nodes):
    info = info_for("semantic")
    through(nodes["semantic"], ticks(2)[:0], info)
    assert "prompt_end" not in info.metrics.marks
    through(nodes["semantic"], prompt_for("semantic"), info)
    assert "prompt_end" in info.metrics.marks


# -- side by side --


@pytest.mark.parametrize("name", KINDS)
def test_sessions_side_by_side_are_as_alone_and_share_calls(nodes, name, monkeypatch):
    node = nodes[name]
    given = [prompt_for(name, heard, more, seed) for seed, (heard, more) in enumerate([(5, 4), (9, 3), (3, 7), (5, 4)])]
    infos = [info_for(name, f"s{i}", seed=i) for i in range(4)]
    alone = [plain(through(node, frames, info)) for frames, info in zip(given, infos, strict=True)]
    calls, rows = [], node.engine.rows
    monkeypatch.setattr(node.engine, "rows", lambda part, batch: calls.append(len(batch)) or rows(part, batch))
    states = [node.init_state(info) for info in infos]
    found = [[] for _ in given]
    for turn in range(max(map(len, given))):
        who = [i for i, frames in enumerate(given) if turn < len(frames)]
        outs = node.step_many([(given[i][turn], states[i], given[i][turn].kind) for i in who])
        for i, out in zip(who, outs, strict=True):
            found[i] += out
    for state in states:
        node.close(state)
    assert [plain(frames) for frames in found] == alone
    assert max(calls) >= 3
    assert len(calls) < sum(calls) / 1.5


def test_a_control_among_frames_of_others_disturbs_nobody(nodes):
    node = nodes["semantic"]
    one, two = (node.init_state(info_for("semantic", id)) for id in "ab")  # noqa: A001
    frame = tokens([3])[0]
    outs = node.step_many([(Frame.control("set", temperature=0.0), one, "control"), (frame, two, "semantic")])
    assert [plain(out) for out in outs] == [[], plain([frame])]
    assert node.engine.sampling(one.slot, "semantic").temperature == 0
    assert node.engine.sampling(two.slot, "semantic").temperature == 1
    node.close(one)
    node.close(two)


# -- lost, late and wrong frames --


def test_lost_semantic_tokens_are_masked_counted_and_not_passed_on(nodes):
    frames = prompt_for("semantic", heard=8)
    info, whole = info_for("semantic"), info_for("semantic", "whole")
    found = through(nodes["semantic"], [*frames[:2], *frames[4:]], info)
    assert info.metrics.counters == {"semantic.lost_frames": 2}
    positions = [frame.position // TICK for frame in found]
    assert positions == [0, 1, *range(4, 15)]
    assert len(through(nodes["semantic"], frames, whole)) == len(found) + 2


@pytest.mark.parametrize("name", ["coarse", "fine"])
@pytest.mark.parametrize("lost", [0, 1, 4])
def test_a_stage_goes_on_after_a_lost_frame(nodes, name, lost):
    """With `drop_oldest` on an edge, or a network: the gap is masked, and what follows is where it was."""
    frames = prompt_for(name)
    heard = [frame for frame in frames if frame.kind == "acoustic" and frame.payload]
    info = info_for(name)
    found = through(nodes[name], [frame for frame in frames if frame is not heard[lost]], info)
    wanted = through(nodes[name], frames, info_for(name, "whole"))
    gone = lost * TICK if name == "fine" else None
    expected = [frame.position for frame in wanted if frame.position != gone]
    if (name, lost) == ("coarse", 4):  # the last one heard: nothing came after it, so the stage makes it itself
        assert [frame.position for frame in found] == [lost * TICK, *expected]
        return
    assert [frame.position for frame in found] == expected
    assert info.metrics.counters == {f"{name}.lost_frames": 2}


def test_lost_coarse_frames_leave_a_gap_and_no_more(nodes):
    frames = prompt_for("fine")
    coarse = [frame for frame in frames if frame.kind == "coarse"]
    info = info_for("fine")
    found = through(nodes["fine"], [frame for frame in frames if frame is not coarse[1]], info)
    assert [frame.position // TICK for frame in found] == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    assert info.metrics.counters == {"fine.lost_frames": 2}


def test_late_frames_are_counted_and_left_out(nodes):
    frames = prompt_for("semantic")
    info = info_for("semantic")
    again = through(nodes["semantic"], [frames[0], frames[0], *frames[1:]], info)
    assert plain(again) == plain(through(nodes["semantic"], frames, info_for("semantic", "whole")))
    assert info.metrics.counters == {"semantic.late_frames": 1}


@pytest.mark.parametrize(
    ("name", "frame", "message"),
    [
        ("semantic", Frame.of("semantic", [25], position=0), "takes tokens from 0 to 23"),
        ("coarse", Frame.of("acoustic", np.zeros((2, 4), int), position=0), "acoustic frames of 6 levels, 4 came"),
        ("coarse", Frame.of("acoustic", np.full((2, 6), 33), position=0), "takes tokens from 0 to 31"),
        ("fine", Frame.of("acoustic", np.zeros((2, 7), int), position=0), "acoustic frames of 6 levels, 7 came"),
        ("fine", Frame.of("coarse", np.zeros((2, 3), int), position=0), "coarse frames of 2 levels, 3 came"),
        ("semantic", Frame.of("semantic", [1], position=TICK * 9999), "its position is wrong"),
    ],
)
def test_frames_that_do_not_fit_are_refused(nodes, name, frame, message):
    with pytest.raises(InputError, match=message):
        through(nodes[name], [frame], info_for(name))
    assert nodes[name].engine.free == 4


# -- modes, control, snapshots --


@pytest.mark.parametrize(
    ("name", "mode"), [("semantic", "reconstruct"), ("semantic", "acoustic_only"), ("coarse", "reconstruct"),
                       ("fine", "reconstruct")],
)  # fmt: skip
def test_a_mode_that_a_stage_has_no_part_in_is_refused_and_holds_no_slot(nodes, name, mode):
    with pytest.raises(ConfigError, match=f"{name}' knows the modes .*, not '{mode}'"):
        nodes[name].init_state(info_for(name, mode=mode))
    with pytest.raises(ConfigError, match=mode):
        KINDS[name].facts(StageSettings(), Build(name, session=SessionInfo(mode=mode)))
    assert nodes[name].engine.free == 4


def test_the_coarse_stage_says_what_it_misses(nodes):
    with pytest.raises(ConfigError, match="needs semantic frames in mode 'continue'; connect"):
        nodes["coarse"].init_state(SessionInfo(inputs=frozenset({"acoustic"})))
    with pytest.raises(ConfigError, match="needs tick frames in mode 'acoustic_only'"):
        nodes["coarse"].init_state(SessionInfo(inputs=frozenset({"semantic"}), mode="acoustic_only"))
    assert nodes["coarse"].engine.free == 4


def test_control_changes_and_restores_how_a_stage_samples(nodes):
    node = nodes["coarse"]
    info = info_for("coarse")
    state = node.init_state(info)

    def now(**values):
        assert step(node, Frame.control("set", **values), state) == []
        how = node.engine.sampling(state.slot, "coarse")
        return how.temperature, how.top_k

    assert now(temperature=0.5) == (0.5, 0)
    assert now(top_k=7) == (0.5, 7)
    assert now(temperature=None) == (1.0, 7)
    assert now(node="fine", temperature=0.1) == (1.0, 7), "meant for another"
    assert now(node="coarse", temperature=0.1) == (0.1, 7)
    assert now(colour="blue") == (0.1, 7)
    assert not info.metrics.counters
    for wrong in ({"temperature": -1.0}, {"top_k": "many"}, {"guidance": 2.0}):
        assert now(**wrong) == (0.1, 7)
    assert info.metrics.counters == {"coarse.refused_controls": 3}
    assert step(node, Frame.control("dance"), state) == []
    node.close(state)
    assert node.engine.sampling(node.init_state(info).slot, "coarse").temperature == 1
    node.shared.release("main")


def test_a_stages_clock_is_where_a_change_would_be_heard_first(nodes, delayed):
    """With a delay pattern the frames behind the newest are not finished, and finished ones are read by fine's."""
    behind = {"coarse": 4, "fine": 3}  # frames: the spans of coarse and fine are 1 and 3
    for name, node in [*nodes.items(), *((name, made(name, delayed)) for name in behind)]:
        state = node.init_state(info_for(name))
        for frame in prompt_for(name):
            step(node, frame, state)
        late = behind[name] if node not in nodes.values() else 0
        assert node.position(state) == 9 * TICK - late * 320, name
        node.close(state)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("pattern", ["depth", "delay"])
def test_a_saved_stage_goes_on_the_same(tiny_bundle, delayed, name, pattern):
    bundle = tiny_bundle if pattern == "depth" else delayed
    node, other = made(name, bundle, slots=1), made(name, bundle, slots=1)
    frames = prompt_for(name)
    frames.insert(3, Frame.control("set", temperature=0.7))
    whole = plain(through(node, frames, info_for(name)))
    for at in range(0, len(frames) + 1, 2):
        state = node.init_state(info_for(name))
        first = [out for frame in frames[:at] for out in step(node, frame, state)]
        saved = node.save(state)
        node.close(state)
        state = other.load(saved, info_for(name))
        rest = [out for frame in frames[at:] for out in step(other, frame, state)]
        other.close(state)
        assert plain(first + rest) == whole, at
