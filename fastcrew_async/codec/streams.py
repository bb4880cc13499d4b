"""Documents one after another, each with its length before it: in files, over sockets, with bounded memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from copy import copy
from typing import IO, Any, Protocol, TypeAlias

from fastcrew_async._native import FrameSplitter
from fastcrew_async.codec import Format, decode, encode
from fastcrew_async.errors import DecodeError
from fastcrew_async.messages import RunPart, RunState
from fastcrew_async.workers import pool

MAX_FRAME = 16 * 2**20
"""The largest frame that is read or written unless another number is given."""

PIECE = 256 * 1024
"""How many bytes are read or written at a time."""

_NAMES = {"message": "messages", "tool_call": "tool_calls", "output": "outputs", "event": "events"}


class Writer(Protocol):
    """What is written to, an ``asyncio.StreamWriter`` for example."""

    def write(self, data: bytes, /) -> Any: ...
    async def drain(self) -> Any: ...


class Reader(Protocol):
    """What is read from, an ``asyncio.StreamReader`` for example."""

    async def read(self, n: int, /) -> bytes: ...


Path: TypeAlias = "str | os.PathLike[str]"


def split(state: RunState) -> Iterator[RunPart]:
    """A run state in parts that can be written one by one: its header, each message, tool call, output and event, and
    how many there were."""
    yield RunPart("header", _header(state))
    for name, plural in _NAMES.items():
        for item in getattr(state, plural):
            yield RunPart(name, item)
    yield RunPart("end", {plural: len(getattr(state, plural)) for plural in _NAMES.values()})


def _header(state: RunState) -> RunState:
    header = copy(state)
    for plural in _NAMES.values():
        setattr(header, plural, [])
    return header


def join(parts: Iterable[RunPart]) -> RunState:
    """The run state of these parts.

    Raises:
        DecodeError: the first one is no header, or some are missing.
    """
    state: RunState | None = None
    for part in parts:
        if state is None:
            if part.name != "header":
                raise DecodeError(f"a run state begins with its header, not with its {part.name}")
            state = _header(part.value)  # which is filled here, and may be joined again
            continue
        if part.name == "end":
            counts = {plural: len(getattr(state, plural)) for plural in _NAMES.values()}
            if any(part.value.get(plural, 0) != count for plural, count in counts.items()):
                raise DecodeError(f"the run state was written with {part.value}, and has {counts}")
            return state
        if part.name not in _NAMES:
            raise DecodeError(f"a run state has no second {part.name}")
        getattr(state, _NAMES[part.name]).append(part.value)
    raise DecodeError("the run state has no end: some of its parts are missing")


def frame(document: Any, format: Format = "msgpack", *, max_frame: int = MAX_FRAME) -> bytes:
    """The document with its length before it, as a varint.

    Raises:
        EncodeError: as from :func:`fastcrew_async.codec.encode`.
    """
    data = encode(document, format, max_bytes=max_frame)
    length, head = len(data), bytearray()
    while length >= 0x80:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + data


async def write(
    target: Path | Writer,
    documents: Iterable[Any] | AsyncIterable[Any],
    format: Format = "msgpack",
    *,
    max_frame: int = MAX_FRAME,
) -> int:
    """Write documents as frames to a file, which is made or replaced, or to a stream; gives how many.

    A :class:`~fastcrew_async.RunState` is written in its parts. A file is written by a worker thread; a stream is
    drained, but not closed.

    Raises:
        EncodeError: a document cannot be written, or is larger than `max_frame` bytes; those before it have been.
        OSError: the file cannot be written.
    """
    file: IO[bytes] | None = None
    if isinstance(target, str | os.PathLike):
        file = await pool().run(open, target, "wb")
    count, waiting = 0, bytearray()

    async def flush() -> None:
        piece = bytes(waiting)
        waiting.clear()
        if file is not None:
            await pool().run(file.write, piece)
        else:
            target.write(piece)  # type: ignore[union-attr]
            await target.drain()  # type: ignore[union-attr]
            await asyncio.sleep(0)  # drain() does not wait while the socket takes it

    try:
        async for document in _each(documents):
            waiting += frame(document, format, max_frame=max_frame)
            count += 1
            if len(waiting) >= PIECE:
                await flush()
        await flush()
    finally:
        if file is not None:
            await pool().run(file.close)
    return count


async def read(source: Path | Reader | AsyncIterable[bytes], *, max_frame: int = MAX_FRAME) -> AsyncIterator[Any]:
    """The documents of a file, a stream, or an async iterator of bytes, one by one; no more is held than a piece
    of 256 KiB and one frame.

    Raises:
        DecodeError: a frame is no document, is larger than `max_frame` bytes, or ends too early.
        SchemaVersionError: as from :func:`fastcrew_async.codec.decode`.
        OSError: the file cannot be read.
    """
    splitter = FrameSplitter(max_frame)
    number = 0
    async with aclosing(_pieces(source)) as pieces:
        async for piece in pieces:
            for data in splitter.feed(bytes(piece)):
                number += 1
                try:
                    document = decode(data, max_bytes=max_frame)
                except DecodeError as error:
                    raise DecodeError(f"frame {number}: {error}", error.offset) from error
                yield document
    splitter.end()


async def _pieces(source: Any) -> AsyncGenerator[bytes, None]:
    if isinstance(source, str | os.PathLike):
        file = await pool().run(open, source, "rb")
        try:
            while piece := await pool().run(file.read, PIECE):
                yield piece
        finally:
            await pool().run(file.close)
    elif hasattr(source, "read"):
        while piece := await source.read(PIECE):
            yield piece
            await asyncio.sleep(0)  # read() does not wait while there is something to read
    else:
        async for piece in source:
            yield piece


async def _each(documents: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(documents, RunState):
        documents = split(documents)
    if isinstance(documents, AsyncIterable):
        async for document in documents:
            yield document
        return
    for document in documents:
        if isinstance(document, RunState):
            for part in split(document):
                yield part
        else:
            yield document
