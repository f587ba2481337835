"""Whether a bundle's detector tells its continuations from recordings: on speakers and pieces that it has not met.

Beside the paper's figure, which is of coded recordings against continuations, it is asked what a listener would ask:
of recordings that went through no codec, of both after MP3, Opus and another sample rate, of shorter and longer
windows, and of continuations made in other ways.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from audiolm.codec import SoundStream, stream_reconstruct
from audiolm.detector import RATE, Detector, Verdict, is_quiet
from audiolm.eval.clips import Held
from audiolm.eval.report import Cell, Goal, Progress, Section, quiet, within
from audiolm.eval.sides import Pair, Side, pairs
from audiolm.eval.stats import Estimate, estimate
from audiolm.eval.through import WAYS
from audiolm.model import AudioLM
from audiolm.train.shards import Array

PAPER = 0.986
BINS = 10
LENGTHS = (1.0, 1.5, 2.5, 5.0)
OTHER_MODES = ("acoustic_only", "dream")
AS_IT_IS = "as it is"
KNOWS = (
    "A detector of this bundle's continuations, trained on its own training data; of other models it knows nothing, "
    f"and what it says is no proof. The paper's detector is right in {100 * PAPER:.1f} % of its cases: other data and "
    "another model, so the figures do not compare."
)
HOW = (
    "Right: of a recording, that it is called one; of a continuation, that it is called continued. Each file is a few "
    "seconds; its probability is that of the mean logit of its windows, a window of 2.5 s each second. Intervals are "
    "by bootstrap over files; where all of n files are right it has no width, and the share is above 1 - 3/n (95 %)."
)


@dataclass(frozen=True)
class Asked:
    """What the detector said of the sounds of one kind; ``made`` is what is true."""

    name: str
    made: bool
    verdicts: list[Verdict]

    @property
    def probabilities(self) -> list[float]:
        """Of the sounds that were not too quiet."""
        return [each.probability for each in self.verdicts if each.probability is not None]

    @property
    def right(self) -> list[float]:
        """1 where it was right, 0 where not."""
        return [float((p > 0.5) == self.made) for p in self.probabilities]

    @property
    def windows(self) -> list[float]:
        """The probabilities of all windows."""
        return [w.probability for each in self.verdicts for w in each.windows if w.probability is not None]


def detect(
    detector: Detector,
    player: AudioLM,
    held: Sequence[Held],
    *,
    prompts: int = 24,
    heard: float = 3.0,
    seconds: float = 7.0,
    others: bool = True,
    seed: int = 0,
    progress: Progress = quiet,
) -> Section:
    """The section ``detect`` of the report, corpus by corpus.

    Args:
        detector: of the bundle.
        player: the bundle on the engine that is heard.
        held: sound that neither has met.
        prompts: continuations and recordings a corpus.
        heard: seconds of a prompt.
        seconds: of a continuation and, at most, of a recording.
        others: ask of ``acoustic_only`` and ``dream`` too, and of recordings coded with fewer levels.
        seed: of what is drawn.
        progress: is told.

    Raises:
        InputError: a corpus has no usable sound, or a library of the extra ``eval`` is not there.
    """
    section = Section("detect", "Real or continued?", {"training": detector.facts, "corpora": {}})
    side = Side(heard, seconds, seed, heat=(1.0,))
    for data in held:
        tell = within(progress, data.name)
        drawn = list(pairs(player, [data], side, prompts, tell))
        tell("what the detector says")
        kinds = through_all(detector, drawn)
        if others:
            kinds += _other_kinds(detector, player, data, replace(side, seconds=min(seconds, 5.0)), drawn)
        _write(section, data.name, kinds, by_length(detector, drawn))
    section.notes += _notes(detector, player, held)
    return section


def ask(detector: Detector, name: str, sounds: Sequence[Array], *, made: bool) -> Asked:
    """What it says of each sound."""
    return Asked(name, made, [detector.listen(sound) for sound in sounds])


def through_all(detector: Detector, drawn: Sequence[Pair]) -> list[Asked]:
    """Continuations, coded recordings and recordings as they were, each through every way of :mod:`.through`."""
    found = []
    for name, way in WAYS.items():
        for what, key, made in (("continued", "made", True), ("coded", "coded", False), ("recording", "raw", False)):
            sounds = [way(getattr(pair, key)) for pair in drawn]
            found.append(ask(detector, f"{what}, {name}", sounds, made=made))
    return found


def _other_kinds(detector: Detector, player: AudioLM, data: Held, side: Side, drawn: Sequence[Pair]) -> list[Asked]:
    count = max(2, len(drawn) // 4)
    found = []
    for mode in OTHER_MODES:
        made = [pair.made for pair in pairs(player, [data], replace(side, mode=mode), count)]
        found.append(ask(detector, f"continued, {mode}", made, made=True))
    codec = player.parts.codec
    for levels in sorted({codec.config.levels // 2, codec.config.levels // 3} - {0}):
        sounds = [_coded(codec, pair.raw, levels) for pair in drawn]
        found.append(ask(detector, f"coded, {levels} of {codec.config.levels} levels", sounds, made=False))
    return found


@torch.inference_mode()
def _coded(codec: SoundStream, sound: Array, levels: int) -> Array:
    return np.asarray(stream_reconstruct(codec, torch.from_numpy(sound.copy())[None], levels)[0].numpy())


def by_length(detector: Detector, drawn: Sequence[Pair]) -> dict[float, Estimate]:
    """Accuracy of single windows of so many seconds, continuations against coded recordings, side by side.

    The windows of a sound are averaged first, so that the interval counts sounds and not their pieces.
    """
    return {
        length: estimate(
            [
                value
                for pair in drawn
                for made in (True, False)
                for value in _windows_right(detector, pair.made if made else pair.coded, length, made=made)
            ]
        )
        for length in LENGTHS
    }


def _windows_right(detector: Detector, sound: Array, seconds: float, *, made: bool) -> list[float]:
    size = int(seconds * RATE)
    windows = [sound[at : at + size] for at in range(0, len(sound) - size + 1, size)]
    logits = [detector.logits(window[None])[0] for window in windows if not is_quiet(window)]
    right = [(detector.by_window.probability(logit) > 0.5) == made for logit in logits]
    return [float(np.mean(right))] if right else []


def reliability(
    probabilities: Sequence[float], made: Sequence[bool], bins: int = BINS
) -> tuple[float, list[list[Any]]]:
    """Expected calibration error (Naeini 2015) and ``[from, to, windows, said, was]`` of each bin that is not empty."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(made, np.float64)
    at = np.minimum((p * bins).astype(int), bins - 1)
    rows, error = list[list[Any]](), 0.0
    for i in range(bins):
        inside = at == i
        if inside.any():
            said, was = float(p[inside].mean()), float(y[inside].mean())
            rows.append([i / bins, (i + 1) / bins, int(inside.sum()), said, was])
            error += abs(said - was) * float(inside.mean())
    return error, rows


