"""A small set of our own in the item format, spoken by espeak-ng, which says itself where each of its phones lies.

Words of three sounds that differ in one of them, between two words that never change, in several voices of one accent,
each sound at its own speed and pitch. The times are the synthesizer's own, so nothing is guessed; but its voices are
simple and clean, and say a word much the same way each time. So the figures check a model against itself and are not to
be put beside those of recorded speech.

The library is spoken to through ctypes: its program writes no times.
"""

import ctypes
import ctypes.util
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiolm.errors import InputError
from audiolm.eval.abx import Item, triphones
from audiolm.eval.items import write_items
from audiolm.eval.phones import SILENCE, Phone
from audiolm.eval.report import Progress, quiet

Array = np.ndarray[Any, Any]
VERSION = 1  # of the set; another one makes other figures
VOICES = ("en-us", "en-us+f2", "en-us+m3", "en-us+f4")
TAKES = 2
SPEEDS, PITCHES = (135, 175), (40, 62)  # words a minute; pitch of 0 to 99: from, and up to but without
ROWS = (
    "bat bet bit beat boot boat bait but",
    "pat pet pit peat cat kit coat cut",
    "mat met mitt meat moat mate might moot",
    "sat set sit seat suit site kite caught",
    "bad bed bid bead bide mad mid made",
    "sad said seed side man men moon mean",
    "pan pen pin pain pun main mine pawn",
    "tan ten tin teen town tune ton tone",
)
WORDS = tuple(word for row in ROWS for word in row.split())
AT_ONCE = 4  # words of a sound
NAME, DONE = "espeak", "done"
# What speak_lib.h of espeak-ng (API version 11) says.
SYNCHRONOUS, WITH_PHONEMES, DO_NOT_EXIT, UTF8 = 2, 1, 1 << 15, 1
SPEED, PITCH = 1, 3
LAST, PHONEME = 0, 7
LIBRARIES = ("libespeak-ng.so.1", "libespeak-ng.so", "libespeak-ng.dylib", "libespeak-ng.dll")


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


HEARD = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Utterance:
    """A sound, int16 ``[samples]`` at ``rate``, and its phones, pauses among them, in seconds."""

    sound: Array
    rate: int
    phones: tuple[Phone, ...]


class Synthesizer:
    """espeak-ng's library: text to sound with the times of its phones. Not for two threads at once.

    Raises:
        InputError: the library is not there or does not start.
    """

    def __init__(self) -> None:
        self._library = _library()
        # No buffer size, the library's own data, and an error instead of an exit.
        self.rate = int(self._library.espeak_Initialize(SYNCHRONOUS, 0, None, WITH_PHONEMES | DO_NOT_EXIT))
        if self.rate <= 0:
            raise InputError(f"espeak-ng does not start (error {self.rate}); install it again, with its data")

    def say(self, text: str, voice: str, speed: int = 150, pitch: int = 50) -> Utterance:
        """Speak a text.

        Raises:
            InputError: there is no such voice, or it says nothing.
        """
        library, sounds, marks = self._library, list[Array](), list[tuple[int, str]]()

        def hear(samples: Any, count: int, events: Any) -> int:
            if samples and count > 0:
                sounds.append(np.ctypeslib.as_array(samples, (count,)).copy())
            marks.extend(_marks(events))
            return 0

        if library.espeak_SetVoiceByName(voice.encode()):
            raise InputError(f"espeak-ng has no voice {voice}; `espeak-ng --voices=en` lists them", voice=voice)
        library.espeak_SetParameter(SPEED, speed, 0)
        library.espeak_SetParameter(PITCH, pitch, 0)
        callback, data = HEARD(hear), text.encode()
        library.espeak_SetSynthCallback(callback)
        failed = library.espeak_Synth(data, len(data) + 1, 0, 0, 0, UTF8, None, None) or library.espeak_Synchronize()
        library.espeak_SetSynthCallback(HEARD())
        if failed or not sounds or not marks:
            raise InputError(f"espeak-ng says nothing of {text!r} (error {failed}); give --data instead", text=text)
        sound = np.concatenate(sounds)
        return Utterance(sound, self.rate, tuple(_phones(marks, len(sound), self.rate)))


