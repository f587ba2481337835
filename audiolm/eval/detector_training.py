"""How a detector of continuations is trained: windows of both sides, a small net, and a calibration on other sources.

The speakers or pieces are divided: most train, the rest calibrate and say how well it went. Both sides hear the same
changes on the way (MP3, Opus, other rates; a tilt of the spectrum, gaps in time and frequency), so that none is a cue.
Recordings come coded and, one in three, as they were: a listener's recordings have been through no codec of ours.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from audiolm.detector import LEAST, WINDOW, Detector, DetectorNet, Platt, fit_platt, is_quiet
from audiolm.errors import InputError
from audiolm.eval.report import Progress, quiet
from audiolm.eval.sides import Pair
from audiolm.eval.through import mp3, ogg_opus, resampled
from audiolm.train.shards import Array

HELD_OUT = 0.15  # of the speakers or pieces
RAW_SHARE = 1 / 3
LEARN_RATE, DECAY = 2e-3, 1e-2
TRIES = 20


@dataclass
class Examples:
    """Sounds of both sides, float32 at 16 kHz: continuations, coded recordings, recordings as they were (or none)."""

    made: list[Array] = field(default_factory=list)
    coded: list[Array] = field(default_factory=list)
    raw: list[Array] = field(default_factory=list)

    @property
    def seconds(self) -> dict[str, float]:
        """Of each side."""
        return {key: sum(map(len, sounds)) / 16000 for key, sounds in dataclasses.asdict(self).items()}

    def check(self, what: str) -> None:
        """Both sides must be there.

        Raises:
            InputError: one is not.
        """
        if not self.made or not self.coded:
            raise InputError(
                f"{what} need continuations and recordings, got {len(self.made)} and {len(self.coded)}; "
                "give more minutes, or data of more speakers or pieces"
            )


def divide(pairs: Iterable[Pair], seed: int = 0) -> tuple[Examples, Examples]:
    """Those that train and those that are held out: no speaker or piece is on both sides.

    Raises:
        InputError: there are too few sources, or too few pairs of them.
    """
    all_pairs = list(pairs)
    sources = sorted({pair.who for pair in all_pairs} | {pair.asked for pair in all_pairs})
    count = max(1, round(HELD_OUT * len(sources)))
    held = {sources[i] for i in np.random.default_rng(seed).permutation(len(sources))[:count]}
    train, rest = Examples(), Examples()
    for pair in all_pairs:
        (rest if pair.asked in held else train).made.append(pair.made)
        side = rest if pair.who in held else train
        side.coded.append(pair.coded)
        side.raw.append(pair.raw)
    train.check("the sources that train")
    rest.check("the sources that are held out")
    return train, rest


def roughened(examples: Examples, seed: int = 0) -> Examples:
    """Every sound once more, through a random MP3, Opus or other sample rate: all sides the same way."""
    rng = np.random.default_rng([seed, 1])
    rough = [[_on_its_way(sound, rng) for sound in sounds] for sounds in (examples.made, examples.coded, examples.raw)]
    return Examples(*rough)


def _on_its_way(sound: Array, rng: np.random.Generator) -> Array:
    way = rng.random()
    if way < 0.5:
        return mp3(sound, float(rng.uniform(16, 96)))
    if way < 0.75:
        return resampled(sound, int(rng.integers(9000, 15000)))
    return ogg_opus(sound, int(rng.integers(12000, 40000)))


def learn(
    examples: Examples, *, steps: int = 500, batch: int = 32, seed: int = 0, progress: Progress = quiet
) -> DetectorNet:
    """A net that tells the sides apart; half of every batch is continued.

    Raises:
        InputError: a side is empty, or holds nothing but silence.
    """
    examples.check("a detector's training")
    torch.manual_seed(seed)
    rng, net = np.random.default_rng([seed, 2]), DetectorNet()
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARN_RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARN_RATE, total_steps=steps, pct_start=0.2)
    labels = torch.tensor([1.0, 0.0]).repeat(batch // 2)
    for step in range(steps):
        features = roughly(net.features(torch.from_numpy(_windows(examples, batch // 2, rng))), rng)
        loss = nn.functional.binary_cross_entropy_with_logits(net.classify(features), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            progress(f"step {step + 1} of {steps}: log loss {loss.item():.3f}")
    return net.eval()


def _windows(examples: Examples, count: int, rng: np.random.Generator) -> Array:
    """``[2 * count, WINDOW]``: a continuation, a recording, and so on."""
    rows = []
    for _ in range(count):
        raw = examples.raw and rng.random() < RAW_SHARE
        rows += [_window(examples.made, rng), _window(examples.raw if raw else examples.coded, rng)]
    return np.stack(rows)


def _window(sounds: Sequence[Array], rng: np.random.Generator) -> Array:
    """A random window of a random sound that is not quiet; a shorter one is repeated."""
    for _ in range(TRIES):
        sound = sounds[int(rng.integers(len(sounds)))]
        if len(sound) < LEAST:
            continue
        long = np.tile(sound, -(-WINDOW // len(sound)))
        start = int(rng.integers(len(long) - WINDOW + 1))
        window = long[start : start + WINDOW]
        if not is_quiet(window):
            return window
    raise InputError(f"{TRIES} windows in a row were silent or below 1 s; give sound of at least 1 s that can be heard")


def roughly(features: Tensor, rng: np.random.Generator) -> Tensor:
    """A random tilt of the spectrum (6 dB to either end), and a gap in frequency and one in time, for each window."""
    out, (_, frames, mels) = features.clone(), features.shape
    slope = torch.from_numpy(rng.uniform(-0.15, 0.15, (len(out), 1, 1)).astype(np.float32))
    out += slope * torch.linspace(-1, 1, mels)
    for row in out:
        low, first = int(rng.integers(mels)), int(rng.integers(frames))
        row[:, low : low + int(rng.integers(9))] = 0
        row[first : first + int(rng.integers(25))] = 0
    return out


def calibrated(net: DetectorNet, examples: Examples, facts: dict[str, Any] | None = None) -> Detector:
    """The net with the calibration of its windows and its files on held-out sounds, and how well it told them apart.

    Raises:
        InputError: a side is empty or quiet.
    """
    examples.check("a calibration")
    plain = Detector(net)
    found = {side: [plain.listen(sound) for sound in _long(getattr(examples, side))] for side in ("made", "coded")}
    windows = {
        side: [w.logit for each in heard for w in each.windows if w.logit is not None] for side, heard in found.items()
    }
    files = {side: [each.logit for each in heard if each.logit is not None] for side, heard in found.items()}
    by_window, by_file = _platt(windows), _platt(files)
    known = {
        "held_out_files": sum(map(len, files.values())),
        "held_out_accuracy": round(_accuracy(by_file, files), 4),
        "held_out_windows": sum(map(len, windows.values())),
        "held_out_window_accuracy": round(_accuracy(by_window, windows), 4),
    }
    return Detector(net, by_window, by_file, (facts or {}) | known)


def _long(sounds: Sequence[Array]) -> list[Array]:
    return [sound for sound in sounds if len(sound) >= LEAST]


def _platt(logits: dict[str, list[float]]) -> Platt:
    labels = [True] * len(logits["made"]) + [False] * len(logits["coded"])
    return fit_platt(logits["made"] + logits["coded"], labels)


def _accuracy(platt: Platt, logits: dict[str, list[float]]) -> float:
    """Mean over the two sides."""
    made = [platt.probability(value) > 0.5 for value in logits["made"]]
    real = [platt.probability(value) <= 0.5 for value in logits["coded"]]
    return float(np.mean(made) + np.mean(real)) / 2


def train(
    pairs: Iterable[Pair],
    *,
    strangers: Sequence[Array] = (),
    steps: int = 500,
    seed: int = 0,
    progress: Progress = quiet,
) -> Detector:
    """A calibrated detector from pairs; see :func:`audiolm.eval.sides.stored`.

    ``strangers`` are recordings of another kind (speech for a piano bundle): without them whatever is not of the
    bundle's kind may be called continued. They train among the recordings and calibrate nothing.

    Raises:
        InputError: too few sources or pairs, or nothing but silence.
    """
    fit, held = divide(pairs, seed)
    fit.raw += strangers
    progress(f"{len(fit.made)} continuations and {len(fit.coded)} recordings train; once more through MP3, Opus, rates")
    rough = [roughened(each, seed) for each in (fit, held)]
    both = [
        Examples(a.made + b.made, a.coded + b.coded, a.raw + b.raw) for a, b in zip((fit, held), rough, strict=True)
    ]
    net = learn(both[0], steps=steps, seed=seed, progress=progress)
    minutes = {key: round(value / 60, 1) for key, value in fit.seconds.items()}
    facts = {
        "minutes": minutes,
        "strangers": len(strangers),
        "steps": steps,
        "seed": seed,
        "parameters": sum(p.numel() for p in net.parameters()),
    }
    return calibrated(net, both[1], facts)
