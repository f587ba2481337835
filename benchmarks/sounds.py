"""Sounds that the benchmarks of the live ends listen to: this project's own prompts, or folders of recordings."""

import argparse
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from benchmarks.common import Result, run

Sound = npt.NDArray[np.float64]
RATE = 16_000
ASSETS = Path(__file__).parent.parent / "assets"
SUFFIXES = {".flac", ".wav", ".opus", ".ogg"}
LONG = 10  # seconds; of a longer recording the beginning and the end are taken


@dataclass(frozen=True)
class Sounds:
    """What is spoken and what is played: lists of sounds at 16 kHz."""

    speech: list[Sound]
    piano: list[Sound]


def read(folder: Path | None, own: str, most: int) -> list[Sound]:
    """At most `most` sounds, from files spread over `folder`, or this project's own prompt."""
    files = [ASSETS / own] if folder is None else sorted(p for p in folder.rglob("*") if p.suffix in SUFFIXES)
    made: list[Sound] = []
    for path in files[:: max(1, len(files) // most)][:most]:
        sound, rate = soundfile.read(path)
        if rate != RATE or sound.ndim > 1:
            raise SystemExit(f"{path}: {rate} Hz, shape {sound.shape}; one channel at {RATE} Hz is needed")
        made += [sound[: LONG * RATE], sound[-LONG * RATE :]] if len(sound) > 2 * LONG * RATE else [sound]
    return made


def run_with(results: Callable[[bool, Sounds], Iterable[Result]], argv: Sequence[str] | None = None) -> int:
    """`main` of a benchmark that listens: `--speech FOLDER --piano FOLDER --most N`, and what every benchmark takes."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--speech", type=Path)
    parser.add_argument("--piano", type=Path)
    parser.add_argument("--most", type=int, default=20)
    chosen, rest = parser.parse_known_args(argv)
    sounds = Sounds(
        read(chosen.speech, "prompt_speech.flac", chosen.most), read(chosen.piano, "prompt_piano.flac", chosen.most)
    )

    @functools.wraps(results)
    def with_sounds(tiny: bool) -> Iterable[Result]:
        return results(tiny, sounds)

    return run(with_sounds, rest)


def white(count: int, rng: np.random.Generator) -> Sound:
    """Noise of the same power at each frequency, RMS 1."""
    return rng.standard_normal(count)


def pink(count: int, rng: np.random.Generator) -> Sound:
    """Noise of the same power in each octave, RMS 1."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    made: Sound = np.fft.irfft(spectrum, count)
    return made / rms(made)


def rms(sound: Sound) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(sound**2)))


def gain(decibels: float) -> float:
    """The factor of an amplitude."""
    return float(10 ** (decibels / 20))


def to_level(sound: Sound, level_db: float) -> Sound:
    """The sound at an RMS in dB of full scale."""
    return sound * gain(level_db) / rms(sound)


def extent(sound: Sound, below_db: float) -> tuple[int, int]:
    """First and last sample of what is there: 10 ms within `below_db` of the loudest (95th percentile)."""
    whole = len(sound) // 160
    levels = 10 * np.log10(np.mean(sound[: whole * 160].reshape(whole, 160) ** 2, axis=1) + 1e-12)
    there = np.flatnonzero(levels > np.percentile(levels, 95) - below_db)
    return int(there[0]) * 160, (int(there[-1]) + 1) * 160


def ticks(sound: Sound) -> npt.NDArray[np.float32]:
    """`[n, 640]`; what does not fill a tick is left out."""
    return sound[: len(sound) // 640 * 640].astype(np.float32).reshape(-1, 640)


def spans(active: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Begin and end of each run of true ticks."""
    steps = np.diff(np.concatenate([[0], active.astype(np.int8), [0]]))
    return list(zip(np.flatnonzero(steps == 1).tolist(), np.flatnonzero(steps == -1).tolist(), strict=True))
