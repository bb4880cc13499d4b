"""A process that ends while model calls are in flight."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import pytest

from fastcrew_async.testing import ModelServer, Reply

CALLS = 1000
START = """
    import asyncio, sys
    from fastcrew_async.model.pool import connections

    async def begin():
        pool = connections(5.0)
        asked = (sys.argv[1] + "/chat/completions", [("content-type", "application/json")], b'{"messages": []}')
        calls = [asyncio.ensure_future(pool.post(*asked, None, None)) for _ in range(int(sys.argv[2]))]
        await asyncio.to_thread(sys.stdin.readline)
        return calls
"""
ENDS = {
    "asyncio.run ends and cancels them": "asyncio.run(begin())",
    "they are left on an open loop": "loop = asyncio.new_event_loop(); calls = loop.run_until_complete(begin())",
    "the program exits inside the loop": """
async def main():
    await begin()
    sys.exit(0)

asyncio.run(main())
""",
}


@pytest.mark.parametrize("end", ENDS)
def test_a_process_with_calls_in_flight_ends_silently(end: str) -> None:
    pytest.importorskip("fastcrew_async._core", reason="the twin's connections are Python's, which warns of open ones")
    with ModelServer(Reply(fault="stall")) as server:
        command = [sys.executable, "-c", textwrap.dedent(START) + ENDS[end], server.base_url, str(CALLS)]
        env = {**os.environ, "FASTCREW_ASYNC_BACKEND": "rust", "PYTHONASYNCIODEBUG": ""}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, env=env, text=True, **pipes) as child:  # type: ignore[call-overload]
            try:
                while server.in_flight < CALLS and child.poll() is None:
                    time.sleep(0.01)
                began = time.monotonic()
                out, errors = child.communicate("go\n", timeout=30)
            finally:
                child.kill()
        took = time.monotonic() - began
    left = "Task was destroyed but it is pending!"  # asyncio's own word on what was left to it
    errors = "" if end.startswith("they are left") and left in errors else errors
    assert (child.returncode, out, errors) == (0, "", "")
    assert took < 20
