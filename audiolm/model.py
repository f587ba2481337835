"""AudioLM from a notebook: load a bundle, continue a sound.

::

    from audiolm import AudioLM
    model = AudioLM.load("piano")
    y = model.continuation("prompt.wav", seconds=10, seed=1)
    for chunk in model.stream("prompt.wav", seconds=10, seed=1): ...
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from os import PathLike
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from audiolm.bundle import load_bundle
from audiolm.compute.base import Compute
from audiolm.compute.choose import make_compute, resolve
from audiolm.door import DoorConfig
from audiolm.engine import Audio, Engine
from audiolm.errors import InputError
from audiolm.parts import STAGES, Parts
from audiolm.sampler import Sampling, check_range
from audiolm.session import Session, check_mode, check_whole
from audiolm.ticks import TickAssembler

Sound = str | PathLike[str] | npt.NDArray[Any] | Iterable[npt.NDArray[Any]]
Rest = Literal["drop", "pad"]
LONGEST = 7 * 24 * 3600.0


class AudioLM:
    """A loaded model. Weights are shared; every stream has its own session and engine slot.

    Args:
        parts: the model.
        engine: what steps it: ``auto`` (the fastest that is installed), ``torch`` (the reference), ``onnx``,
            ``onnx-int8``, ``torch-int8`` or ``cuda``. Sounds of different engines are alike, not equal.
        watermark: whether what its sessions generate is marked, see :mod:`audiolm.watermark`.

    Raises:
        ConfigError: there is no such engine here.
    """

    def __init__(self, parts: Parts, engine: str = "auto", *, watermark: bool = True) -> None:
        self.parts, self.engine, self.watermark = parts, resolve(engine), watermark
        self._compute: Compute | None = None

    @classmethod
    def load(cls, bundle: str | PathLike[str], engine: str = "auto", *, watermark: bool = True) -> "AudioLM":
        """Load a shipped bundle by name, or any by path.

        Raises:
            BundleError: it is not there, damaged, or of another version.
            ConfigError: there is no such engine here.
        """
        chosen = resolve(engine)
        return cls(load_bundle(str(bundle)), chosen, watermark=watermark)

    @property
    def sample_rate(self) -> int:
        """Samples a second, in and out."""
        return self.parts.codec.config.sample_rate

    def sampling(self, **settings: float | Mapping[str, float] | None) -> dict[str, Sampling]:
        """The bundle's sampling with changes: a number for all stages, or a mapping by stage.

        >>> model.sampling(temperature=0.9, top_k={"fine": 50})  # doctest: +SKIP

        Raises:
            InputError: an unknown setting or stage, or a value out of range.
        """
        chosen = dict(self.parts.sampling)
        known = [f.name for f in fields(Sampling)]
        for key, value in settings.items():
            if key not in known:
                raise InputError(f"unknown sampling setting {key!r}; expected one of {', '.join(known)}", key=key)
            by_stage: Mapping[str, Any] = value if isinstance(value, Mapping) else dict.fromkeys(STAGES, value)
            unknown = sorted(set(by_stage) - set(STAGES))
            if unknown:
                raise InputError(f"{key} names the unknown stage {unknown[0]!r}; stages: {', '.join(STAGES)}")
            for name, one in by_stage.items():
                if one is not None:
                    chosen[name] = replace(chosen[name], **{key: one})
        return chosen

    def session(
        self, *, mode: str = "continue", seed: int = 0, sampling: Mapping[str, Sampling] | None = None, **options: Any
    ) -> Session:
        """A fresh session on an engine of its own; ``options`` go to :class:`~audiolm.session.Session`."""
        guided = {name for name, settings in (sampling or self.parts.sampling).items() if settings.guidance != 1}
        self._compute = self._compute or make_compute(self.engine, self.parts)
        engine = Engine(self.parts, guided=guided, compute=self._compute.fresh())
        return Session(engine, mode=mode, seed=seed, sampling=sampling, **{"watermark": self.watermark, **options})

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
            prompt: a file, samples at 16 kHz (float in -1..1 or int16), or an iterable of such pieces; None in mode
                ``dream``.
            seconds: of continuation, in steps of 40 ms; modes ``resynthesize`` and ``reconstruct`` follow their input
                instead.
            seed: of the noise; the same seed and prompt give the same sound.
            mode: ``continue``, ``acoustic_only``, ``dream``, ``resynthesize`` (the prompt's content in ``voice``) or
                ``reconstruct``.
            voice: mode ``resynthesize``: a sound of the voice to speak in.
            prompt_seconds: use only the beginning of the prompt (of the voice in mode ``resynthesize``).
            temperature: 0 is greedy; one value or a mapping by stage, None keeps the bundle's. So for the next three.
            top_k: keep the k likeliest tokens; 0 keeps all.
            top_p: keep the likeliest tokens that reach this mass.
            guidance: classifier-free guidance scale; 1 is off.
            gain: ``auto`` brings the prompt to the training level, ``off`` leaves it.

        Yields:
            float32 ``[640]`` at 16 kHz, the continuation alone.

        Raises:
            InputError: a setting cannot be used (at once), or the prompt cannot be (with the first tick).
            ConfigError: ``gain`` is neither.
        """
        if check_mode(mode) == "duet":
            raise InputError(
                "mode 'duet' needs live sound; use session(mode='duet').listen(tick, heard=...)", mode=mode
            )
        check_range("seconds", seconds, 0.0, LONGEST, open_low=True)
        check_whole("seed", seed, 2**64 - 1)
        if prompt_seconds is not None:
            check_range("prompt_seconds", prompt_seconds, 0.04, LONGEST)
        sampling = self.sampling(temperature=temperature, top_k=top_k, top_p=top_p, guidance=guidance)
        door = DoorConfig(gain=gain)  # type: ignore[arg-type]
        if (prompt is None) != (mode == "dream"):
            raise InputError(
                f"mode {mode!r} {'takes no prompt' if prompt is not None else 'needs a prompt'}", mode=mode
            )
        if voice is not None and mode != "resynthesize":
            raise InputError(f"a voice belongs to mode 'resynthesize', not to {mode!r}", mode=mode)
        follows = mode in ("resynthesize", "reconstruct")
        rest: Rest = "pad" if follows else "drop"
        heard = ticks_of(prompt, None if mode == "resynthesize" else prompt_seconds, rest) if prompt is not None else ()
        before = () if voice is None else ticks_of(voice, prompt_seconds)
        count = None if follows else max(1, round(seconds * self.sample_rate / self.parts.tick))

        def make() -> Session:
            return self.session(mode=mode, seed=seed, sampling=sampling, door=door)

        return _stream(make, before, heard, count)

    def continuation(self, prompt: Sound | None, seconds: float = 10.0, **settings: Any) -> Audio:
        """All of :meth:`stream` in one array, float32 ``[samples]``."""
        return np.concatenate(list(self.stream(prompt, seconds, **settings)))


