from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from crewai.core.providers import human_input

from fastcrew_async.engine.terminal import LOAN, _async_readline

STOCK = human_input._async_readline


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.FileIO]:
    """Who writes to standard input."""
    read, write = os.pipe()
    with os.fdopen(read) as terminal, io.FileIO(write, "w") as person:
        monkeypatch.setattr(sys, "stdin", terminal)
        yield person


async def test_line_by_line_in_the_order_they_were_asked_for(person: io.FileIO) -> None:
    asked = [asyncio.create_task(_async_readline()) for _ in range(3)]
    person.write("first é\nsecond\nthird\nfour".encode())
    assert await asyncio.gather(*asked) == ["first é", "second", "third"]
    person.close()
    assert await _async_readline() == "four"
    assert await _async_readline() == ""


async def test_who_is_cancelled_takes_nothing(person: io.FileIO) -> None:
    asked = asyncio.create_task(_async_readline())
    await asyncio.sleep(0.01)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    person.write(b"for another\n")
    assert await _async_readline() == "for another"


async def test_nothing_is_left_open(person: io.FileIO) -> None:
    before = await asyncio.to_thread(os.listdir, "/dev/fd")
    person.write(b"yes\n")
    assert await _async_readline() == "yes"
    assert len(await asyncio.to_thread(os.listdir, "/dev/fd")) == len(before)
    assert os.get_blocking(sys.stdin.fileno())


async def test_a_file_is_read_on_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "answers"
    await asyncio.to_thread(file.write_text, "from a file\n")
    with await asyncio.to_thread(open, file) as answers:
        monkeypatch.setattr(sys, "stdin", answers)
        assert await _async_readline() == "from a file"


async def test_what_is_no_file_is_read_on_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("from memory\n"))
    assert await _async_readline() == "from memory"


def test_it_is_lent() -> None:
    with LOAN:
        assert human_input._async_readline is _async_readline
    assert human_input._async_readline is STOCK
