"""The serial number of an Ogg stream, made constant.

libsndfile draws it at random, so two equal runs would give files that differ. Each page carries it at bytes 14-17 and a
checksum over the whole page at bytes 22-25 (RFC 3533, section 6), so both are written anew.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

__all__ = ["fix_serial"]

SERIAL = b"aulm"
HEADER = 27
MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def fix_serial(path: Path) -> None:
    """Give every page of the file at `path` the same serial number, in place. For files of a single stream."""
    with path.open("r+b") as file:
        while page := _read_page(file):
            file.seek(-len(page), 1)
            file.write(_renumbered(page))


def _read_page(file: BinaryIO) -> bytes:
    header = file.read(HEADER)
    if len(header) < HEADER or not header.startswith(b"OggS"):
        return b""
    lengths = file.read(header[26])
    return header + lengths + file.read(sum(lengths))


def _renumbered(page: bytes) -> bytes:
    blank = page[:14] + SERIAL + page[18:22] + bytes(4) + page[26:]
    return blank[:22] + _checksum(blank).to_bytes(4, "little") + blank[26:]


def _checksum(page: bytes) -> int:
    """CRC-32 with Ogg's conventions: same polynomial as zlib's, but bits not mirrored, nothing inverted."""
    mirrored = zlib.crc32(page.translate(MIRROR), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