def _library() -> Any:
    names = [name for name in (ctypes.util.find_library("espeak-ng"), *LIBRARIES) if name]
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise InputError(
        "the spoken items are made by the library of espeak-ng, which is not installed; install it (apt install "
        "espeak-ng) or give --data with a folder of sounds and an item file"
    )


def _marks(events: Any) -> Iterator[tuple[int, str]]:
    """Where phones begin, in samples, and their names."""
    at = 0
    while events[at].type != LAST:
        if events[at].type == PHONEME:
            yield int(events[at].sample), events[at].id.string.decode("utf8", "replace")
        at += 1


def _phones(marks: Sequence[tuple[int, str]], samples: int, rate: int) -> Iterator[Phone]:
    ends = [start for start, _ in marks[1:]] + [samples]
    for (start, name), end in zip(marks, ends, strict=True):
        if end > start:
            yield Phone(SILENCE if not name or name.startswith("_") else name, start / rate, end / rate)


# -- the set --


def texts(turn: int = 0) -> list[str]:
    """What is said: a few words at once, each in its frame; ``turn`` changes which stand together."""
    count = len(WORDS) // AT_ONCE
    order = [WORDS[(i + turn * k) % count + k * count] for i in range(count) for k in range(AT_ONCE)]
    return [" ".join(f"Say {word} again." for word in order[i : i + AT_ONCE]) for i in range(0, len(order), AT_ONCE)]


def _sentences(voice: str, most: int | None) -> Iterator[tuple[str, str, int, int]]:
    """Name, text, speed and pitch of each sound of a voice.

    Speed and pitch are drawn anew for each: were they a take's, B could share with X what A never does.
    """
    for take in range(TAKES):
        rng = np.random.default_rng([take, *voice.encode()])
        for number, text in enumerate(texts(take)[:most]):
            name = f"{voice.replace('+', '-')}-{take}-{number:02d}"
            yield name, text, int(rng.integers(*SPEEDS)), int(rng.integers(*PITCHES))


def speak_items(
    folder: str | Path,
    voices: Sequence[str] = VOICES,
    *,
    most: int | None = None,
    progress: Progress = quiet,
    synthesizer: Callable[[], Synthesizer] = Synthesizer,
) -> Path:
    """Write ``phonetic/espeak``, sounds and ``espeak.item``, into ``folder``.

    Args:
        folder: is made where it is not there.
        voices: names as espeak-ng has them, variants behind a plus.
        most: texts a voice and take, if not all.
        progress: told what is done.
        synthesizer: what speaks.

    Raises:
        InputError: espeak-ng is not there or lacks a voice, or the folder cannot be written.
    """
    root, speaker, items = Path(folder), synthesizer(), list[Item]()
    place = root / "phonetic" / NAME
    progress(f"espeak-ng speaks {len(WORDS)} words in {len(voices)} voices, twice")
    try:
        place.mkdir(parents=True, exist_ok=True)
        for voice in voices:
            for name, text, speed, pitch in _sentences(voice, most):
                said = speaker.say(text, voice, speed, pitch)
                _write(place / f"{name}.wav", said)
                items += triphones({name: said.phones}, lambda _, voice=voice: voice)  # type: ignore[misc]
        write_items(place / f"{NAME}.item", items)
        (root / DONE).write_text(f"{VERSION}\n", encoding="utf8")
    except OSError as error:
        raise InputError(f"the spoken items cannot be written to {root} ({error.strerror})", path=str(root)) from error
    return root


def _write(path: Path, said: Utterance) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(said.rate)
        file.writeframes(said.sound.astype("<i2").tobytes())
