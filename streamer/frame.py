"""Frames: what nodes exchange, and their packed form (one msgpack array a frame).

Knows the format only: nothing of nodes, ports or models. A frame never changes; its payload is little-endian bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgpack
import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamer.errors import FrameError, unknown

VERSION: Final = 1
SAMPLE_RATE: Final = 16_000
HEARD: Final = 1
GENERATED: Final = 2
LAST: Final = 4
TURN: Final = 8
ALL_FLAGS: Final = HEARD | GENERATED | LAST | TURN

AUDIO: Final = "audio"
ACOUSTIC: Final = "acoustic"
SEMANTIC: Final = "semantic"
COARSE: Final = "coarse"
FINE: Final = "fine"
CONTROL: Final = "control"
TICK: Final = "tick"

TOKENS: Final = "u2"
ITEM_SIZE: Final[Mapping[str, int]] = {"f4": 4, "i2": 2, "u2": 2, "u1": 1}
DTYPES: Final[Mapping[str, frozenset[str]]] = {
    AUDIO: frozenset({"f4", "i2"}),
    ACOUSTIC: frozenset({TOKENS}),
    SEMANTIC: frozenset({TOKENS}),
    COARSE: frozenset({TOKENS}),
    FINE: frozenset({TOKENS}),
    CONTROL: frozenset({"u1"}),
    TICK: frozenset({"u1"}),
}
KINDS: Final = frozenset(DTYPES)
RATES: Final[Mapping[str, int]] = {
    AUDIO: SAMPLE_RATE, ACOUSTIC: 50, COARSE: 50, FINE: 50, SEMANTIC: 25, TICK: 25, CONTROL: 25,
}  # fmt: skip
DIMENSIONS: Final[Mapping[str, int]] = {
    AUDIO: 1, SEMANTIC: 1, ACOUSTIC: 2, COARSE: 2, FINE: 2, CONTROL: 1, TICK: 1,
}  # fmt: skip
BARE: Final = frozenset({CONTROL, TICK})  # kinds without a payload

Meta = Mapping[str, str | int | float | bool | None]
NO_META: Final[Meta] = {}
_MAX_INT: Final = 2**63 - 1
_FIELDS: Final = 12
_LITTLE: Final = sys.byteorder == "little"


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """How large a frame may be. Checked before anything is allocated for its contents."""

    payload_bytes: int = 1 << 20
    meta_items: int = 32
    text_bytes: int = 1024
    session_bytes: int = 64
    levels: int = 32
    codebook: int = 1024
    rate: int = 384_000


LIMITS: Final = FrameLimits()


@dataclass(frozen=True, slots=True)
class Frame:
    """One piece of one stream.

    Attributes:
        kind: one of `KINDS`.
        session: name of the session it belongs to.
        epoch: raised by an interruption; what carries an older one is stale.
        seq: number within its stream.
        position: where it starts, in samples at 16 kHz; for `control`, where it takes effect (0: at once).
        rate: items a second along the first axis: 16000 audio, 50 acoustic/coarse/fine, 25 semantic and tick.
        dtype: `f4` or `i2` for audio, `u2` for tokens, `u1` for control and tick.
        shape: audio `[n]`, semantic `[tokens]`, acoustic/coarse/fine `[frames, levels]`, control and tick `[0]`.
        payload: the array's bytes, little-endian, C order.
        flags: any of `HEARD`, `GENERATED`, `LAST`, `TURN`.
        meta: small flat mapping; must not be changed.

    The constructor checks nothing: use `Frame.of` and `Frame.end`, or `Frame.unpack` for bytes from outside.
    """

    kind: str
    session: str
    epoch: int
    seq: int
    position: int
    rate: int
    dtype: str
    shape: tuple[int, ...]
    payload: bytes
    flags: int = 0
    meta: Meta = field(default_factory=dict)
    version: int = VERSION

    @classmethod
    def of(
        cls, kind: str, array: ArrayLike | None = None, *, position: int, like: Frame | None = None,
        session: str | None = None, epoch: int | None = None, seq: int | None = None, rate: int | None = None,
        flags: int = 0, meta: Meta | None = None, limits: FrameLimits = LIMITS,
    ) -> Frame:  # fmt: skip
        """A frame from an array; what is not given comes from `like` (session, epoch, seq) or the kind (rate).

        Args:
            kind: one of `KINDS`.
            array: audio `[n]` float (stored as `f4`) or int16; tokens of any integer type, stored as `u2`. None: empty.
            position: samples at 16 kHz.
            like: a frame of the same session to copy session, epoch and seq from.
            session: name of the session.
            epoch: raised by an interruption.
            seq: number within the stream.
            rate: items a second; None: the kind's usual rate.
            flags: any of `HEARD`, `GENERATED`, `LAST`, `TURN`.
            meta: small flat mapping.
            limits: how large it may be.

        Raises:
            FrameError: unknown kind, wrong number of dimensions, token outside the codebook, or too large.
        """
        if kind not in KINDS:
            raise FrameError(unknown("kind", kind, KINDS))
        dtype, shape, payload = _encode(kind, array, limits)
        return cls(
            kind,
            session if session is not None else (like.session if like is not None else ""),
            epoch if epoch is not None else (like.epoch if like is not None else 0),
            seq if seq is not None else (like.seq if like is not None else 0),
            position, rate if rate is not None else RATES[kind],
            dtype, shape, payload, flags, NO_META if meta is None else dict(meta),
        )  # fmt: skip

    @classmethod
    def end(cls, kind: str, *, position: int, like: Frame | None = None, **fields: Any) -> Frame:
        """The empty frame that ends a stream: `LAST` set, no payload. `fields` as for `Frame.of`."""
        flags = int(fields.pop("flags", 0)) | LAST
        return cls.of(kind, None, position=position, like=like, flags=flags, **fields)

    @classmethod
    def turn(cls, kind: str, *, position: int, like: Frame | None = None, **fields: Any) -> Frame:
        """The empty frame that ends a turn: the other side goes on from `position`. `fields` as for `Frame.of`."""
        flags, meta = int(fields.pop("flags", 0)) | TURN, dict(fields.pop("meta", None) or {})
        if kind == TICK:
            meta["empty"] = True
        return cls.of(kind, None, position=position, like=like, flags=flags, meta=meta, **fields)

    @classmethod
    def control(cls, command: str, *, position: int = 0, like: Frame | None = None, **values: Any) -> Frame:
        """A control frame: `meta` holds `command` and `values`; it takes effect at `position` (0: at once)."""
        return cls.of(CONTROL, None, position=position, like=like, meta={"command": command, **values})

    @property
    def last(self) -> bool:
        """True for the frame that ends its stream."""
        return bool(self.flags & LAST)

    @property
    def turns(self) -> bool:
        """True for the frame that ends a turn: what was heard, or what was generated, goes no further for now."""
        return bool(self.flags & TURN)

    @property
    def heard(self) -> bool:
        """True for what came from outside, false for what the model made."""
        return bool(self.flags & HEARD)

    @property
    def generated(self) -> bool:
        """True for what the model made."""
        return bool(self.flags & GENERATED)

    @property
    def array(self) -> NDArray[Any]:
        """The payload as a read-only array of `shape`; no copy."""
        return np.frombuffer(self.payload, dtype="<" + self.dtype).reshape(self.shape)

    @property
    def samples(self) -> int:
        """How much of the clock it covers, in samples at 16 kHz; 0 when it is empty.

        A tick has no payload and covers one step, except the one whose meta says `empty`: it only ends its stream.
        """
        if self.kind == TICK:
            return 0 if self.meta.get("empty") else SAMPLE_RATE // self.rate
        return self.shape[0] * SAMPLE_RATE // self.rate

    def replace(self, **changes: Any) -> Frame:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def pack(self) -> bytes:
        """The wire form: one msgpack array of twelve items, see docs/frames.md."""
        packed: bytes = msgpack.packb(
            (self.version, self.kind, self.session, self.epoch, self.seq, self.position, self.rate,
             self.dtype, self.shape, self.payload, self.flags, self.meta)
        )  # fmt: skip
        return packed

    @classmethod
    def unpack(cls, data: bytes, limits: FrameLimits = LIMITS) -> Frame:
        """A frame from its wire form, or FrameError: nothing else is raised, whatever the bytes are."""
        item = _parse(data, limits)
        version, kind, session, epoch, seq, position, rate, dtype, shape, payload, flags, meta = item
        if type(version) is not int or version != VERSION:
            raise FrameError(f"frame version {_short(version)}; this program reads version {VERSION}")
        if type(kind) is not str or kind not in KINDS:
            raise FrameError(unknown("kind", _short(kind), KINDS))
        if type(session) is not str or len(session) > limits.session_bytes:
            raise FrameError(f"session must be text of at most {limits.session_bytes} characters")
        _check_ints((epoch, seq, position), rate, flags, limits)
        _check_shape(kind, dtype, shape, limits)
        _check_payload(kind, dtype, shape, payload, limits)
        _check_meta(meta, limits)
        return cls(kind, session, epoch, seq, position, rate, dtype, shape, payload, flags, meta or NO_META)


def _short(value: object) -> str:
    text = repr(value) if not isinstance(value, str) else value
    return text if len(text) <= 40 else text[:37] + "..."


def _encode(kind: str, array: ArrayLike | None, limits: FrameLimits) -> tuple[str, tuple[int, ...], bytes]:
    """`(dtype, shape, payload)` of an array for a kind, checked."""
    if array is None:
        return _empty(kind)
    data = np.asarray(array)
    if kind in BARE or data.ndim != DIMENSIONS[kind]:
        wanted = 0 if kind in BARE else DIMENSIONS[kind]
        raise FrameError(f"a {kind} frame takes an array of {wanted} dimensions, not of shape {data.shape}")
    if kind == AUDIO:
        dtype = "i2" if data.dtype == np.int16 else "f4"
        if data.dtype.kind not in "fi" or (data.dtype.kind == "i" and dtype == "f4"):
            raise FrameError(f"audio must be float or int16, not {data.dtype}")
    else:
        dtype = TOKENS
        _check_tokens(data, limits)
    payload = np.ascontiguousarray(data, dtype="<" + dtype).tobytes()
    if len(payload) > limits.payload_bytes:
        raise FrameError(f"payload of {len(payload)} bytes; the limit is {limits.payload_bytes}")
    return dtype, data.shape, payload


def _empty(kind: str) -> tuple[str, tuple[int, ...], bytes]:
    dtype = "f4" if kind == AUDIO else ("u1" if kind in BARE else TOKENS)
    return dtype, (0,) * DIMENSIONS[kind], b""


def _check_tokens(data: NDArray[Any], limits: FrameLimits) -> None:
    if data.dtype.kind not in "iu":
        raise FrameError(f"tokens must be integers, not {data.dtype}")
    if data.size and (data.min() < 0 or data.max() >= limits.codebook):
        raise FrameError(f"tokens from {data.min()} to {data.max()}; expected 0 to {limits.codebook - 1}")
    if data.ndim == 2 and data.shape[1] > limits.levels:
        raise FrameError(f"{data.shape[1]} levels; the limit is {limits.levels}")


def _refuse_ext(code: int, data: object) -> object:
    _ = data
    raise FrameError(f"msgpack extension type {code} in a frame; only plain types are allowed")


def _parse(data: bytes, limits: FrameLimits) -> tuple[Any, ...]:
    """The twelve items, of plain types and limited size."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise FrameError(f"a frame is bytes, not {type(data).__name__}")
    largest = limits.payload_bytes + 2 * limits.meta_items * (limits.text_bytes + 8) + 4096
    if len(data) > largest:
        raise FrameError(f"{len(data)} bytes; the largest frame is {largest}")
    try:
        item = msgpack.unpackb(
            data, use_list=False, ext_hook=_refuse_ext, max_bin_len=limits.payload_bytes, max_ext_len=0,
            max_str_len=limits.text_bytes, max_array_len=_FIELDS, max_map_len=limits.meta_items,
        )  # fmt: skip
    except FrameError:
        raise
    except (ValueError, TypeError, RecursionError, BufferError, msgpack.exceptions.UnpackException) as error:
        raise FrameError(f"not a frame: {type(error).__name__}: {_short(str(error))}") from error
    if type(item) is not tuple or len(item) != _FIELDS:
        raise FrameError(f"a frame is an array of {_FIELDS} items")
    return item