def _write(section: Section, name: str, kinds: Sequence[Asked], lengths: Mapping[float, Estimate]) -> None:
    made, coded, raw = (
        next(k for k in kinds if k.name == f"{w}, {AS_IT_IS}") for w in ("continued", "coded", "recording")
    )
    accuracy = estimate(made.right + coded.right)
    sides = [True] * len(made.windows) + [False] * len(coded.windows)
    error, rows = reliability(made.windows + coded.windows, sides)
    section.figures["corpora"][name] = {
        "accuracy": accuracy,
        "accuracy_on_recordings": estimate(made.right + raw.right),
        "calibration_error": error,
        "reliability": rows,
        "by_seconds": {str(length): value for length, value in lengths.items()},
        "kinds": {kind.name: _figures(kind) for kind in kinds},
    }
    section.table(
        f"{name}: right, by what was asked",
        ["sound", "files", "right, of 1", "mean probability"],
        [[k.name, len(k.right), estimate(k.right), _mean(k.probabilities)] for k in kinds],
    )
    section.table(
        f"{name}: windows by length, continued against coded",
        ["seconds", "right, of 1"],
        [[f"{length:g}", value] for length, value in lengths.items()],
    )
    bins: list[list[Cell]] = [[f"{low:.1f} to {high:.1f}", n, said, was] for low, high, n, said, was in rows]
    section.table(
        f"{name}: calibration of windows, error {error:.3f}", ["probability", "windows", "said", "were continued"], bins
    )
    section.goals.append(
        Goal(f"{name}: accuracy, continued against coded (the paper: {PAPER})", accuracy.mean, above=0.9)
    )
    section.goals.append(Goal(f"{name}: false alarms on recordings", 1 - _mean(raw.right), below=0.1))


def _figures(kind: Asked) -> dict[str, Any]:
    return {
        "continued": kind.made,
        "right": estimate(kind.right),
        "probability": _mean(kind.probabilities),
        "too_quiet": len(kind.verdicts) - len(kind.probabilities),
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _notes(detector: Detector, player: AudioLM, held: Sequence[Held]) -> list[str]:
    notes = [KNOWS, HOW]
    taught_on, is_of = detector.facts.get("fingerprint"), player.parts.fingerprint[:12]
    if taught_on != is_of:
        notes.append(f"The detector was made for the bundle {taught_on}, not for this one ({is_of}); make it again.")
    kinds = {each.kind for each in held}
    taught = set(detector.facts.get("kinds", kinds))
    if kinds - taught:
        notes.append(f"The detector was taught {', '.join(sorted(taught))}; here it hears {', '.join(sorted(kinds))}.")
    return notes
