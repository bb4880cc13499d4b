"""The files of vectors in plain Python, in ``src/memory/segments.rs``'s format."""

from __future__ import annotations

import math
import os
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_ENTRY = struct.Struct("<qqIIIfff")
_FLAGS_AT = 24
PRIVATE = 1
_DEAD, _REMOVAL_AT = 2, 2
_MOST_REMOVALS = 2**30 - 1
_SEGMENT_BYTES = 32 << 20


class Entry(NamedTuple):
    """What filters ask of a record, and what its vector's codes mean."""

    row: int
    created: int
    scope: int
    source: int
    flags: int
    scale: float
    lost: float
    length: float


def capacity(dim: int) -> int:
    """Slots of a new segment."""
    slots = min(max(_SEGMENT_BYTES // (4 * dim), 256), 65_536)
    return -(-slots // 256) * 256


def coded(vector: array[float]) -> tuple[bytes, float, float, float]:
    """A vector of length 1 in 8 bits a number: ``(codes, scale, lost, length)``."""
    length = math.sqrt(math.fsum(x * x for x in vector))
    if length == 0.0:
        return bytes(len(vector)), 0.0, 0.0, 0.0
    scale = max(abs(x) for x in vector) / length / 127.0
    numbers = [x / length for x in vector]
    codes = [max(-127, min(127, round(x / scale))) for x in numbers]
    lost = math.sqrt(math.fsum((x - code * scale) ** 2 for x, code in zip(numbers, codes, strict=True)))
    return struct.pack(f"{len(codes)}b", *codes), scale, lost * 1.0001 + 1e-7, length


class Segment(NamedTuple):
    """One file: all entries, then all codes, then all numbers."""

    path: Path
    base: int
    capacity: int
    dim: int

    @property
    def _codes_at(self) -> int:
        return self.capacity * _ENTRY.size

    @property
    def _vectors_at(self) -> int:
        return -(-(self._codes_at + self.capacity * self.dim) // 4096) * 4096

    def create(self) -> None:
        """Make the file. One of its name is what a transaction left that was rolled back."""
        self.path.unlink(missing_ok=True)
        with open(self.path, "xb") as file:
            file.truncate(self._vectors_at + self.capacity * self.dim * 4)

    def write(self, slot: int, entry: Entry, vector: bytes) -> None:
        """Write a slot; it is on disk when this returns."""
        codes, scale, lost, length = coded(array("f", vector))
        index = slot - self.base
        with open(self.path, "r+b") as file:
            for at, part in (
                (self._vectors_at + index * self.dim * 4, vector),
                (self._codes_at + index * self.dim, codes),
                (index * _ENTRY.size, _ENTRY.pack(*entry._replace(scale=scale, lost=lost, length=length))),
            ):
                file.seek(at)
                file.write(part)
            file.flush()
            os.fsync(file.fileno())

    def vector(self, slot: int) -> bytes:
        """The numbers of a slot."""
        with open(self.path, "rb") as file:
            file.seek(self._vectors_at + (slot - self.base) * self.dim * 4)
            return file.read(self.dim * 4)

    def living(self, next_slot: int, removals: int) -> Iterator[tuple[int, Entry, array[float]]]:
        """The slots below ``next_slot`` that are not marked as gone by one of the first so many removals."""
        removals = min(removals, _MOST_REMOVALS)
        with open(self.path, "rb") as file:
            used = min(max(next_slot - self.base, 0), self.capacity)
            entries = file.read(used * _ENTRY.size)
            file.seek(self._vectors_at)
            for index, fields in enumerate(_ENTRY.iter_unpack(entries)):
                vector = array("f")
                vector.frombytes(file.read(self.dim * 4))
                entry = Entry(*fields)
                is_dead = entry.flags & _DEAD and entry.flags >> _REMOVAL_AT <= removals
                if entry.row and not is_dead:
                    yield self.base + index, entry, vector
