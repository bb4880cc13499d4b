"""An open database on each backend, and another process that holds its file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastcrew_async.store import Database

_HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN " + sys.argv[2])
print("held", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
connection.close()
"""

Hold = Callable[..., AbstractContextManager[Callable[[], None]]]


@pytest.fixture
async def db(backend: SimpleNamespace, tmp_path: Path) -> AsyncIterator[Database]:
    async with Database(tmp_path / "a.db") as database:
        await database.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
        yield database


@pytest.fixture
def hold() -> Hold:
    """``with hold(path) as release``: another process holds the file until then, or the end of the block."""

    @contextmanager
    def hold(path: str | Path, mode: str = "IMMEDIATE") -> Iterator[Callable[[], None]]:
        command = [sys.executable, "-c", _HOLD, str(path), mode]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"

            def release() -> None:
                if process.poll() is None:
                    process.communicate("\n", timeout=30)
                assert process.returncode == 0

            try:
                yield release
            finally:
                release()

    return hold


@pytest.fixture
def script(backend: SimpleNamespace) -> Callable[..., subprocess.Popen[str]]:
    """Starts a Python program on the same backend."""

    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            env={**os.environ, "FASTCREW_ASYNC_BACKEND": backend.name, "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start
