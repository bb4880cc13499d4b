"""Documents as JSON, MessagePack and protobuf, from and to a tree of plain values; cut into frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from fastcrew_async._fallback.codec import json, msgpack, protobuf
from fastcrew_async._fallback.codec.plain import Fault, fault
from fastcrew_async._fallback.codec.protobuf import EXTRA, Field, Schema
from fastcrew_async.errors import DecodeError, EncodeError

_SCALARS = {"string", "int64", "double", "bool", "Value", "map"}


@final
class Codec:
    """Documents of one schema as bytes and back."""

    def __init__(self, schema: Sequence[tuple[str, Sequence[tuple[int, str, str, bool]]]]) -> None:
        names = {name for name, _ in schema}
        if not schema:
            raise ValueError("a schema has one record at least")
        self._schema: Schema = {}
        for name, fields in schema:
            own = sorted(Field(*field) for field in fields)
            for number, field, kind, _ in own:
                if kind not in _SCALARS and kind not in names:
                    raise ValueError(f'{name}.{field}: there is no kind "{kind}"')
                if not 0 < number < 1 << 29 or number == EXTRA or len(own) > 64:
                    raise ValueError(f"{name}.{field}: number {number} cannot be used")
            self._schema[name] = own
        self._root = schema[0][0]

    def encode(self, document: dict[str, Any], format: str, max_bytes: int) -> bytes:
        if not isinstance(document, dict):
            raise TypeError(f"a document is a dict, not {type(document).__name__}")
        try:
            if format == "json":
                data = json.write(document)
            elif format == "msgpack":
                data = msgpack.write(document)
            elif format == "protobuf":
                data = protobuf.write(document, self._schema, self._root)
            else:
                raise _unknown(format)
        except Fault as error:
            raise EncodeError(error.text()) from None
        if len(data) > max_bytes:
            raise EncodeError(
                f"the document is larger than max_bytes={max_bytes}; raise it, or write the document in frames"
            )
        return data

    def decode(self, data: bytes, format: str, max_bytes: int) -> Any:
        try:
            if format not in {"json", "msgpack", "protobuf"}:
                raise _unknown(format)
            if len(data) > max_bytes:
                raise fault(max_bytes, f"the document has {len(data)} bytes, more than max_bytes={max_bytes}")
            if format == "json":
                return json.Reader(data).document()
            if format == "msgpack":
                return msgpack.Reader(data).document()
            return protobuf.Reader(data, self._schema).document(self._root)
        except Fault as error:
            raise _unreadable(error) from None


def _unknown(format: str) -> ValueError:
    return ValueError(f'format="{format}" is not known; use json, msgpack or protobuf')


def _unreadable(error: Fault) -> DecodeError:
    return DecodeError(f"{error.message}, at byte {error.offset}", error.offset)


@final
class FrameSplitter:
    """Cuts what arrives in pieces into frames, each with its length before it as a varint."""

    def __init__(self, max_frame: int) -> None:
        if max_frame < 0:
            raise OverflowError("can't convert negative int to unsigned")
        self._max_frame = max_frame
        self._waiting = bytearray()
        self._offset = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def feed(self, piece: bytes) -> list[bytes]:
        self._waiting += piece
        frames: list[bytes] = []
        at = 0
        while (head := self._head(at)) is not None and head[1] <= len(self._waiting):
            frames.append(bytes(self._waiting[head[0] : head[1]]))
            at = head[1]
        del self._waiting[:at]
        self._offset += at
        return frames

    def end(self) -> None:
        if self._waiting:
            raise _unreadable(fault(self._offset + len(self._waiting), "the stream ends within a frame"))

    def _head(self, at: int) -> tuple[int, int] | None:
        length = 0
        for place, byte in enumerate(self._waiting[at : at + 5]):
            length |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                if length > self._max_frame:
                    message = f"a frame of {length} bytes is larger than max_frame={self._max_frame}"
                    raise _unreadable(fault(self._offset + at, message))
                return at + place + 1, at + place + 1 + length
        if len(self._waiting) - at >= 5:
            raise _unreadable(fault(self._offset + at, "this is not the length of a frame"))
        return None
