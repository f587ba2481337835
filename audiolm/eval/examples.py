"""The sounds that a report plays: a few prompts and what follows each by every hand, as small Ogg/Opus files.

Generated sounds say so in their file and carry the watermark, as everything that leaves the model does. Knows nothing
of the page.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiolm.errors import InputError
from audiolm.eval.continuation import BARE, MODEL, Continued
from audiolm.eval.opus import level_of
from audiolm.ogg import fix_serial
from audiolm.sound_out import MARK
from audiolm.train.data import RATE, TICK
from audiolm.train.shards import Array
from audiolm.watermark import Marker

FOLDER = "sounds"
BIT_RATE = 16_000
PEAK = 0.99


def versions_of(each: Continued) -> list[tuple[str, Array, bool]]:
    """A prompt and what follows it, by each hand that there is: name, float32 at 16 kHz, whether it was generated."""
    start = each.prompt.sound
    real = [("recording", np.concatenate((start, each.prompt.truth)), False), ("through the codec", each.coded, False)]
    made = [name for name in (MODEL, BARE) if name in each.sounds]
    return real + [(name, np.concatenate((start, marked(start, each.sounds[name]))), True) for name in made]


def marked(prompt: Array, sound: Array) -> Array:
    """What follows a prompt with the watermark that measures do without: these sounds are given away."""
    marker = Marker()
    for tick in prompt.reshape(-1, TICK):
        marker.hear(tick)
    return np.concatenate([marker.mark(tick) for tick in sound.astype(np.float32).reshape(-1, TICK)])


def write_sounds(rows: Sequence[tuple[str, Continued]], out: Path) -> list[dict[str, Any]]:
    """Write ``out/sounds/*.opus`` and say of each file what it is: ``{"file", "of", "what", "generated"}``.

    Raises:
        InputError: the folder cannot be written, or this libsndfile has no Opus.
    """
    folder, found = out / FOLDER, list[dict[str, Any]]()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}); give another --out") from error
    for i, (label, each) in enumerate(rows):
        for k, (what, sound, generated) in enumerate(versions_of(each)):
            path = folder / f"{i + 1}-{k + 1}.opus"
            write_opus(path, sound, generated=generated)
            seconds = len(each.prompt.sound) / RATE
            of = f"{label}, prompt {i + 1} ({each.prompt.who}, {seconds:g} s)"
            found.append({"file": f"{FOLDER}/{path.name}", "of": of, "what": what, "generated": generated})
    return found


def write_opus(path: Path, sound: Array, *, generated: bool, bit_rate: int = BIT_RATE) -> None:
    """A sound as Ogg/Opus, twice the same; its title says where it was generated.

    Raises:
        InputError: it cannot be written.
    """
    import soundfile

    peak = float(np.abs(sound).max(initial=0))
    form = {"format": "OGG", "subtype": "OPUS", "compression_level": level_of(bit_rate)}
    try:
        with soundfile.SoundFile(path, "w", RATE, 1, **form) as file:
            if generated:
                file.title = MARK
            file.write(np.asarray(sound * min(1.0, PEAK / max(peak, 1e-9)), np.float32))
        fix_serial(path)
    except (OSError, RuntimeError, TypeError) as error:
        raise InputError(f"cannot write {path} ({error}); give another --out, or install soundfile 0.13") from error
