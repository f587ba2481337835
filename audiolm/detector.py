"""Real or continued? A small convolutional detector of one bundle's continuations, and its file.

It hears windows of 2.5 s, one a second, and says how likely each is a continuation. It was shown recordings that went
through the bundle's codec beside the bundle's continuations (:mod:`audiolm.eval.detect`), so it has learnt what the
modelling leaves, not what the codec does. It knows this bundle and nothing of others: what it says is no proof.

The file is one of safetensors: weights in fp16, and in its metadata the calibration and where it was trained.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from audiolm.bundle import find
from audiolm.errors import BundleError, InputError
from audiolm.features import mel_filters

Sound = npt.NDArray[np.float32]
RATE = 16000
WINDOW, HOP = 40000, 16000  # samples: 2.5 s, a window a second
LEAST = 16000  # the shortest sound that is judged
QUIET_DB = -50.0
FORMAT = 1
FILE = "detector.safetensors"
WIDTHS = (24, 48, 64, 96, 96)
STRIDES = (2, 2, 2, 2, 1)


class DetectorNet(nn.Module):
    """``[B, samples] -> [B]`` logits: above 0 is continued. Any length from about 0.5 s.

    Log-mel frames of 10 ms, level taken out and everything 60 dB below the window's mean hidden, so that neither level
    nor the noise floor tells; then five convolutions and the mean over time.
    """

    window: Tensor
    filters: Tensor
    N_FFT, FRAME, MELS, FLOOR = 512, 160, 64, 1e-6

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(self.N_FFT), persistent=False)
        self.register_buffer("filters", mel_filters(self.N_FFT, self.MELS, RATE), persistent=False)
        layers: list[nn.Module] = []
        for before, width, stride in zip((1, *WIDTHS), WIDTHS, STRIDES, strict=False):
            layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.net = nn.Sequential(*layers)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(WIDTHS[-1] * self.MELS // math.prod(STRIDES), 1)

    def features(self, sound: Tensor) -> Tensor:
        """``[B, samples] -> [B, frames, mels]``, about unit range."""
        frames = sound.unfold(-1, self.N_FFT, self.FRAME) * self.window
        mel = torch.fft.rfft(frames).abs().square() @ self.filters
        level = mel.mean((1, 2), keepdim=True).clamp_min(1e-12)
        seen: Tensor = (mel / level + self.FLOOR).log10() / 2 + 1
        return seen

    def classify(self, features: Tensor) -> Tensor:
        """``[B, frames, mels] -> [B]``."""
        seen = self.net(features[:, None])
        return self.head(self.drop(seen.mean(2).flatten(1)))[:, 0]  # type: ignore[no-any-return]

    def forward(self, sound: Tensor) -> Tensor:
        """Logits of windows."""
        return self.classify(self.features(sound))


@dataclass(frozen=True)
class Platt:
    """Calibration (Platt 1999): ``p = 1 / (1 + exp(-(scale * logit + bias)))``."""

    scale: float = 1.0
    bias: float = 0.0

    def probability(self, logit: float) -> float:
        """That it is continued."""
        return 0.5 * (1 + math.tanh(0.5 * (self.scale * logit + self.bias)))


def fit_platt(logits: Sequence[float], labels: Sequence[bool]) -> Platt:
    """Scale and bias of the least log loss, by Newton's method; targets are drawn in a little, as Platt does.

    Raises:
        InputError: one of the two classes has no value.
    """
    x, y = np.asarray(logits, np.float64), np.asarray(labels, np.bool_)
    made, real = int(y.sum()), int((~y).sum())
    if not made or not real:
        raise InputError(f"calibration takes both sides; got {made} continuations and {real} recordings")
    target = np.where(y, (made + 1) / (made + 2), 1 / (real + 2))
    design, w = np.stack([x, np.ones_like(x)], 1), np.zeros(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(design @ w, -50, 50)))
        slope = design.T @ (p - target)
        curve = (design * (p * (1 - p))[:, None]).T @ design + 1e-6 * np.eye(2)
        step = np.linalg.solve(curve, slope)
        w -= step / max(1.0, float(np.abs(step).max()))  # a far step would overshoot where the curve is flat
    return Platt(float(w[0]), float(w[1]))


@dataclass(frozen=True)
class Judged:
    """A window.

    Attributes:
        start: its first sample.
        end: the sample after its last.
        logit: of the net; None where it was too quiet to tell.
        probability: that it is continued, calibrated; None as well.
    """

    start: int
    end: int
    logit: float | None
    probability: float | None


@dataclass(frozen=True)
class Verdict:
    """What is said of a whole sound; ``probability`` is None where every window was too quiet."""

    probability: float | None
    logit: float | None
    windows: list[Judged]


@dataclass
class WatchState:
    """What a stream has heard since the beginning of its next window, and where that is."""

    held: Sound = field(default_factory=lambda: np.zeros(0, np.float32))
    start: int = 0


class Detector:
    """The net with its calibration; shared by all streams, whose state is theirs.

    Args:
        net: trained.
        by_window: calibration of a window's logit.
        by_file: calibration of the mean logit of a sound of a few seconds.
        facts: of its training, as they go into the file.
    """

    def __init__(
        self,
        net: DetectorNet,
        by_window: Platt | None = None,
        by_file: Platt | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.net = net.eval()
        self.by_window, self.by_file = by_window or Platt(), by_file or Platt()
        self.facts = dict(facts or {})

    # -- listening --

    @torch.inference_mode()
    def logits(self, windows: Sound) -> list[float]:
        """Of windows of one length, ``[n, samples]``, each by itself: so it is the same whatever stands beside it."""
        return [float(self.net(torch.from_numpy(np.ascontiguousarray(row))[None])[0]) for row in windows]

    def init_state(self) -> WatchState:
        """A fresh stream."""
        return WatchState()

    def step(self, samples: Sound, state: WatchState) -> list[Judged]:
        """Take any number of samples, float32 at 16 kHz; returns the windows that are complete now, one a second.

        What is not a number is taken as 0.

        Raises:
            InputError: not one channel of float32.
        """
        if samples.ndim != 1 or samples.dtype != np.float32:
            raise InputError(f"a detector takes float32 [samples], {samples.dtype} {list(samples.shape)} came")
        state.held = np.concatenate([state.held, np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)])
        judged = []
        while len(state.held) >= WINDOW:
            judged.append(self._judge(state.held[:WINDOW], state.start))
            state.held, state.start = state.held[HOP:].copy(), state.start + HOP
        return judged

    def listen(self, sound: Sound) -> Verdict:
        """A whole sound of at least 1 s: its windows and the mean of their logits. Below 2.5 s it is one window.

        Raises:
            InputError: it is shorter, or not one channel of float32.
        """
        if len(sound) < LEAST:
            raise InputError(
                f"the sound has {len(sound) / RATE:.2f} s; a detector needs at least {LEAST / RATE:g} s",
                samples=len(sound),
            )
        state = self.init_state()
        windows = self.step(sound, state)
        return self.verdict(windows or [self._judge(state.held, 0)])

    def verdict(self, windows: Sequence[Judged]) -> Verdict:
        """Of windows that were judged."""
        logits = [each.logit for each in windows if each.logit is not None]
        if not logits:
            return Verdict(None, None, list(windows))
        mean = float(np.mean(logits))
        calibration = self.by_file if len(logits) > 1 else self.by_window
        return Verdict(calibration.probability(mean), mean, list(windows))

    def _judge(self, window: Sound, start: int) -> Judged:
        if is_quiet(window):
            return Judged(start, start + len(window), None, None)
        logit = self.logits(window[None])[0]
        return Judged(start, start + len(window), logit, self.by_window.probability(logit))

    # -- the file --

    def save(self, path: str | Path) -> Path:
        """Write the file.

        Raises:
            InputError: it cannot be written.
        """
        known = {
            "format": FORMAT,
            "by_window": asdict(self.by_window),
            "by_file": asdict(self.by_file),
            "facts": self.facts,
        }
        state = self.net.state_dict()
        small = {name: value.half() if value.dim() > 1 else value for name, value in state.items()}
        try:
            save_file(
                {name: value.contiguous() for name, value in small.items()}, path, {"detector": json.dumps(known)}
            )
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} cannot be written ({error}); check the folder", path=str(path)) from error
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read the file.

        Raises:
            BundleError: it is not there, damaged, or of another version.
        """
        try:
            with safe_open(path, "pt") as file:
                known = json.loads((file.metadata() or {})["detector"])
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except FileNotFoundError as error:
            raise BundleError(f"{path} is not there; make a detector with `audiolm train detector`") from error
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise BundleError(f"{path} is no detector's file ({error}); make it again") from error
        if known.get("format") != FORMAT:
            raise BundleError(f"{path} has format {known.get('format')!r}, this version reads {FORMAT}; train it again")
        net = DetectorNet()
        try:
            net.load_state_dict(
                {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
            )
            return cls(net, Platt(**known["by_window"]), Platt(**known["by_file"]), known["facts"])
        except (RuntimeError, KeyError, TypeError) as error:
            raise BundleError(f"{path} does not hold what a detector is made of ({error}); train it again") from error

    @classmethod
    def of(cls, bundle: str | Path) -> Self:
        """The detector that a bundle ships.

        Raises:
            BundleError: there is no such bundle, or it has none.
        """
        path = find(bundle) / FILE
        if not path.is_file():
            raise BundleError(
                f"the bundle {str(bundle)!r} has no {FILE}; make one with "
                f"`audiolm train detector {bundle} --data FOLDER=speech --out {path}`",
                bundle=str(bundle),
            )
        return cls.load(path)


def is_quiet(window: Sound) -> bool:
    """Whether there is too little sound to tell anything."""
    return float(np.mean(np.square(window, dtype=np.float64))) < 10 ** (QUIET_DB / 10)
