"""Lines that people write at the terminal when CrewAI asks them on a loop.

Source: ``_async_readline`` of ``crewai/core/providers/human_input.py`` of CrewAI 1.15.30. It hands standard input to a
transport of the loop, for each line another one, and closes none: a uvloop does not close after it, and what was
written ahead is lost. Here nothing stays open, and those who ask take turns.
"""

from __future__ import annotations

import asyncio
import os
import sys

from fastcrew_async import workers
from fastcrew_async.engine.lane import Lane
from fastcrew_async.engine.lent import Loan

_asking = Lane(1)


async def _async_readline() -> str:
    async with _asking.places():
        try:
            terminal = os.dup(sys.stdin.fileno())  # one of our own, which no transport has
        except (OSError, ValueError):
            return await workers.pool().run(input)
        try:
            return (await _line(terminal)).decode().rstrip("\n")
        except (OSError, NotImplementedError):  # a file, which no loop can watch
            return await workers.pool().run(input)
        finally:
            os.close(terminal)


async def _line(terminal: int) -> bytearray:
    """What comes up to the end of a line, or to the end of all, and nothing of what follows."""
    loop = asyncio.get_running_loop()
    line, ended = bytearray(), loop.create_future()

    def read() -> None:
        if not ended.done():
            try:
                byte = os.read(terminal, 1)
            except BlockingIOError:  # another process has taken it
                return
            except OSError as error:
                ended.set_exception(error)
            else:
                line.extend(byte)
                if byte in (b"", b"\n"):
                    ended.set_result(None)

    blocking = os.get_blocking(terminal)
    loop.add_reader(terminal, read)
    try:
        await ended
    finally:
        loop.remove_reader(terminal)
        os.set_blocking(terminal, blocking)  # a uvloop has changed it, for all who share this terminal
    return line


LOAN = Loan(
    "_async_readline",
    "crewai.core.providers.human_input",
    stand_in=_async_readline,
    reason="lent while a run on a loop asks a person, in an AsyncCrew too: reading a line leaves nothing open, and "
    "what was written ahead is not lost",
)
