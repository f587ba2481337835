"""Graphs kept from one start to the next in a folder of the user, so that writing them costs time once.

A graph's file is named by what it was made from: the bundle's weights, the part, the precision, and the version of the
writer. A file that cannot be loaded is made again; a folder that cannot be written is done without.
"""

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audiolm.compute.onnx.running import runtime, session

WRITER = 1  # raised whenever a graph of the same weights comes out differently
KEPT = 4  # files of one part, the newest; older bundles of the same name are forgotten


def cache_folder() -> Path:
    """``$AUDIOLM_CACHE``, else ``audiolm-streamer`` in the user's cache folder."""
    own = os.environ.get("AUDIOLM_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(own) if own else Path(base) / "audiolm-streamer"


class Store:
    """The graphs of one bundle.

    Args:
        name: the bundle's name, for people.
        fingerprint: of its weights; empty keeps nothing.
        folder: where; :func:`cache_folder` when None.
    """

    def __init__(self, name: str, fingerprint: str, folder: Path | None = None) -> None:
        self.name, self.fingerprint = re.sub(r"[^\w-]", "_", name), fingerprint
        self.folder = (folder or cache_folder()) / "onnx"
        self._loaded: dict[str, Any] = {}

    def load(self, part: str, make: Callable[[], bytes]) -> Any:
        """The ready session of a graph, loaded once: from its file, or made and kept there."""
        if part not in self._loaded:
            self._loaded[part] = self._load(part, make)
        return self._loaded[part]

    def _load(self, part: str, make: Callable[[], bytes]) -> Any:
        if not self.fingerprint:
            return session(make())
        path = self.path(part)
        with contextlib.suppress(OSError, *_damage()):
            return session(path)
        model = make()
        with contextlib.suppress(OSError):
            self._keep(path, model)
            return session(path)
        return session(model)

    def path(self, part: str) -> Path:
        """The file of a graph."""
        key = hashlib.sha256(f"{WRITER}/{self.fingerprint}/{part}".encode()).hexdigest()[:16]
        return self.folder / f"{self.name}-{part}-{key}.onnx"

    def _keep(self, path: Path, model: bytes) -> None:
        """Write it whole or not at all, and forget the oldest of its kind."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as beside:  # a full disk leaves nothing behind
            part = Path(beside) / path.name
            part.write_bytes(model)
            part.replace(path)
        alike = sorted(self.folder.glob(f"{path.name[:-22]}-*.onnx"), key=lambda each: each.stat().st_mtime)
        for old in alike[:-KEPT]:
            old.unlink(missing_ok=True)


def _damage() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a file that is no graph of this version."""
    errors = runtime().capi.onnxruntime_pybind11_state
    return (errors.InvalidProtobuf, errors.InvalidGraph, errors.InvalidArgument, errors.NoSuchFile, errors.Fail)
