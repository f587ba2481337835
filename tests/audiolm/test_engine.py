"""Slots: given out, isolated to the bit, saved and loaded, stepped from several threads."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import audio, codes, digest, generate, listen, sound, state_digest, ticks_in, tiny

from audiolm.engine import MOST_SLOTS, Engine
from audiolm.errors import EngineError
from audiolm.runner import Row
from audiolm.sampler import Sampling
from audiolm.session import Session


def story(session, heard, made):
    """Listen and generate; everything that came out and the state at the end."""
    out = listen(session, heard) + generate(session, made)
    return digest(audio(out), codes(out)), state_digest(session.save())


def test_slots_are_given_out_lowest_first_and_come_back():
    engine = Engine(tiny().parts, slots=2)
    assert [engine.open(), engine.open()] == [0, 1]
    assert engine.free == 0
    with pytest.raises(EngineError, match="all 2 slots are taken"):
        engine.open()
    engine.close(0)
    assert engine.open() == 0


@pytest.mark.parametrize("pattern", ["depth", "delay", "flat"])
def test_a_slot_does_not_notice_its_neighbours(pattern):
    """Neighbours join, leave and stall at every step; the session in slot 1 is as if alone, to the bit."""
    heard = sound(8, 3)

    def run(busy):
        engine = Engine(tiny(pattern).parts, slots=4)
        placeholder = engine.open()
        mine = Session(engine, seed=11)
        assert mine.slot == 1
        engine.close(placeholder)
        out, others, rng = [], [], np.random.default_rng(0)

        def disturb():
            if not busy:
                return
            if engine.free and rng.random() < 0.5:
                how = {
                    name: Sampling(float(rng.choice([0.0, 0.5, 2.0])), top_k=3, top_p=0.7)
                    for name in ("coarse", "fine")
                }
                others.append(Session(engine, seed=int(rng.integers(100)), sampling=how))
            for other in list(others):
                action = rng.integers(4)
                if action == 0:
                    other.listen(ticks_in(sound(1, int(rng.integers(100)), 0.5))[0])
                elif action == 1:
                    other.generate()
                elif action == 2 and rng.random() < 0.3:
                    other.close()
                    others.remove(other)

        for tick in ticks_in(heard):
            disturb()
            out.append(mine.listen(tick))
        for _ in range(8):
            disturb()
            out.append(mine.generate())
        return digest(audio(out), codes(out)), state_digest(mine.save())

    assert run(busy=True) == run(busy=False)


@settings(max_examples=10)
@given(st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=8))
def test_batched_steps_equal_steps_apart(order):
    """Two slots in one call or in two: the same, for every part."""
    parts, sounds = tiny().parts, {0: ticks_in(sound(10, 1)), 1: ticks_in(sound(10, 2))}

    def run(together):
        engine, at, out = Engine(parts, slots=3), {0: 0, 1: 0}, {0: [], 1: []}
        engine.open(), engine.open()
        for step in order:
            slots = [0, 1] if step == "ab" else [0 if step == "a" else 1]
            for group in [slots] if together else [[slot] for slot in slots]:
                x = {slot: sounds[slot][at[slot]] for slot in group}
                heard = engine.encode(x)
                tokens = engine.listen(x)
                spoken = engine.decode(heard)
                for slot in group:
                    out[slot] += [heard[slot], np.array(tokens[slot] or -1), spoken[slot]]
                    at[slot] += 1
        return [digest(*out[slot]) for slot in (0, 1)], [state_digest(engine.save(slot)) for slot in (0, 1)]

    assert run(together=True) == run(together=False)


def test_a_closed_and_reopened_slot_is_fresh():
    engine = Engine(tiny().parts, slots=2, guided=("coarse",))
    first = Session(engine, seed=4, sampling={"coarse": Sampling(0.3, guidance=2.0)})
    fresh = state_digest(engine.save(0))
    story(first, sound(5, 9), 3)
    assert state_digest(engine.save(0)) != fresh
    first.close()
    second = Session(engine, seed=4)
    assert second.slot == 0
    assert state_digest(engine.save(0)) == fresh
    assert engine.sampling(0, "coarse") == tiny().parts.sampling["coarse"]
    untouched = Session(Engine(tiny().parts, slots=2, guided=("coarse",)), seed=4)
    assert story(second, sound(4), 3) == story(untouched, sound(4), 3)


def test_save_and_load_carry_a_slot_to_another_engine():
    a, b = Engine(tiny().parts, slots=2), Engine(tiny().parts, slots=2)
    a.open(), b.open()
    for tick in ticks_in(sound(5)):
        a.encode({0: tick}), a.listen({0: tick})
    saved = a.save(0)
    assert all(isinstance(value, np.ndarray) for value in saved.values())
    b.load(0, saved)
    assert state_digest(b.save(0)) == state_digest(saved)
    tick = ticks_in(sound(1, 7))[0]
    assert np.array_equal(a.encode({0: tick})[0], b.encode({0: tick})[0])
    assert a.listen({0: tick}) == b.listen({0: tick})
    b.load_part("decoder", 0, a.save_part("decoder", 0))


def test_a_state_of_another_model_is_refused_whole():
    engine, other = Engine(tiny().parts), Engine(tiny(layers=2).parts)
    engine.open(), other.open()
    before = state_digest(engine.save(0))
    with pytest.raises(EngineError, match="semantic"):
        engine.load(0, other.save(0))
    wrong = engine.save(0)
    wrong["fine.last"] = wrong["fine.last"][:-1]
    wrong["encoder.0.past"] = wrong["encoder.0.past"] + 1
    with pytest.raises(EngineError, match="fine"):
        engine.load(0, wrong)
    with pytest.raises(EngineError, match="'odd'"):
        engine.load(0, {**engine.save(0), "odd": np.zeros(1)})
    assert state_digest(engine.save(0)) == before
    with pytest.raises(EngineError, match="decoder"):
        engine.load_part("decoder", 0, {})


def test_state_size_and_rows_of_guidance():
    plain, guided = Engine(tiny().parts), Engine(tiny().parts, guided=("coarse",))
    plain.open(), guided.open()
    assert plain.save(0)["coarse.held"].shape[0] == 1
    assert guided.save(0)["coarse.held"].shape[0] == 2
    assert guided.save(0)["fine.held"].shape[0] == 1
    plain.set_sampling(0, "coarse", Sampling(guidance=1.0))
    with pytest.raises(EngineError, match=r"guided=.'coarse'"):
        plain.set_sampling(0, "coarse", Sampling(guidance=2.0))


def test_a_bundle_that_guides_by_itself_gets_its_rows():
    from audiolm.tiny import tiny_parts

    parts = tiny_parts()
    parts.sampling = {**parts.sampling, "coarse": Sampling(guidance=2.0)}
    engine = Engine(parts)
    assert engine.guided == {"coarse"}
    assert engine.sampling(engine.open(), "coarse").guidance == 2.0


def row(**change):
    base = {
        "position": 0,
        "cond": None,
        "forced": np.zeros(1, np.int64),
        "is_forced": np.ones(1, np.bool_),
        "u": None,
    }
    return Row(**{**base, **change})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.encode({0: np.zeros(639, np.float32)}), r"\[640\].*\[639\]"),
        (lambda e: e.encode({0: np.zeros((1, 640), np.float32)}), r"\[1, 640\]"),
        (lambda e: e.encode({0: np.zeros(640, np.int16)}), "int16"),
        (lambda e: e.encode({1: np.zeros(640, np.float32)}), "slot 1 is not open"),
        (lambda e: e.listen({-1: np.zeros(640, np.float32)}), "slot -1 is not open"),
        (lambda e: e.decode({0: np.zeros((2, 7), np.int64)}), "1 to 6"),
        (lambda e: e.decode({0: np.zeros((2, 0), np.int64)}), "1 to 6"),
        (lambda e: e.decode({0: np.zeros((3, 6), np.int64)}), r"\[3, 6\]"),
        (lambda e: e.decode({0: np.zeros((2, 6))}), "float64"),
        (lambda e: e.decode({0: np.full((2, 6), 32)}), "0 to 31"),
        (lambda e: e.decode({0: np.full((2, 6), -1)}), "0 to 31"),
        (lambda e: e.rows("semantics", {0: row()}), "unknown stage 'semantics'"),
        (lambda e: e.rows("semantic", {1: row()}), "slot 1 is not open"),
        (lambda e: e.close(1), "slot 1 is not open"),
        (lambda e: e.save(1), "slot 1 is not open"),
        (lambda e: e.reset(7), "slot 7 is not open"),
        (lambda e: e.set_sampling(0, "x", Sampling()), "unknown stage 'x'"),
    ],
)
def test_misuse_is_refused_and_changes_nothing(call, message):
    engine = Engine(tiny().parts, slots=2)
    engine.open()
    before = state_digest(engine.save(0))
    with pytest.raises(EngineError, match=message):
        call(engine)
    assert state_digest(engine.save(0)) == before


@pytest.mark.parametrize("slots", [0, -1, MOST_SLOTS + 1, 1.5, True])
def test_absurd_numbers_of_slots_are_refused(slots):
    with pytest.raises(EngineError, match="slots"):
        Engine(tiny().parts, slots=slots)


def test_unknown_guided_stages_are_refused():
    with pytest.raises(EngineError, match="unknown stage 'corse'"):
        Engine(tiny().parts, guided=("corse",))


def test_read_only_sound_is_taken():
    engine = Engine(tiny().parts)
    engine.open()
    tick = sound(1)
    tick.flags.writeable = False
    assert engine.encode({0: tick})[0].shape == (2, 6)


def test_fewer_levels_in_one_slot_do_not_change_another():
    parts = tiny().parts
    rng = np.random.default_rng(0)
    steps = [rng.integers(0, 32, (2, 6)) for _ in range(4)]
    a, b = Engine(parts, slots=2), Engine(parts, slots=2)
    for engine in (a, b):
        engine.open(), engine.open()
    for step in steps:
        alone = a.decode({0: step})[0]
        both = b.decode({0: step, 1: step[:, :3]})
        assert np.array_equal(both[0], alone)
        assert not np.array_equal(both[1], alone)


def test_parts_may_step_in_threads_of_their_own():
    """A codec thread and another that opens and closes slots: what the first says is as if it were alone."""
    parts, ticks = tiny().parts, ticks_in(sound(60))
    alone = Engine(parts, slots=3)
    alone.open()
    expected = digest(*(alone.decode(alone.encode({0: tick}))[0] for tick in ticks))
    engine, done, got = Engine(parts, slots=3), threading.Event(), []
    engine.open()

    def codec():
        got.append(digest(*(engine.decode(engine.encode({0: tick}))[0] for tick in ticks)))
        done.set()

    worker = threading.Thread(target=codec)
    worker.start()
    while not done.is_set():
        slot = engine.open()
        engine.listen({slot: ticks[0]})
        engine.encode({slot: ticks[1]})
        engine.close(slot)
    worker.join()
    assert got == [expected]


@pytest.mark.parametrize("part", ["encoder", "fine"])
def test_a_slot_is_reset_between_steps_never_within(part):
    """Else the step would write back what the reset has cleared."""
    engine, opened = Engine(tiny().parts, slots=2), threading.Event()
    engine.open()
    opener = threading.Thread(target=lambda: (engine.open(), opened.set()))
    with engine._locks[part]:  # a step is going on
        opener.start()
        assert not opened.wait(0.1)
    opener.join(10)
    assert opened.is_set()
