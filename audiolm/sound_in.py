"""Sound files in: mono float32 at 16 kHz, in blocks that do not depend on who reads. Used as `audiolm.io`.

soundfile is imported when a file is opened; training runs without it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from audiolm.errors import InputError
from audiolm.resample import Resampler, check_rate
from audiolm.ticks import SAMPLE_RATE, TICK, Samples

if TYPE_CHECKING:
    import soundfile

__all__ = ["AudioInfo", "AudioReader", "existing", "open_sound", "probe", "read_audio", "read_blocks"]

RAW_SUFFIXES = (".raw", ".pcm")


@dataclass(frozen=True)
class AudioInfo:
    """What a file holds, before anything is done to it; `frames` counts samples per channel at `rate` Hz."""

    path: Path
    rate: int
    channels: int
    frames: int
    encoding: str

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.rate


def probe(path: str | os.PathLike[str]) -> AudioInfo:
    """Look at a file without reading its sound.

    Raises:
        InputError: it is missing, a folder, empty, not sound, or has a rate that sound does not have.
    """
    place = existing(path)
    with open_sound(place) as sound:
        encoding = f"{sound.format} {sound.subtype}"
        info = AudioInfo(place, int(sound.samplerate), int(sound.channels), int(sound.frames), encoding)
    check_rate(info.rate, str(place))
    if info.frames == 0:
        raise InputError(f"{place} holds no samples: give a recording of at least 40 ms", path=str(place), frames=0)
    return info


class AudioReader:
    """One file as mono float32 at `rate`; `blocks` may be read any number of times, always with the same result.

    Attributes:
        info: what the file holds.
        notes: what was done to it, in words; complete once `blocks` is read through.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, rate: int = SAMPLE_RATE, minimum: int = TICK, limit: int | None = None
    ) -> None:
        """Look at the file; read it with `blocks`.

        Args:
            path: the file.
            rate: what to resample to, in Hz.
            minimum: fewest samples (at `rate`) that are of use; 0 takes anything.
            limit: give no more than so many samples (at `rate`).

        Raises:
            InputError: as `probe`, or the file is shorter than `minimum`.
        """
        self.rate = check_rate(rate, "the output")
        self.info = probe(path)
        self.limit = limit
        self.notes: list[str] = []
        if self.length < minimum:
            raise InputError(
                f"{self.info.path} is too short: {self.info.frames} samples, {1000 * self.info.seconds:.2f} ms; "
                f"expected at least {1000 * minimum / rate:g} ms",
                path=str(self.info.path),
                frames=self.info.frames,
                minimum=minimum,
            )

    @property
    def length(self) -> int:
        """Samples at `rate` that `blocks` will give, to within one."""
        whole = round(self.info.frames * self.rate / self.info.rate)
        return whole if self.limit is None else min(whole, self.limit)

    def blocks(self) -> Iterator[Samples]:
        """Yield float32 `[n]` blocks of about 20 ms, in order.

        Raises:
            InputError: the file is damaged further in.
        """
        self.notes = _first_notes(self.info, self.rate)
        left = self.limit
        for block in self._resampled():
            taken = block if left is None else block[:left]
            if len(taken):
                yield taken
            if left is not None and (left := left - len(taken)) <= 0:
                return

    def _resampled(self) -> Iterator[Samples]:
        resampler = Resampler(self.info.rate, self.rate)
        for block in self._mono():
            yield from resampler.push(block)
        yield from resampler.finish()

    def _mono(self) -> Iterator[Samples]:
        """The file's own samples, one channel; made finite where a resampler follows, since it would smear them."""
        counts = np.zeros(2, np.int64)
        with open_sound(self.info.path) as sound:
            for block in _chunks(sound, self.info):
                mono = _down_mix(block)
                yield mono if self.info.rate == self.rate else _tame(mono, counts)
        for count, words in zip(counts, ("not finite, set to 0", "beyond full scale, clamped"), strict=True):
            if count:
                self.notes.append(f"{count} samples {words}")


def read_blocks(path: str | os.PathLike[str], *, rate: int = SAMPLE_RATE, minimum: int = TICK) -> Iterator[Samples]:
    """Read a file of any length block by block: mono float32 at `rate`. The file is checked at the call."""
    return AudioReader(path, rate=rate, minimum=minimum).blocks()


def read_audio(path: str | os.PathLike[str], *, rate: int = SAMPLE_RATE, minimum: int = TICK) -> Samples:
    """Read a whole file: mono float32 `[n]` at `rate`.

    Raises:
        InputError: missing, empty, a folder, not sound, damaged, or shorter than `minimum` samples (one tick).
    """
    return np.concatenate([np.zeros(0, np.float32), *read_blocks(path, rate=rate, minimum=minimum)])


def existing(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file that may hold sound, checked from outside.

    Raises:
        InputError: it is missing, a folder, no regular file, empty, or raw PCM.
    """
    place = Path(path)
    if not place.exists():
        raise InputError(f"no such file: {place}; give a WAV, FLAC or Ogg file that exists", path=str(place))
    if place.is_dir():
        raise InputError(f"{place} is a folder; give a sound file", path=str(place))
    if not place.is_file():
        raise InputError(f"{place} is not a regular file; for a pipe use the node `pcm_in`", path=str(place))
    if place.stat().st_size == 0:
        raise InputError(f"{place} is empty (0 bytes); give a recording of at least 40 ms", path=str(place), size=0)
    if place.suffix.lower() in RAW_SUFFIXES:
        raise InputError(f"{place} has no header; use the node `pcm_in` for raw PCM", path=str(place))
    return place


def open_sound(place: Path) -> soundfile.SoundFile:
    """Open a file to read.

    Raises:
        InputError: libsndfile does not know it.
    """
    import soundfile

    try:
        return soundfile.SoundFile(place)
    except (OSError, RuntimeError) as error:
        _refuse(place, error)


def _refuse(place: Path, error: Exception) -> NoReturn:
    reason = getattr(error, "error_string", str(error)).rstrip(". ")
    raise InputError(
        f"{place} cannot be read as sound ({reason}); give a WAV, FLAC or Ogg file", path=str(place), reason=reason
    ) from error


def _chunks(sound: soundfile.SoundFile, info: AudioInfo) -> Iterator[NDArray[np.float32]]:
    """Float32 `[n, channels]`, 20 ms each until the end."""
    size = max(1, info.rate // 50)
    while True:
        try:
            block = sound.read(size, dtype="float32", always_2d=True)
        except RuntimeError as error:
            _refuse(info.path, error)
        if not len(block):
            return
        yield block


def _down_mix(block: NDArray[np.float32]) -> Samples:
    return block[:, 0].copy() if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)


def _tame(block: Samples, counts: NDArray[np.int64]) -> Samples:
    """Set what is not finite to 0 and clamp to full scale, adding to `counts` [not finite, clamped]."""
    finite = np.isfinite(block)
    clean = np.where(finite, block, np.float32(0))
    counts += (len(block) - int(finite.sum()), int((np.abs(clean) > 1).sum()))
    return np.clip(clean, np.float32(-1), np.float32(1))


def _first_notes(info: AudioInfo, rate: int) -> list[str]:
    notes = [f"down-mixed {info.channels} channels"] if info.channels > 1 else []
    return notes + ([f"resampled {info.rate} -> {rate} Hz"] if info.rate != rate else [])
