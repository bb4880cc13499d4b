"""What the formats have in common: limits, faults, and which values there are."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

DEEPEST = 100
WIDEST_INTEGER = 512
UNKNOWN = "$protobuf"

_DATETIME = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?([+-]\d\d:\d\d(:\d\d(\.\d{6})?)?)?",
    re.ASCII,
)


class Fault(Exception):
    """Why a document is refused: at which byte when it is read, at which place in it when it is written."""

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.path: list[str] = []

    def text(self) -> str:
        text = ""
        for step in reversed(self.path):
            text += ("." if text and not step.startswith("[") else "") + step
        return f"{text}: {self.message}" if text else self.message

    def within_key(self, key: str) -> Fault:
        self.path.append(key[:80])
        return self

    def within_item(self, index: int) -> Fault:
        self.path.append(f"[{index}]")
        return self


def fault(offset: int, message: str) -> Fault:
    return Fault(message, offset)


def early(offset: int) -> Fault:
    return Fault("the document ends too early", offset)


def deep(offset: int) -> Fault:
    return Fault(f"nested deeper than {DEEPEST} levels", offset)


def twice(offset: int) -> Fault:
    return Fault("a key is there twice in this map", offset)


def text_at(data: bytes, start: int, end: int) -> str:
    try:
        return data[start:end].decode()
    except UnicodeDecodeError as error:
        raise Fault("the text is not UTF-8", start + error.start) from None


def datetime_at(text: str, offset: int) -> datetime:
    try:
        if _DATETIME.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    raise Fault("this is no date and time as datetime.isoformat() writes it", offset)


def big_at(data: bytes, offset: int) -> int:
    if not 1 <= len(data) <= WIDEST_INTEGER:
        raise Fault("the number is too large", offset)
    return int.from_bytes(data, "big", signed=True)


def plain(value: Any) -> Any:
    """The value as one of the types that are written: what is derived from one as that one, a tuple as a list."""
    kind = type(value)
    if kind in (str, dict, list, bool, int, float, bytes) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, dict):
        return dict(value)
    if kind is datetime:
        text = value.isoformat()
        if not _DATETIME.fullmatch(text):
            raise Fault(f"{text} is no date and time of a fixed form")
        return value
    raise Fault(f"{kind.__name__} cannot be written; use None, bool, int, float, str, bytes, datetime, list or dict")


def utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Fault(
            f"half a surrogate pair at index {error.start} has no UTF-8; replace it first, for example with "
            "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
        ) from None


def key_of(key: Any) -> str:
    if not isinstance(key, str):
        raise Fault(f"a key is {type(key).__name__}; use a str")
    return str.__str__(key)


def check_big(value: int) -> None:
    bits = value.bit_length()
    if bits >= WIDEST_INTEGER * 8:
        raise Fault(f"an integer of {bits} bits cannot be written; the most is {WIDEST_INTEGER * 8 - 1}")


def big_bytes(value: int) -> bytes:
    check_big(value)
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def check_depth(depth: int) -> None:
    if depth >= DEEPEST:
        raise Fault(f"nested deeper than {DEEPEST} levels; flatten it, and see that it does not contain itself")
