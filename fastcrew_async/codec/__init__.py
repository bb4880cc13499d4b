"""Messages, outputs, events and run states as bytes: JSON, MessagePack or protobuf, all with a schema version.

    data = codec.encode(document, "msgpack")
    document = codec.decode(data)

A document is an :class:`~fastcrew_async.AgentMessage`, a :class:`~fastcrew_async.RunState`, a ``TaskOutput``, a
``CrewOutput`` or an event of CrewAI, or a plain value: None, bool, int, float, str, bytes, datetime, list or dict. What
this cannot hold faithfully is refused; ``docs/messages.md`` has the rules. Fields that this release does not know are
kept and written again. Streams of documents are in :mod:`fastcrew_async.codec.streams`.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeVar

from fastcrew_async._native import Codec
from fastcrew_async.codec.schema import DESCRIBED, KINDS, MAJOR, MINOR, proto
from fastcrew_async.errors import CodecError, DecodeError, EncodeError, SchemaVersionError

__all__ = [
    "MAX_BYTES",
    "CodecError",
    "DecodeError",
    "EncodeError",
    "Format",
    "SchemaVersionError",
    "Unknown",
    "decode",
    "encode",
    "join",
    "proto",
    "read",
    "split",
    "unknown",
    "write",
]

Format = Literal["json", "msgpack", "protobuf"]

MAX_BYTES = 64 * 2**20
"""The largest document that is read or written unless another number is given."""

_T = TypeVar("_T")
_codec = Codec(DESCRIBED)


class Unknown(NamedTuple):
    """What a document has that this release does not know."""

    fields: dict[str, Any]
    """Of its body."""
    around: dict[str, Any]
    """Beside its body."""


def encode(document: Any, format: Format = "json", *, max_bytes: int = MAX_BYTES) -> bytes:
    """The document as bytes.

    Raises:
        EncodeError: it holds something that cannot be written faithfully, or is larger than `max_bytes`, or nested
            deeper than 100 levels; the message says where.
        ValueError: there is no such format.
    """
    kind, body, kept = bodies.body_of(document)
    whole = {"major": MAJOR, "minor": MINOR, kind: body}
    if kept is not None:
        whole.update(kept.around)
    return _codec.encode(whole, format, max_bytes)


def decode(data: bytes, format: Format | None = None, *, max_bytes: int = MAX_BYTES) -> Any:
    """The document that these bytes are, in the format that they are found to be in, or must be in.

    Raises:
        DecodeError: they are no document; ``offset`` is the byte.
        SchemaVersionError: the document's major version is another than this release's.
        ValueError: there is no such format.
    """
    kind, body, around = _opened(data, format, max_bytes)
    return bodies.made(kind, body, around)


def decode_as(cls: type[_T], data: bytes, format: Format) -> _T:
    """The document, which must be of this class."""
    kind, body, around = _opened(data, format, MAX_BYTES)
    if bodies.CLASSES.get(kind) is not cls:
        raise DecodeError(f"this is a document of kind {kind}, not a {cls.__name__}; codec.decode reads any kind")
    document: _T = bodies.made(kind, body, around)
    return document


def made(kind: str, body: dict[str, Any]) -> Any:
    """The object for a body of plain values."""
    return bodies.made(kind, dict(body), {})


def unknown(document: Any) -> Unknown:
    """What the document had, when it was read, that this release does not know."""
    return bodies.unknown_of(document) or Unknown({}, {})


def format_of(data: bytes) -> Format:
    """The format of a document, by its first byte."""
    first = data[:1]
    if first in (b"{", b" ", b"\n", b"\r", b"\t"):
        return "json"
    if first == b"\x08":  # the field `major`
        return "protobuf"
    if b"\x80" <= first <= b"\x8f" or first in (b"\xde", b"\xdf"):
        return "msgpack"
    raise DecodeError("these bytes begin as none of JSON, MessagePack and protobuf documents does, at byte 0", 0)


def _opened(data: bytes, format: Format | None, max_bytes: int) -> tuple[str, Any, dict[str, Any]]:
    """The kind and the body of a document, and what is beside the body."""
    if type(data) is not bytes:
        if isinstance(data, str):
            raise TypeError("a document is bytes, not str; text.encode() makes them")
        data = bytes(data)
    whole = _codec.decode(data, format or format_of(data), max_bytes)
    if not isinstance(whole, dict):
        raise DecodeError(f"a document is a map, not {type(whole).__name__}")
    major = whole.pop("major", None)
    minor = whole.pop("minor", 0)
    if type(major) is not int or type(minor) is not int:
        raise DecodeError("the document names no schema version: 'major' and 'minor' must be whole numbers")
    if major != MAJOR:
        raise SchemaVersionError(
            f"the document has schema version {major}.{minor}, and this release of fastcrew-async reads {MAJOR}.x (its "
            f"own is {MAJOR}.{MINOR}); {'upgrade fastcrew-async' if major > MAJOR else 'it is older than any release'}"
        )
    kinds = [name for name in KINDS if name in whole]
    if len(kinds) != 1:
        found = ", ".join(sorted(whole)) or "nothing"
        raise DecodeError(f"the document must have one of {', '.join(KINDS)}, and has {found:.200}")
    return kinds[0], whole.pop(kinds[0]), whole


def __getattr__(name: str) -> Any:
    if name in {"read", "write", "split", "join"}:
        from fastcrew_async.codec import streams

        return getattr(streams, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


from fastcrew_async.codec import bodies  # noqa: E402  (it is made of what is above)
