"""MessagePack, https://github.com/msgpack/msgpack/blob/master/spec.md.

Extension 1 is an integer beyond 64 bits in two's complement, the highest byte first; extension 2 a date and time as
``datetime.isoformat()`` writes it.
"""

from __future__ import annotations

import struct
from datetime import datetime
from typing import Any

from fastcrew_async._fallback.codec.plain import (
    DEEPEST,
    Fault,
    big_at,
    big_bytes,
    check_depth,
    datetime_at,
    deep,
    early,
    fault,
    key_of,
    plain,
    text_at,
    twice,
    utf8,
)

_INTEGER = 1
_DATETIME = 2


def write(document: Any) -> bytes:
    out = bytearray()
    _write(document, out, 0)
    return bytes(out)


def _write(given: Any, out: bytearray, depth: int) -> None:
    value = plain(given)
    if value is None:
        out.append(0xC0)
    elif isinstance(value, str):
        _write_text(value, out)
    elif isinstance(value, bool):
        out.append(0xC3 if value else 0xC2)
    elif isinstance(value, int):
        _write_int(value, out)
    elif isinstance(value, float):
        out += b"\xcb" + struct.pack(">d", value)
    elif isinstance(value, bytes):
        out += _head(0xC4, 0xC5, 0xC6, len(value)) + value
    elif isinstance(value, datetime):
        _write_extension(_DATETIME, value.isoformat().encode(), out)
    elif isinstance(value, list):
        check_depth(depth)
        out += bytes([0x90 | len(value)]) if len(value) < 16 else _head(None, 0xDC, 0xDD, len(value))
        for index, item in enumerate(value):
            try:
                _write(item, out, depth + 1)
            except Fault as error:
                raise error.within_item(index) from None
    else:
        check_depth(depth)
        out += bytes([0x80 | len(value)]) if len(value) < 16 else _head(None, 0xDE, 0xDF, len(value))
        for given_key, item in list(value.items()):
            key = key_of(given_key)
            _write_text(key, out)
            try:
                _write(item, out, depth + 1)
            except Fault as error:
                raise error.within_key(key) from None


def _head(small: int | None, middle: int, large: int, length: int) -> bytes:
    if small is not None and length < 1 << 8:
        return bytes([small, length])
    if length < 1 << 16:
        return struct.pack(">BH", middle, length)
    return struct.pack(">BI", large, length)


def _write_text(text: str, out: bytearray) -> None:
    data = utf8(text)
    out += (bytes([0xA0 | len(data)]) if len(data) < 32 else _head(0xD9, 0xDA, 0xDB, len(data))) + data


def _write_int(value: int, out: bytearray) -> None:
    if -32 <= value < 128:
        out.append(value & 0xFF)
    elif value >= 1 << 64 or value < -(1 << 63):
        _write_extension(_INTEGER, big_bytes(value), out)
    else:
        for marker, form, limit in (
            ((0xCC, "B", 1 << 8), (0xCD, "H", 1 << 16), (0xCE, "I", 1 << 32), (0xCF, "Q", 1 << 64))
            if value >= 0
            else ((0xD0, "b", 1 << 7), (0xD1, "h", 1 << 15), (0xD2, "i", 1 << 31), (0xD3, "q", 1 << 63))
        ):
            if -limit <= value < limit:
                out += struct.pack(">B" + form, marker, value)
                return


def _write_extension(kind: int, data: bytes, out: bytearray) -> None:
    fixed = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}.get(len(data))
    out += bytes([fixed]) if fixed is not None else _head(0xC7, 0xC8, 0xC9, len(data))
    out.append(kind)
    out += data


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def document(self) -> Any:
        value = self._value(0)
        if self.at < len(self.data):
            raise fault(self.at, "something follows the document")
        return value

    def _take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise early(len(self.data))
        taken, self.at = self.data[self.at : end], end
        return taken

    def _length(self, width: int) -> int:
        return int.from_bytes(self._take(width), "big")

    def _value(self, depth: int) -> Any:
        offset = self.at
        marker = self._take(1)[0]
        if marker < 0x80:
            return marker
        if marker < 0x90:
            return self._map(marker & 15, offset, depth + 1)
        if marker < 0xA0:
            return self._list(marker & 15, offset, depth + 1)
        if marker < 0xC0:
            return self._text(marker & 31)
        if marker >= 0xE0:
            return marker - 0x100
        if marker == 0xC0:
            return None
        if marker == 0xC1:
            raise fault(offset, "expected a value")
        if marker <= 0xC3:
            return marker == 0xC3
        if marker <= 0xC6:
            return self._take(self._length(1 << marker - 0xC4))
        if marker <= 0xC9:
            return self._extension(self._length(1 << marker - 0xC7), offset)
        if marker == 0xCA:
            return struct.unpack(">f", self._take(4))[0]
        if marker == 0xCB:
            return struct.unpack(">d", self._take(8))[0]
        if marker <= 0xCF:
            return self._length(1 << marker - 0xCC)
        if marker <= 0xD3:
            return int.from_bytes(self._take(1 << marker - 0xD0), "big", signed=True)
        if marker <= 0xD8:
            return self._extension(1 << marker - 0xD4, offset)
        if marker <= 0xDB:
            return self._text(self._length(1 << marker - 0xD9))
        if marker <= 0xDD:
            return self._list(self._length(2 << marker - 0xDC), offset, depth + 1)
        return self._map(self._length(2 << marker - 0xDE), offset, depth + 1)

    def _text(self, length: int) -> str:
        start = self.at
        self._take(length)
        return text_at(self.data, start, self.at)

    def _list(self, length: int, offset: int, depth: int) -> list[Any]:
        if depth > DEEPEST:
            raise deep(offset)
        items: list[Any] = []
        for _ in range(length):  # a length may claim more than there is
            items.append(self._value(depth))
        return items

    def _map(self, length: int, offset: int, depth: int) -> dict[str, Any]:
        if depth > DEEPEST:
            raise deep(offset)
        found: dict[str, Any] = {}
        for _ in range(length):
            start = self.at
            marker = self._take(1)[0]
            if 0xA0 <= marker < 0xC0:
                key = self._text(marker & 31)
            elif 0xD9 <= marker <= 0xDB:
                key = self._text(self._length(1 << marker - 0xD9))
            else:
                raise fault(start, "a key must be a text")
            found[key] = self._value(depth)
        if len(found) < length:
            raise twice(offset)
        return found

    def _extension(self, length: int, offset: int) -> Any:
        kind = self._take(1)[0]
        data = self._take(length)
        if kind == _INTEGER:
            return big_at(data, offset)
        if kind == _DATETIME:
            return datetime_at(data.decode("ascii", "replace"), offset)
        raise fault(offset, f"extension {kind - 0x100 if kind > 127 else kind} is not known here")