def _check_ints(counts: tuple[object, ...], rate: object, flags: object, lim: FrameLimits) -> None:
    for name, value in zip(("epoch", "seq", "position"), counts, strict=True):
        if type(value) is not int or not 0 <= value <= _MAX_INT:
            raise FrameError(f"{name} must be an integer from 0 to 2^63-1, not {_short(value)}")
    if type(rate) is not int or not 1 <= rate <= lim.rate:
        raise FrameError(f"rate must be an integer from 1 to {lim.rate}, not {_short(rate)}")
    if type(flags) is not int or flags & ~ALL_FLAGS:
        raise FrameError(f"unknown flags {_short(flags)}; known bits: {ALL_FLAGS}")


def _check_shape(kind: str, dtype: object, shape: object, limits: FrameLimits) -> None:
    if type(dtype) is not str or dtype not in DTYPES[kind]:
        raise FrameError(f"dtype {_short(dtype)} for {kind}; expected {' or '.join(sorted(DTYPES[kind]))}")
    if type(shape) is not tuple or len(shape) != DIMENSIONS[kind]:
        raise FrameError(f"shape {_short(shape)} for {kind}; expected {DIMENSIONS[kind]} dimensions")
    for size in shape:
        if type(size) is not int or not 0 <= size <= limits.payload_bytes:
            raise FrameError(f"shape {_short(shape)}: sizes must be integers from 0 to {limits.payload_bytes}")
    if len(shape) == 2 and shape[1] > limits.levels:
        raise FrameError(f"{shape[1]} levels; the limit is {limits.levels}")


