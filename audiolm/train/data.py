"""Corpora for training: one memory-mapped int16 array of 16 kHz sound and an index of its clips.

A corpus folder holds ``audio.npy`` (int16, one long row), ``index.npy`` (int64 ``[clips, 2]``: start and length in samples) and
``names.json`` (one name a clip). Nothing but numpy is needed to read it, so it travels to a bare training machine.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiolm.errors import InputError

Array = np.ndarray[Any, Any]
SCALE = 32768.0


@dataclass(frozen=True)
class Corpus:
    """Clips of one kind of sound."""

    audio: Array
    index: Array
    names: list[str]
    _cache: dict[int, Array] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, folder: str | Path) -> "Corpus":
        """Map a corpus folder; nothing is read until it is used.

        Raises:
            InputError: the folder is not a corpus.
        """
        root = Path(folder)
        missing = [name for name in ("audio.npy", "index.npy", "names.json") if not (root / name).is_file()]
        if missing:
            raise InputError(f"{root} is not a corpus: {', '.join(missing)} not there; make one with `audiolm train prepare`")
        names = json.loads((root / "names.json").read_text(encoding="utf8"))
        return cls(np.load(root / "audio.npy", mmap_mode="r"), np.load(root / "index.npy"), names)

    @property
    def seconds(self) -> float:
        return float(self.index[:, 1].sum()) / 16000

    def clip(self, i: int) -> Array:
        """Clip ``i`` as float32."""
        start, length = self.index[i]
        return np.asarray(self.audio[start : start + length], np.float32) / SCALE

    def crop(self, length: int, rng: np.random.Generator) -> Array:
        """A random crop of ``length`` samples, every position of the corpus equally likely.

        A clip that is too short goes on with the clips after it of the same folder (one speaker), joined by pauses of 0.1 to 0.4 s.
        """
        i = int(np.searchsorted(self._bounds(length), rng.random(), side="right"))
        start, size = self.index[i]
        offset = int(rng.integers(max(1, size - length + 1)))
        pieces, have = [self.audio[start + offset : start + min(size, offset + length)]], min(size - offset, length)
        folder = self.folder(i)
        while have < length:
            i = i + 1 if i + 1 < len(self.names) and self.folder(i + 1) == folder else self._first(i)
            start, size = self.index[i]
            pause = np.zeros(int(rng.integers(1600, 6400)), np.int16)
            pieces += [pause, self.audio[start : start + size]]
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

    def _first(self, i: int) -> int:
        """The first clip of the folder of clip ``i``."""
        while i and self.folder(i - 1) == self.folder(i):
            i -= 1
        return i


def write_corpus(folder: str | Path, clips: Iterable[tuple[str, Array]]) -> Corpus:
    """Write named float32 clips as a corpus folder, streaming them through a temporary file."""
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    names, rows, at = [], [], 0
    raw = root / "audio.raw"
    with raw.open("wb") as out:
        for name, samples in clips:
            data = np.clip(np.round(samples * SCALE), -SCALE, SCALE - 1).astype("<i2")
            out.write(data.tobytes())
            names.append(name)
            rows.append((at, len(data)))
            at += len(data)
    if not rows:
        raw.unlink()
        raise InputError(f"no clip could be read for {root}; give a folder that holds sound files")
    np.save(root / "audio.npy", np.fromfile(raw, "<i2"))
    raw.unlink()
    np.save(root / "index.npy", np.asarray(rows, np.int64))
    (root / "names.json").write_text(json.dumps(names), encoding="utf8")
    return Corpus.open(root)


def crops(
    parts: list[tuple[Corpus, float]], length: int, batch: int, seed: int, gain_db: float = 12.0
) -> Iterator[Tensor]:
    """Endless batches ``[batch, length]`` float32, each item from a corpus drawn by weight, with a random gain of ``+-gain_db``."""
    rng = np.random.default_rng(seed)
    shares = np.asarray([share for _, share in parts]) / sum(share for _, share in parts)
    while True:
        picks = rng.choice(len(parts), batch, p=shares)
        gains = 10 ** (rng.uniform(-gain_db, gain_db, batch) / 20)
        rows = [parts[k][0].crop(length, rng) * gain for k, gain in zip(picks, gains, strict=True)]
        yield torch.from_numpy(np.clip(np.stack(rows), -1, 1).astype(np.float32))
