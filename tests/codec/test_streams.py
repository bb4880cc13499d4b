"""Documents as frames: in files, over sockets, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fastcrew_async import AgentMessage, RunState, codec
from fastcrew_async.codec import streams
from fastcrew_async.errors import DecodeError, EncodeError
from fastcrew_async.messages import RunPart

FORMATS: list[codec.Format] = ["json", "msgpack", "protobuf"]


def state(messages: int, size: int = 10) -> RunState:
    return RunState(
        id="r",
        messages=[{"role": "user", "content": str(number) * size} for number in range(messages)],
        tool_calls=[{"name": "search"}],
        outputs=[{"description": "d", "agent": "a", "raw": "r"}],
        events=[{"type": "t"}, {"type": "u"}],
        metadata={"a": 1},
    )


async def all_of(documents: AsyncIterator[Any]) -> list[Any]:
    return [document async for document in documents]


def test_a_run_state_is_split_and_joined() -> None:
    parts = list(codec.split(state(3)))
    assert [part.name for part in parts] == [
        "header",
        *["message"] * 3,
        "tool_call",
        "output",
        "event",
        "event",
        "end",
    ]
    assert codec.join(codec.decode(codec.encode(part)) for part in parts) == state(3)


def test_splitting_and_joining_leave_what_they_are_given_as_it_was() -> None:
    given = state(3)
    parts = list(codec.split(given))
    assert codec.join(parts) == codec.join(parts) == given == state(3)
    assert parts[0].value.messages == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda parts: parts[1:], "begins with its header, not with its message"),
        (lambda parts: parts[:-1], "has no end"),
        (lambda parts: parts[:2] + parts[3:], r"was written with \{'messages': 3.*, and has \{'messages': 2"),
        (lambda parts: [parts[0], *parts], "no second header"),
        (lambda parts: [], "has no end"),
    ],
)
def test_parts_that_are_missing_are_noticed(change: Any, text: str) -> None:
    parts = [codec.decode(codec.encode(part)) for part in codec.split(state(3))]
    with pytest.raises(DecodeError, match=text):
        codec.join(change(parts))


@pytest.mark.parametrize("format", FORMATS)
async def test_through_a_file(tmp_path: Path, format: codec.Format) -> None:
    sent = [AgentMessage("a", "x" * 100_000, id=str(number)) for number in range(10)]
    assert await codec.write(tmp_path / "f", [*sent, "plain", state(2)], format) == 10 + 1 + 8
    read = await all_of(codec.read(str(tmp_path / "f")))
    assert read[:11] == [*sent, "plain"]
    assert codec.join(read[11:]) == state(2)


@pytest.mark.parametrize("format", FORMATS)
async def test_over_a_socket(format: codec.Format) -> None:
    received: list[Any] = []
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for document in codec.read(reader):
            received.append(document)
        writer.close()
        ended.set()

    async def documents() -> AsyncIterator[Any]:
        for part in codec.split(state(50, 10_000)):
            yield part

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await codec.write(writer, documents(), format) == 56
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(ended.wait(), 20)
    assert codec.join(received) == state(50, 10_000)


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def test_from_pieces_of_any_size() -> None:
    data = b"".join(streams.frame(part) for part in codec.split(state(20)))
    for size in (1, 7, 1000, len(data)):
        assert codec.join(await all_of(codec.read(pieces(data, size)))) == state(20)


async def test_what_was_read_before_the_end_is_given() -> None:
    data = streams.frame(1) + streams.frame(2)[:-1]
    reading = codec.read(pieces(data, 5))
    assert await anext(reading) == 1
    with pytest.raises(DecodeError, match=f"the stream ends within a frame, at byte {len(data)}"):
        await anext(reading)
    with pytest.raises(DecodeError, match="frame 1: the document ends too early, at byte 1"):
        await all_of(codec.read(pieces(b"\x01\x08", 5)))


async def test_frames_are_bounded(tmp_path: Path) -> None:
    with pytest.raises(EncodeError, match="larger than max_bytes=1000"):
        await codec.write(tmp_path / "f", ["x" * 2000], max_frame=1000)
    await codec.write(tmp_path / "f", ["x" * 2000])
    with pytest.raises(DecodeError, match="larger than max_frame=1000, at byte 0"):
        await all_of(codec.read(tmp_path / "f", max_frame=1000))


async def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await all_of(codec.read(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        await codec.write(tmp_path / "none" / "f", [])


async def test_a_reader_that_stops_closes_the_file(tmp_path: Path) -> None:
    await codec.write(tmp_path / "f", range(1000))
    reading = codec.read(tmp_path / "f")
    assert await anext(reading) == 0
    await reading.aclose()  # type: ignore[attr-defined]


async def test_the_loop_goes_on_beside_it(tmp_path: Path) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    part = RunPart("message", {"role": "user", "content": "x" * 5000})
    await codec.write(tmp_path / "f", (part for _ in range(1000)))
    written, turns = turns, 0
    assert len(await all_of(codec.read(tmp_path / "f"))) == 1000
    counting.cancel()
    pieces_of = 5000 * 1000 // streams.PIECE
    assert written >= pieces_of
    assert turns >= pieces_of
