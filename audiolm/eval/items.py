"""Item files: which phone is said where and by whom, as ZeroSpeech 2021 and Libri-light write them, and their sounds.

A line a triphone behind a heading, with spaces between: ``#file onset offset #phone prev-phone next-phone speaker``,
times in seconds, from the beginning of the phone before to the end of the phone after. ``#file`` is the name of a sound
without its suffix. Knows nothing of models; what the items are for is in :mod:`audiolm.eval.abx`.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiolm.errors import InputError
from audiolm.eval.abx import Item, triphones
from audiolm.eval.clips import Held, speaker_of
from audiolm.eval.phones import Phone, align_corpus, english_texts, load_phones, save_phones
from audiolm.eval.report import Progress, quiet

Array = np.ndarray[Any, Any]
COLUMNS = ("#file", "onset", "offset", "#phone", "prev-phone", "next-phone", "speaker")
SUFFIX = ".item"
SOUNDS = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf"})
NAMED = 5  # rows or files that a note names


@dataclass(frozen=True)
class Spoken:
    """Items with their sounds.

    Attributes:
        name: in the report.
        items: triphones.
        sound: the clip of an item as float32 ``[samples]`` at 16 kHz; raises InputError where it cannot be read.
        how: a sentence that says where the items come from.
        faults: what was left out, in words.
        made: whether a synthesizer speaks.
    """

    name: str
    items: list[Item]
    sound: Callable[[str], Array]
    how: str
    faults: tuple[str, ...] = ()
    made: bool = False

    @property
    def speakers(self) -> int:
        """How many speak."""
        return len({item.speaker for item in self.items})


def read_items(path: str | Path) -> tuple[list[Item], list[str]]:
    """The items of a file, and what was wrong with rows that are left out.

    Raises:
        InputError: it cannot be read, or no row of it can be used.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); expected an item file of ZeroSpeech or Libri-light", path=str(path)
        ) from error
    rows = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
    if rows and rows[0][1][0].startswith("#"):
        rows = rows[1:]  # the heading; Libri-light reads past it whatever it says
    made = [(number, _item(fields)) for number, fields in rows]
    items = [item for _, item in made if item is not None]
    bad = [str(number) for number, item in made if item is None]
    if not items:
        what = f"none of its {len(rows)} rows can be used" if rows else "it has no rows"
        raise InputError(f"{path} holds no items ({what}); expected the columns {' '.join(COLUMNS)}", path=str(path))
    return items, [f"{len(bad)} of {len(rows)} rows cannot be used (lines {_named(bad)})"] if bad else []


def _item(fields: Sequence[str]) -> Item | None:
    """The item of a row of seven fields with times in order, or None."""
    if len(fields) != len(COLUMNS):
        return None
    clip, onset, offset, phone, before, after, speaker = fields
    try:
        start, end = float(onset), float(offset)
    except ValueError:
        return None
    in_order = math.isfinite(end) and 0 <= start < end
    return Item(clip, speaker, (before, after), phone, start, end) if in_order else None


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (" and more" if len(names) > NAMED else "")


def write_items(path: str | Path, items: Iterable[Item]) -> None:
    """Write an item file. A clip is named by its file's name without the suffix, as others look it up.

    Raises:
        InputError: two clips would have one name, or the file cannot be written.
    """
    rows = list(items)
    stems = {clip: _stem(clip) for clip in {item.clip for item in rows}}
    if len(set(stems.values())) < len(stems):
        stems = {clip: _plain(clip) for clip in stems}
    lines = [
        f"{stems[i.clip]} {i.start:.4f} {i.end:.4f} {i.phone} {i.context[0]} {i.context[1]} {_plain(i.speaker)}\n"
        for i in rows
    ]
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(" ".join(COLUMNS) + "\n" + "".join(lines), encoding="utf8")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); give another file", path=str(path)) from error


def _stem(clip: str) -> str:
    return _plain(Path(clip).name.removesuffix(Path(clip).suffix if Path(clip).suffix.lower() in SOUNDS else ""))


def _plain(name: str) -> str:
    """Without the spaces that part the columns."""
    return "_".join(name.split())


# -- where items come from --


