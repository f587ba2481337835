"""What is forced and what is sampled at each row, seen by a fake engine that records its rows."""

import numpy as np
import pytest

from audiolm.errors import EngineError, InputError
from audiolm.runner import CAPACITY, StageRunner, drive
from audiolm.sampler import uniforms
from audiolm.stage import StageSpec

SEMANTIC = StageSpec("semantic", 0, 25, 1, 24)
COARSE = StageSpec("coarse", 1, 50, 2, 32, 1, 24, 2)
DELAY = StageSpec("coarse", 1, 50, 3, 32, 1, 24, 2, pattern="delay")
FREE = StageSpec("free", 2, 50, 3, 32, pattern="delay")


class Fake:
    """Records the rows; samples `100 * level + position` modulo the codes."""

    def __init__(self):
        self.rows_seen = []

    def rows(self, name, rows):
        self.rows_seen.append((name, dict(rows)))
        out = {}
        for slot, row in rows.items():
            drawn = (np.arange(len(row.forced)) * 10 + row.position) % 32
            out[slot] = np.where(row.is_forced, row.forced, drawn)
        return out

    def of(self, slot=0):
        return [rows[slot] for _, rows in self.rows_seen if slot in rows]


def frames_of(emitted):
    return [(e.frame, e.tokens.tolist(), e.generated) for e in emitted]


def test_heard_frames_are_forced_and_nothing_is_sampled_unasked():
    engine, runner = Fake(), StageRunner(SEMANTIC, 5)
    for frame in range(3):
        runner.hear(frame, [frame + 1])
    out = drive(engine, "semantic", [(0, runner)])[0]
    assert frames_of(out) == [(0, [1], False), (1, [2], False), (2, [3], False)]
    assert all(row.is_forced.all() and row.u is None and not row.sampling for row in engine.of())
    assert drive(engine, "semantic", [(0, runner)])[0] == []


def test_sampled_rows_carry_the_noise_of_seed_stage_and_position():
    engine, runner = Fake(), StageRunner(SEMANTIC, 5, start=1000)
    runner.hear(1000, [7])
    runner.sample_until(1003)
    out = drive(engine, "semantic", [(0, runner)])[0]
    assert [(e.frame, e.generated) for e in out] == [(1000, False), (1001, True), (1002, True)]
    assert [row.position for row in engine.of()] == [1000, 1001, 1002]
    for row in engine.of()[1:]:  # counted from the start, so a late start changes nothing
        assert np.array_equal(row.u, uniforms(5, 0, row.position - 1000, 1))


def test_rows_wait_for_their_conditioning_by_position():
    engine, runner = Fake(), StageRunner(COARSE, 0, ratio=2)
    runner.sample_until(100)
    assert runner.next_row() is None
    for index in (3, 0, 1, 2):  # arrival does not matter, and what no row reads is not kept
        runner.give(index, [index])
    assert runner.cond_ahead == 2
    out = drive(engine, "coarse", [(0, runner)])[0]
    assert [e.frame for e in out] == [0, 1, 2, 3]
    assert [row.cond.tolist() for row in engine.of()] == [[2], [2], [3], [3]]  # frame f reads f // 2 + L
    assert runner.cond_ahead == 0


