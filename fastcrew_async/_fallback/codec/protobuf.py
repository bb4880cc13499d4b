"""protobuf, https://protobuf.dev/programming-guides/encoding/, by a schema; ``docs/fastcrew.proto`` is the same in its
language.

What a field cannot hold goes to the ``extra`` of its record, under the field's name; fields of unknown numbers are kept
as they are. A field that is no list must not be there twice.
"""

from __future__ import annotations

import struct
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

from fastcrew_async._fallback.codec.plain import (
    DEEPEST,
    UNKNOWN,
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

EXTRA = 15
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_NULL, _BOOL, _INT, _BIG, _FLOAT, _TEXT, _BYTES, _DATETIME, _LIST, _MAP = range(1, 11)  # the fields of Value


class Field(NamedTuple):
    number: int
    name: str
    kind: str
    repeated: bool


Schema: TypeAlias = "dict[str, list[Field]]"


def write(document: dict[Any, Any], schema: Schema, root: str) -> bytes:
    return _Writer(schema).record(document, root, 0)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _int(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def _float(number: int, value: float) -> bytes:
    return _varint(number << 3 | _FIXED64) + struct.pack("<d", value)


def _bytes(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | _DELIMITED) + _varint(len(data)) + data


def _is_small(value: int) -> bool:
    return -(1 << 63) <= value < 1 << 63


def _is_of(value: Any, kind: str) -> bool:
    if kind == "string":
        return isinstance(value, str)
    if kind == "int64":
        return isinstance(value, int) and not isinstance(value, bool) and _is_small(value)
    if kind == "double":
        return isinstance(value, float)
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "Value":
        return True
    return isinstance(value, dict) and (kind != "map" or bool(value))


def _fits(value: Any, field: Field) -> bool:
    """Whether a field holds this value as it is; otherwise it goes to ``extra``."""
    if field.repeated:
        return isinstance(value, list | tuple) and bool(value) and all(_is_of(item, field.kind) for item in value)
    return _is_of(value, field.kind)


class _Writer:
    def __init__(self, schema: Schema) -> None:
        self.schema = schema

    def record(self, found: dict[Any, Any], name: str, depth: int) -> bytes:
        check_depth(depth)
        fields = self.schema[name]
        out = bytearray()
        written = set()
        for field in fields:
            if field.name in found and _fits(found[field.name], field):
                written.add(field.name)
                try:
                    out += self._field(field, found[field.name], depth + 1)
                except Fault as error:
                    raise error.within_key(field.name) from None
        unknown = b""
        for given, item in list(found.items()):
            key = key_of(given)
            utf8(key)
            if key in written:
                continue
            if key == UNKNOWN and isinstance(item, bytes) and _is_unknown(item, fields):
                unknown = bytes(item)
                continue
            out += self._entry(EXTRA, key, item, depth + 1)
        return bytes(out) + unknown

    def _field(self, field: Field, value: Any, depth: int) -> bytes:
        if not field.repeated:
            return self._single(field, value, depth)
        check_depth(depth)
        out = bytearray()
        for index, item in enumerate(value):
            try:
                out += self._single(field, item, depth + 1)
            except Fault as error:
                raise error.within_item(index) from None
        return bytes(out)

    def _single(self, field: Field, given: Any, depth: int) -> bytes:
        value = plain(given)
        number, kind = field.number, field.kind
        if kind == "string":
            return _bytes(number, utf8(value))
        if kind in ("int64", "bool"):
            return _int(number, value)
        if kind == "double":
            return _float(number, value)
        if kind == "Value":
            return _bytes(number, self._value(value, depth))
        if kind == "map":
            check_depth(depth)
            return b"".join(self._entry(number, key_of(key), item, depth + 1) for key, item in list(value.items()))
        return _bytes(number, self.record(value, kind, depth))

    def _entry(self, number: int, key: str, item: Any, depth: int) -> bytes:
        name = utf8(key)
        try:
            value = self._value(plain(item), depth)
        except Fault as error:
            raise error.within_key(key) from None
        return _bytes(number, _bytes(1, name) + _bytes(2, value))

    def _value(self, value: Any, depth: int) -> bytes:
        """The message ``Value``, without its length."""
        if value is None:
            return _int(_NULL, 1)
        if isinstance(value, bool):
            return _int(_BOOL, value)
        if isinstance(value, int):
            if _is_small(value):
                return _int(_INT, value << 1 ^ value >> 63)
            return _bytes(_BIG, big_bytes(value))
        if isinstance(value, float):
            return _float(_FLOAT, value)
        if isinstance(value, str):
            return _bytes(_TEXT, utf8(value))
        if isinstance(value, bytes):
            return _bytes(_BYTES, value)
        if isinstance(value, datetime):
            return _bytes(_DATETIME, value.isoformat().encode())
        check_depth(depth)
        if isinstance(value, dict):
            entries = (self._entry(1, key_of(key), item, depth + 1) for key, item in list(value.items()))
            return _bytes(_MAP, b"".join(entries))
        out = bytearray()
        for index, item in enumerate(value):
            try:
                out += _bytes(1, self._value(plain(item), depth + 1))
            except Fault as error:
                raise error.within_item(index) from None
        return _bytes(_LIST, bytes(out))


def _is_unknown(data: bytes, fields: list[Field]) -> bool:
    reader = Reader(data, {})
    try:
        while reader.at < len(data):
            number, wire = reader.tag(len(data))
            if number == EXTRA or any(field.number == number for field in fields):
                return False
            reader.skip(len(data), wire)
    except Fault:
        return False
    return bool(data)


class Reader:
    def __init__(self, data: bytes, schema: Schema) -> None:
        self.data = data
        self.at = 0
        self.schema = schema

    def document(self, root: str) -> Any:
        return self._record(root, len(self.data), 1)

    def tag(self, end: int) -> tuple[int, int]:
        start = self.at
        tag = self._varint(end)
        if not 8 <= tag < 1 << 32:
            raise fault(start, "there is no such field number")
        return tag >> 3, tag & 7

    def skip(self, end: int, wire: int) -> None:
        start = self.at
        if wire == _VARINT:
            self._varint(end)
        elif wire == _DELIMITED:
            self.at = self._delimited(end)
        elif wire in (_FIXED64, _FIXED32):
            self.at += 8 if wire == _FIXED64 else 4
        else:
            raise fault(start, f"wire type {wire} is not known here")
        if self.at > end:
            raise early(end)

    def _varint(self, end: int) -> int:
        start, value = self.at, 0
        for place in range(10):
            if self.at >= end:
                raise early(end)
            byte = self.data[self.at]
            self.at += 1
            if place == 9 and byte > 1:
                break
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return value
        raise fault(start, "a varint has 64 bits at most")

    def _delimited(self, end: int) -> int:
        start = self.at
        length = self._varint(end)
        if length > end - self.at:
            raise fault(start, "a length goes beyond what holds it")
        return self.at + length

    def _expect(self, found: int, wanted: int, number: int) -> None:
        if found != wanted:
            raise fault(self.at, f"field {number} has wire type {found} in place of {wanted}")

    def _part(self, end: int, wire: int, number: int) -> int:
        self._expect(wire, _DELIMITED, number)
        return self._delimited(end)

    def _record(self, name: str, end: int, depth: int) -> dict[str, Any]:
        offset = self.at
        if depth > DEEPEST:
            raise deep(offset)
        fields = {field.number: field for field in self.schema[name]}
        found: dict[str, Any] = {}
        several: dict[int, Any] = {}
        seen: set[int] = set()
        put = 0
        counts: dict[int, int] = {}
        unknown = b""
        while self.at < end:
            start = self.at
            number, wire = self.tag(end)
            if number == EXTRA:
                self._entry(found, self._part(end, wire, number), depth)
                put += 1
                continue
            field = fields.get(number)
            if field is None:
                self.skip(end, wire)
                unknown += self.data[start : self.at]
                continue
            if field.repeated or field.kind == "map":
                if number not in several:
                    if depth + 1 > DEEPEST:
                        raise deep(start)
                    several[number] = [] if field.repeated else {}
                counts[number] = counts.get(number, 0) + 1
                if field.repeated:
                    several[number].append(self._field(field.kind, number, wire, end, depth + 1))
                else:
                    self._entry(several[number], self._part(end, wire, number), depth + 1)
                continue
            if number in seen:
                raise fault(start, f"field {number} is there twice")
            seen.add(number)
            found[field.name] = self._field(field.kind, number, wire, end, depth)
            put += 1
        for number in sorted(several):
            if len(several[number]) < counts[number]:
                raise twice(offset)
            found[fields[number].name] = several[number]
            put += 1
        if unknown:
            found[UNKNOWN] = unknown
            put += 1
        if len(found) < put:
            raise twice(offset)
        return found

    def _field(self, kind: str, number: int, wire: int, end: int, depth: int) -> Any:
        if kind == "string":
            return self._text(self._part(end, wire, number))
        if kind == "int64":
            self._expect(wire, _VARINT, number)
            value = self._varint(end)
            return value - (1 << 64) if value >> 63 else value
        if kind == "bool":
            self._expect(wire, _VARINT, number)
            return self._varint(end) != 0
        if kind == "double":
            self._expect(wire, _FIXED64, number)
            return self._float(end)
        until = self._part(end, wire, number)
        return self._value(until, depth) if kind == "Value" else self._record(kind, until, depth + 1)

    def _text(self, until: int) -> str:
        start, self.at = self.at, until
        return text_at(self.data, start, until)

    def _float(self, end: int) -> float:
        if end - self.at < 8:
            raise early(end)
        self.at += 8
        value: float = struct.unpack("<d", self.data[self.at - 8 : self.at])[0]
        return value

    def _entry(self, found: dict[str, Any], end: int, depth: int) -> None:
        parts: dict[int, Any] = {}
        while self.at < end:
            start = self.at
            number, wire = self.tag(end)
            if number not in (1, 2):
                raise fault(start, "an entry has no such field")
            if number in parts:
                raise fault(start, f"field {number} is there twice")
            until = self._part(end, wire, number)
            parts[number] = self._text(until) if number == 1 else self._value(until, depth)
        found[parts.get(1, "")] = parts.get(2)

    def _value(self, end: int, depth: int) -> Any:
        """The message ``Value``; an empty one is null."""
        if self.at >= end:
            return None
        offset = self.at
        number, wire = self.tag(end)
        value: Any
        if number in (_NULL, _BOOL, _INT):
            self._expect(wire, _VARINT, number)
            zigzag = self._varint(end)
            value = None if number == _NULL else zigzag != 0 if number == _BOOL else zigzag >> 1 ^ -(zigzag & 1)
        elif number == _FLOAT:
            self._expect(wire, _FIXED64, number)
            value = self._float(end)
        elif number in (_BIG, _TEXT, _BYTES, _DATETIME):
            until = self._part(end, wire, number)
            if number == _TEXT:
                value = self._text(until)
            else:
                data, self.at = self.data[self.at : until], until
                if number == _BIG:
                    value = big_at(data, offset)
                elif number == _BYTES:
                    value = data
                else:
                    value = self._datetime(data, offset, end)
        elif number in (_LIST, _MAP):
            until = self._part(end, wire, number)
            if depth + 1 > DEEPEST:
                raise deep(offset)
            value = self._items(number == _LIST, until, depth + 1, offset)
        else:
            raise fault(offset, "a Value has no such field")
        if self.at < end:
            raise fault(self.at, "a Value holds one thing")
        return value

    def _datetime(self, data: bytes, offset: int, end: int) -> datetime:
        if self.at < end:
            raise fault(self.at, "a Value holds one thing")
        return datetime_at(data.decode("ascii", "replace"), offset)

    def _items(self, is_list: bool, end: int, depth: int, offset: int) -> Any:
        items: list[Any] = []
        found: dict[str, Any] = {}
        count = 0
        while self.at < end:
            start = self.at
            number, wire = self.tag(end)
            if number != 1:
                raise fault(start, "a List or a Map has no such field")
            until = self._part(end, wire, number)
            if is_list:
                items.append(self._value(until, depth))
            else:
                self._entry(found, until, depth)
            count += 1
        if is_list:
            return items
        if len(found) < count:
            raise twice(offset)
        return found