def item_files(folder: str | Path, items: str | Path | None = None) -> list[Path]:
    """``items``, or every item file under ``folder``, such as ``phonetic/dev-clean/dev-clean.item``.

    Raises:
        InputError: there is none.
    """
    if items is not None:
        return [Path(items)]
    found = sorted(Path(folder).rglob(f"*{SUFFIX}"))
    if not found:
        raise InputError(
            f"no item file (*{SUFFIX}) under {folder}; give one with --items, or the folder of ZeroSpeech 2021 that "
            "holds phonetic/",
            path=str(folder),
        )
    return found


def from_files(folder: str | Path, items: str | Path | None = None) -> list[Spoken]:
    """What the item files of ``folder`` say, each with the sounds that lie beside it; of ``items``, under ``folder``.

    Raises:
        InputError: there is no item file, one cannot be used, or none of its sounds is there.
    """
    return [_from_file(path, Path(folder) if items is not None else path.parent) for path in item_files(folder, items)]


def _from_file(path: Path, folder: Path) -> Spoken:
    items, faults = read_items(path)
    sounds = _sounds(folder)
    missing = sorted({item.clip for item in items} - sounds.keys())
    kept = [item for item in items if item.clip in sounds]
    if not kept:
        raise InputError(
            f"none of the sounds of {path} is under {folder} ({_named(missing)}); give their folder with --data",
            path=str(folder),
        )
    if missing:
        clips = len({item.clip for item in items})
        faults.append(
            f"{len(missing)} of {clips} sounds are not there, with {len(items) - len(kept)} items ({_named(missing)})"
        )
    return Spoken(path.stem, kept, _reader(sounds), f"Items of {path.name}.", tuple(faults))


def _sounds(folder: Path) -> dict[str, Path]:
    """Every sound under a folder by its name without the suffix, and by its path without it; the first by name."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SOUNDS and path.is_file():
            found.setdefault(path.stem, path)
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return found


def _reader(sounds: Mapping[str, Path]) -> Callable[[str], Array]:
    def read(clip: str) -> Array:
        from audiolm.io import read_audio

        return read_audio(sounds[clip])

    return read


def from_corpus(
    held: Held,
    manifest: str | Path,
    where: Mapping[str, str] | None = None,
    progress: Progress = quiet,
    keep: Path | None = None,
) -> Spoken:
    """Items of a corpus whose texts a manifest gives, by forced alignment of the English ones.

    What was aligned is kept in the folder ``keep``, if given, and taken from there when the same is asked again.

    Raises:
        InputError: the manifest cannot be read, pocketsphinx is not there, or nothing could be aligned.
    """
    texts = english_texts(manifest, **(where or {}))
    at = {name: i for i, name in enumerate(held.corpus.names)}
    wanted = [name for name in held.corpus.names if texts.get(name)]
    phones = _aligned(held, {name: texts[name] for name in wanted}, keep, progress)
    items = triphones(phones, lambda name: speaker_of(held.corpus, at[name]))
    if not items:
        raise InputError(
            f"{held.name}: no clip could be aligned with a text of {manifest}; its column file must name them as the "
            f"corpus does, such as {held.corpus.names[0]}"
        )
    lost = len(wanted) - len(phones)
    faults = (f"{lost} of {len(wanted)} clips could not be aligned",) if lost else ()
    how = "Items by forced alignment of the texts with pocketsphinx."
    return Spoken(held.name, items, lambda name: held.corpus.clip(at[name]), how, faults)


def _aligned(held: Held, texts: dict[str, str], keep: Path | None, progress: Progress) -> dict[str, list[Phone]]:
    known = json.dumps([texts, held.corpus.names, held.corpus.index.tolist()])
    path = None if keep is None else keep / f"phones-{hashlib.sha256(known.encode()).hexdigest()[:12]}.json"
    if path is not None and path.exists():
        return load_phones(path)
    progress(f"{held.name}: phones of {len(texts)} clips, by pocketsphinx")
    phones = align_corpus(held.corpus, texts)
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f"{path.name}.{os.getpid()}")  # another process may align the same
            save_phones(part, phones)
            part.replace(path)
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}); give another --out") from error
    return phones
