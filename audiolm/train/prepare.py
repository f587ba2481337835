"""From a folder of sound files to a corpus. Reading is the business of :mod:`audiolm.io`; here files are chosen and named."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from audiolm.errors import InputError
from audiolm.train.data import Corpus, write_corpus

SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".oga"}


def find_files(root: Path, split: str | None = None) -> list[Path]:
    """Sound files below ``root``: those of ``split`` where a ``manifest.csv`` with columns file and split says so, else all."""
    manifest = root / "manifest.csv"
    if manifest.is_file() and split:
        with manifest.open(encoding="utf8") as file:
            return [root / row["file"] for row in csv.DictReader(file) if row["split"] == split]
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"no sound files below {root}; expected any of {', '.join(sorted(SUFFIXES))}")
    return files


def read_clips(root: Path, files: list[Path], minimum: float = 0.5) -> Iterator[tuple[str, "np.ndarray[Any, Any]"]]:
    """Yield ``(name, samples)`` of every readable file of at least ``minimum`` seconds; the others are named on standard output."""
    from audiolm.io import read_audio

    for path in files:
        try:
            samples = read_audio(path)
        except InputError as error:
            print(f"refused {path.name}: {error}")
            continue
        if len(samples) < minimum * 16000:
            print(f"refused {path.name}: shorter than {minimum} s")
            continue
        yield str(path.relative_to(root)), samples


def prepare(folder: str | Path, out: str | Path, split: str | None = None) -> Corpus:
    """Read every sound file below ``folder`` into the corpus ``out``."""
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give the folder that holds the sound files")
    return write_corpus(out, read_clips(root, find_files(root, split)))
