"""AudioLM from a notebook: load a bundle, continue a sound.

::

    from audiolm import AudioLM
    model = AudioLM.load("piano")
    y = model.continuation("prompt.wav", seconds=10, seed=1)
    for chunk in model.stream("prompt.wav", seconds=10, seed=1): ...
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from audiolm.bundle import load_bundle
from audiolm.door import DoorConfig
from audiolm.engine import Audio, Engine
from audiolm.errors import InputError
from audiolm.parts import STAGES, Parts
from audiolm.sampler import Sampling, check_range
from audiolm.session import Session, check_mode
from audiolm.ticks import TickAssembler

Sound = str | PathLike[str] | npt.NDArray[Any] | Iterable[npt.NDArray[Any]]
LONGEST = 7 * 24 * 3600.0


class AudioLM:
    """A loaded model. Weights are shared; every stream has its own session and engine slot."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    @classmethod
    def load(cls, bundle: str | PathLike[str]) -> "AudioLM":
        """Load a shipped bundle by name, or any by path.

        Raises:
            BundleError: it is not there, damaged, or of another version.
        """
        return cls(load_bundle(str(bundle)))

    @property
    def sample_rate(self) -> int:
        """Samples a second, in and out."""
        return self.parts.codec.config.sample_rate

    def sampling(self, **settings: float | Mapping[str, float] | None) -> dict[str, Sampling]:
        """The bundle's sampling with changes: a number for all stages, or a mapping by stage.

        >>> model.sampling(temperature=0.9, top_k={"fine": 50})  # doctest: +SKIP
        """
        chosen = dict(self.parts.sampling)
        for key, value in settings.items():
            for name in STAGES:
                one = value.get(name) if isinstance(value, Mapping) else value
                if one is not None:
                    chosen[name] = replace(chosen[name], **{key: one})
            unknown = sorted(set(value) - set(STAGES)) if isinstance(value, Mapping) else []
            if unknown:
                raise InputError(f"{key} names the unknown stage {unknown[0]!r}; stages: {', '.join(STAGES)}")
        return chosen

    def session(self, *, mode: str = "continue", seed: int = 0, sampling: Mapping[str, Sampling] | None = None, **options: Any) -> Session:
        """A fresh session on an engine of its own; ``options`` go to :class:`~audiolm.session.Session`."""
        guided = {name for name, settings in (sampling or self.parts.sampling).items() if settings.guidance != 1}
        return Session(Engine(self.parts, guided=guided), mode=mode, seed=seed, sampling=sampling, **options)

    def stream(
        self,
        prompt: Sound | None,
        seconds: float = 10.0,
        *,
        seed: int = 0,
        mode: str = "continue",
        voice: Sound | None = None,
        prompt_seconds: float | None = None,
        temperature: float | Mapping[str, float] | None = None,
        top_k: int | Mapping[str, int] | None = None,
        top_p: float | Mapping[str, float] | None = None,
        guidance: float | Mapping[str, float] | None = None,
        gain: str = "auto",
    ) -> Iterator[Audio]:
        """Continue a sound, 40 ms at a time.

        Args:
            prompt: a file, samples at 16 kHz (float in -1..1 or int16), or an iterable of such pieces; None in mode ``dream``.
            seconds: of continuation, in steps of 40 ms; modes ``resynthesize`` and ``reconstruct`` follow their input instead.
            mode: ``continue``, ``acoustic_only``, ``dream``, ``resynthesize`` (the prompt's content in ``voice``) or ``reconstruct``.
            prompt_seconds: use only the beginning of the prompt.
            temperature, top_k, top_p, guidance: one value, or a mapping by stage; None keeps the bundle's.
            gain: ``auto`` brings the prompt to the training level, ``off`` leaves it.

        Yields:
            float32 ``[640]`` at 16 kHz, the continuation alone.

        Raises:
            InputError: the prompt or a setting cannot be used.
        """
        if check_mode(mode) == "duet":
            raise InputError("mode 'duet' needs live sound; use session(mode='duet').listen(tick, heard=...)")
        check_range("seconds", seconds, 0.0, LONGEST, open_low=True)
        sampling = self.sampling(temperature=temperature, top_k=top_k, top_p=top_p, guidance=guidance)
        door = DoorConfig(gain=gain)  # type: ignore[arg-type]
        if (prompt is None) != (mode == "dream"):
            raise InputError(f"mode {mode!r} {'takes no prompt' if prompt is not None else 'needs a prompt'}")
        with self.session(mode=mode, seed=seed, sampling=sampling, door=door) as session:
            for tick in ticks_of(voice, prompt_seconds if mode == "resynthesize" else None) if voice is not None else ():
                session.listen(tick)
            if mode in ("resynthesize", "reconstruct"):
                yield from _follow(session, ticks_of(prompt, None if mode == "resynthesize" else prompt_seconds, rest="pad"))
                return
            for tick in ticks_of(prompt, prompt_seconds) if prompt is not None else ():
                session.listen(tick)
            for _ in range(max(1, round(seconds * self.sample_rate / self.parts.tick))):
                yield session.generate().audio

    def continuation(self, prompt: Sound | None, seconds: float = 10.0, **settings: Any) -> Audio:
        """All of :meth:`stream` in one array, float32 ``[samples]``."""
        return np.concatenate(list(self.stream(prompt, seconds, **settings)))


def _follow(session: Session, ticks: Iterator[Audio]) -> Iterator[Audio]:
    """Output that follows its input tick by tick: the codec alone, or another voice."""
    if session.mode == "reconstruct":
        for tick in ticks:
            yield session.listen(tick).audio
        return
    for tick in ticks:
        yield from (out.audio for out in session.convert(tick))
    silence = np.zeros(session.parts.tick, np.float32)
    for _ in range(session.lag):
        yield from (out.audio for out in session.convert(silence))


def ticks_of(sound: Sound | None, seconds: float | None = None, rest: str = "drop") -> Iterator[Audio]:
    """Whole ticks of a file, an array or pieces; at most ``seconds`` of it. ``rest`` says what becomes of the last part tick.

    Raises:
        InputError: there is not one whole tick, or the sound cannot be read.
    """
    if seconds is not None:
        check_range("prompt_seconds", seconds, 0.04, LONGEST)
    assembler = TickAssembler()
    count, most = 0, None if seconds is None else int(seconds * 25 + 1e-6)
    for piece in _pieces(sound):
        for tick in assembler.push(piece):
            if most is not None and count == most:
                return
            count += 1
            yield tick
    for tick in assembler.flush(rest):  # type: ignore[arg-type]
        count += 1
        yield tick
    if not count:
        raise InputError("the prompt is shorter than one tick (640 samples, 40 ms); give at least 40 ms, better 3 s")


def _pieces(sound: Sound | None) -> Iterator[npt.NDArray[Any]]:
    if isinstance(sound, (str, PathLike)):
        from audiolm.io import read_blocks

        yield from read_blocks(sound)
    elif isinstance(sound, np.ndarray):
        yield sound
    elif sound is not None:
        yield from sound
