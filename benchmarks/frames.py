"""Frames: making one from an array, packing it and unpacking it with every check, beside bare msgpack."""

from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Result, Work, interleave, ratio, run
from streamer.frame import Frame


def results(tiny: bool = False) -> Iterator[Result]:
    """Microseconds of each operation for sound, a semantic token, and a whole stack of acoustic tokens."""
    rng = np.random.default_rng(0)
    arrays: dict[str, NDArray[Any]] = {
        "audio": rng.standard_normal(640).astype(np.float32),
        "semantic": rng.integers(0, 512, 1),
        "fine": rng.integers(0, 1024, (2, 12)),
    }
    for kind, array in arrays.items():
        frame = Frame.of(kind, array, position=640, session="main", seq=1)
        times = interleave(make_works(frame, array), bursts=3 if tiny else 60, calls=5 if tiny else 200)
        for name in ("of", "pack", "unpack"):
            bare = times.get(f"bare {name}")
            ours = times[name]
            yield Result(
                f"frames.{name}.{kind}", 1e6 * ours.cpu_s, "us",
                None if bare is None else 1e6 * bare.cpu_s, None if bare is None else "bare msgpack",
                None if bare is None else ratio(ours.cpu, bare.cpu), n=len(ours.cpu),
                more={"bytes": len(frame.pack()), "wall_us": 1e6 * ours.wall_s},
            )  # fmt: skip


def make_works(frame: Frame, array: NDArray[Any]) -> dict[str, Work]:
    """The three operations, and msgpack alone on the same twelve items."""
    data, kind = frame.pack(), frame.kind
    items = tuple(msgpack.unpackb(data, use_list=False))
    return {
        "of": lambda: Frame.of(kind, array, position=640, session="main", seq=1),
        "pack": frame.pack,
        "unpack": lambda: Frame.unpack(data),
        "bare pack": lambda: msgpack.packb(items),
        "bare unpack": lambda: msgpack.unpackb(data, use_list=False),
    }


def main() -> int:
    """Print the figures."""
    return run(results)


if __name__ == "__main__":
    raise SystemExit(main())