def _check_payload(kind: str, dtype: str, shape: tuple[int, ...], payload: object, limits: FrameLimits) -> None:
    if type(payload) is not bytes:
        raise FrameError(f"payload must be bytes, not {type(payload).__name__}")
    size = ITEM_SIZE[dtype]
    for length in shape:
        size *= length
    if len(payload) != size or (kind in BARE and size):
        raise FrameError(f"payload of {len(payload)} bytes; {kind} of shape {_short(shape)} takes {size}")
    if dtype == TOKENS and size and _largest(payload) >= limits.codebook:
        raise FrameError(f"token {_largest(payload)}; expected 0 to {limits.codebook - 1}")


def _largest(payload: bytes) -> int:
    """The largest token of a payload; a plain loop beats numpy below a few hundred bytes."""
    if _LITTLE and len(payload) < 512:
        return max(memoryview(payload).cast("H"))
    return int(np.frombuffer(payload, dtype="<u2").max())


def _check_meta(meta: object, limits: FrameLimits) -> None:
    if type(meta) is not dict:
        raise FrameError(f"metadata must be a mapping, not {type(meta).__name__}")
    for key, value in meta.items():
        if type(key) is not str or len(key) > limits.text_bytes:
            raise FrameError(f"metadata key {_short(key)}: keys must be text")
        if value is not None and type(value) not in (str, int, float, bool):
            raise FrameError(f"metadata {_short(key)}: must be text, number, boolean or nothing")
