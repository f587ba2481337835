"""Sessions: chunkings, seeds, the seam, snapshots across processes, modes, hour 24, and nothing that grows."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import TICK, audio, chunkings, codes, cut, digest, generate, listen, sound, state_digest, ticks_in, tiny

from audiolm.door import DoorConfig
from audiolm.engine import Engine
from audiolm.errors import EngineError, InputError
from audiolm.sampler import Sampling
from audiolm.session import MODES, Session
from audiolm.ticks import TickAssembler
from audiolm.tiny import tiny_parts
from audiolm.watermark import Marker

PATTERNS = ("depth", "delay", "flat")
HEARD, MADE = 10, 6
DAY = 24 * 3600 * 25
OFF = DoorConfig(gain="off")
HOW = {
    "sampled": None,
    "greedy": {name: Sampling(0.0) for name in ("semantic", "coarse", "fine")},
    "truncated": {name: Sampling(0.9, top_k=5, top_p=0.8) for name in ("semantic", "coarse", "fine")},
}


def fresh(pattern="depth", **options):
    return tiny(pattern).session(**options)


def story(session, samples, made=MADE):
    return listen(session, samples) + generate(session, made)


def everything(ticks, session):
    return digest(audio(ticks), codes(ticks)), state_digest(session.save())


# -- chunkings and seeds --


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=6)
@given(sizes=chunkings)
def test_any_chunking_gives_the_same_tokens_sound_and_state(pattern, how, sizes):
    """Forced (listening), greedy and sampled, codec, tokenizer and stages: all is in the digests."""
    samples, key = sound(HEARD), (pattern, how)
    if key not in WHOLE:
        session = fresh(pattern, seed=3, sampling=HOW[how])
        WHOLE[key] = everything(story(session, samples), session)
    session, assembler, out = fresh(pattern, seed=3, sampling=HOW[how]), TickAssembler(), []
    for piece in cut(samples, sizes):
        out += [session.listen(tick) for tick in assembler.push(piece)]
    assert everything(out + generate(session, MADE), session) == WHOLE[key]


WHOLE: dict[tuple[str, str], tuple[str, str]] = {}


def test_the_seed_decides_and_nothing_else_does():
    def made(seed, noise=0):
        return codes(story(fresh(seed=seed), sound(HEARD, noise))[HEARD:])

    assert np.array_equal(made(1), made(1))
    assert not np.array_equal(made(1), made(2))
    assert not np.array_equal(made(1), made(1, 9))
    assert made(2**64 - 1).shape == (2 * MADE, 6)


def test_ticks_say_where_they_are_and_whether_they_were_made():
    session = fresh()
    out = story(session, sound(4), 3)
    assert [tick.position for tick in out] == [TICK * i for i in range(7)]
    assert [tick.generated for tick in out] == [False] * 4 + [True] * 3
    assert session.position == 7 * TICK
    assert all(tick.audio.shape == (TICK,) and tick.audio.dtype == np.float32 for tick in out)
    assert all(tick.codes.shape == (2, 6) and 0 <= tick.codes.min() <= tick.codes.max() < 32 for tick in out)


def test_the_stages_depend_on_what_was_heard_long_ago_and_on_each_other():
    """A tiny random model must not be deaf, or the tests here would show nothing."""
    a, b = sound(HEARD), sound(HEARD)
    b[: TICK * 2] = sound(2, 77)
    made = [codes(story(fresh(seed=5, door=OFF), samples)[HEARD:]) for samples in (a, b)]
    assert not np.array_equal(*made)


# -- hour 24 --


@pytest.mark.parametrize("pattern", PATTERNS)
def test_hour_24_sounds_like_the_first(pattern):
    early, late = fresh(pattern, seed=1), fresh(pattern, seed=1, start=DAY)
    a, b = story(early, sound(HEARD), 10), story(late, sound(HEARD), 10)
    assert np.array_equal(codes(a), codes(b))
    assert np.array_equal(audio(a), audio(b))
    assert [t.position - DAY * TICK for t in b] == [t.position for t in a]


# -- the seam --


def heard_tokens(parts, samples):
    """The codes and semantic tokens of a recording, by the streaming steps."""
    engine = Engine(parts)
    slot, frames, tokens = engine.open(), [], []
    for tick in ticks_in(samples):
        frames.append(engine.encode({slot: tick})[slot])
        tokens.append(engine.listen({slot: tick})[slot])
    return frames, tokens[parts.lookahead :]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_prompt_with_its_true_tokens_forced_is_the_uninterrupted_recording(pattern):
    """Heard to the trigger, then the rest forced token by token in the generating path: same sound, same caches."""
    parts, prompt, more = tiny(pattern).parts, 8, 8
    la, ahead = parts.lookahead, parts.ahead
    samples = sound(prompt + more + la + ahead)
    frames, tokens = heard_tokens(parts, samples)
    uninterrupted = fresh(pattern, door=OFF)
    whole = listen(uninterrupted, samples[: (prompt + more) * TICK])
    fine_then = uninterrupted.engine.save_part("fine", 0)
    decoder_then = uninterrupted.engine.save_part("decoder", 0)
    listen(uninterrupted, samples[(prompt + more) * TICK :])

    session = fresh(pattern, door=OFF)
    first = listen(session, samples[: prompt * TICK])
    out = []
    for tick in range(prompt - la, prompt + more + ahead):
        session.force(tick, semantic=tokens[tick])
    if pattern == "delay":  # which begins frames ahead of time
        for tick in range(prompt, prompt + more):
            session.force(tick, codes=frames[tick])
    for tick in range(prompt, prompt + more):
        if pattern != "delay":
            session.force(tick, codes=frames[tick])
        out.append(session.generate())
    assert not any(tick.generated for tick in out)
    assert np.array_equal(codes(first + out), codes(whole))
    assert np.array_equal(audio(first + out), audio(whole))
    assert state_digest(session.engine.save_part("decoder", 0)) == state_digest(decoder_then)
    if pattern != "delay":  # which has sampled its way into the frames behind by now
        assert state_digest(session.engine.save_part("fine", 0)) == state_digest(fine_then)
        for part in ("semantic", "coarse"):
            assert state_digest(session.engine.save_part(part, 0)) == state_digest(
                uninterrupted.engine.save_part(part, 0)
            )


def test_the_first_generated_tick_continues_the_decoder_of_what_was_heard():
    """The decoder is warm at the seam: the tick after it decodes as in one uninterrupted stream of tokens."""
    session = fresh(seed=2, watermark=False)
    out = story(session, sound(6), 4)
    engine = Engine(tiny().parts)
    slot = engine.open()
    again = np.concatenate([engine.decode({slot: tick.codes})[slot] for tick in out])
    assert np.array_equal(again, audio(out))


def test_at_the_trigger_semantic_tokens_inside_the_lookahead_are_sampled():
    session, seen = fresh(), []
    real = session.engine.rows

    def record(name, rows):
        seen.extend((name, row.position, row.sampling) for row in rows.values())
        return real(name, rows)

    session.engine.rows = record
    la, ahead = session.parts.lookahead, session.parts.ahead
    listen(session, sound(8))
    assert not any(sampling for _, _, sampling in seen)
    assert max(p for n, p, _ in seen if n == "semantic") == 7 - la
    assert max(p for n, p, _ in seen if n == "coarse") == 2 * (8 - la - ahead) - 1
    assert max(p for n, p, _ in seen if n == "fine") == 15
    seen.clear()
    session.generate()
    by = {name: [(p, s) for n, p, s in seen if n == name] for name in ("semantic", "coarse", "fine")}
    assert by["semantic"] == [(p, True) for p in range(8 - la, 9 + ahead)]
    assert by["coarse"] == [(p, p >= 16) for p in range(2 * (8 - la - ahead), 18)]
    assert by["fine"] == [(16, True), (17, True)]
    seen.clear()
    session.generate()
    assert [(n, p) for n, p, _ in seen] == [
        ("semantic", 9 + ahead),
        *[("coarse", p) for p in (18, 19)],
        *[("fine", p) for p in (18, 19)],
    ]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_replayed_log_of_a_continuation_is_that_continuation(pattern):
    session = fresh(pattern, seed=8, watermark=False)  # codes that are given are not marked
    out = story(session, sound(6), 6)
    again = fresh(pattern, seed=99)
    heard = listen(again, sound(6))
    for tick in range(6, 12):
        again.force(tick, codes=out[tick].codes)
    assert np.array_equal(audio(heard + generate(again, 6)), audio(out))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.force(0, semantic=1), "semantic token of tick 0 has been taken"),
        (lambda s: s.force(3, codes=np.zeros((2, 6), np.int64)), "codes of tick 3 have been taken"),
        (lambda s: s.force(9, codes=np.zeros((2, 5), np.int64)), r"\[2, 6\] from 0 to 31"),
        (lambda s: s.force(9, codes=np.full((2, 6), 32)), r"\[2, 6\] from 0 to 31"),
        (lambda s: s.force(9, semantic=99), "from 0 to 23"),
        (lambda s: s.force(10**9, semantic=1), "ahead of row"),
    ],
)
def test_tokens_that_cannot_be_forced_are_refused(call, message):
    session = fresh()
    story(session, sound(3), 2)
    with pytest.raises(InputError, match=message):
        call(session)


# -- the watermark --


def test_what_is_generated_is_marked_and_what_is_heard_is_not():
    marked, bare = (story(fresh(seed=3, watermark=on), sound(6), 4) for on in (True, False))
    assert np.array_equal(codes(marked), codes(bare))
    assert [np.array_equal(a.audio, b.audio) for a, b in zip(marked, bare, strict=True)] == [True] * 6 + [False] * 4
    marker = Marker()
    assert np.array_equal(audio(marked), np.concatenate([marker.pass_on(t.audio, mark=t.generated) for t in bare]))


@pytest.mark.parametrize(("mode", "generates"), [("reconstruct", False), ("dream", True), ("acoustic_only", True)])
def test_the_mark_in_other_modes(mode, generates):
    out = []
    for on in (True, False):
        session = fresh(mode=mode, seed=1, watermark=on)
        heard = [] if mode == "dream" else listen(session, sound(3))
        out.append(audio(heard + generate(session, 3 * generates)))
    assert np.array_equal(*out) != generates


# -- snapshots --

RESTORE = """
import sys
sys.path.insert(0, sys.argv[4])
import numpy as np
from audiolm import AudioLM
from audiolm.tiny import tiny_parts
from audiolm.watermark import Marker
from sounds import audio, codes, digest, generate, listen, sound, state_digest
saved = dict(np.load(sys.argv[1], allow_pickle=False))
session = AudioLM(tiny_parts(pattern=sys.argv[2])).session(mode=str(saved["mode"]), seed=int(saved["seed"]))
session.load(saved)
out = listen(session, sound(2, 50)) if sys.argv[3] == "listening" else []
out += generate(session, 5)
print(digest(audio(out), codes(out)), state_digest(session.save()))
"""


@pytest.mark.parametrize(("pattern", "when"), [("depth", "listening"), ("delay", "generating")])
def test_a_snapshot_goes_on_in_another_process_to_the_bit(tmp_path, pattern, when):
    session = fresh(pattern, seed=2**63 + 5, sampling=HOW["truncated"])
    story(session, sound(7), 0 if when == "listening" else 3)
    path = tmp_path / "snapshot.npz"
    np.savez(path, **session.save())
    command = [sys.executable, "-c", RESTORE, str(path), pattern, when, str(Path(__file__).parent)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert result.returncode == 0, result.stderr
    out = listen(session, sound(2, 50)) if when == "listening" else []
    out += generate(session, 5)
    assert result.stdout.split() == list(everything(out, session))


@settings(max_examples=8)
@given(st.sampled_from(PATTERNS), st.integers(0, HEARD), st.integers(0, 3))
def test_a_snapshot_at_any_tick_goes_on(pattern, heard, made):
    session = fresh(pattern, seed=6)
    story(session, sound(HEARD)[: heard * TICK], made)
    other = Session(Engine(tiny(pattern).parts), seed=6)
    other.listen(ticks_in(sound(1, 5))[0])
    other.load({key: np.asarray(value) for key, value in session.save().items()})
    rest = sound(3, 4)
    assert everything(story(other, rest, 2), other) == everything(story(session, rest, 2), session)


def test_a_snapshot_holds_plain_arrays_and_forced_ticks():
    session = fresh(seed=1)
    listen(session, sound(4))
    session.force(4, codes=np.ones((2, 6), np.int64))
    saved = session.save()
    assert all(isinstance(value, (int, str, np.ndarray)) for value in saved.values())
    assert not any(isinstance(value, np.ndarray) and value.dtype == object for value in saved.values())
    other = fresh(seed=1)
    other.load(saved)
    assert np.array_equal(other.generate().codes, np.ones((2, 6)))


def test_snapshots_that_do_not_fit_are_refused():
    saved = fresh(seed=1).save()
    with pytest.raises(InputError, match="seed 1, this session"):
        fresh(seed=2).load(saved)
    with pytest.raises(InputError, match="mode 'continue'"):
        fresh(seed=1, mode="duet").load(saved)
    with pytest.raises(EngineError):
        tiny(layers=2).session(seed=1).load(saved)
    for lost in ("mode", "tick", "sampling.coarse"):
        with pytest.raises(InputError, match="lacks"):
            fresh(seed=1).load({key: value for key, value in saved.items() if key != lost})


# -- modes --


def test_reconstruct_is_decode_of_encode():
    session, parts = fresh(mode="reconstruct", door=OFF), tiny().parts
    out = listen(session, sound(6))
    engine = Engine(parts)
    slot = engine.open()
    frames = [engine.encode({slot: tick})[slot] for tick in ticks_in(sound(6))]
    assert np.array_equal(codes(out), np.concatenate(frames))
    assert np.array_equal(audio(out), np.concatenate([engine.decode({slot: frame})[slot] for frame in frames]))


def test_dream_starts_from_nothing_and_hears_nothing():
    a, b = fresh(mode="dream", seed=1), fresh(mode="dream", seed=1)
    assert np.array_equal(codes(generate(a, 5)), codes(generate(b, 5)))
    with pytest.raises(InputError, match="hears nothing"):
        a.listen(sound(1))


def test_acoustic_only_is_independent_of_the_tokenizer_and_the_semantic_stage():
    other = tiny_parts()
    for part in (other.tokenizer, other.stages["semantic"]):
        for weight in part.parameters():
            weight.normal_()
    a = Session(Engine(tiny().parts), mode="acoustic_only", seed=3)
    b = Session(Engine(other), mode="acoustic_only", seed=3)
    x, y = story(a, sound(6)), story(b, sound(6))
    assert np.array_equal(audio(x), audio(y))
    with_semantics = story(fresh(seed=3), sound(6))
    assert not np.array_equal(codes(x), codes(with_semantics))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_duet_takes_turns_and_leaves_nothing_behind(pattern):
    session = fresh(pattern, mode="duet", seed=4)
    again = fresh(pattern, mode="duet", seed=4)
    turns = [True] * 6 + [False] * 4 + [True] * 3 + [False] * 2 + [True, False] * 4
    samples = ticks_in(sound(len(turns)))
    out = [session.listen(tick, heard=heard) for tick, heard in zip(samples, turns, strict=True)]
    assert [not tick.generated for tick in out] == turns
    assert [tick.position // TICK for tick in out] == list(range(len(turns)))
    same = [again.listen(tick, heard=heard) for tick, heard in zip(samples, turns, strict=True)]
    assert digest(audio(out)) == digest(audio(same))
    assert session._stacks.keys() <= set(range(2 * len(turns), 2 * len(turns) + 8))
    assert len(session._coarse) <= 8


def test_duet_forces_a_token_that_was_heard_but_comes_during_the_pause():
    session = fresh(mode="duet")
    listen(session, sound(6))
    runner = session._runners["semantic"]
    heard, before = [], runner.hear
    runner.hear = lambda frame, tokens: (heard.append(frame), before(frame, tokens))
    session.listen(ticks_in(sound(1))[0], heard=False)
    assert heard == [6 - session.parts.lookahead]
    assert runner.late == 0


def test_resynthesize_speaks_in_the_voice_and_lags_by_what_it_says():
    def run(words, voice, seed=1):
        session = fresh(mode="resynthesize", seed=seed)
        listen(session, sound(6, voice))
        outs = [session.convert(tick) for tick in ticks_in(sound(12, words))]
        return session, outs

    session, outs = run(1, 2)
    assert session.lag == session.parts.lookahead + session.parts.ahead
    assert [len(out) for out in outs] == [0] * session.lag + [1] * (12 - session.lag)
    made = [tick for out in outs for tick in out]
    assert [tick.position // TICK for tick in made] == list(range(6, 18 - session.lag))
    assert all(tick.generated for tick in made)
    same = codes([t for out in run(1, 2)[1] for t in out])
    assert np.array_equal(same, codes(made))
    for other in (run(3, 2), run(1, 4), run(1, 2, seed=9)):
        assert not np.array_equal(codes([t for out in other[1] for t in out]), codes(made))


@pytest.mark.parametrize("pattern", ["delay", "flat"])
def test_resynthesize_in_the_other_patterns(pattern):
    session = fresh(pattern, mode="resynthesize")
    outs = [session.convert(tick) for tick in ticks_in(sound(14))]
    assert sum(map(len, outs)) == 14 - session.lag


@pytest.mark.parametrize("mode", ["reconstruct", "resynthesize"])
def test_modes_that_follow_do_not_generate_and_lose_nothing_by_being_asked(mode):
    session = fresh(mode=mode)
    before = state_digest(session.save())
    for call in (session.generate, lambda: session.listen(sound(1), heard=False), lambda: session.force(3, semantic=1)):
        with pytest.raises(InputError, match=mode):
            call()
    assert state_digest(session.save()) == before


def test_convert_belongs_to_its_mode():
    with pytest.raises(InputError, match="resynthesize"):
        fresh().convert(sound(1))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_listening_again_after_generating(pattern):
    """Barge-in: what is heard enters the same stream; nothing is rewound, nothing gets stuck."""
    session = fresh(pattern, seed=1)
    story(session, sound(6), 4)
    back = listen(session, sound(8, 3))
    assert not any(tick.generated for tick in back)
    assert len(generate(session, 5)) == 5
    assert session.position == 23 * TICK
    late = {name: runner.late for name, runner in session._runners.items()}
    assert late["semantic"] > 0  # sampled ahead before the person spoke again
    if pattern != "delay":
        assert late["coarse"] == late["fine"] == 0


# -- guidance --


def test_guidance_1_is_no_guidance():
    one = {"coarse": Sampling(1.0, guidance=1.0)}
    a, b = story(fresh(seed=2), sound(6)), story(fresh(seed=2, sampling=one), sound(6))
    assert digest(audio(a)) == digest(audio(b))


def test_guidance_0_in_the_coarse_stage_forgets_the_words():
    """With the same engine shape: conditioning on the mask token and guidance 0 are the same to the bit."""
    engine = Engine(tiny().parts, guided=("coarse",))
    with Session(engine, seed=5, sampling={"coarse": Sampling(guidance=0.0)}) as session:
        free = codes(story(session, sound(6)))
    with Session(engine, mode="acoustic_only", seed=5) as session:
        only = codes(story(session, sound(6)))
    assert np.array_equal(free[:, :2], only[:, :2])
    with Session(engine, seed=5, sampling={"coarse": Sampling(guidance=4.0)}) as session:
        assert not np.array_equal(codes(story(session, sound(6))), free)


# -- the door --


def test_a_bad_tick_does_not_stick():
    """After NaN and infinity the encoder hears as if there had been silence, and soon as if nothing had been."""
    clean, bad = sound(20), sound(20)
    silent = clean.copy()
    bad[5 * TICK : 6 * TICK : 2] = np.nan
    bad[5 * TICK + 1 : 6 * TICK : 2] = -np.inf
    silent[5 * TICK : 6 * TICK] = 0
    a, b, c = (fresh(seed=1, door=OFF) for _ in range(3))
    x, y, z = listen(a, clean), listen(b, bad), listen(c, silent)
    assert np.array_equal(codes(y), codes(z))
    assert np.array_equal(audio(y), audio(z))
    assert np.array_equal(codes(x)[2 * 12 :], codes(y)[2 * 12 :])  # the encoder's receptive field is under six ticks
    made = generate(b, 5)
    assert np.isfinite(audio(y + made)).all()
    assert all(np.isfinite(value).all() for value in b.save().values() if isinstance(value, np.ndarray))
    assert (b.door_counts["nan"], b.door_counts["inf"]) == (320, 320)


@pytest.mark.parametrize("kind", ["silence", "dc", "clipping", "square", "denormal"])
def test_odd_sound_gives_finite_sound(kind):
    samples = {
        "silence": np.zeros(6 * TICK, np.float32),
        "dc": np.full(6 * TICK, 0.5, np.float32),
        "clipping": sound(6) * 100,
        "square": np.sign(sound(6)),
        "denormal": np.full(6 * TICK, 1e-40, np.float32),
    }[kind]
    session = fresh()
    assert np.isfinite(audio(story(session, samples))).all()


# -- slots and bad arguments --


def test_a_session_gives_its_slot_back_once():
    engine = Engine(tiny().parts, slots=1)
    with Session(engine) as session:
        assert engine.free == 0
    assert engine.free == 1
    other = Session(engine)
    session.close()  # not its slot any more
    assert engine.free == 0
    for call in (session.generate, session.save, lambda: session.listen(sound(1)), lambda: session.load({})):
        with pytest.raises(EngineError, match="closed"):
            call()
    assert len(generate(other, 1)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "contine"}, "did you mean 'continue'"),
        ({"mode": None}, "unknown mode None"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"seed": 2**64}, "18446744073709551615"),
        ({"seed": 1.5}, "seed"),
        ({"seed": True}, "seed"),
        ({"start": -1}, "start"),
        ({"sampling": {"corse": Sampling()}}, "unknown stage 'corse'"),
        ({"sampling": {"coarse": Sampling(guidance=2.0)}}, "guided="),
    ],
)
def test_a_session_that_cannot_be_made_takes_no_slot(options, message):
    engine = Engine(tiny().parts, slots=1)
    with pytest.raises((InputError, EngineError), match=message):
        Session(engine, **options)
    assert engine.free == 1


def test_every_mode_can_be_made():
    for mode in MODES:
        fresh(mode=mode).close()


@pytest.mark.parametrize(
    "wrong", [np.zeros(639, np.float32), np.zeros(640), np.zeros((640, 2), np.float32), [0.0] * 640]
)
def test_ticks_of_another_kind_are_refused_and_change_nothing(wrong):
    session = fresh()
    before = state_digest(session.save())
    with pytest.raises(InputError, match="640"):
        session.listen(wrong)
    assert state_digest(session.save()) == before


# -- nothing grows --


def size(saved):
    return sum(np.asarray(value).nbytes for value in saved.values())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_state_does_not_grow(pattern):
    session = fresh(pattern, mode="duet", seed=1)
    rng, sizes = np.random.default_rng(0), []
    tick = ticks_in(sound(1))[0]
    for turn in range(12):
        for _ in range(int(rng.integers(1, 8))):
            session.listen(tick, heard=bool(turn % 2))
        while session._tick % 8:
            session.listen(tick, heard=True)
        listen(session, sound(8))
        sizes.append(size(session.save()))
    assert len(set(sizes[2:])) == 1


@pytest.mark.slow
def test_memory_does_not_grow_with_time():
    """State to the byte, resident memory within 1 %; the time of a step is `make bench`'s affair."""
    psutil = pytest.importorskip("psutil")
    session, process = fresh(seed=1), psutil.Process()
    listen(session, sound(10))
    generate(session, 25 * 30)
    before, state = process.memory_info().rss, size(session.save())
    generate(session, 25 * 60)
    assert size(session.save()) == state
    assert process.memory_info().rss < before * 1.01 + (1 << 20)
