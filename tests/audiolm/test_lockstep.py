"""Many sessions in step are what each of them is alone: tokens and sound of every slot equal those of a Session."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import digest, sound, ticks_in, tiny

from audiolm.door import DoorConfig
from audiolm.engine import Engine
from audiolm.errors import EngineError, InputError
from audiolm.lockstep import Lockstep
from audiolm.sampler import Sampling
from audiolm.session import Session
from audiolm.tiny import tiny_parts
from audiolm.watermark import Marker

OPEN_DOOR = DoorConfig(gain="off")
ACTIONS = ("hear", "hear", "hear", "make", "make", "both", "stall", "reopen", "snapshot")
SLOTS = 3


class Pair:
    """A slot in lock-step and the session that it should equal."""

    def __init__(self, lockstep, engine, seed, **options):
        self.lockstep, self.engine, self.options = lockstep, engine, options
        self.saved = None
        self.begin(seed)

    def begin(self, seed):
        start = self.options.get("start", 0)
        how = self.options.get("sampling")
        self.seed, self.slot = seed, self.lockstep.open(seed, start=start, sampling=how)
        self.session = Session(
            self.engine, seed=seed, mode="duet", door=OPEN_DOOR, start=start, sampling=how, watermark=False
        )
        self.saved = None

    def end(self):
        self.lockstep.close(self.slot)
        self.session.close()

    def snapshot(self):
        """The first time keep one, the second time go back to it."""
        if self.saved is None:
            self.saved = self.lockstep.save(self.slot), self.session.save()
        else:
            self.lockstep.load(self.slot, self.saved[0])
            self.session.load(self.saved[1])
            self.saved = None

    def act(self, action, audio):
        if action == "hear":
            return self.session.listen(audio)
        return self.session.listen(audio, heard=False) if action == "both" else self.session.generate()


def play(parts, script, rng, slots=SLOTS, options=None, **kind):
    """A list of actions a tick, one a slot; every slot is held against its session."""
    lockstep, engine = Lockstep(parts, slots, watermark=False, **kind), Engine(parts, slots)
    pairs = [Pair(lockstep, engine, int(rng.integers(1 << 62)), **(options or {})) for _ in range(slots)]
    for actions in script:
        for pair, action in zip(pairs, actions, strict=True):
            if action == "reopen":
                pair.end()
                pair.begin(int(rng.integers(1 << 62)))
            if action == "snapshot":
                pair.snapshot()
        audio, heard, made = np.zeros((slots, 640), np.float32), np.zeros(slots, bool), np.zeros(slots, bool)
        for pair, action in zip(pairs, actions, strict=True):
            audio[pair.slot] = np.clip(sound(1, int(rng.integers(1 << 30))), -1, 1)
            heard[pair.slot], made[pair.slot] = action in ("hear", "both"), action in ("make", "both")
        done = lockstep.tick(heard, made, audio)
        for pair, action in zip(pairs, actions, strict=True):
            if action in ("hear", "make", "both"):
                wanted = pair.act(action, audio[pair.slot])
                assert np.array_equal(done.codes[pair.slot], wanted.codes), (actions, pair.slot)
                assert np.array_equal(done.sound[pair.slot], wanted.audio)
                assert (done.position[pair.slot], done.generated[pair.slot]) == (wanted.position, wanted.generated)


@settings(max_examples=4, deadline=None)
@given(
    st.lists(st.tuples(*[st.sampled_from(ACTIONS)] * SLOTS), min_size=12, max_size=24),
    st.integers(0, 1 << 30),
)
def test_every_slot_is_as_its_session(script, seed):
    play(tiny().parts, script, np.random.default_rng(seed))


@pytest.mark.parametrize(("lookahead", "ahead"), [(0, 0), (1, 3), (4, 1)])
def test_whatever_is_looked_ahead(lookahead, ahead):
    """Long turns of each kind, in turn and out of step."""
    turns = [["hear"] * 9, ["make"] * 4, ["both"] * 3, ["hear"] * 2, ["make"], ["hear"] * 7, ["both"], ["make"] * 2]
    line = [action for turn in turns for action in turn]
    script = list(zip(line, line[5:] + line[:5], line[::-1], strict=True))
    play(tiny_parts(lookahead=lookahead, ahead=ahead), script, np.random.default_rng(lookahead))


def test_a_dream_hears_nothing_and_a_clock_may_start_late():
    play(tiny().parts, [("make",) * 2] * 6, np.random.default_rng(0), 2, {"start": 90_000 * 24})


def test_sampling_of_all_kinds():
    how = {"coarse": Sampling(0.9, top_k=5, top_p=0.7), "fine": Sampling(0.0), "semantic": Sampling(0.5)}
    script = [("hear", "make")] * 6 + [("make", "hear")] * 4 + [("make", "make")] * 2
    play(tiny().parts, script, np.random.default_rng(1), 2, {"sampling": how}, truncates=True)


def test_a_burst_of_few_slots_is_the_same_burst():
    """Side by side in twos or all at once: bits may differ, tokens of this model do not."""
    script = (
        [("hear", "hear", "make", "hear", "stall")] * 7 + [("make",) * 5] * 2 + [("hear", "make") * 2 + ("both",)] * 3
    )
    parts = tiny().parts
    outs = []
    for burst in (None, 2):
        lockstep, rng = Lockstep(parts, 5, burst=burst), np.random.default_rng(0)
        for seed in range(5):
            lockstep.open(seed)
        out = []
        for actions in script:
            heard, made = (np.array([a in kinds for a in actions]) for kinds in (("hear", "both"), ("make", "both")))
            done = lockstep.tick(heard, made, rng.standard_normal((5, 640)).astype(np.float32) * 0.1)
            out.append(done.codes[heard | made])
        outs.append(np.concatenate(out))
    assert np.array_equal(*outs)


@pytest.mark.parametrize("burst", [None, 2])
def test_neighbours_are_not_noticed(burst):
    parts, ticks = tiny().parts, ticks_in(sound(10, 4))

    def mine(busy):
        lockstep, rng = Lockstep(parts, 4, burst=burst), np.random.default_rng(1)
        assert lockstep.open(9) == 0
        out = []
        for i in range(18):
            if busy and lockstep.free and rng.random() < 0.4:
                lockstep.open(int(rng.integers(99)))
            others = lockstep._open & (np.arange(4) > 0) & busy
            heard, made = others & (rng.random(4) < 0.5), others & (rng.random(4) < 0.5)
            heard[0], made[0] = i < 10, i >= 10
            audio = rng.standard_normal((4, 640)).astype(np.float32) * 0.1
            audio[0] = ticks[min(i, 9)]
            done = lockstep.tick(heard, made, audio)
            out += [done.codes[0], done.sound[0]]
        return digest(*out, *(value for _, value in sorted(lockstep.save(0).items())))

    assert mine(busy=True) == mine(busy=False)


def test_tokens_may_be_heard_elsewhere():
    parts, ticks = tiny().parts, ticks_in(sound(9, 4))
    here, there, ears = Lockstep(parts, 1), Lockstep(parts, 1), Engine(parts, 1)
    here.open(3), there.open(3), ears.open()
    yes, no = np.array([True]), np.array([False])
    for tick in ticks:
        token = ears.listen({0: tick})[0]
        semantic = np.array([-1 if token is None else token])
        mine = here.tick(yes, no, tick[None])
        theirs = there.tick(yes, no, codes=ears.encode({0: tick})[0][None], semantic=semantic)
        assert digest(mine.codes, mine.sound) == digest(theirs.codes, theirs.sound)
    for _ in range(4):
        assert np.array_equal(here.tick(no, yes).codes, there.tick(no, yes).codes)


def test_what_is_generated_is_marked_as_a_session_marks_it():
    """Up to rounding, by turns, with another slot a turn behind; what is heard is as without the mark, to the bit."""
    parts, rng = tiny().parts, np.random.default_rng(2)
    marked, bare = (Lockstep(parts, 2, watermark=on) for on in (True, False))
    markers = [Marker(), Marker()]
    for lockstep in (marked, bare):
        lockstep.open(1), lockstep.open(2)
    for i in range(16):
        made = np.array([i // 3 % 2 == 1, i // 4 % 2 == 0])
        audio = 0.1 * rng.standard_normal((2, 640)).astype(np.float32)
        mine, raw = (lockstep.tick(~made, made, audio).sound for lockstep in (marked, bare))
        for slot, marker in enumerate(markers):
            wanted = marker.pass_on(raw[slot], mark=bool(made[slot]))
            assert np.allclose(mine[slot], wanted, atol=1e-6)
            assert np.array_equal(mine[slot], raw[slot]) != made[slot]
        if i == 7:
            marked.load(1, marked.save(1))


def test_a_reset_slot_is_fresh():
    parts, yes, no = tiny().parts, np.array([True]), np.array([False])
    lockstep = Lockstep(parts, 1)
    lockstep.open(8)
    first = digest(*(value for _, value in sorted(lockstep.save(0).items())))
    lockstep.tick(yes, no, sound(1)[None])
    lockstep.tick(no, yes)
    lockstep.reset(0)
    assert digest(*(value for _, value in sorted(lockstep.save(0).items()))) == first


def test_misuse_is_refused():
    parts = tiny().parts
    for pattern in ("delay", "flat"):
        with pytest.raises(EngineError, match=f"{pattern!r}; lock-step takes 'depth' only"):
            Lockstep(tiny(pattern).parts, 2)
    for slots in (0, True, 1.5, 1 << 20):
        with pytest.raises(EngineError, match="slots"):
            Lockstep(parts, slots)
    with pytest.raises(EngineError, match="burst"):
        Lockstep(parts, 2, burst=3)
    lockstep, yes, no = Lockstep(parts, 1), np.array([True]), np.array([False])
    with pytest.raises(EngineError, match="slot 0 is not open"):
        lockstep.tick(yes, no)
    assert lockstep.open() == 0
    with pytest.raises(EngineError, match="all 1 slots"):
        lockstep.open()
    with pytest.raises(InputError, match=r"need audio, float32 \[1, 640\]"):
        lockstep.tick(yes, no)
    with pytest.raises(InputError, match="mask"):
        lockstep.tick(np.array([1]), no)
    with pytest.raises(EngineError, match="truncates=True"):
        lockstep.set_sampling(0, "fine", Sampling(top_k=3))
    with pytest.raises(EngineError, match="guidance"):
        lockstep.set_sampling(0, "fine", Sampling(guidance=2.0))
    with pytest.raises(EngineError, match="does not fit"):
        lockstep.load(0, {**lockstep.save(0), "waiting.tokens": np.zeros(3)})
    with pytest.raises(InputError, match="seed"):
        lockstep.open(-1)
