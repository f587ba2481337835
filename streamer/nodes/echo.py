"""What keeps the loudspeaker out of the microphone: WebRTC's canceller, and a gate that needs no library.

The speaker puts every block of 10 ms that it plays into the `EchoReference`; the microphone takes them out again and
cleans its own blocks with them. Sound is float32 at 16 kHz, full scale 1.0.

While the loudspeaker is silent, the microphone passes unchanged: the canceller alone would cut off all below 100 Hz.
Knows no devices and no turns.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from streamer.errors import ConfigError, InputError, unknown
from streamer.node import Build

Samples = npt.NDArray[np.float32]
Levels = npt.NDArray[np.float64]  # dB of full scale, one a band

BLOCK: Final = 160
KINDS: Final = ("auto", "cancel", "gate", "off")
DELAY: Final = 128  # samples by which WebRTC's canceller delays what it cleans
HINT_MS: Final = 60  # from the reference to its echo, as a first guess; the canceller finds out by itself
EDGES: Final = np.array([3, 6, 10, 16, 24, 36, 54, 80, 120, 160])  # of the bands, in bins of 50 Hz
BANDS: Final = len(EDGES) - 1
NOTHING: Final = -120.0
SOUNDS: Final = -75.0  # dB in a band from which on the loudspeaker sounds, and echo is expected
TELLS: Final = -55.0  # dB in a band from which on the loudspeaker tells how strong the coupling is
REACH: Final = 30  # blocks in which the echo of a block may come
RING_OUT: Final = 1.0  # dB a block by which a room's echo dies away: 60 dB in 0.6 s
MARGIN: Final = 8.0  # dB above the expected echo, and above the room's noise, that are someone's own sound
ENOUGH: Final = 12.0  # dB above that, added up over the bands (10 at most in each), that open the gate
IN_A_ROW: Final = 2  # blocks for which they must last
HOLD: Final = 15  # blocks for which the gate stays open afterwards
LEARNT: Final = 50  # blocks of playback, half a second, after which the coupling is corrected
KEPT: Final = 4  # such times that are remembered
SURE: Final = 20  # how many of them must sound in a band
UNKNOWN: Final = 6.0  # dB, the coupling before anything was measured: an echo louder than the reference
FAINTEST: Final = -78.0  # dB in a band; no echo or noise is expected below
FALL, RISE = 0.1, 0.01  # of the noise's level in a block: share of the way down, dB up (1 dB a second)


class EchoReference:
    """Blocks that the loudspeaker was given, on their way to the canceller. One writer, one reader, two threads.

    Args:
        capacity: blocks that may wait; 0.3 s by default. When nobody takes them, the oldest go.

    Attributes:
        dropped: blocks that went unread.
    """

    def __init__(self, capacity: int = 32) -> None:
        self._blocks: deque[Samples] = deque(maxlen=capacity)
        self._lock = threading.Lock()
        self.dropped = 0

    def push(self, block: Samples) -> None:
        """Add 10 ms, float32 `[160]`.

        Raises:
            InputError: another number of samples.
        """
        made = _checked(block)
        with self._lock:
            self.dropped += len(self._blocks) == self._blocks.maxlen
            self._blocks.append(made)

    def take(self) -> list[Samples]:
        """All that came since the last call, oldest first."""
        with self._lock:
            made = list(self._blocks)
            self._blocks.clear()
        return made


def reference(build: Build) -> EchoReference:
    """The reference that the speaker and the microphone of one graph share."""
    made: EchoReference = build.shared.setdefault("echo.reference", EchoReference())
    return made


class Canceller(Protocol):
    """Cleans the microphone's sound, block by block."""

    def process(self, block: Samples) -> Samples:
        """The block, float32 `[160]`, without what the loudspeaker put into it.

        Raises:
            InputError: another number of samples.
        """

    def close(self) -> None:
        """Release what it holds; what comes afterwards passes as it is."""


class Off:
    """Nothing is cleaned: for headphones."""

    def process(self, block: Samples) -> Samples:
        """The same block."""
        return _checked(block)

    def close(self) -> None:
        """Nothing to release."""


