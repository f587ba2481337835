"""Corpora for training: shards of 16 kHz sound, mapped and never loaded whole, and an index of their clips.

:mod:`audiolm.train.shards` has the format; a folder of ``audio.npy``, ``index.npy`` and ``names.json``, as corpora were
once, is read too. Nothing but numpy is needed, so a corpus travels to a bare training machine.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audiolm.errors import InputError
from audiolm.train.augment import Augment
from audiolm.train.shards import LEGACY, META, SCALE, VERSION, Array, CorpusWriter, Encoding, Shards, open_shards

RATE = 16000
TICK = 640


@dataclass(frozen=True)
class Corpus:
    """Clips of one kind of sound.

    ``audio`` is int16 ``[samples]`` (mapped), ``index`` int64 ``[clips, 2]`` (start and length), ``names`` has a name
    a clip and ``groups`` the speaker or piece a clip is of: as prepared, or else the folder in its name.
    """

    audio: Array | Shards
    index: Array
    names: list[str]
    groups: list[str] = field(default_factory=list)
    _cache: dict[int, Array] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Take the groups from the names where none are given."""
        if not self.groups:
            self.groups.extend(_folder_of(name) for name in self.names)

    @classmethod
    def open(cls, folder: str | Path) -> "Corpus":
        """Map a corpus folder; nothing is read until it is used.

        Raises:
            InputError: the folder is not a corpus, is empty or is damaged.
        """
        root = Path(folder)
        missing = [name for name in LEGACY if not (root / name).is_file()]
        current = (root / META).is_file()
        if missing and not current:
            raise InputError(
                f"{root} is not a corpus: {META} is not there; make one with `audiolm train prepare`", path=str(root)
            )
        try:
            corpus = cls._of_shards(root) if current else cls._of_arrays(root)
        except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{root} is a damaged corpus ({error}); make it again", path=str(root)) from error
        _check(corpus, root)
        return corpus

    @classmethod
    def _of_shards(cls, root: Path) -> "Corpus":
        meta = json.loads((root / META).read_text(encoding="utf8"))
        if meta["version"] != VERSION:
            raise InputError(f"{root} is a corpus of version {meta['version']}; this program reads {VERSION}")
        clips = meta["clips"]
        index = np.stack([np.asarray(clips[key], np.int64) for key in ("starts", "lengths")], 1)
        return cls(open_shards(root, meta), index, clips["names"], clips["groups"])

    @classmethod
    def _of_arrays(cls, root: Path) -> "Corpus":
        audio, index, names = (root / name for name in LEGACY)
        return cls(np.load(audio, mmap_mode="r"), np.load(index), json.loads(names.read_text(encoding="utf8")))

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

        A clip that is too short goes on with the clips after it of the same group (one speaker), joined by pauses of
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
        """Group (speaker or piece) of clip ``i``; a clip outside any folder stands alone."""
        return self.groups[i]

    def _next(self, i: int) -> int:
        """The clip after clip ``i`` in its group, in a circle."""
        group = self.groups[i]
        if i + 1 < len(self.names) and self.groups[i + 1] == group:
            return i + 1
        while i and self.groups[i - 1] == group:
            i -= 1
        return i

    def pack(
        self,
        out: str | Path,
        hours: float,
        *,
        encoding: Encoding = "int16",
        part: tuple[int, int] = (0, 1),
        seed: int = 0,
    ) -> "Corpus":
        """Write up to ``hours`` of clips, drawn at random, as a corpus that travels; numpy alone reads it.

        int16 takes 110 MiB an hour; mu-law 55, with noise about 37 dB below the sound. ``part`` ``(i, n)`` draws from
        every n-th clip of the shuffled order, so that n packs share no clip; ``crops`` takes them side by side.

        Raises:
            InputError: no clip is that short, no such part, or the folder cannot be written.
        """
        if not 0 <= part[0] < part[1] or not hours > 0:
            raise InputError(
                f"a pack of {hours} h, part {part[0]} of {part[1]}; expected hours > 0 and 0 <= part < parts"
            )
        order = np.random.default_rng(seed).permutation(len(self.names))[part[0] :: part[1]]
        kept = order[np.cumsum(self.index[order, 1]) <= hours * 3600 * RATE]
        if not len(kept):
            raise InputError(f"no clip fits into {hours} h; the first drawn has {self.index[order[:1], 1]} samples")
        with CorpusWriter(out, encoding=encoding) as writer:
            for i in np.sort(kept):
                start, length = self.index[i]
                writer.add(self.names[i], self.audio[start : start + length], self.groups[i])
            writer.commit()
        return Corpus.open(out)


