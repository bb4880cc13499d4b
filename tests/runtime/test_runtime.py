from __future__ import annotations

import asyncio
import os
import threading

import pytest

from fastcrew_async import runtime
from fastcrew_async.errors import RuntimeClosedError


async def test_one_runtime_serves_the_process(backend):
    first = runtime.get()
    assert isinstance(first, backend.Runtime)
    assert runtime.get() is first
    assert await asyncio.to_thread(runtime.get) is first
    assert first.pid == os.getpid()


def test_threads_that_ask_together_get_the_same_one(backend):
    ready, got = threading.Barrier(8), []

    def ask() -> None:
        ready.wait(10)
        got.append(runtime.get())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(10)
    assert len(got) == 8
    assert len(set(map(id, got))) == 1


async def test_after_close_the_next_call_makes_a_new_one(backend):
    first = runtime.get()
    assert runtime.close(0) is True
    assert first.closed
    with pytest.raises(RuntimeClosedError):
        await first.sleep(0)
    assert runtime.get() is not first
    await asyncio.wait_for(runtime.sleep(0), 10)


async def test_a_runtime_closed_by_itself_is_replaced_too(backend):
    runtime.get().close(0)
    await asyncio.wait_for(runtime.sleep(0), 10)


def test_close_without_a_runtime_does_nothing(backend):
    assert runtime.close() is True
    assert runtime._runtime is None


async def test_sleep_refuses_what_is_no_duration(backend):
    with pytest.raises(ValueError, match="seconds must be a number from 0 on, not -1"):
        await runtime.sleep(-1)


@pytest.mark.parametrize("timeout", [-1.0, float("nan")])
def test_close_refuses_what_is_no_duration_and_stays_open(backend, timeout):
    made = backend.Runtime()
    with pytest.raises(ValueError, match="timeout must be a number from 0 on"):
        made.close(timeout)
    assert not made.closed
    made.close(0)


def test_no_threads_is_an_error(backend):
    with pytest.raises(ValueError, match="threads must be at least 1, not 0"):
        backend.Runtime(threads=0)