def test_at_the_trigger_tokens_inside_the_lookahead_are_sampled_never_padded():
    """Six ticks were heard, the tokenizer has given four tokens: 4 and 5 are sampled, then coarse catches up forced."""
    engine = Fake()
    semantic, coarse = StageRunner(SEMANTIC, 1), StageRunner(COARSE, 1, ratio=2)
    for frame in range(12):
        coarse.hear(frame, [frame % 32, 1])
    for tick in range(4):
        semantic.hear(tick, [20])
    for token in drive(engine, "semantic", [(0, semantic)])[0]:
        coarse.give(token.frame, token.tokens)
    assert [e.frame for e in drive(engine, "coarse", [(0, coarse)])[0]] == [0, 1, 2, 3]  # lags behind while listening
    assert coarse.heard_ahead == 8
    semantic.sample_until(6 + 1 + COARSE.ahead)
    coarse.sample_until(14)
    tokens = drive(engine, "semantic", [(0, semantic)])[0]
    for token in tokens:
        coarse.give(token.frame, token.tokens)
    burst = drive(engine, "coarse", [(0, coarse)])[0]
    rows = [(name, rows[0]) for name, rows in engine.rows_seen]
    sampled = [row.position for name, row in rows if name == "semantic" and row.sampling]
    assert sampled == [4, 5, 6, 7, 8]
    assert [(e.frame, e.generated) for e in tokens] == [(s, True) for s in sampled]
    assert [(e.frame, e.generated) for e in burst] == [(f, f >= 12) for f in range(4, 14)]
    after = {row.position: int(row.cond[0]) for name, row in rows if name == "coarse"}
    given = {e.frame: int(e.tokens[0]) for e in tokens} | dict.fromkeys(range(4), 20)
    assert after == {frame: given[frame // 2 + 2] for frame in range(14)}


def test_delay_rows_are_skewed_and_frames_come_out_whole():
    engine, runner = Fake(), StageRunner(FREE, 0)
    for frame in range(4):
        runner.hear(frame, [frame, 10 + frame, 20 + frame])
    out = drive(engine, "free", [(0, runner)])[0]
    assert frames_of(out) == [(0, [0, 10, 20], False), (1, [1, 11, 21], False)]
    start = FREE.start_token
    assert [row.forced.tolist() for row in engine.of()] == [[0, start, start], [1, 10, start], [2, 11, 20], [3, 12, 21]]


def test_delay_goes_on_from_heard_to_sampled_level_by_level():
    engine, runner = Fake(), StageRunner(FREE, 0)
    for frame in range(3):
        runner.hear(frame, [frame, frame, frame])
    drive(engine, "free", [(0, runner)])
    runner.sample_until(5)
    out = drive(engine, "free", [(0, runner)])[0]
    assert [(e.frame, e.generated) for e in out] == [(1, False), (2, False), (3, True), (4, True)]
    assert [row.is_forced.tolist() for row in engine.of()[3:]] == [
        [False, True, True],
        [False, False, True],
        [False, False, False],
        [False, False, False],
    ]
    assert out[2].tokens.tolist() == [3, 14, 25]  # level q was drawn at row 3 + q
    runner.hear(5, [1, 1, 1])  # its first level has been drawn already
    assert runner.late == 1
    assert runner.heard_ahead == 0


def test_the_acoustic_only_baseline_runs_on_the_mask_token():
    engine, runner = Fake(), StageRunner(COARSE, 0, ratio=2, conditioned=False)
    runner.give(2, [3])
    runner.sample_until(4)
    assert len(drive(engine, "coarse", [(0, runner)])[0]) == 4
    assert all(row.cond.tolist() == [COARSE.cond_mask] for row in engine.of())
    assert runner.cond_ahead == 0


def test_drive_steps_slots_side_by_side():
    engine = Fake()
    runners = [(slot, StageRunner(SEMANTIC, slot)) for slot in (0, 2)]
    runners[0][1].sample_until(3)
    runners[1][1].sample_until(1)
    out = drive(engine, "semantic", runners)
    assert {slot: len(frames) for slot, frames in out.items()} == {0: 3, 2: 1}
    assert [sorted(rows) for _, rows in engine.rows_seen] == [[0, 2], [0], [0]]


def test_what_was_passed_is_late_and_left_out():
    runner = StageRunner(SEMANTIC, 0, start=10)
    runner.hear(9, [1])
    assert (runner.late, runner.heard_ahead) == (1, 0)


def test_lost_tokens_are_mask_tokens():
    engine, runner = Fake(), StageRunner(SEMANTIC, 0)
    runner.hear(0, [SEMANTIC.mask_token])
    assert frames_of(drive(engine, "semantic", [(0, runner)])[0]) == [(0, [24], False)]


@pytest.mark.parametrize("spec", [SEMANTIC, COARSE, DELAY])
def test_a_saved_runner_goes_on_with_all_that_was_pending(spec):
    def fill(runner):
        for frame in range(6):
            runner.hear(frame, [frame] * spec.levels)
            if spec.cond_levels:
                runner.give(frame, [frame])
        runner.hear(7, [1] * spec.levels)

    def rest(runner):
        engine = Fake()
        if spec.cond_levels:
            for index in range(6, 12):
                runner.give(index, [index])
        runner.sample_until(9)
        out = frames_of(drive(engine, spec.name, [(0, runner)])[0])
        return out, [(r.position, r.forced.tolist(), r.is_forced.tolist(), r.sampling) for r in engine.of()]

    runner = StageRunner(spec, 3, ratio=2)
    fill(runner)
    drive(Fake(), spec.name, [(0, runner)])
    saved = runner.save()
    assert saved["heard"].shape[0] > 0
    other = StageRunner(spec, 3, ratio=2)
    other.load({key: np.asarray(value) for key, value in saved.items()})
    assert other.save().keys() == saved.keys()
    assert all(np.array_equal(other.save()[key], value) for key, value in saved.items())
    assert rest(other) == rest(runner)


@pytest.mark.parametrize("change", [{"row": None}, {"rows": np.zeros((1, 5))}, {"heard": "x"}])
def test_a_saved_runner_that_does_not_fit_is_refused_whole(change):
    runner = StageRunner(SEMANTIC, 0)
    with pytest.raises(EngineError, match="semantic"):
        runner.load({**StageRunner(SEMANTIC, 0, start=9).save(), **change})
    assert runner.row == 0


@pytest.mark.parametrize(
    ("frame", "tokens", "message"),
    [
        (0, [1, 2], "takes 1 tokens a frame, got 2"),
        (0, [], "got 0"),
        (0, [-1], "from 0 to 23"),
        (0, [25], "from 0 to 23"),
        (10**15, [1], "ahead of row 0"),
        (CAPACITY, [1], "ahead of row 0"),
    ],
)
def test_absurd_frames_are_refused(frame, tokens, message):
    runner = StageRunner(SEMANTIC, 0)
    with pytest.raises(InputError, match=message):
        runner.hear(frame, tokens)
    assert runner.heard_ahead == 0
    conditioned = StageRunner(StageSpec("fine", 2, 50, 4, 32, 1, 24), 0)
    with pytest.raises(InputError, match="fine"):
        conditioned.give(frame, tokens)
    with pytest.raises(InputError, match="takes 0"):
        runner.give(0, [1])


def test_what_a_runner_holds_is_bounded():
    runner = StageRunner(COARSE, 0, ratio=2)
    for frame in range(CAPACITY):
        runner.hear(frame, [0, 0])
    with pytest.raises(InputError):
        runner.hear(CAPACITY, [0, 0])
    assert runner.heard_ahead == CAPACITY


def test_nothing_piles_up_in_a_long_stream():
    engine, runner = Fake(), StageRunner(DELAY, 0, ratio=2)
    for tick in range(200):
        runner.give(tick, [tick % 24])
        if tick % 3:
            runner.sample_until(tick * 2)
        else:
            for frame in (tick * 2, tick * 2 + 1):
                runner.hear(frame, [1, 2, 3])
        drive(engine, "coarse", [(0, runner)])
    assert runner.cond_ahead <= 4
    assert runner.heard_ahead <= 8


@pytest.mark.parametrize("spec", [FREE, StageSpec("free", 2, 50, 3, 32)])
def test_levels_that_are_left_out_are_mask_tokens_of_every_frame_from_then_on(spec):
    engine, runner = Fake(), StageRunner(spec, 5)
    runner.sample_until(4)
    drive(engine, "free", [(0, runner)])
    runner.sample_levels(1)
    runner.sample_until(8)
    out = frames_of(drive(engine, "free", [(0, runner)])[0])
    assert all(generated for _, _, generated in out)
    assert [frame for frame, _, _ in out] == list(range(4, 8))
    assert [tokens[1:] for frame, tokens, _ in out if frame >= 4 + spec.span] == [[32, 32]] * (4 - spec.span)
    assert all(tokens[0] != 32 for _, tokens, _ in out)
    assert not engine.of()[-1].is_forced[0]
    assert engine.of()[-1].is_forced[1:].all()


@pytest.mark.parametrize("levels", [0, 4])
def test_at_least_one_level_is_sampled_and_no_more_than_there_are(levels):
    with pytest.raises(EngineError, match="samples 1 to 3 levels"):
        StageRunner(FREE, 0).sample_levels(levels)


@pytest.mark.parametrize("spec", [COARSE, DELAY])
def test_a_stage_that_stood_still_goes_on_as_one_that_begins_and_its_noise_is_not_repeated(spec):
    engine, runner = Fake(), StageRunner(spec, 5)
    for index in range(12):
        runner.give(index, [index])
    runner.sample_until(3)
    drive(engine, "coarse", [(0, runner)])
    before = len(engine.of())
    runner.restart(20)
    assert (runner.cond_ahead, runner.heard_ahead, runner.next_row()) == (0, 0, None)
    for index in range(20, 20 + 5 + spec.span):
        runner.give(index + spec.ahead, [1])
    runner.sample_until(25)
    out = drive(engine, "coarse", [(0, runner)])[0]
    assert [(e.frame, e.generated) for e in out] == [(frame, True) for frame in range(20, 25)]
    first = engine.of()[before]
    assert first.position == 20
    assert np.array_equal(first.u, uniforms(5, 1, 20, spec.levels))
    again = StageRunner(spec, 5)
    again.load(runner.save())
    assert (again.row, again.start, again.origin) == (runner.row, 20, 0)
