"""A page for a blind listening test: clips of one loudness under opaque names, their key masked, one HTML file.

Two tests. ``real``: one clip, is it a recording or did the model make it. ``pairs``: two continuations of one
beginning, by the model and by the model without its semantic stage, which goes on better. What a listener hears, in
which order and on which side is drawn in the page (``listen.html``); what was answered is read by
:mod:`audiolm.eval.heard`.

Knows nothing of who listens. The key is masked, not secret: names do not tell, a person who wants to know finds out.
"""

import base64
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np

from audiolm.errors import InputError
from audiolm.eval.clips import Held, prompts
from audiolm.eval.continuation import BARE, CODEC, MODEL, TRUTH, Continued, continue_all
from audiolm.eval.reconstruction import declared_delay
from audiolm.eval.report import Progress, quiet, within
from audiolm.model import AudioLM
from audiolm.train.data import RATE
from audiolm.train.shards import Array

Test = Literal["real", "pairs"]
TESTS: tuple[Test, ...] = ("real", "pairs")
RECORDING = "recording"
PAGE_FORMAT = "audiolm listening 1"
LOUDNESS = -23.0  # LUFS of what follows the prompt
MOST_GAIN_DB = 20.0  # what is nearly silent stays so
PEAK = 0.99
FADE = RATE // 100
# ITU-R BS.1770-4, tables 1 and 2: the two filters of the K weighting, given there for 48 kHz.
SHELF = ((1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585))
HIGH_PASS = ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621))


@dataclass(frozen=True)
class Trial:
    """One question: float32 clips at 16 kHz by what they are, equally long and loud."""

    test: Test
    clips: Mapping[str, Array]


# -- loudness --


