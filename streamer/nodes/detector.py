"""`detector`: watches the sound that passes and says once a second how likely it is a continuation of its bundle.

It stands in a line and changes nothing of it. How it hears is :mod:`audiolm.detector`; what it says is no proof.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from audiolm.detector import Detector, Judged, WatchState
from audiolm.engine import prepare_thread
from audiolm.errors import AudioLMError
from audiolm.ticks import SAMPLE_RATE, as_samples
from streamer.errors import ConfigError, InputError
from streamer.frame import AUDIO, CONTROL, Frame
from streamer.node import Build, Node, Saved, SessionInfo
from streamer.nodes.model import ModelSettings, bundle_of

__all__ = ["DetectorNode"]


@dataclass
class Watched:
    """One session: what the detector holds, the position of the next sample, and how often it spoke."""

    info: SessionInfo
    watch: WatchState
    at: int = 0
    seq: int = 0


class DetectorNode(Node):
    """Passes sound on as it is. Each second of it: a control frame `detected` and two gauges.

    The frame has the `position` of the window's end and in its metadata `command` (`detected`), `probability` (of
    being continued, 0 to 1; -1 for a window too quiet to tell) and `seconds` (of the window). The gauges are
    `NAME.probability` and `NAME.continued`. Windows are of 2.5 s; a gap in the sound begins a new one.
    """

    type_name = "detector"
    accepts = (AUDIO,)
    emits = (AUDIO, CONTROL)
    Config = ModelSettings
    config: ModelSettings

    def __init__(self, config: ModelSettings, build: Build) -> None:
        """Load the bundle's detector, or find it loaded.

        Raises:
            ConfigError: no bundle is named, or it has no detector.
        """
        super().__init__(config, build)
        name = bundle_of(config, build)
        loaded: dict[str, Detector] = build.shared.setdefault("detectors", {})
        if name not in loaded:
            prepare_thread()
            try:
                loaded[name] = Detector.of(name)
            except AudioLMError as error:
                raise ConfigError(f"node {self.name!r}: {error}") from error
        self.detector = loaded[name]

    def init_state(self, info: SessionInfo) -> Watched:
        """A fresh stream."""
        return Watched(info, self.detector.init_state())

    def step(self, frame: Frame, state: Watched, input: str) -> Iterable[Frame]:  # noqa: A002
        """The frame itself, and what is said of the windows that it completes.

        Raises:
            InputError: sound at another rate.
        """
        _ = input
        yield frame
        if frame.payload:
            yield from self._said(frame, state)

    def _said(self, frame: Frame, state: Watched) -> Iterator[Frame]:
        if frame.rate != SAMPLE_RATE:
            message = f"node {self.name!r} takes sound at {SAMPLE_RATE} Hz, {frame.rate} Hz came"
            raise InputError(message + "; resample it at the source")
        if frame.position != state.at:  # a gap, or the first: what was before is of another place
            state.watch = self.detector.init_state()
            state.watch.start = frame.position
        state.at = frame.position + len(frame.array)
        for judged in self.detector.step(as_samples(frame.array), state.watch):
            yield self._say(judged, frame, state)

    def _say(self, judged: Judged, frame: Frame, state: Watched) -> Frame:
        p = -1.0 if judged.probability is None else round(judged.probability, 4)
        state.info.metrics.gauge(f"{self.name}.probability", p)
        state.info.metrics.gauge(f"{self.name}.continued", p > 0.5)
        seconds = (judged.end - judged.start) / SAMPLE_RATE
        meta: dict[str, str | int | float | bool | None] = {"command": "detected", "probability": p, "seconds": seconds}
        made = Frame.of(CONTROL, None, position=judged.end, like=frame, seq=state.seq, meta=meta)
        state.seq += 1
        return made

    def save(self, state: Watched) -> Saved:
        """What is held of the window to come, and the counters."""
        return {"held": state.watch.held.copy(), "start": state.watch.start, "at": state.at, "seq": state.seq}

    def load(self, saved: Saved, info: SessionInfo) -> Watched:
        """The state again."""
        watch = WatchState(np.asarray(saved["held"], np.float32), int(saved["start"]))
        return Watched(info, watch, int(saved["at"]), int(saved["seq"]))
