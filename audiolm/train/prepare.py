"""From a folder of sound files to a corpus: files are chosen, checked and named here, :mod:`audiolm.io` reads them."""

import csv
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from audiolm.errors import InputError
from audiolm.train.data import RATE, Array, Corpus, write_corpus

SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".oga", ".aif", ".aiff", ".mp3"}
REFUSED = "refused.json"
logger = logging.getLogger("audiolm.train")


def find_files(root: Path, split: str | None = None) -> list[Path]:
    """Sound files below ``root``, sorted.

    With ``split``, those that the rows of ``root/manifest.csv`` (columns ``file`` and ``split``) put there, in its
    order.

    Raises:
        InputError: there are none, or there is no such manifest or split.
    """
    if split is not None:
        return _of_split(root, split)
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise InputError(f"no sound files below {root}; expected any of {', '.join(sorted(SUFFIXES))}", path=str(root))
    return files


def _of_split(root: Path, split: str) -> list[Path]:
    manifest = root / "manifest.csv"
    if not manifest.is_file():
        raise InputError(f"{manifest} is not there; a split needs a manifest with the columns file and split")
    with manifest.open(encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"file", "split"} <= set(rows[0]):
        raise InputError(f"{manifest} has no rows with the columns file and split; expected both")
    files = [root / row["file"] for row in rows if row["split"] == split]
    if not files:
        raise InputError(f"{manifest} has no split {split!r}; it has {', '.join(sorted({r['split'] for r in rows}))}")
    outside = [path for path in files if not path.resolve().is_relative_to(root.resolve())]
    if outside:
        raise InputError(f"{manifest} names {outside[0]}, which is not below {root}; move it there")
    return files


def read_clips(
    root: Path, files: list[Path], refused: dict[str, str], minimum: float = 0.5
) -> Iterator[tuple[str, Array]]:
    """Yield ``(name, float32 samples at 16 kHz)`` of every good file.

    ``refused`` gets the others, each with the reason: it cannot be read, is shorter than ``minimum`` seconds, is
    silent, or sounds to the sample like a file before it.
    """
    from audiolm.io import read_audio

    seen: dict[bytes, str] = {}
    for path in files:
        name = path.relative_to(root).as_posix()
        try:
            samples = read_audio(path)
        except InputError as error:
            refused[name] = str(error)
            continue
        key = hashlib.blake2b(samples.tobytes(), digest_size=16).digest()
        reason = _fault(samples, minimum) or (f"the same sound as {seen[key]}" if key in seen else "")
        if reason:
            refused[name] = reason
            continue
        seen[key] = name
        yield name, samples


def _fault(samples: Array, minimum: float) -> str:
    """Why a clip is of no use, or nothing."""
    if len(samples) < minimum * RATE:
        return f"{len(samples) / RATE:.2f} s, shorter than {minimum} s"
    if not np.isfinite(samples).all():
        return "holds samples that are not finite"
    if float(np.abs(samples).max()) < 1e-4:
        return "silent: no sample above -80 dB"
    return ""


def prepare(folder: str | Path, out: str | Path, split: str | None = None) -> Corpus:
    """Read every sound file below ``folder`` (those of ``split``) into the corpus ``out``.

    What was refused, and why, is in ``out/refused.json``.

    Raises:
        InputError: there is no folder, or nothing in it can be used.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give the folder that holds the sound files", path=str(root))
    refused: dict[str, str] = {}
    try:
        corpus = write_corpus(out, read_clips(root, find_files(root, split), refused))
    except InputError as error:
        if refused:
            name, reason = next(iter(refused.items()))
            raise InputError(f"{error}; {len(refused)} refused, the first is {name}: {reason}") from error
        raise
    (Path(out) / REFUSED).write_text(json.dumps(refused, indent=1) + "\n", encoding="utf8")
    if refused:
        logger.info("%d files refused; the reasons are in %s", len(refused), Path(out) / REFUSED)
    return corpus