class _Bands:
    """Levels of the bands in the last 20 ms of a stream."""

    def __init__(self) -> None:
        self._past = np.zeros(2 * BLOCK)
        self._window = np.hanning(2 * BLOCK)
        self._scale = 1.0 / (BLOCK * float(np.sum(self._window**2)))  # so that noise adds up to its mean square

    def push(self, block: Samples) -> Levels:
        self._past = np.concatenate([self._past[BLOCK:], block])
        power = np.square(np.abs(np.fft.rfft(self._past * self._window))) * self._scale
        made: Levels = 10.0 * np.log10(np.add.reduceat(power[: EDGES[-1]], EDGES[:-1]) + 1e-12)
        return made


class _Playback:
    """What the loudspeaker plays, in the microphone's time: how loud an echo may be now, before the coupling.

    Attributes:
        recent: the loudest of each band within `REACH`.
        tail: the same, dying away as a room does.
    """

    def __init__(self) -> None:
        self._bands = _Bands()
        self._ring = np.full((REACH, BANDS), NOTHING)
        self._at = 0
        self.recent = self.tail = np.full(BANDS, NOTHING)

    def push(self, blocks: list[Samples]) -> None:
        """The blocks that came while the microphone gave one; there may be none or several."""
        levels = [self._bands.push(block) for block in blocks]
        self._ring[self._at] = np.max(levels, axis=0) if levels else NOTHING
        self._at = (self._at + 1) % REACH
        self.recent = self._ring.max(axis=0)
        self.tail = np.maximum(self.recent, self.tail - RING_OUT)

    @property
    def sounds(self) -> bool:
        """Whether an echo may be heard now."""
        return bool(self.tail.max() > SOUNDS)


class _Gate:
    """Tells someone's own sound from the echo, by how much is expected of it in each band.

    Each half second the coupling goes towards the loudest echo of the last two seconds: up at once as long as nobody
    seems to speak, down slowly.
    """

    def __init__(self) -> None:
        self.coupling = np.full(BANDS, UNKNOWN)
        self.noise = np.full(BANDS, FAINTEST)
        self._bands = _Bands()
        self._run = self._open = 0
        self._kept: deque[Levels] = deque(maxlen=KEPT)
        self._forget()

    def _forget(self) -> None:
        self._worst, self._seen = np.full(BANDS, NOTHING), np.zeros(BANDS, dtype=np.int64)
        self._blocks, self._spoken = 0, False

    def passes(self, block: Samples, playback: _Playback) -> bool:
        """Whether this block holds more than echo."""
        levels = self._bands.push(block)
        self.noise = np.maximum(FAINTEST, self.noise + np.minimum(RISE, FALL * (levels - self.noise)))
        if not playback.sounds:
            self._run = self._open = 0
            return True
        expected = np.maximum(self.coupling + playback.tail, self.noise) + MARGIN
        above = float(np.clip(levels - expected, 0.0, 10.0).sum())
        self._run = self._run + 1 if above >= ENOUGH else 0
        self._open = HOLD if self._run >= IN_A_ROW else max(0, self._open - 1)
        self._learn(levels, playback)
        return self._open > 0

    def _learn(self, levels: Levels, playback: _Playback) -> None:
        sounding = playback.recent > TELLS
        self._worst = np.where(sounding, np.maximum(self._worst, levels - playback.recent), self._worst)
        self._seen += sounding
        self._blocks, self._spoken = self._blocks + 1, self._spoken or self._open > 0
        if self._blocks < LEARNT:
            return
        seen = np.where(self._seen >= SURE, self._worst, NOTHING)
        self._kept.append(np.minimum(seen, self.coupling + (1.0 if self._spoken else 6.0)))
        worst = np.max(self._kept, axis=0)
        error = np.where(worst > NOTHING, worst - self.coupling, 0.0)
        self.coupling = self.coupling + np.where(error > 0, error, 0.3 * error)
        self._forget()


class _Fader:
    """A gain that moves within one block, so that nothing clicks."""

    def __init__(self, gain: float) -> None:
        self._gain = gain

    def push(self, gain: float) -> Samples:
        """The gains of one block, `[160]`, towards `gain`."""
        made = np.linspace(self._gain, gain, BLOCK + 1, dtype=np.float32)[1:]
        self._gain = gain
        return made


class EchoGate:
    """Silences the microphone while the loudspeaker sounds, except for what is louder than the echo can be.

    Needs numpy only. It lets nothing of the echo through, but nobody can be heard who is softer than it.
    """

    def __init__(self, reference: EchoReference) -> None:
        self._reference, self._playback, self._gate, self._fader = reference, _Playback(), _Gate(), _Fader(1.0)

    def process(self, block: Samples) -> Samples:
        """The block, or silence."""
        safe = _checked(block)
        self._playback.push(self._reference.take())
        made: Samples = safe * self._fader.push(float(self._gate.passes(safe, self._playback)))
        return made

    def close(self) -> None:
        """Nothing to release."""


