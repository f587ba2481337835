#!/usr/bin/env python3
"""Make the shipped prompts in assets/: a short piano piece written here, and a sentence by a free synthesizer.

Needs Debian's `fluidsynth`, `fluid-soundfont-gm` and `flite`; the results are committed, so nobody else needs them.

    .venv/bin/python scripts/make_prompt.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import mido
import numpy as np
import soundfile
import soxr

RATE = 16_000
LEVEL_DB = -23.0
ASSETS = Path(__file__).resolve().parent.parent / "assets"
SOUNDFONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")

BEATS_PER_MINUTE = 76
TICKS_PER_BEAT = 480

# The piece, ours: six bars of a small romance in A minor, 3/4. Melody: (beat, length, key, velocity).
MELODY = [
    (0.0, 1.5, 76, 74), (1.5, 0.5, 74, 60), (2.0, 1.0, 72, 66),
    (3.0, 1.5, 71, 70), (4.5, 0.5, 72, 58), (5.0, 1.0, 74, 64),
    (6.0, 2.0, 72, 72), (8.0, 0.5, 69, 54), (8.5, 0.5, 71, 58),
    (9.0, 1.0, 72, 68), (10.0, 1.0, 76, 76), (11.0, 1.0, 81, 84),
    (12.0, 1.5, 79, 80), (13.5, 0.5, 77, 66), (14.0, 1.0, 76, 68),
    (15.0, 1.5, 77, 74), (16.5, 0.5, 74, 58), (17.0, 1.0, 71, 60),
]  # fmt: skip
# The left hand: a broken chord to each bar, bass first.
CHORDS = [
    (45, 52, 57, 60, 64), (44, 52, 56, 59, 64), (45, 52, 57, 60, 64),
    (41, 53, 57, 60, 65), (48, 52, 55, 60, 64), (50, 53, 57, 62, 65),
]  # fmt: skip
SENTENCE = "The tide came in slowly that evening, and the boats began to turn."


def piece() -> mido.MidiFile:
    """The piece as MIDI, with pedal, and with the small unevenness of a hand (fixed, not random)."""
    events: list[tuple[float, mido.Message]] = []
    for beat, length, key, velocity in MELODY:
        lean = 0.012 * ((key * 7 + int(beat * 2)) % 5 - 2)
        add_note(events, beat + lean, length * 1.02, key, velocity)
    for bar, chord in enumerate(CHORDS):
        add_bar(events, 3.0 * bar, chord)
    file = mido.MidiFile(ticks_per_beat=TICKS_PER_BEAT)
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(BEATS_PER_MINUTE))])
    now = 0
    for beat, message in sorted(events, key=lambda event: (event[0], event[1].type != "note_off")):
        at = max(now, round(beat * TICKS_PER_BEAT))
        track.append(message.copy(time=at - now))
        now = at
    file.tracks.append(track)
    return file


def add_bar(events: list[tuple[float, mido.Message]], start: float, chord: tuple[int, ...]) -> None:
    """One bar of the left hand: bass, then the chord broken upwards in quavers; pedal down after the bass."""
    order = (0, 1, 2, 3, 4, 2)
    for step, index in enumerate(order):
        add_note(events, start + step / 2, 0.9 if step else 2.5, chord[index], 52 if step == 0 else 38 + 2 * (step % 3))
    events.append((start + 0.06, mido.Message("control_change", control=64, value=110)))
    events.append((start + 2.94, mido.Message("control_change", control=64, value=0)))


def add_note(events: list[tuple[float, mido.Message]], beat: float, length: float, key: int, velocity: int) -> None:
    """Press and release one key."""
    start = max(0.0, beat + 0.05)
    events.append((start, mido.Message("note_on", note=key, velocity=velocity)))
    events.append((start + length, mido.Message("note_off", note=key)))


def play(file: mido.MidiFile, folder: Path) -> tuple[np.ndarray, int]:
    """The sound of the piece on the soundfont's grand piano."""
    midi, wave = folder / "piece.mid", folder / "piece.wav"
    file.save(midi)
    command = [
        "fluidsynth",
        "-n",
        "-i",
        "-q",
        "-C",
        "0",
        "-r",
        "48000",
        "-g",
        "0.6",
        "-F",
        str(wave),
        str(SOUNDFONT),
        str(midi),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return soundfile.read(wave, dtype="float32")


def speak(folder: Path) -> tuple[np.ndarray, int]:
    """The sentence by Flite's voice `slt`, made from CMU ARCTIC."""
    wave = folder / "speech.wav"
    subprocess.run(["flite", "-voice", "slt", "-t", SENTENCE, "-o", str(wave)], check=True)
    return soundfile.read(wave, dtype="float32")


def finished(sound: np.ndarray, rate: int, seconds: float) -> np.ndarray:
    """Mono, 16 kHz, cut to `seconds`, at the level of the training data."""
    mono = sound.mean(axis=1) if sound.ndim == 2 else sound
    mono = soxr.resample(mono, rate, RATE)
    first = int(np.flatnonzero(np.abs(mono) > 1e-3)[0])
    mono = mono[max(0, first - 800) :][: round(seconds * RATE)]
    mono *= 10 ** ((LEVEL_DB - active_db(mono)) / 20)
    return mono * min(1.0, 0.95 / float(np.abs(mono).max()))


def active_db(samples: np.ndarray) -> float:
    """Level of the parts within 40 dB of the loudest tenth of a second, in dBFS."""
    powers = np.square(samples[: len(samples) // 1600 * 1600].reshape(-1, 1600)).mean(axis=1)
    return float(10 * np.log10(powers[powers > powers.max() * 1e-4].mean()))


def main() -> int:
    """Write both prompts."""
    ASSETS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stem, (sound, rate), seconds in (
            ("prompt_piano", play(piece(), folder), 8.0),
            ("prompt_speech", speak(folder), 4.0),
        ):
            samples = finished(sound, rate, seconds)
            path = ASSETS / f"{stem}.flac"
            soundfile.write(path, samples, RATE, "PCM_16", compression_level=1.0)
            kilobytes = path.stat().st_size / 1000
            print(f"{path.name}: {len(samples) / RATE:.2f} s, {active_db(samples):.1f} dBFS active, {kilobytes:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
