"""The thread between the jitter buffer and a device: moves 10 ms at a time and keeps the device's ring filled.

Knows no frames, no sessions and no event loop: what happens it says to whoever listens, in its own thread. Everything
waits for it, it waits for nobody: a device that is away has its sound discarded at the pace of the clock.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from streamer.frame import SAMPLE_RATE
from streamer.nodes.drift import DriftResampler, LevelControl
from streamer.nodes.jitter import JitterBuffer, Samples
from streamer.nodes.ring import Ring

__all__ = ["BLOCK", "KEEP", "Device", "Note", "Pump"]

BLOCK: Final = SAMPLE_RATE // 100  # samples that are moved at once: 10 ms
KEEP: Final = 0.02  # seconds kept in the device's ring: one block is being taken, one is there
PAUSE: Final = 0.004  # seconds between two looks at the ring
SAY: Final = 0.1  # seconds between two notes when nothing happens
LATE: Final = 0.5  # seconds behind the clock after which discarding begins anew
LAST: Final = 0.25  # seconds that the last fade may take
RAMP: Final = 0.1  # most that the gain moves within a block: from silence to full in 100 ms, without a click
LEAST: Final = 0.05  # seconds that wait at least on average: the ring, and half of the saw-tooth of a tick
SWITCH: Final = 0.001  # seconds a thread busy with Python may hold up this one; the usual 5 ms double its pauses
SILENCE_DB: Final = -100.0


class Device(Protocol):
    """What it needs of `streamer.nodes.host.Playout`."""

    ring: Ring
    rate: int
    channels: int
    latency: float
    connected: bool
    expecting: bool
    underruns: int


@dataclass(frozen=True, slots=True)
class Note:
    """What is true now.

    Attributes:
        waits: seconds in the buffer and in the ring.
        level_db: of the last 40 ms that were handed on, in dBFS, at least -100.
        ppm: how much faster the maker's clock is than the device's, as learnt so far.
        underruns: times that nothing came in time. late: times that this thread did not fill the ring in time.
        concealed: samples made up where nothing came in time.
        lost: samples skipped because too much waited, or discarded because the device was away.
        began, silent: instants of `time.perf_counter` at which sound begins or has ended at the device; None: did not.
    """

    waits: float
    level_db: float
    ppm: float
    underruns: int
    late: int
    concealed: int
    lost: int
    began: float | None = None
    silent: float | None = None


class Pump:
    """Moves sound from `buffer` to `device` until it is closed.

    Attributes:
        lock: held round every call of the buffer.
        gain: factor of the volume; what is played follows a change by at most `RAMP` a block.
        listener: is given a `Note` ten times a second, when sound begins or ends, and at once after `wanted` was set.
        wanted: somebody waits for the buffer to move.
        ended: the end of the thread; holds the error that ended it, if one did.
    """

    def __init__(
        self,
        buffer: JitterBuffer,
        device: Device,
        *,
        gain: float,
        steer: bool,
        given: Callable[[Samples], None],
        keep: float = 0.0,
    ) -> None:
        """Made but not started.

        Args:
            buffer: where sound comes from.
            device: where it goes.
            gain: factor of the volume.
            steer: whether the maker has a clock of its own, so that the rate has to follow it.
            given: is called with each block of `BLOCK` samples at 16 kHz that is handed to the device.
            keep: seconds that are to wait on average, where the rate follows; at least what a turn waits for.
        """
        self.buffer, self.device, self.gain, self.given = buffer, device, gain, given
        self._gain = gain
        self.lock = threading.Lock()
        self.listener: Callable[[Note], None] | None = None
        self.wanted = False
        self.ended: Future[None] = Future()
        self._control = LevelControl(max(LEAST, keep, buffer.prime / SAMPLE_RATE)) if steer else None
        self._resampler = DriftResampler(SAMPLE_RATE, device.rate)
        self._power: deque[float] = deque([0.0] * 4, 4)
        self._discarded = self._late = 0
        self._due = self._said = time.perf_counter()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, name: str) -> None:
        """Begin; does nothing the second time. From now on the threads of this process take turns at `SWITCH`."""
        if self._thread is None:
            sys.setswitchinterval(min(SWITCH, sys.getswitchinterval()))
            self._thread = threading.Thread(target=self._run, name=name)
            self._thread.start()

    def restart(self) -> None:
        """Begin a new stream: what waits fades, and all counters begin again."""
        with self.lock:
            self.buffer.restart()
            self._discarded, self._late = 0, self.device.underruns

    def close(self) -> None:
        """Fade out, let the device play that, and end the thread."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def note(self, began: float | None = None, silent: float | None = None) -> Note:
        """What is true now; from any thread."""
        power = sum(self._power) / len(self._power)
        return Note(
            waits=self._waits(), level_db=max(SILENCE_DB, 10 * float(np.log10(power))) if power > 0 else SILENCE_DB,
            ppm=0.0 if self._control is None else self._control.clock_ppm,
            underruns=self.buffer.underruns, late=self.device.underruns - self._late,
            concealed=self.buffer.concealed, lost=self.buffer.lost + self._discarded, began=began, silent=silent,
        )  # fmt: skip

    # -- its thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing.wait(PAUSE):
                self._turn()
            self._fade()
            self.ended.set_result(None)
        except Exception as error:  # noqa: BLE001 - whoever plays raises it
            self.ended.set_exception(error)
            self._say(time.perf_counter())
        finally:
            self.device.expecting = False

    def _fade(self) -> None:
        """Let the device play a fade and what was handed to it before."""
        end = time.perf_counter() + LAST
        with self.lock:
            self.buffer.drop()
        while self.buffer.sounding and time.perf_counter() < end:
            self._turn()
            time.sleep(PAUSE)
        self.device.expecting = False
        while self.device.connected and self.device.ring.level and time.perf_counter() < end:
            time.sleep(PAUSE)

    def _turn(self) -> None:
        """Fill the ring, or let the time pass."""
        now = time.perf_counter()
        if self.device.connected:
            self._due = now
            while self.device.ring.level < KEEP * self.device.rate:
                self._move(now)
            self.device.expecting = self.buffer.playing
        else:
            self._due = max(self._due, now - LATE)
            while self._due <= now:
                self._discard()
                self._due += BLOCK / SAMPLE_RATE
        if now - self._said >= SAY:
            self._say(now)

    def _move(self, now: float) -> None:
        """Hand 10 ms to the device."""
        buffer, ring = self.buffer, self.device.ring
        with self.lock:
            was, begun, start = buffer.sounding, buffer.begun, buffer.taken
            block = np.clip(self._gains() * buffer.take(BLOCK), -1, 1)
            offset = (buffer.begun_at - start) / SAMPLE_RATE if buffer.begun > begun else None
            ends, flows = was and not buffer.sounding, buffer.playing
        self.given(block)
        self._power.append(float(np.mean(np.square(block))))
        at = now + ring.level / self.device.rate + self.device.latency + self._resampler.held
        sound = self._resampler.push(block, self._steer(flows=flows))
        ring.push(np.repeat(sound[:, None], self.device.channels, axis=1))
        if offset is not None or ends or self.wanted:
            self.wanted = False
            self._say(now, None if offset is None else at + offset, at + BLOCK / SAMPLE_RATE if ends else None)

    def _gains(self) -> np.float32 | Samples:
        """The gain of a block: one number, or a straight line to where it is now going."""
        before, target = self._gain, self.gain
        if before == target:
            return np.float32(target)
        self._gain = min(max(target, before - RAMP), before + RAMP)
        line: Samples = np.linspace(before, self._gain, BLOCK + 1, dtype=np.float32)[1:]
        return line

    def _steer(self, *, flows: bool) -> float:
        """The correction of the rate in ppm."""
        if self._control is None:
            return 0.0
        if not flows:
            return self._control.rest()
        on_its_way = BLOCK / SAMPLE_RATE  # taken from the buffer, and not in the ring yet
        return self._control.update(self._waits() + on_its_way, BLOCK / SAMPLE_RATE)

    def _discard(self) -> None:
        """Let 10 ms pass without a device."""
        with self.lock:
            before = self.buffer.played
            self.buffer.take(BLOCK)
            self._discarded += self.buffer.played - before
        self._power.append(0.0)
        if self.wanted:
            self.wanted = False
            self._say(time.perf_counter())

    def _waits(self) -> float:
        return self.buffer.level / SAMPLE_RATE + self.device.ring.level / self.device.rate

    def _say(self, now: float, began: float | None = None, silent: float | None = None) -> None:
        self._said = now
        listener = self.listener
        if listener is not None:
            listener(self.note(began, silent))