def _check(corpus: Corpus, root: Path) -> None:
    shaped = corpus.index.ndim == 2 and corpus.index.shape[1] == 2 and corpus.audio.ndim == 1
    if not shaped or not len(corpus.index) == len(corpus.names) == len(corpus.groups):
        raise InputError(
            f"{root} is a damaged corpus: {len(corpus.names)} names, index {corpus.index.shape}; make it again"
        )
    if not len(corpus.index):
        raise InputError(f"{root} is an empty corpus; prepare it from a folder that holds sound")
    if corpus.index.min() < 0 or corpus.index[:, 1].min() < 1 or corpus.index.sum(1).max() > len(corpus.audio):
        raise InputError(f"{root} is a damaged corpus: a clip is empty or ends beyond its {len(corpus.audio)} samples")


def _folder_of(name: str) -> str:
    """The folder in a clip's name, or the name itself."""
    head, slash, _ = name.rpartition("/")
    return head if slash else name


def write_corpus(folder: str | Path, clips: Iterable[tuple[str, Array]], *, shard_mib: float = 1024) -> Corpus:
    """Write named clips, int16 or float32 in -1..1, as a corpus folder.

    They are streamed, so that a corpus may be larger than memory. A corpus that was there is replaced at the very end;
    an interruption or a full disk leaves it as it was.

    Raises:
        InputError: there is no clip, or the folder cannot be written.
    """
    with CorpusWriter(folder, shard_mib) as writer:
        for name, samples in clips:
            writer.add(name, samples, _folder_of(name))
        writer.commit()
    return Corpus.open(folder)


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
    parts: Sequence[tuple[Corpus, float]],
    length: int,
    batch: int,
    seed: int | np.random.Generator,
    *,
    gain_db: float = 12.0,
    augment: Augment | None = None,
) -> Iterator[Tensor]:
    """Endless batches ``[batch, length]`` float32.

    Each item is from a corpus drawn by its share, with a random gain of ``+-gain_db``, changed as ``augment`` says;
    equal seeds give equal batches, and a generator goes on where it is.

    Raises:
        InputError: no corpus, a share that is not positive, or an empty batch.
    """
    if not parts or batch < 1:
        raise InputError(f"a batch of {batch} from {len(parts)} corpora is empty; give at least one of each")
    if not all(np.isfinite(share) and share > 0 for _, share in parts):
        raise InputError(f"shares must be positive, got {[share for _, share in parts]}")
    return _crops(parts, length, batch, np.random.default_rng(seed), (gain_db, augment or Augment()))


def _crops(
    parts: Sequence[tuple[Corpus, float]],
    length: int,
    batch: int,
    rng: np.random.Generator,
    change: tuple[float, Augment],
) -> Iterator[Tensor]:
    gain_db, augment = change
    shares = np.asarray([share for _, share in parts]) / sum(share for _, share in parts)
    while True:
        picks = rng.choice(len(parts), batch, p=shares)
        gains = 10 ** (rng.uniform(-gain_db, gain_db, batch) / 20)
        rows = [augment.draw(parts[k][0].crop, length, rng) * gain for k, gain in zip(picks, gains, strict=True)]
        yield torch.from_numpy(np.clip(np.stack(rows), -1, 1).astype(np.float32))
