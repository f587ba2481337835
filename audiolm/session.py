"""One stream through a whole model: listen tick by tick, then go on.

A :class:`Session` joins the door, the parts of an engine and the runners of three stages. It takes ticks and gives ticks; everything
batch-like (:meth:`audiolm.AudioLM.continuation`) loops over it. The graph of ``streamer`` does the same with nodes, on the same runners.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from audiolm.door import Door, DoorConfig
from audiolm.engine import Audio, Engine
from audiolm.errors import InputError
from audiolm.parts import STAGES
from audiolm.runner import FOREVER, Emitted, StageRunner, Tokens, drive
from audiolm.sampler import Sampling

Mode = Literal["continue", "duet", "resynthesize", "reconstruct", "dream", "acoustic_only"]
MODES: tuple[str, ...] = get_args(Mode)


def check_mode(mode: str) -> Mode:
    """Return ``mode`` if it is one."""
    if mode not in MODES:
        raise InputError(f"unknown mode {mode!r}; expected one of {', '.join(MODES)}", mode=mode)
    return mode  # type: ignore[return-value]


@dataclass(frozen=True)
class Tick:
    """One tick of output.

    Attributes:
        audio: ``[640]`` float32.
        codes: ``[2, levels]`` int64, what the sound was decoded from.
        position: of the first sample, on the session's clock.
        generated: False for what was heard.
    """

    audio: Audio
    codes: Tokens
    position: int
    generated: bool


class Session:
    """One stream: a slot of an engine, a seed, a mode.

    Args:
        engine: where the states live; the session takes a slot and gives it back in :meth:`close`.
        start: frame number of the clock's origin in ticks; only long-run tests give one.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        mode: str = "continue",
        seed: int = 0,
        sampling: Mapping[str, Sampling] | None = None,
        door: DoorConfig | None = None,
        start: int = 0,
    ) -> None:
        self.mode, self.seed, self.engine = check_mode(mode), _check_seed(seed), engine
        self.parts = engine.parts
        self.slot = engine.open()
        for name, settings in (sampling or {}).items():
            engine.set_sampling(self.slot, name, settings)
        self.door = Door(door)
        self._door_state = self.door.init_state()
        self._runners = self._make_runners(start)
        self._tick = start  # the next tick to be heard or generated
        self._fed: deque[int] = deque(maxlen=self.parts.lookahead + 1)  # ticks that are still inside the tokenizer
        self._coarse: dict[int, Tokens] = {}  # coarse tokens of generated frames whose fine levels are to come
        self._stacks: dict[int, Tokens] = {}  # complete generated frames that are to be decoded
        self._spoken = start  # resynthesize: the next tick to come out

    def _make_runners(self, start: int) -> dict[str, StageRunner]:
        per = self.parts.frames_per_tick
        specs = {name: self.parts.stages[name].spec for name in STAGES}
        with_semantics = self.mode != "acoustic_only"
        return {
            "semantic": StageRunner(specs["semantic"], self.seed, start=start),
            "coarse": StageRunner(specs["coarse"], self.seed, ratio=per, conditioned=with_semantics, start=start * per),
            "fine": StageRunner(specs["fine"], self.seed, start=start * per),
        }

    @property
    def position(self) -> int:
        """Samples heard and generated so far, on the session's clock."""
        return self._tick * self.parts.tick

    @property
    def door_counts(self) -> dict[str, int]:
        """What the door met: NaN, infinity, clipping, DC, silence."""
        return self._door_state.counts.as_dict()

    def close(self) -> None:
        """Give the slot back."""
        self.engine.close(self.slot)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- a tick --------------------------------------------------------------------------------------------------------------------

    def listen(self, audio: Audio, *, heard: bool = True) -> Tick:
        """Hear one tick of sound ``[640]`` and keep every cache up with it; returns what the decoder makes of it.

        With ``heard=False`` the ears take the tick, so that their streams stay whole, but the stages generate in its place: the duet's
        way through a pause.
        """
        clean = self.door.step(audio, self._door_state)
        codes = self.engine.encode({self.slot: clean})[self.slot]
        token = self._listen_semantic(clean)
        if not heard:
            return self.generate()
        now = self._tick
        if self.mode != "reconstruct":
            self._force(codes, token)
        self._tick = self._spoken = now + 1
        return Tick(self.engine.decode({self.slot: codes})[self.slot], codes, now * self.parts.tick, generated=False)

    def _listen_semantic(self, clean: Audio) -> tuple[int, int] | None:
        """The tick and the value of the semantic token that this tick completes."""
        if self.mode in ("acoustic_only", "reconstruct"):
            return None
        self._fed.append(self._tick)
        token = self.engine.listen({self.slot: clean})[self.slot]
        return None if token is None else (self._fed[0], token)

    def _force(self, codes: Tokens, token: tuple[int, int] | None) -> None:
        """Hand heard tokens to the runners and take the forced rows that are possible."""
        per, split = self.parts.frames_per_tick, self.parts.codec.config.coarse_levels
        coarse, fine = self._runners["coarse"], self._runners["fine"]
        for i, frame in enumerate(range(self._tick * per, (self._tick + 1) * per)):
            coarse.hear(frame, codes[i, :split])
            fine.give(frame, codes[i, :split])
            fine.hear(frame, codes[i, split:])
        self._hear_semantic(token)
        self._advance()

    def _hear_semantic(self, token: tuple[int, int] | None) -> None:
        if token is None:
            return
        if self.mode == "resynthesize":  # no semantic stage: what is said comes from the input alone
            self._runners["coarse"].give(token[0], [token[1]])
        else:
            self._runners["semantic"].hear(token[0], [token[1]])

    def generate(self) -> Tick:
        """Make one more tick: the same voice, one tick later.

        Heard tokens that still wait (the tokenizer's look-ahead, the stages' lag) are caught up with first, so the first call after
        listening is the longest.

        Raises:
            InputError: the mode does not generate by itself.
        """
        if self.mode in ("reconstruct", "resynthesize"):
            raise InputError(f"mode {self.mode!r} makes sound only from what it hears; use listen() or convert()", mode=self.mode)
        now = self._tick
        self._runners["semantic"].sample_until(now + 1 + self.parts.ahead)
        self._allow(now + 1)
        self._advance()
        self._tick = now + 1
        return self._take(now)

    def convert(self, audio: Audio) -> list[Tick]:
        """Mode resynthesize: say what ``audio`` ``[640]`` says in the voice heard before; ticks come out :attr:`lag` later.

        Raises:
            InputError: another mode.
        """
        if self.mode != "resynthesize":
            raise InputError(f"convert() is for mode 'resynthesize', this session is in {self.mode!r}", mode=self.mode)
        token = self._listen_semantic(self.door.step(audio, self._door_state))
        self._hear_semantic(token)
        self._tick += 1
        self._allow(FOREVER)
        self._advance()
        ticks = []
        while (self._spoken + 1) * self.parts.frames_per_tick - 1 in self._stacks:
            ticks.append(self._take(self._spoken))
            self._spoken += 1
        return ticks

    @property
    def lag(self) -> int:
        """Ticks by which :meth:`convert` runs behind its input."""
        return self.parts.lookahead + self.parts.ahead

    # -- the stages ----------------------------------------------------------------------------------------------------------------

    def _allow(self, ticks: int) -> None:
        """Let coarse and fine sample what was not heard before tick ``ticks``."""
        frames = ticks * self.parts.frames_per_tick
        self._runners["coarse"].sample_until(frames + self.parts.stages["fine"].spec.span)
        self._runners["fine"].sample_until(frames)

    def _advance(self) -> None:
        """Take every row that is possible now, in all stages; complete generated frames end in ``_stacks``."""
        for token in self._run("semantic"):
            self._runners["coarse"].give(token.frame, token.tokens)
        for frame in self._run("coarse"):
            if frame.generated:
                self._runners["fine"].give(frame.frame, frame.tokens)
                self._coarse[frame.frame] = frame.tokens
        for frame in self._run("fine"):
            if frame.generated:
                self._stacks[frame.frame] = np.concatenate((self._coarse.pop(frame.frame), frame.tokens))

    def _run(self, name: str) -> list[Emitted]:
        if name == "semantic" and self.mode in ("acoustic_only", "resynthesize"):
            return []
        return drive(self.engine, name, [(self.slot, self._runners[name])])[self.slot]

    def _take(self, tick: int) -> Tick:
        """Decode a generated tick."""
        per = self.parts.frames_per_tick
        codes = np.stack([self._stacks.pop(frame) for frame in range(tick * per, (tick + 1) * per)])
        return Tick(self.engine.decode({self.slot: codes})[self.slot], codes, tick * self.parts.tick, generated=True)

    # -- snapshots -----------------------------------------------------------------------------------------------------------------

    def save(self) -> dict[str, Any]:
        """The whole stream as plain numbers and arrays; :meth:`load` in a session of the same model, mode and seed goes on exactly."""
        door = {f"door.{key}": value for key, value in self.door.save(self._door_state).items()}
        runners = {f"runner.{name}.{key}": value for name, r in self._runners.items() for key, value in r.save().items()}
        engine = {f"engine.{key}": value for key, value in self.engine.save(self.slot).items()}
        stacks = {f"{kind}.{frame}": codes for kind in ("_coarse", "_stacks") for frame, codes in getattr(self, kind).items()}
        own = {"tick": self._tick, "spoken": self._spoken, "fed": np.asarray(self._fed, np.int64), "mode": self.mode, "seed": self.seed}
        return {**door, **runners, **engine, **stacks, **own}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take back what :meth:`save` gave.

        Raises:
            InputError: the snapshot is of another mode or seed.
        """
        if (saved["mode"], int(saved["seed"])) != (self.mode, self.seed):
            raise InputError(f"the snapshot is of mode {saved['mode']!r} and seed {saved['seed']}, this session of {self.mode!r} and {self.seed}")
        self.engine.load(self.slot, _below(saved, "engine."))
        self._door_state = self.door.load(_below(saved, "door."))
        for name, runner in self._runners.items():
            runner.load(_below(saved, f"runner.{name}."))
        for kind in ("_coarse", "_stacks"):
            setattr(self, kind, {int(frame): np.asarray(codes, np.int64) for frame, codes in _below(saved, f"{kind}.").items()})
        self._tick, self._spoken = int(saved["tick"]), int(saved["spoken"])
        self._fed = deque((int(tick) for tick in saved["fed"]), maxlen=self.parts.lookahead + 1)


def _below(saved: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key[len(prefix) :]: value for key, value in saved.items() if key.startswith(prefix)}


def _check_seed(seed: object) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= int(seed) < 2**64:
        raise InputError(f"seed must be a whole number from 0 to 2**64 - 1, got {seed!r}", seed=seed)
    return int(seed)
