"""Fuzz the parsing of frames with atheris: `python scripts/fuzz_frames.py -runs=100000`. Options are libFuzzer's.

A crash is any exception but FrameError, a frame that does not pack to a frame equal to itself, or more memory than a
frame may take.
"""

import sys

import atheris

with atheris.instrument_imports(include=["streamer.frame"]):
    from streamer.errors import FrameError
    from streamer.frame import LIMITS, Frame


def parse(data: bytes) -> None:
    """One input: refused, or a frame that survives packing."""
    try:
        frame = Frame.unpack(data)
    except FrameError:
        return
    if len(frame.payload) > LIMITS.payload_bytes or Frame.unpack(frame.pack()) != frame:
        raise AssertionError(f"not the same after packing, or too large: {frame.kind} {frame.shape}")


def main() -> None:
    """Run libFuzzer with the given options."""
    atheris.Setup(sys.argv, parse)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
