"""JSON, RFC 8259; what it has no form for is a map of one key, ``{"$bytes": ...}``, ``{"$datetime": ...}``,
``{"$float": "nan"}``. A map of the writer's own that looks like one has one more ``$`` before its key."""

from __future__ import annotations

import base64
import binascii
import math
import re
from datetime import datetime
from json import encoder
from typing import Any

from fastcrew_async._fallback.codec.plain import (
    DEEPEST,
    WIDEST_INTEGER,
    Fault,
    check_big,
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

_TAGGED = re.compile(r"(\$+)(bytes|datetime|float)", re.DOTALL)
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_SPACE = re.compile(rb"[ \n\r\t]*")
_DIGITS = re.compile(rb"[0-9]*")
_ESCAPES = {
    0x22: '"',
    0x5C: "\\",
    0x2F: "/",
    0x62: "\b",
    0x66: "\f",
    0x6E: "\n",
    0x72: "\r",
    0x74: "\t",
}
_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_MOST_DIGITS = WIDEST_INTEGER * 8 * 3 // 10 + 8


def write(document: Any) -> bytes:
    pieces: list[str] = []
    _write(document, pieces.append, 0)
    return "".join(pieces).encode()


def _quoted(text: str) -> str:
    utf8(text)
    return encoder.encode_basestring(text)


def _write(given: Any, out: Any, depth: int) -> None:
    value = plain(given)
    if value is None:
        out("null")
    elif isinstance(value, str):
        out(_quoted(value))
    elif isinstance(value, bool):
        out("true" if value else "false")
    elif isinstance(value, int):
        check_big(value)
        out(int.__repr__(value))
    elif isinstance(value, float):
        if math.isfinite(value):
            out(float.__repr__(value))
        else:
            out('{"$float":"nan"}' if math.isnan(value) else '{"$float":"inf"}' if value > 0 else '{"$float":"-inf"}')
    elif isinstance(value, bytes):
        out('{"$bytes":"' + base64.b64encode(value).decode() + '"}')
    elif isinstance(value, datetime):
        out('{"$datetime":"' + value.isoformat() + '"}')
    elif isinstance(value, list):
        _write_list(value, out, depth)
    else:
        _write_dict(value, out, depth)


def _write_list(value: list[Any], out: Any, depth: int) -> None:
    check_depth(depth)
    out("[")
    for index, item in enumerate(value):
        if index:
            out(",")
        try:
            _write(item, out, depth + 1)
        except Fault as error:
            raise error.within_item(index) from None
    out("]")


def _write_dict(value: dict[Any, Any], out: Any, depth: int) -> None:
    check_depth(depth)
    out("{")
    for index, (given, item) in enumerate(list(value.items())):
        key = key_of(given)
        if index:
            out(",")
        out(_quoted("$" + key if len(value) == 1 and _TAGGED.fullmatch(key) else key) + ":")
        try:
            _write(item, out, depth + 1)
        except Fault as error:
            raise error.within_key(key) from None
    out("}")


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def document(self) -> Any:
        value = self._value(0)
        self._space()
        if self.at < len(self.data):
            raise fault(self.at, "something follows the document")
        return value

    def _space(self) -> None:
        found = _SPACE.match(self.data, self.at)
        if found:
            self.at = found.end()

    def _next(self) -> int:
        self._space()
        if self.at >= len(self.data):
            raise early(self.at)
        return self.data[self.at]

    def _value(self, depth: int) -> Any:
        start = self._next()
        if start == 0x22:
            return self._text()
        if start == 0x7B:
            return self._map(depth + 1)
        if start == 0x5B:
            return self._list(depth + 1)
        if start == 0x2D or 0x30 <= start <= 0x39:
            return self._number()
        for word, value in ((b"true", True), (b"false", False), (b"null", None)):
            if start == word[0]:
                rest = self.data[self.at : self.at + len(word)]
                if rest == word:
                    self.at += len(word)
                    return value
                if word.startswith(rest):
                    raise early(len(self.data))
        raise fault(self.at, "expected a value")

    def _list(self, depth: int) -> list[Any]:
        if depth > DEEPEST:
            raise deep(self.at)
        items: list[Any] = []
        self.at += 1
        if self._next() == 0x5D:
            self.at += 1
            return items
        while True:
            items.append(self._value(depth))
            after = self._next()
            if after not in b",]":
                raise fault(self.at, "expected ',' or ']'")
            self.at += 1
            if after == 0x5D:
                return items

    def _map(self, depth: int) -> Any:
        offset = self.at
        too_deep = depth > DEEPEST  # bytes, a date or a float may stand one level deeper: they are maps in JSON only
        if depth > DEEPEST + 1:
            raise deep(offset)
        self.at += 1
        found: dict[str, Any] = {}
        count = 0
        after = self._next()
        if too_deep and after != 0x22:
            raise deep(offset)
        if after == 0x7D:
            self.at += 1
            return found
        while True:
            if self._next() != 0x22:
                raise fault(self.at, "expected a key in quotes")
            key = self._text()
            tag = _TAGGED.fullmatch(key) if count == 0 else None
            if too_deep and not (tag and len(tag[1]) == 1):
                raise deep(offset)
            if self._next() != 0x3A:
                raise fault(self.at, "expected ':'")
            self.at += 1
            start = self.at
            if tag and len(tag[1]) == 1:
                made = self._tagged(tag[2])
                if made is not None:
                    return made
                if too_deep:
                    raise deep(offset)
                self.at = start
            value = self._value(depth)
            if tag and self._next() == 0x7D:
                if len(tag[1]) == 1:
                    raise fault(start, "a tag needs a text")
                key = key[1:]
            found[key] = value
            count += 1
            after = self._next()
            if after not in b",}":
                raise fault(self.at, "expected ',' or '}'")
            self.at += 1
            if after == 0x7D:
                if len(found) < count:
                    raise twice(offset)
                return found

    def _tagged(self, tag: str) -> Any:
        """What follows the key of a tag; None where it is no text or not the only one of its map."""
        if self._next() != 0x22:
            return None
        start = self.at
        text = self._text()
        if self._next() != 0x7D:
            return None
        self.at += 1
        if tag == "datetime":
            return datetime_at(text, start)
        if tag == "float":
            if text not in _FLOATS:
                raise fault(start, 'a "$float" is one of nan, inf, -inf')
            return _FLOATS[text]
        try:
            made = base64.b64decode(text.encode(), validate=True)
        except binascii.Error:
            made = b""
        if base64.b64encode(made) != text.encode():
            raise fault(start, "this is not base64")
        return made

    def _number(self) -> int | float:
        start = self.at
        first = start + (self.data[start] == 0x2D)
        at = self._end_of_digits(first)
        if at - first > 1 and self.data[first] == 0x30:
            raise fault(first, "a number does not begin with 0")
        after = self.data[at : at + 1]
        if after not in (b".", b"e", b"E"):
            self.at = at
            if at - first > 18 and at - first > _MOST_DIGITS:
                raise fault(start, "the number is too large")
            value = int(self.data[start:at])
            if value.bit_length() >= WIDEST_INTEGER * 8:
                raise fault(start, "the number is too large")
            return value
        if after == b".":
            at = self._end_of_digits(at + 1)
        if self.data[at : at + 1] in (b"e", b"E"):
            at += 1
            at = self._end_of_digits(at + (self.data[at : at + 1] in (b"+", b"-")))
        self.at = at
        number = float(self.data[start:at])
        if not math.isfinite(number):
            raise fault(start, "the number is too large")
        return number

    def _end_of_digits(self, at: int) -> int:
        found = _DIGITS.match(self.data, at)
        end = found.end() if found else at
        if end == at:
            raise early(end) if end == len(self.data) else fault(end, "expected a digit")
        return end

    def _text(self) -> str:
        data = self.data
        run = self.at + 1
        pieces: list[str] = []
        while True:
            found = _PLAIN.match(data, run)
            end = found.end() if found else run
            if end < len(data) and data[end] == 0x22 and not pieces:
                text = text_at(data, run, end)
                self.at = end + 1
                return text
            pieces.append(text_at(data, run, end))
            if end == len(data):
                raise early(end)
            if data[end] == 0x22:
                self.at = end + 1
                return "".join(pieces)
            if data[end] != 0x5C:
                raise fault(end, "a control character must be escaped")
            text, run = self._escape(end)
            pieces.append(text)

    def _escape(self, at: int) -> tuple[str, int]:
        if at + 1 >= len(self.data):
            raise early(at + 1)
        letter = self.data[at + 1]
        if letter != 0x75:
            if letter not in _ESCAPES:
                raise fault(at, "there is no such escape")
            return _ESCAPES[letter], at + 2
        code, end = self._hex(at), at + 6
        if 0xD800 <= code < 0xDC00 and self.data[end : end + 2] == b"\\u":
            low = self._hex(end)
            if not 0xDC00 <= low < 0xE000:
                raise fault(at, "half a surrogate pair has no UTF-8")
            code, end = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00), end + 6
        if 0xD800 <= code < 0xE000:
            raise fault(at, "half a surrogate pair has no UTF-8")
        return chr(code), end

    def _hex(self, at: int) -> int:
        for place in range(at + 2, at + 6):
            if place >= len(self.data):
                raise early(len(self.data))
            if self.data[place] not in b"0123456789abcdefABCDEF":
                raise fault(at, "there is no such escape")
        return int(self.data[at + 2 : at + 6], 16)
