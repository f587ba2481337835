"""Shards: a corpus larger than memory as plain files of bounded size that are mapped, never loaded.

A corpus folder holds ``corpus.json`` (the shards in order, and name, group, start and length of each clip) and the
shards: samples end to end, without a header, int16 little-endian or mu-law in a byte each. A clip never crosses from
one shard to the next. A new corpus is written beside the old one under names of its own; replacing ``corpus.json`` is
the one moment when it takes the old one's place. Nothing but numpy is needed. Knows nothing of sound files.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

import numpy as np

from audiolm.errors import InputError

Array = np.ndarray[Any, Any]
Encoding = Literal["int16", "mulaw"]
META = "corpus.json"
VERSION = 1
SCALE = 32768.0
MIB = 1 << 20
LEGACY = ("audio.npy", "index.npy", "names.json")
TYPES: dict[str, np.dtype[Any]] = {"int16": np.dtype("<i2"), "mulaw": np.dtype("u1")}
MU = 255.0


def _mulaw_tables() -> tuple[Array, Array]:
    """From int16 to a byte and back: mu = 255 (as ITU-T G.711), 255 levels so that silence stays silence."""
    level = np.arange(-32768, 32768) / SCALE
    bent = np.sign(level) * np.log1p(MU * np.abs(level)) / np.log1p(MU)
    step = np.maximum(np.arange(256) - 128, -127) / 127
    straight = np.sign(step) * np.expm1(np.abs(step) * np.log1p(MU)) / MU
    return (np.round(bent * 127) + 128).astype(np.uint8), np.clip(np.round(straight * SCALE), -32768, 32767).astype(
        "<i2"
    )


TO_MULAW, FROM_MULAW = _mulaw_tables()


class Shards:
    """Mapped shards as one row of int16 samples: has a length, and a slice gives an array."""

    ndim = 1

    def __init__(self, parts: list[Array]) -> None:
        """Take the mapped shards, int16 or mu-law bytes, in order."""
        self.parts = parts
        self._ends = np.cumsum([len(part) for part in parts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.parts else 0

    def __getitem__(self, where: slice) -> Array:
        """Samples ``[start:stop]`` as int16; only what lies there is read."""
        start, stop, _ = where.indices(len(self))
        out: list[Array] = []
        k = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            first = int(self._ends[k]) - len(self.parts[k])
            piece = self.parts[k][start - first : stop - first]
            out.append(FROM_MULAW[piece] if piece.dtype == np.uint8 else piece)
            start, k = start + len(piece), k + 1
        return out[0] if len(out) == 1 else np.concatenate([np.zeros(0, np.int16), *out])


class CorpusWriter:
    """Writes a corpus clip by clip; nothing is seen of it before :meth:`commit`.

    Used in a ``with`` block: what was not committed when it ends is removed.
    """

    def __init__(self, folder: str | Path, shard_mib: float = 1024, encoding: Encoding = "int16") -> None:
        """Begin; a shard holds at most ``shard_mib`` MiB (more only where a single clip has more).

        Raises:
            InputError: no such encoding, no room in a shard, or the folder cannot be made.
        """
        if encoding not in TYPES or not shard_mib > 0:
            raise InputError(f"shards of {shard_mib} MiB in {encoding!r}; expected more than 0 in int16 or mulaw")
        self.root, self.encoding = Path(folder), encoding
        self._limit = max(1, int(shard_mib * MIB / TYPES[encoding].itemsize))
        self._shards: list[dict[str, Any]] = []
        self._clips: dict[str, list[Any]] = {"names": [], "groups": [], "starts": [], "lengths": []}
        self._file: BinaryIO | None = None
        self._total = 0
        with _disk(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            used = {path.name[6:9] for path in self._on_disk()}
        self._run = next((f"{k:03d}" for k in range(1000) if f"{k:03d}" not in used), "000")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def __len__(self) -> int:
        return len(self._clips["names"])

    @property
    def samples(self) -> int:
        """Samples of all clips so far."""
        return self._total

    def add(self, name: str, samples: Array, group: str) -> None:
        """Append a clip, int16 or float ``[n]`` in -1..1, of the speaker or piece ``group``.

        Raises:
            InputError: the disk is full or the folder cannot be written.
        """
        data = samples if samples.dtype == np.int16 else to_int16(samples)
        stored = TO_MULAW[data.astype(np.int32) + 32768] if self.encoding == "mulaw" else data.astype("<i2", copy=False)
        with _disk(self.root):
            self._shard_for(len(data)).write(stored.tobytes())
        for key, value in zip(self._clips, (name, group, self._total, len(data)), strict=True):
            self._clips[key].append(value)
        self._shards[-1]["samples"] += len(data)
        self._total += len(data)

    def commit(self) -> None:
        """Put the corpus in the place of the one that was there.

        Raises:
            InputError: there is no clip, or the folder cannot be written; then what was there stays.
        """
        if not len(self):
            raise InputError(f"no clip for {self.root}; give a folder that holds sound files", path=str(self.root))
        part = self.root / f"{META}.part"
        with _disk(self.root):
            self._close()
            meta = {"version": VERSION, "encoding": self.encoding, "shards": self._shards, "clips": self._clips}
            part.write_text(json.dumps(meta, separators=(",", ":")), encoding="utf8")
            part.replace(self.root / META)
            kept = {shard["file"] for shard in self._shards}
            for path in (*self._on_disk(), *(self.root / name for name in LEGACY)):
                if path.name not in kept:
                    path.unlink(missing_ok=True)
        self._shards = []

    def discard(self) -> None:
        """Remove what was not committed; harmless after :meth:`commit`."""
        with suppress(OSError):  # what a full disk did not take is removed anyway
            self._close()
        for name in (f"{META}.part", *(shard["file"] for shard in self._shards)):
            (self.root / name).unlink(missing_ok=True)
        self._shards = []

    def _on_disk(self) -> list[Path]:
        return [path for path in self.root.glob("audio_[0-9][0-9][0-9]_[0-9][0-9][0-9][0-9].*") if path.is_file()]

    def _shard_for(self, samples: int) -> BinaryIO:
        """The open shard, or the next one where ``samples`` more do not fit."""
        if self._file is not None and self._shards[-1]["samples"] + samples <= self._limit:
            return self._file
        self._close()
        suffix = "i16" if self.encoding == "int16" else "ulaw"
        name = f"audio_{self._run}_{len(self._shards):04d}.{suffix}"
        self._shards.append({"file": name, "samples": 0})
        self._file = (self.root / name).open("wb")
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


@contextmanager
def _disk(root: Path) -> Iterator[None]:
    """Turn what the disk refuses into a clear error."""
    try:
        yield
    except OSError as error:
        said = error.strerror or str(error)
        raise InputError(f"the corpus {root} cannot be written ({said}); is there room?", path=str(root)) from error


def to_int16(samples: Array) -> Array:
    """Float ``[n]`` in -1..1 as int16."""
    return np.clip(np.round(samples * SCALE), -SCALE, SCALE - 1).astype("<i2")


def open_shards(root: Path, meta: dict[str, Any]) -> Shards:
    """Map the shards that ``meta`` lists.

    Raises:
        InputError: one is missing, has another size or a name that leads elsewhere.
    """
    kind = TYPES[meta["encoding"]]
    parts: list[Array] = []
    for shard in meta["shards"]:
        name, samples = str(shard["file"]), int(shard["samples"])
        path = root / name
        if Path(name).name != name or not path.is_file() or path.stat().st_size != samples * kind.itemsize:
            raise InputError(f"{root} is a damaged corpus: {name} is not {samples} samples of {kind}; make it again")
        parts.append(np.memmap(path, kind, "r", shape=(samples,)))
    return Shards(parts)