def _stream(
    make: Callable[[], Session], voice: Iterable[Audio], heard: Iterable[Audio], count: int | None
) -> Iterator[Audio]:
    """Listen, then generate ``count`` ticks, or follow what is heard when there is no count."""
    with make() as session:
        for tick in voice:
            session.listen(tick)
        if count is None:
            yield from _follow(session, heard)
            return
        for tick in heard:
            session.listen(tick)
        for _ in range(count):
            yield session.generate().audio


def _follow(session: Session, ticks: Iterable[Audio]) -> Iterator[Audio]:
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


def ticks_of(sound: Sound, seconds: float | None = None, rest: Rest = "drop") -> Iterator[Audio]:
    """Whole ticks of a file, an array or pieces, float32 ``[640]``.

    Args:
        sound: see :meth:`AudioLM.stream`.
        seconds: at most so much of it; nothing more is read then.
        rest: ``drop`` or ``pad`` the last part tick.

    Raises:
        InputError: there is not one whole tick, or the sound cannot be read.
    """
    most = None if seconds is None else int(check_range("prompt_seconds", seconds, 0.04, LONGEST) * 25 + 1e-6)
    assembler = TickAssembler()
    count = 0
    for piece in _pieces(sound):
        for tick in assembler.push(piece):
            yield tick
            count += 1
            if count == most:
                return
    left = assembler.held
    for tick in assembler.flush(rest):
        count += 1
        yield tick
    if not count:
        raise InputError(
            "the prompt is shorter than one tick (640 samples, 40 ms); give at least 40 ms, better 3 s",
            samples=left,
        )


def _pieces(sound: Sound) -> Iterator[npt.NDArray[Any]]:
    if isinstance(sound, (str, PathLike)):
        from audiolm.io import read_blocks

        yield from read_blocks(sound)
    elif hasattr(sound, "__array__"):
        yield np.asarray(sound)
    elif isinstance(sound, Iterable):
        yield from sound
    else:
        raise InputError(f"a sound is a file name, samples or an iterable of samples; got {type(sound).__name__}")
