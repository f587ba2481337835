"""What plugins may ask of this package beside the contract of a node: detectors, sound files, MQTT, clean samples.

Each helper finds what is heavy by name when it is called, so this module knows no model, no file format and no broker.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from streamer.errors import InputError
from streamer.frame import SAMPLE_RATE, Frame
from streamer.metrics import Metrics
from streamer.node import Build, SessionInfo
from streamer.registry import load_attribute

if TYPE_CHECKING:
    from streamer.nodes.detect import Detector

__all__ = ["SoundFile", "make_detector", "mqtt_messages", "settings_of", "sound_file", "sound_of"]

_INT16: Final = np.float32(1 / 32768)


def sound_of(frame: Frame, name: str, metrics: Metrics | None = None) -> NDArray[np.float32]:
    """The samples of an audio frame, float32 `[n]` at 16 kHz and finite, as a node can work on them.

    Args:
        frame: an audio frame, `f4` or `i2`.
        name: the node that takes it, for messages and counters.
        metrics: where samples that are not finite are counted, as `NAME.not_finite`; they become 0.

    Raises:
        InputError: sound at another rate.
    """
    if frame.rate != SAMPLE_RATE:
        raise InputError(f"node {name!r} takes sound at {SAMPLE_RATE} Hz, {frame.rate} Hz came; resample it before")
    sound: NDArray[np.float32] = frame.array.astype(np.float32) * (_INT16 if frame.dtype == "i2" else np.float32(1))
    bad = ~np.isfinite(sound)
    if bad.any():
        sound[bad] = 0
        if metrics is not None:
            metrics.count(f"{name}.not_finite", int(bad.sum()))
    return sound


def make_detector(kind: str, **settings: float) -> Detector:
    """A detector of `speech` or `music`, which says of one tick (640 samples) after another whether someone is active.

    `init_state()` makes the state of a stream; `step(tick, state)` answers with `active`, `level_db`, `score` and
    `onset`; `save(state)` and `load(saved)` carry the state on. The detector itself is shared by all sessions.

    Args:
        kind: `speech` (silero-vad) or `music` (numpy only).
        settings: other values than the defaults, for instance `on=0.6`.

    Raises:
        ConfigError: an unknown kind or setting, or a library that is not installed; it says which to install.
    """
    make = cast("Callable[..., Detector]", load_attribute("streamer.nodes.detect:make_detector"))
    return make(kind, **settings)


def settings_of(ctx: SessionInfo, build: Build) -> dict[str, Any]:
    """What repeats the sound of a session (bundle, mode, seed ...), as sound files carry it: no paths, no times."""
    find = cast("Callable[[SessionInfo, Build], dict[str, Any]]", load_attribute("streamer.nodes.files:settings_of"))
    return find(ctx, build)


class SoundFile:
    """A sound file that is being written; made by `sound_file`. It has its name once `finish` is called.

    Attributes:
        path: where it will be.
        generated: whether it carries the mark of generated sound.
    """

    def __init__(self, writer: Any, *, generated: bool) -> None:
        self._writer = writer
        self.path = Path(writer.path)
        self.generated = generated

    @property
    def samples(self) -> int:
        """How many samples were written."""
        return int(self._writer.samples)

    def write(self, samples: NDArray[Any]) -> None:
        """Add samples, float or int16 `[n]`. Blocks on the disk: call it in a thread.

        Raises:
            InputError: it was finished before, or the disk is full.
        """
        with _as_ours():
            self._writer.write(samples)

    def finish(self) -> Path:
        """Complete the file; the second call does nothing.

        Raises:
            InputError: the disk is full, or somebody has removed what was being written.
        """
        try:
            with _as_ours():
                return Path(self._writer.finish())
        except OSError as error:
            raise InputError(f"cannot complete {self.path}: {error.strerror or error}") from error

    def abort(self) -> None:
        """Leave nothing; after `finish` it does nothing."""
        self._writer.abort()


def sound_file(
    path: str | Path,
    settings: Mapping[str, str | int | float | bool | None] | None = None,
    *,
    rate: int = SAMPLE_RATE,
    generated: bool = True,
) -> SoundFile:
    """A new mono sound file; until it is finished it is hidden, as `.NAME.xxxxxxxx.part` beside its place.

    The mark stands in the file from its first byte on, so that one that is cut off by a crash has it, too.

    Args:
        path: .wav, .flac (16 bit), .ogg or .opus; the folder must exist. A file of that name is replaced at the end.
        settings: what repeats the sound, see `settings_of`.
        rate: of the samples, in Hz.
        generated: it holds sound that the model made, and says so in its metadata, as those of `file_out` do. A file
            without the mark must hold nothing that is generated.

    Raises:
        InputError: an unknown suffix, no such folder, or not writable.
    """
    make = cast("Callable[..., Any]", load_attribute("audiolm.io:AudioWriter"))
    with _as_ours():
        return SoundFile(make(path, settings, rate=rate, generated=generated), generated=generated)


def mqtt_messages(build: Build, topic_filter: str) -> AsyncIterator[tuple[str, bytes]]:
    """The messages of the config's broker that fit a filter, as `(topic, payload)`, for as long as they are asked for.

    It connects again by itself. Where the caller is slow, the oldest of 256 go. For use in a `Source`; close the
    iterator (`aclose`) when done.

    Args:
        build: of the node that listens; it knows the broker.
        topic_filter: an MQTT filter, for instance `house/+/light`.

    Raises:
        ConfigError: the config has no broker, or the filter is none.
        InputError: the broker refuses us, or the filter.
    """
    listen = load_attribute("streamer.nodes.mqtt.exchange:messages")
    return cast("Callable[[Build, str], AsyncIterator[tuple[str, bytes]]]", listen)(build, topic_filter)


def _as_ours() -> AbstractContextManager[None]:
    """Errors of the sound library as the graph's own."""
    return cast("Callable[[], AbstractContextManager[None]]", load_attribute("streamer.nodes.feed:says_it_as_ours"))()
