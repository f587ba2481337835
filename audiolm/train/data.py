"""Corpora for training: one memory-mapped int16 array of 16 kHz sound and an index of its clips.

A corpus folder holds ``audio.npy`` (int16, one long row), ``index.npy`` (int64 ``[clips, 2]``: start and length in
samples) and ``names.json`` (one name a clip). Nothing but numpy is needed to read it, so it travels to a bare training
machine.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiolm.errors import InputError

Array = np.ndarray[Any, Any]
SCALE = 32768.0
RATE = 16000
TICK = 640
FILES = ("audio.npy", "index.npy", "names.json")


@dataclass(frozen=True)
class Corpus:
    """Clips of one kind of sound: ``audio`` int16 ``[samples]``, ``index`` int64 ``[clips, 2]`` and a name a clip."""

    audio: Array
    index: Array
    names: list[str]
    _cache: dict[int, Array] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, folder: str | Path) -> "Corpus":
        """Map a corpus folder; nothing is read until it is used.

        Raises:
            InputError: the folder is not a corpus, is empty or is damaged.
        """
        root = Path(folder)
        missing = [name for name in FILES if not (root / name).is_file()]
        if missing:
            raise InputError(
                f"{root} is not a corpus: {', '.join(missing)} not there; make one with `audiolm train prepare`",
                path=str(root),
            )
        try:
            names = json.loads((root / "names.json").read_text(encoding="utf8"))
            corpus = cls(np.load(root / "audio.npy", mmap_mode="r"), np.load(root / "index.npy"), names)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{root} is a damaged corpus ({error}); make it again") from error
        corpus._check(root)
        return corpus

    def _check(self, root: Path) -> None:
        shaped = self.index.ndim == 2 and self.index.shape[1] == 2 and self.audio.ndim == 1
        if not shaped or len(self.index) != len(self.names):
            raise InputError(
                f"{root} is a damaged corpus: {len(self.names)} names, index {self.index.shape}; make it again"
            )
        if not len(self.index):
            raise InputError(f"{root} is an empty corpus; prepare it from a folder that holds sound")
        if self.index.min() < 0 or self.index[:, 1].min() < 1 or self.index.sum(1).max() > len(self.audio):
            raise InputError(
                f"{root} is a damaged corpus: a clip is empty or ends beyond its {len(self.audio)} samples"
            )

    @property
    def seconds(self) -> float:
        """Length of all clips in seconds."""
        return float(self.index[:, 1].sum()) / RATE

    def clip(self, i: int) -> Array:
        """Clip ``i`` as float32 ``[samples]``."""
        start, length = self.index[i]
        return np.asarray(self.audio[start : start + length], np.float32) / SCALE

    def crop(self, length: int, rng: np.random.Generator) -> Array:
        """A random crop, float32 ``[length]``, every position of the corpus equally likely.

        A clip that is too short goes on with the clips after it of the same folder (one speaker), joined by pauses of
        0.1 to 0.4 s; when there is no other, with itself.
        """
        i = min(int(np.searchsorted(self._bounds(length), rng.random(), side="right")), len(self.names) - 1)
        start, size = self.index[i]
        offset = int(rng.integers(max(1, size - length + 1)))
        pieces, have = [self.audio[start + offset : start + min(size, offset + length)]], min(size - offset, length)
        while have < length:
            i = self._next(i)
            start, size = self.index[i]
            pause = np.zeros(int(rng.integers(1600, 6400)), np.int16)
            pieces += [pause, self.audio[start : start + min(size, length)]]
            have += len(pause) + size
        return np.concatenate(pieces)[:length].astype(np.float32) / SCALE

    def _bounds(self, length: int) -> Array:
        """Cumulative shares of the clips; kept, since a corpus may have thousands."""
        if length not in self._cache:
            weights = np.maximum(self.index[:, 1], length)
            self._cache[length] = np.cumsum(weights) / weights.sum()
        return self._cache[length]

    def folder(self, i: int) -> str:
        """Speaker folder of clip ``i``; a clip outside any folder stands alone."""
        head, slash, _ = self.names[i].rpartition("/")
        return head if slash else self.names[i]

    def _next(self, i: int) -> int:
        """The clip after clip ``i`` in its folder, in a circle."""
        folder = self.folder(i)
        if i + 1 < len(self.names) and self.folder(i + 1) == folder:
            return i + 1
        while i and self.folder(i - 1) == folder:
            i -= 1
        return i


def write_corpus(folder: str | Path, clips: Iterable[tuple[str, Array]]) -> Corpus:
    """Write named float32 clips as a corpus folder, streaming them, so that a corpus may be larger than memory.

    A corpus that was there is replaced at the very end; an interruption or a full disk leaves it as it was.

    Raises:
        InputError: there is no clip, or the folder cannot be written.
    """
    root = Path(folder)
    raw, parts = root / "audio.raw", [root / f"{name}.part" for name in FILES]
    try:
        root.mkdir(parents=True, exist_ok=True)
        names, rows = _write_raw(raw, clips)
        if not names:
            raise InputError(f"no clip could be read for {root}; give a folder that holds sound files", path=str(root))
        with parts[0].open("wb") as out:
            np.save(out, np.memmap(raw, "<i2", "r"))
        with parts[1].open("wb") as out:
            np.save(out, np.asarray(rows, np.int64))
        parts[2].write_text(json.dumps(names), encoding="utf8")
        for name, part in zip(FILES, parts, strict=True):
            part.replace(root / name)
    except OSError as error:
        raise InputError(f"the corpus {root} cannot be written ({error.strerror}); is there room?") from error
    finally:
        for path in (raw, *parts):
            path.unlink(missing_ok=True)
    return Corpus.open(root)


def _write_raw(path: Path, clips: Iterable[tuple[str, Array]]) -> tuple[list[str], list[tuple[int, int]]]:
    """All clips end to end as int16; their names, and start and length of each."""
    names: list[str] = []
    rows: list[tuple[int, int]] = []
    with path.open("wb") as out:
        for name, samples in clips:
            data = np.clip(np.round(samples * SCALE), -SCALE, SCALE - 1).astype("<i2")
            rows.append((sum(rows[-1]) if rows else 0, len(data)))
            names.append(name)
            out.write(data.tobytes())
    return names, rows


def whole_ticks(seconds: float) -> int:
    """Samples of the whole ticks in ``seconds``.

    Raises:
        InputError: there is not one.
    """
    samples = int(seconds * RATE) // TICK * TICK
    if samples < TICK:
        raise InputError(f"crops of {seconds} s are shorter than a tick of 40 ms; make them longer", seconds=seconds)
    return samples


def crops(
    parts: Sequence[tuple[Corpus, float]], length: int, batch: int, seed: int, gain_db: float = 12.0
) -> Iterator[Tensor]:
    """Endless batches ``[batch, length]`` float32.

    Each item is from a corpus drawn by its share, with a random gain of ``+-gain_db``.

    Raises:
        InputError: no corpus, a share that is not positive, or an empty batch.
    """
    if not parts or batch < 1:
        raise InputError(f"a batch of {batch} from {len(parts)} corpora is empty; give at least one of each")
    if not all(np.isfinite(share) and share > 0 for _, share in parts):
        raise InputError(f"shares must be positive, got {[share for _, share in parts]}")
    return _crops(parts, length, batch, np.random.default_rng(seed), gain_db)


def _crops(
    parts: Sequence[tuple[Corpus, float]], length: int, batch: int, rng: np.random.Generator, gain_db: float
) -> Iterator[Tensor]:
    shares = np.asarray([share for _, share in parts]) / sum(share for _, share in parts)
    while True:
        picks = rng.choice(len(parts), batch, p=shares)
        gains = 10 ** (rng.uniform(-gain_db, gain_db, batch) / 20)
        rows = [parts[k][0].crop(length, rng) * gain for k, gain in zip(picks, gains, strict=True)]
        yield torch.from_numpy(np.clip(np.stack(rows), -1, 1).astype(np.float32))