class EchoCanceller:
    """WebRTC's echo canceller (AEC3) through livekit; no noise suppression, no gain control.

    It delays by `DELAY` samples (8 ms), also while the loudspeaker is silent and the sound passes as it is.

    Args:
        reference: what is played.
        gated: silence what is left of the echo; without, it stays about 30 dB below and the microphone is never cut
            off, which is what someone wants who plays along.

    Raises:
        ConfigError: livekit is not installed.
    """

    def __init__(self, reference: EchoReference, *, gated: bool = True) -> None:
        self._reference, self._playback = reference, _Playback()
        self._gate = _Gate() if gated else None
        self._cleaned, self._passed = _Fader(0.0), _Fader(1.0)
        self._late = np.zeros(DELAY, dtype=np.float32)
        self._module: Any
        self._module, self._frame = _webrtc()
        self._module.set_stream_delay_ms(HINT_MS)

    def process(self, block: Samples) -> Samples:
        """The block without echo, `DELAY` samples late."""
        safe, played = _checked(block), self._reference.take()
        joined = np.concatenate([self._late, safe])
        raw, self._late = joined[:BLOCK], joined[BLOCK:]
        if self._module is None:
            return raw
        for each in played:
            self._module.process_reverse_stream(self._packed(each))
        frame = self._packed(safe)
        self._module.process_stream(frame)
        clean = np.frombuffer(frame.data, dtype=np.int16).astype(np.float32) / 32_767.0
        return self._chosen(raw, clean, played)

    def _chosen(self, raw: Samples, clean: Samples, played: list[Samples]) -> Samples:
        """The microphone's own sound while nothing is played, else the cleaned one or silence."""
        self._playback.push(played)
        sounds = self._playback.sounds
        passes = self._gate.passes(clean, self._playback) if self._gate else True
        own, cleaned = self._passed.push(float(not sounds)), self._cleaned.push(float(sounds and passes))
        made: Samples = raw * own + clean * cleaned
        return made

    def _packed(self, block: Samples) -> Any:
        data = bytearray(np.round(np.clip(block, -1.0, 1.0) * 32_767.0).astype(np.int16).tobytes())
        return self._frame(data, 16_000, 1, BLOCK)

    def close(self) -> None:
        """Free the module."""
        self._module = None


def _webrtc() -> tuple[Any, Any]:
    """The processing module, and the class of its frames."""
    try:
        from livekit.rtc import AudioFrame, AudioProcessingModule

        return AudioProcessingModule(echo_cancellation=True), AudioFrame
    except ImportError as error:
        remedy = 'pip install "audiolm-streamer[aec]", or choose `echo: gate` or, with headphones, `echo: off`'
        raise ConfigError(f"`echo: cancel` needs livekit, which cannot be imported ({error}); {remedy}") from error


def make_canceller(kind: str, reference: EchoReference) -> Canceller:
    """What cleans the microphone.

    Args:
        kind: `auto`: canceller and gate, or the gate alone where livekit is not installed (it is logged which);
            `cancel`: the canceller alone; `gate`: the gate alone; `off`: nothing.
        reference: what is played.

    Raises:
        ConfigError: an unknown kind, or `cancel` without livekit.
    """
    if kind == "off":
        return Off()
    if kind == "gate":
        return EchoGate(reference)
    if kind == "cancel":
        return EchoCanceller(reference, gated=False)
    if kind == "auto":
        return _best(reference)
    raise ConfigError(unknown("kind of echo cancelling", kind, KINDS))


def _best(reference: EchoReference) -> Canceller:
    from streamer.nodes.feed import logger

    try:
        made = EchoCanceller(reference)
    except ConfigError:
        logger().warning("echo", kind="gate", better='pip install "audiolm-streamer[aec]"')
        return EchoGate(reference)
    logger().info("echo", kind="cancel and gate")
    return made


def _checked(block: Samples) -> Samples:
    """The block as finite float32 `[160]`."""
    if block.shape != (BLOCK,):
        raise InputError(f"echo is cancelled in blocks of {BLOCK} samples at 16 kHz, {list(block.shape)} came")
    made: Samples = np.nan_to_num(np.asarray(block, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return made
