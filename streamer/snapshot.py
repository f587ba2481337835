"""Snapshots: plain data and arrays as msgpack bytes and back, never pickle.

Knows only values: numbers, text, bytes, None, arrays, and lists and dicts of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgpack
import numpy as np

from streamer.errors import SnapshotError

FORMAT: Final = 1
MAX_BYTES: Final = 1 << 31
_ARRAY: Final = "__array__"
_BIG: Final = "__int__"
_PLAIN_DTYPES: Final = "biufc"


def dumps(value: Mapping[str, Any]) -> bytes:
    """The bytes of plain data.

    Raises:
        SnapshotError: a value is of another type; its path is named.
    """
    packed: bytes = msgpack.packb({"format": FORMAT, "data": plain(value)})
    return packed


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in the form that `dumps` packs, which nothing changes any more; a copy of it is the same again.

    Raises:
        SnapshotError: as `dumps`.
    """
    made: dict[str, Any] = _plain(value, "")
    return made


def loads(data: bytes) -> dict[str, Any]:
    """The data of `dumps`; arrays are writable copies.

    Raises:
        SnapshotError: damaged, or of another format.
    """
    try:
        found = msgpack.unpackb(
            data, object_hook=_hook, ext_hook=_no_ext, strict_map_key=True, max_ext_len=0,
            max_bin_len=MAX_BYTES, max_str_len=1 << 24,
        )  # fmt: skip
    except SnapshotError:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise SnapshotError(f"not a snapshot: {type(error).__name__}: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT or not isinstance(found.get("data"), dict):
        raise SnapshotError(f"not a snapshot of format {FORMAT}")
    result: dict[str, Any] = found["data"]
    return result


def _plain(value: Any, path: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, float, str, bytes)):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else {_BIG: str(value)}
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in _PLAIN_DTYPES:
            raise SnapshotError(f"{path}: an array of {value.dtype} cannot be saved; use numbers")
        ordered = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"), copy=False)
        return {_ARRAY: [ordered.dtype.str, list(value.shape), ordered.tobytes()]}
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{path}[{i}]") for i, item in enumerate(value)]
    kinds = "numbers, text, bytes, None, arrays, and lists and dicts of these"
    raise SnapshotError(f"{path}: a {type(value).__name__} cannot be saved; expected {kinds}")


def _no_ext(code: int, data: object) -> object:
    _ = data
    raise SnapshotError(f"msgpack extension type {code}: not a snapshot")


def _hook(value: dict[str, Any]) -> Any:
    if len(value) != 1:
        return value
    if _BIG in value:
        return int(value[_BIG])
    if _ARRAY not in value:
        return value
    dtype, shape, data = value[_ARRAY]
    if np.dtype(dtype).kind not in _PLAIN_DTYPES:
        raise SnapshotError(f"an array of {dtype}: not a snapshot")
    return np.frombuffer(data, dtype=dtype).reshape(shape).copy()
