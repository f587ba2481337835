"""One stream through a whole model: listen tick by tick, then go on.

A :class:`Session` joins the door, the parts of an engine and the runners of three stages. It takes ticks and gives
ticks; everything batch-like (:meth:`audiolm.AudioLM.continuation`) loops over it. The graph of ``streamer`` does the
same with nodes, on the same runners.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, Self, get_args

import numpy as np

from audiolm.door import Door, DoorConfig
from audiolm.engine import Audio, Engine, below
from audiolm.errors import AudioLMError, EngineError, InputError
from audiolm.parts import STAGES
from audiolm.runner import FOREVER, Emitted, StageRunner, Tokens, drive
from audiolm.sampler import Sampling
from audiolm.watermark import Marker

Mode = Literal["continue", "duet", "resynthesize", "reconstruct", "dream", "acoustic_only"]
MODES: tuple[str, ...] = get_args(Mode)
PENDING = ("_coarse", "_stacks", "_forced")


def check_mode(mode: str) -> Mode:
    """Return ``mode`` if it is one.

    Raises:
        InputError: it is not; the nearest name is given.
    """
    if mode not in MODES:
        near = get_close_matches(str(mode), MODES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"unknown mode {mode!r}; expected one of {', '.join(MODES)}{hint}", mode=mode)
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
        mode: see :data:`MODES`.
        seed: of the noise, 0 to 2**64 - 1.
        sampling: by stage, instead of the bundle's.
        door: settings of the door.
        start: the clock's origin in ticks; only long-run tests give one.
        watermark: whether generated sound is marked, see :mod:`audiolm.watermark`; tokens never are.

    Raises:
        InputError: an unknown mode or stage, or a seed or start out of range.
        EngineError: no free slot, or guidance that the engine was not made for. No slot is held then.
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
        watermark: bool = True,
    ) -> None:
        self.mode, self.seed, self.engine = check_mode(mode), check_whole("seed", seed, 2**64 - 1), engine
        start = check_whole("start", start, 1 << 48)
        unknown = sorted(set(sampling or {}) - set(STAGES))
        if unknown:
            raise InputError(f"sampling names the unknown stage {unknown[0]!r}; stages: {', '.join(STAGES)}")
        self.parts = engine.parts
        self.door = Door(door)
        self._door_state = self.door.init_state()
        self._runners = self._make_runners(start)
        self._tick = start  # the next tick to be heard or generated
        self._fed: deque[int] = deque(maxlen=self.parts.lookahead + 1)  # ticks that are still inside the tokenizer
        self._coarse: dict[int, Tokens] = {}  # coarse tokens of generated frames whose fine levels are to come
        self._stacks: dict[int, Tokens] = {}  # complete generated frames that are to be decoded
        self._forced: dict[int, Tokens] = {}  # ticks to come whose codes were given, see force()
        self._spoken = start  # the next tick to come out; only resynthesize lags behind
        self._marker, self.watermark = Marker(), watermark
        self.slot = engine.open()
        self._closed = False
        try:
            for name, settings in (sampling or {}).items():
                engine.set_sampling(self.slot, name, settings)
        except AudioLMError:
            self.close()
            raise

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
        """Give the slot back; closing again does nothing."""
        if not self._closed:
            self._closed = True
            self.engine.close(self.slot)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:  # the slot may be another session's by now
            raise EngineError("this session is closed; make a new one")

    # -- a tick --

    def listen(self, audio: Audio, *, heard: bool = True) -> Tick:
        """Hear one tick of sound ``[640]`` and keep every cache up with it; returns what the decoder makes of it.

        With ``heard=False`` the ears take the tick, so that their streams stay whole, but the stages generate in its
        place: the duet's way through a pause.

        Raises:
            InputError: the mode does not listen, or not float32 ``[640]``.
        """
        self._check_open()
        if self.mode == "dream":
            raise InputError("mode 'dream' hears nothing; use generate(), or another mode", mode=self.mode)
        if not heard:
            self._check_generates()
        clean = self.door.step(audio, self._door_state)
        codes = self.engine.encode({self.slot: clean})[self.slot]
        token = self._listen_semantic(clean)
        if not heard:
            self._hear_semantic(token)  # of a tick before, which was heard if its row is still to come
            return self.generate()
        now = self._tick
        if self.mode != "reconstruct":
            self._force_frames(now, codes)
            self._hear_semantic(token)
            self._advance()
        self._tick = self._spoken = now + 1
        self._forget()
        return self._decode(now, codes, generated=False)

    def _listen_semantic(self, clean: Audio) -> tuple[int, int] | None:
        """The tick and the value of the semantic token that this tick completes."""
        if self.mode in ("acoustic_only", "reconstruct"):
            return None
        self._fed.append(self._tick)
        token = self.engine.listen({self.slot: clean})[self.slot]
        return None if token is None else (self._fed[0], token)

    def _force_frames(self, tick: int, codes: Tokens) -> None:
        """Hand the acoustic tokens of a tick to the runners."""
        per, split = self.parts.frames_per_tick, self.parts.codec.config.coarse_levels
        coarse, fine = self._runners["coarse"], self._runners["fine"]
        for i, frame in enumerate(range(tick * per, (tick + 1) * per)):
            if frame >= coarse.row:  # else the fine stage goes by what the coarse stage has made of this frame
                fine.give(frame, codes[i, :split])
            coarse.hear(frame, codes[i, :split])
            fine.hear(frame, codes[i, split:])

    def _hear_semantic(self, token: tuple[int, int] | None) -> None:
        if token is None:
            return
        if self.mode == "resynthesize":  # no semantic stage: what is said comes from the input alone
            self._runners["coarse"].give(token[0], [token[1]])
        else:
            self._runners["semantic"].hear(token[0], [token[1]])

    def generate(self) -> Tick:
        """Make one more tick: the same voice, one tick later.

        Heard tokens that still wait (the tokenizer's look-ahead, the stages' lag) are caught up with first, so the
        first call after listening is the longest.

        Raises:
            InputError: the mode does not generate by itself.
        """
        self._check_open()
        self._check_generates()
        now = self._tick
        self._runners["semantic"].sample_until(now + 1 + self.parts.ahead)
        self._allow(now + 1)
        self._advance()
        self._tick = now + 1
        forced = self._forced.pop(now, None)
        out = self._take(now) if forced is None else self._decode(now, forced, generated=False)
        self._spoken = now + 1
        self._forget()
        return out

    def force(self, tick: int, *, semantic: int | None = None, codes: Tokens | None = None) -> None:
        """Decide tokens of a tick to come; :meth:`generate` takes them where it would have sampled.

        So a token log is replayed, and a prompt goes on as its own recording. Semantic tokens are taken up to
        ``ahead`` ticks before they sound, and a delay pattern begins frames ahead of time: give them early enough.

        Args:
            tick: on the session's clock, in ticks.
            semantic: the semantic token.
            codes: ``[2, levels]``, the acoustic tokens of all levels.

        Raises:
            InputError: the tokens do not fit, their row has passed, or the mode does not generate.
        """
        self._check_open()
        self._check_generates()
        config, runner = self.parts.codec.config, self._runners["semantic"]
        if semantic is not None and tick < runner.row:
            raise InputError(f"the semantic token of tick {tick} has been taken; the next is {runner.row}", tick=tick)
        if codes is not None and tick * self.parts.frames_per_tick < max(self._runners["coarse"].row, self._now_frame):
            raise InputError(f"the codes of tick {tick} have been taken; this session is at {self._tick}", tick=tick)
        if codes is not None:
            codes = np.asarray(codes, np.int64)
            wanted = (self.parts.frames_per_tick, config.levels)
            if codes.shape != wanted or not 0 <= codes.min() <= codes.max() < config.cardinality:
                raise InputError(f"codes of a tick are {list(wanted)} from 0 to {config.cardinality - 1}", tick=tick)
            self._force_frames(tick, codes)
            self._forced[tick] = codes
        if semantic is not None:
            runner.hear(tick, [semantic])

    @property
    def _now_frame(self) -> int:
        return self._tick * self.parts.frames_per_tick

    def _check_generates(self) -> None:
        if self.mode in ("reconstruct", "resynthesize"):
            raise InputError(
                f"mode {self.mode!r} makes sound only from what it hears; use listen() or convert()", mode=self.mode
            )

    def convert(self, audio: Audio) -> list[Tick]:
        """Mode resynthesize: say what ``audio`` ``[640]`` says in the voice heard before.

        Ticks come out :attr:`lag` later.

        Raises:
            InputError: another mode.
        """
        if self.mode != "resynthesize":
            raise InputError(f"convert() is for mode 'resynthesize', this session is in {self.mode!r}", mode=self.mode)
        self._check_open()
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

    # -- the stages --

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
            coarse = self._coarse.pop(frame.frame, None)
            if frame.generated and coarse is not None:
                self._stacks[frame.frame] = np.concatenate((coarse, frame.tokens))

    def _forget(self) -> None:
        """Drop generated frames of ticks that were heard after all: a delay pattern begins frames ahead of time."""
        first = self._spoken * self.parts.frames_per_tick
        for frame in [frame for frame in self._stacks if frame < first]:
            del self._stacks[frame]

    def _run(self, name: str) -> list[Emitted]:
        if name == "semantic" and self.mode in ("acoustic_only", "resynthesize"):
            return []
        return drive(self.engine, name, [(self.slot, self._runners[name])])[self.slot]

    def _take(self, tick: int) -> Tick:
        """Decode a generated tick."""
        per = self.parts.frames_per_tick
        codes = np.stack([self._stacks.pop(frame) for frame in range(tick * per, (tick + 1) * per)])
        return self._decode(tick, codes, generated=True)

    def _decode(self, tick: int, codes: Tokens, *, generated: bool) -> Tick:
        audio = self._marker.pass_on(
            self.engine.decode({self.slot: codes})[self.slot], mark=generated and self.watermark
        )
        return Tick(audio, codes, tick * self.parts.tick, generated=generated)

    # -- snapshots --

    def save(self) -> dict[str, Any]:
        """The whole stream as plain numbers, strings and arrays.

        :meth:`load` in a session of the same model, mode and seed goes on exactly, in any process.
        """
        self._check_open()
        saved: dict[str, Any] = {f"door.{key}": value for key, value in self.door.save(self._door_state).items()}
        for name, runner in self._runners.items():
            how = self.engine.sampling(self.slot, name)
            saved[f"sampling.{name}"] = np.array([how.temperature, how.top_k, how.top_p, how.guidance])
            saved |= {f"runner.{name}.{key}": value for key, value in runner.save().items()}
        saved |= {f"engine.{key}": value for key, value in self.engine.save(self.slot).items()}
        saved |= {f"marker.{key}": value for key, value in self._marker.save().items()}
        for kind in PENDING:
            saved |= {f"{kind}.{frame}": codes.copy() for frame, codes in getattr(self, kind).items()}
        own = {"tick": self._tick, "spoken": self._spoken, "fed": np.asarray(self._fed, np.int64)}
        return {**saved, **own, "mode": self.mode, "seed": self.seed}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take back what :meth:`save` gave. After an error the session is of no more use.

        Raises:
            InputError: the snapshot is of another mode or seed, or something is missing.
            EngineError: it is of another model.
        """
        self._check_open()
        try:
            of = (str(saved["mode"]), int(saved["seed"]))
            if of != (self.mode, self.seed):
                raise InputError(
                    f"the snapshot is of mode {of[0]!r} and seed {of[1]}, this session of {self.mode!r} and {self.seed}"
                )
            self._load(saved)
        except (KeyError, IndexError) as error:
            raise InputError(f"the snapshot lacks {error}; it is damaged or of another version") from error

    def _load(self, saved: Mapping[str, Any]) -> None:
        self._door_state = self.door.load(below(saved, "door."))
        for name, runner in self._runners.items():
            runner.load(below(saved, f"runner.{name}."))
            temperature, top_k, top_p, guidance = saved[f"sampling.{name}"].tolist()
            self.engine.set_sampling(self.slot, name, Sampling(temperature, int(top_k), top_p, guidance))
        for kind in PENDING:
            pending = {int(frame): np.asarray(codes, np.int64) for frame, codes in below(saved, f"{kind}.").items()}
            setattr(self, kind, pending)
        self._tick, self._spoken = int(saved["tick"]), int(saved["spoken"])
        self._fed = deque((int(tick) for tick in saved["fed"]), maxlen=self.parts.lookahead + 1)
        self._marker.load(below(saved, "marker.") or Marker().save())  # older snapshots have none
        self.engine.load(self.slot, below(saved, "engine."))


def check_whole(name: str, value: Any, most: int) -> int:
    """Return ``value`` if it is a whole number from 0 to ``most``.

    Raises:
        InputError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= int(value) <= most:
        raise InputError(f"{name} must be a whole number from 0 to {most}, got {value!r}", name=name, value=value)
    return int(value)