def loudness(sound: Array) -> float:
    """Integrated loudness of a mono sound in LUFS (ITU-R BS.1770-4); -inf where every block is below -70 LUFS.

    Blocks of 400 ms every 100 ms, gated at -70 LUFS and at 10 LU below the mean of what is left. A sound shorter than
    a block is one block. The filters are applied in the frequency domain, so that they are those of 48 kHz.
    """
    power = np.square(_weighted(sound.astype(np.float64)))
    size, hop = min(len(power), 2 * RATE // 5), RATE // 10
    sums = np.concatenate(([0.0], np.cumsum(power)))
    starts = np.arange(0, len(power) - size + 1, hop) if size else np.arange(0)
    blocks = (sums[starts + size] - sums[starts]) / max(size, 1)
    kept = blocks[blocks > _power(-70.0)]
    if not len(kept):
        return -np.inf
    kept = kept[kept > kept.mean() / 10]
    return float(-0.691 + 10 * np.log10(kept.mean()))


def _power(lufs: float) -> float:
    return float(10 ** ((lufs + 0.691) / 10))


def _weighted(sound: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The K-weighted sound; padded, so that the filters' tails do not come round to its beginning."""
    size = len(sound) + RATE // 2
    z = np.exp(-2j * np.pi * np.fft.rfftfreq(size, 1 / RATE) / 48_000)
    gain = np.ones_like(z)
    for above, below in (SHELF, HIGH_PASS):
        gain *= np.polyval(above[::-1], z) / np.polyval(below[::-1], z)
    return np.fft.irfft(np.fft.rfft(sound, size) * gain, size)[: len(sound)]


def gain_to(sound: Array, target: float = LOUDNESS) -> float:
    """The factor that brings a sound to a loudness; at most 20 dB up, and 1 for silence."""
    level = loudness(sound)
    return float(10 ** (min(target - level, MOST_GAIN_DB) / 20)) if np.isfinite(level) else 1.0


# -- trials --


def real_trial(each: Continued, delay: int = 0, *, prompt: bool = True, raw: bool = False) -> Trial:
    """The recording (through the codec unless ``raw``) and the model's continuation."""
    sides = {RECORDING: each.sounds[TRUTH if raw else CODEC], MODEL: each.sounds[MODEL][delay:]}
    return _trial("real", each, sides, prompt=prompt, raw=raw)


def pairs_trial(each: Continued, delay: int = 0, *, prompt: bool = True, raw: bool = False) -> Trial:
    """The model's continuation and that without the semantic stage."""
    sides = {name: each.sounds[name][delay:] for name in (MODEL, BARE)}
    return _trial("pairs", each, sides, prompt=prompt, raw=raw)


def _trial(test: Test, each: Continued, sides: Mapping[str, Array], *, prompt: bool, raw: bool) -> Trial:
    """What follows is brought to -23 LUFS; the prompt has the gain that brings its own recording there.

    A recording with its prompt is thus changed by one gain alone. No clip of a trial may clip: else all are lowered.
    """
    length = min(map(len, sides.values()))
    truth = each.sounds[TRUTH if raw else CODEC]
    before = (each.prompt.sound if raw else each.coded[: len(each.prompt.sound)]) * gain_to(truth)
    made = {name: sound[:length] * gain_to(sound[:length]) for name, sound in sides.items()}
    clips = {name: np.concatenate((before, sound)) if prompt else sound for name, sound in made.items()}
    peak = max(float(np.abs(sound).max()) for sound in clips.values())
    return Trial(test, {name: _faded(sound * min(1.0, PEAK / max(peak, 1e-9))) for name, sound in clips.items()})


def _faded(sound: Array) -> Array:
    """Without clicks at its ends: 10 ms each."""
    size = min(FADE, len(sound) // 2)
    ramp, out = np.linspace(0, 1, size, dtype=np.float32), sound.astype(np.float32)
    out[:size] *= ramp
    out[len(out) - size :] *= ramp[::-1]
    return out


def make_trials(
    model: AudioLM,
    held: Sequence[Held],
    tests: Sequence[Test] = TESTS,
    *,
    count: int = 12,
    heard: float = 6.0,
    seconds: float = 6.0,
    prompt: bool = True,
    raw: bool = False,
    seed: int = 0,
    progress: Progress = quiet,
) -> list[Trial]:
    """``count`` trials a test and corpus; no prompt is heard in two tests.

    Raises:
        InputError: a corpus has nothing long enough.
    """
    delay, found = declared_delay(model.parts.codec), list[Trial]()
    for data in held:
        given = prompts(data, count * len(tests), heard, seconds, seed)
        if len(given) < len(tests):
            raise InputError(
                f"{data.name} gave {len(given)} prompts; {len(tests)} tests need more, give another corpus"
            )
        for i, test in enumerate(tests):
            tell = within(progress, f"{data.name}, {test}")
            made = continue_all(model, given[i :: len(tests)], seed=seed, bare=test == "pairs", progress=tell)
            make = real_trial if test == "real" else pairs_trial
            found += [make(each, delay, prompt=prompt, raw=raw) for each in made]
    return found


# -- the page --


def page(trials: Sequence[Trial], *, bundle: str, settings: Mapping[str, Any], beside: Path | None = None) -> str:
    """The HTML of a test.

    Args:
        trials: of any tests.
        bundle: name of what made the continuations.
        settings: those that repeat the page: ``heard``, ``seconds``, ``prompt`` and ``raw`` are told to the listener.
        beside: a folder for the clips, as ``clips/ID.flac``; else they stand in the page.

    Raises:
        InputError: a clip cannot be written.
    """
    name = _page_name(trials, bundle, settings)
    key: dict[str, str] = {}
    tests: dict[str, dict[str, Any]] = {}
    for number, trial in enumerate(trials):
        clips: list[dict[str, str]] = []
        for what, sound in trial.clips.items():
            clip = _opaque(name, number, what)
            key[clip] = what
            clips.append({"id": clip, "src": _source(clip, sound, bundle, beside, generated=what != RECORDING)})
        clips.sort(key=lambda clip: clip["id"])
        at = _opaque(name, number)
        tests.setdefault(trial.test, {})[at] = {"trial": at, "clips": clips}
    content = {
        "format": PAGE_FORMAT,
        "page": name,
        "bundle": bundle,
        "settings": dict(settings),
        "coded": not settings.get("raw", False),
        "heard": settings.get("heard", 0) if settings.get("prompt", True) else 0,
        "seconds": settings.get("seconds", 0),
        "tests": [{"test": test, "trials": [each[at] for at in sorted(each)]} for test, each in tests.items()],
        "key": mask(json.dumps(key, sort_keys=True), name),
    }
    template = files("audiolm.eval").joinpath("listen.html").read_text(encoding="utf8")
    return template.replace("{{page}}", json.dumps(content).replace("<", "\\u003c"))


def mask(text: str, by: str) -> str:
    """A text that no eye reads, in base64; the page takes the mask off again."""
    pairs = zip(text.encode(), by.encode() * (len(text.encode()) // len(by) + 1), strict=False)
    return base64.b64encode(bytes(a ^ b for a, b in pairs)).decode("ascii")


def _page_name(trials: Sequence[Trial], bundle: str, settings: Mapping[str, Any]) -> str:
    """Of what the page holds, so that equal pages have equal names and answers of different pages are told apart."""
    digest = hashlib.sha256(json.dumps([bundle, dict(settings)], sort_keys=True).encode())
    for trial in trials:
        for what, sound in trial.clips.items():
            digest.update(f"{trial.test} {what}".encode() + sound.tobytes())
    return digest.hexdigest()[:32]


def _opaque(*parts: object) -> str:
    return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()[:12]


def _source(clip: str, sound: Array, bundle: str, beside: Path | None, *, generated: bool) -> str:
    """Where the page finds a clip: FLAC beside it, or in it."""
    if beside is not None:
        folder = beside / "clips"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be made ({error.strerror}); give another --out") from error
        _write(folder / f"{clip}.flac", sound, bundle, generated=generated)
        return f"clips/{clip}.flac"
    with tempfile.TemporaryDirectory() as folder_name:
        path = Path(folder_name) / "clip.flac"
        _write(path, sound, bundle, generated=generated)
        return "data:audio/flac;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _write(path: Path, sound: Array, bundle: str, *, generated: bool) -> None:
    """Generated clips carry the mark; all carry the bundle, so that their sizes differ by little."""
    from audiolm.io import AudioWriter

    with AudioWriter(path, {"bundle": bundle}, generated=generated) as writer:
        writer.write(sound)
