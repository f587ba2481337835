"""What to prepare: the sound files of a folder, or the rows of a manifest, each with its speaker or piece.

A manifest is a CSV whose first line names its columns: `file` (needed, relative to the manifest), and where they are
there `split` (train or dev) and `speaker`. Nothing is opened here; :mod:`audiolm.train.checks` reads.
"""

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from audiolm.errors import ConfigError, InputError

MANIFEST = "manifest.csv"
SUFFIXES = {".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".aif", ".aiff", ".aifc", ".au", ".snd"}
SUFFIXES |= {".caf", ".w64", ".rf64", ".sph", ".voc", ".avr", ".ircam"}
FOREIGN = {".m4a", ".aac", ".mp4", ".wma", ".webm", ".mka", ".amr", ".ape", ".wv"}  # libsndfile does not read these
SPLITS = {"train": "train", "dev": "dev"} | dict.fromkeys(("val", "valid", "validation"), "dev")
RENDER = re.compile(r"(.+)_\d+")


@dataclass(frozen=True)
class Item:
    """A file to read: its place, its name in the corpus, and whose it is.

    ``group`` is never on both sides of a split (a speaker, or all renders of a piece); clips of one ``voice`` may be
    joined in a crop; ``split`` is what a manifest says, or nothing.
    """

    path: Path
    name: str
    group: str
    voice: str
    split: str = ""


@dataclass
class Source:
    """The files found, sorted by voice and name, those refused unread with the reason, and what else to report."""

    items: list[Item]
    refused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_manifest(manifest: Path, needed: Sequence[str] = ("file",)) -> list[dict[str, str]]:
    """The rows of a manifest.

    Raises:
        InputError: it is not there, is no CSV in UTF-8, or lacks rows or the columns ``needed``.
    """
    columns = " and ".join(needed)
    if not manifest.is_file():
        raise InputError(f"{manifest} is not there; a split needs a manifest with the columns {columns}")
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            rows = [{key: value or "" for key, value in row.items() if key} for row in csv.DictReader(file)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{manifest} is no CSV in UTF-8 ({error}); save it as one", path=str(manifest)) from error
    if not rows or not set(needed) <= set(rows[0]):
        raise InputError(f"{manifest} has no rows with the columns {columns}; expected them in its first line")
    return rows


def _check_below(path: Path, root: Path, manifest: Path) -> None:
    if not path.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{manifest} names {path}, which is not below {root}; move it there")


def open_source(
    place: Path,
    *,
    group: str | None = None,
    only: Mapping[str, Sequence[str]] | None = None,
    split: str | None = None,
) -> Source:
    """The files of a folder or a manifest; a folder with a ``manifest.csv`` is a manifest.

    A folder of the folders train and dev is split so.

    ``group`` is a regular expression whose first group (or else the whole match), searched for in the name, is the
    speaker or piece; ``only`` keeps the rows of a manifest that have one of the values in the column; ``split`` those
    of that split, whatever it is called.

    Raises:
        InputError: there is no such place, or it has no sound files.
        ConfigError: ``group`` is no regular expression.
    """
    if not place.exists():
        raise InputError(f"{place} is not a folder and no manifest: it is not there; give one with sound files")
    wanted = dict(only or {}) | ({"split": [split]} if split is not None else {})
    manifest = place if place.is_file() else place / MANIFEST
    if manifest.is_file() or wanted:
        source = _from_manifest(manifest, _pattern(group), wanted)
    else:
        source = _from_folder(place, _pattern(group))
    source.items.sort(key=lambda item: (item.voice, item.name))
    return source


def _pattern(group: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(group) if group else None
    except re.error as error:
        raise ConfigError(f"group is {group!r}, no regular expression ({error}); try e.g. ([^/]+)/") from error


def _from_folder(root: Path, pattern: re.Pattern[str] | None) -> Source:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    names = {path: path.relative_to(root).as_posix() for path in files}
    sound = [path for path in files if path.suffix.lower() in SUFFIXES]
    foreign = [path for path in files if path.suffix.lower() in FOREIGN]
    if not sound:
        found = f"; it has {len(foreign)} in formats that libsndfile cannot read: convert them to FLAC" * bool(foreign)
        raise InputError(f"no sound files below {root}{found}; expected any of {', '.join(sorted(SUFFIXES))}")
    refused = {names[path]: f"libsndfile reads no {path.suffix}; convert it to FLAC" for path in foreign}
    others = Counter(path.suffix or path.name for path in files if path.suffix.lower() not in SUFFIXES | FOREIGN)
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items())[:8])
    notes = [f"{others.total()} files that are not sound were not looked at: {kinds}"] if others else []
    if _has_splits([names[path] for path in sound]):
        return Source(_by_folders([(path, names[path]) for path in sound], pattern, notes), refused, notes)
    return Source([_item(path, names[path], pattern) for path in sound], refused, notes)


def _has_splits(names: Sequence[str]) -> bool:
    """Whether the first folders are train and dev, by any of their names, and at most test besides."""
    first = {name.partition("/")[0].lower() if "/" in name else "" for name in names}
    return first <= {*SPLITS, "test"} and {SPLITS.get(folder) for folder in first} >= {"train", "dev"}


def _by_folders(files: Sequence[tuple[Path, str]], pattern: re.Pattern[str] | None, notes: list[str]) -> list[Item]:
    """The items of a folder that is split by its first folders; what is below them says whose a file is."""
    out, left = [], 0
    for path, name in files:
        first, _, rest = name.partition("/")
        split = SPLITS.get(first.lower(), "")
        left += not split
        if split:
            item = _item(path, rest, pattern, split=split)
            out.append(replace(item, name=name, voice=f"{first}/{item.voice}"))
    if left:
        notes.append(f"left out by their split: {left} test")
    return out


def _from_manifest(manifest: Path, pattern: re.Pattern[str] | None, only: Mapping[str, Sequence[str]]) -> Source:
    rows, root, source = read_manifest(manifest, ("file", *only)), manifest.parent, Source([])
    items: dict[str, Item] = {}
    for row in _kept(rows, only, source.notes):
        path, name = root / row["file"], Path(row["file"]).as_posix()
        if not path.resolve().is_relative_to(root.resolve()):
            raise InputError(f"{manifest} names {path}, which is not below {root}; move it there")
        if name in items:
            source.notes.append(f"{name} is listed more than once; taken once")
        split = SPLITS.get(row.get("split", "").lower(), "")
        items[name] = _item(path, name, pattern, row.get("speaker", ""), split=split)
    if not items:
        has = {column: sorted({row[column] for row in rows})[:8] for column in only}
        found = "".join(f" {column} {', '.join(values)}" for column, values in has.items())
        raise InputError(f"{manifest} has no row of {_said(only)}; it has{found or ' other splits'}")
    source.items = list(items.values())
    return source


def _kept(rows: list[dict[str, str]], only: Mapping[str, Sequence[str]], notes: list[str]) -> list[dict[str, str]]:
    """The rows that were asked for; the others are counted in ``notes``."""
    kept = [row for row in rows if all(row[column] in values for column, values in only.items())]
    if only:
        notes.append(f"{len(rows) - len(kept)} rows of the manifest left out: only {_said(only)} was asked for")
        if "split" in only:
            return kept
    other = Counter(row["split"] for row in kept if row.get("split") and row["split"].lower() not in SPLITS)
    if other:
        notes.append("left out by their split: " + ", ".join(f"{n} {name}" for name, n in sorted(other.items())))
    return [row for row in kept if row.get("split", "") not in other]


def _said(only: Mapping[str, Sequence[str]]) -> str:
    return (
        " and ".join(f"{column} {' or '.join(map(repr, values))}" for column, values in only.items()) or "train or dev"
    )


def _item(path: Path, name: str, pattern: re.Pattern[str] | None, speaker: str = "", *, split: str = "") -> Item:
    folder, _, last = name.rpartition("/")
    if pattern is not None and (match := pattern.search(name)):
        whose = match.group(1) if pattern.groups and match.group(1) else match.group(0)
        return Item(path, name, whose, whose, split)
    if speaker:
        return Item(path, name, speaker, speaker, split)
    if folder:
        return Item(path, name, name.partition("/")[0], folder, split)
    return Item(path, name, piece_of(last), name, split)


def piece_of(name: str) -> str:
    """The piece that a file is a render of: its name without suffix and a last ``_N``."""
    stem = name.rpartition(".")[0] or name
    render = RENDER.fullmatch(stem)
    return render.group(1) if render else stem
