"""Helpers of the page's tests: Chromium, waiting, what was played, and a tune that is found again in a recording."""

import base64
import contextlib
import shutil
import time

import numpy as np
import pytest

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="the page is tested with playwright: pip install playwright"
)

CHROMIUM = shutil.which("chromium")
RATE = 16_000
LEAD, PHRASE, REST = 1.5, 2.0, 4.0  # seconds of silence, of the phrase and of silence again; then it begins anew
PIECE = RATE // 5
ALIKE = 0.8  # correlation of a piece that has come through (0.9 and more); the same note elsewhere in it has up to 0.7
MOST = 0.6  # of its pieces
LONGEST = 40  # seconds that anything may take
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SOUNDING = ["--autoplay-policy=no-user-gesture-required"]
REJECT = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', '%s'); };"
FAKE = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]


def phrase(seconds=PHRASE):
    """A little tune without silence, float [n] at 16 kHz: it correlates with itself alone."""
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = 300 * 2 ** (np.floor(time * 6) % 7 / 6)
    noise = 0.1 * np.random.default_rng(4).standard_normal(len(time))
    return 0.3 * np.sin(2 * np.pi * np.cumsum(pitch) / RATE) * (0.6 + 0.4 * np.sin(9 * time)) + noise


def likeness(sound, wanted):
    """The normalised correlation of `wanted` with each part of `sound`, float [n]."""
    size = 1 << int(np.ceil(np.log2(len(sound) + len(wanted))))
    cross = np.fft.irfft(np.fft.rfft(sound, size) * np.conj(np.fft.rfft(wanted, size)), size)
    energy = np.concatenate([[0], np.cumsum(np.square(sound, dtype=np.float64))])
    norm = np.sqrt(np.maximum(energy[len(wanted) :] - energy[: -len(wanted)], 1e-3)) * np.linalg.norm(wanted)
    return cross[: len(norm)] / norm


def places(sound, wanted=None):
    """Where the phrase is in a sound, in seconds: most of its pieces, in their order.

    A machine that is busy with something else makes gaps; they cost the pieces in which they fall, and no more.
    """
    wanted = phrase() if wanted is None else wanted
    if len(sound) < len(wanted):
        return []
    pieces = [wanted[at : at + PIECE] for at in range(0, len(wanted) - PIECE + 1, PIECE)]
    alike = [likeness(sound, piece) for piece in pieces]
    made = []
    for start in range(0, len(sound) - len(wanted) + 1, RATE // 4):
        best = [each[start : start + len(wanted) + RATE // 2] for each in alike]
        at = [start + int(np.argmax(each)) for each in best if each.max(initial=0) > ALIKE]
        if len(at) >= MOST * len(pieces) and at == sorted(at) and (not made or at[0] / RATE > made[-1] + 1):
            made.append(at[0] / RATE)
    return made


@contextlib.contextmanager
def chromium():
    """`launch(*flags)`, for as many browsers as wanted; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright, contextlib.ExitStack() as opened:

        def launch(*flags):
            made = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=[*QUIET, *flags])
            opened.callback(made.close)
            return made

        yield launch


def wait_until(page, condition, every=40):
    """Wait until something holds on this side, looked at `every` so many milliseconds; the page goes on meanwhile."""
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        if condition():
            return
        page.wait_for_timeout(every)
    raise AssertionError(
        f"it never came to that; the page says {page.inner_text('.says')!r} {page.inner_text('#problem')!r}"
    )


def wait_for(page, condition):
    """Wait until a JavaScript expression holds. Playwright's own wait would need what the page's policy forbids."""
    wait_until(page, lambda: page.evaluate(condition))


def wait_for_state(page, *names):
    wait_for(page, f"{list(names)!r}.includes(window.streamer.state)")


def played(page, seconds=20):
    """What the page has played last, float [n]."""
    text = page.evaluate(
        """seconds => {
            const bytes = new Uint8Array(window.streamer.played(seconds).buffer);
            let text = '';
            for (let at = 0; at < bytes.length; at += 8192)
                text += String.fromCharCode(...bytes.subarray(at, at + 8192));
            return btoa(text);
        }""",
        seconds,
    )
    return np.frombuffer(base64.b64decode(text), "<f4")
