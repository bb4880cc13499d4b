from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar

import pytest

from fastcrew_async.engine.paced import Paced
from fastcrew_async.engine.turnstile import turnstile

seen: ContextVar[int] = ContextVar("seen", default=0)


async def test_gives_the_result_and_keeps_the_context() -> None:
    async def client() -> str:
        seen.set(1)
        await asyncio.sleep(0)
        return await asyncio.wait_for(asyncio.sleep(0.001, "answer"), 10)

    assert await Paced(client()) == "answer"
    assert seen.get() == 1


async def test_raises_what_the_coroutine_raises() -> None:
    async def client() -> None:
        await asyncio.sleep(0)
        raise LookupError("model")

    with pytest.raises(LookupError, match="model"):
        await Paced(client())


async def test_cancelling_reaches_the_coroutine_where_it_waits() -> None:
    ended = asyncio.Event()

    async def client() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def call() -> None:
        await Paced(client())

    task = asyncio.create_task(call())
    await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_cancelling_while_it_waits_for_its_turn_reaches_the_coroutine(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = turnstile()
    monkeypatch.setattr(gate, "slice", 1e-9)  # one step uses up an iteration, so the other coroutines wait
    started: list[None] = []
    ended: list[None] = []

    async def client() -> None:
        started.append(None)
        try:
            while True:
                await asyncio.sleep(0)
        finally:
            ended.append(None)

    async def call() -> None:
        await Paced(client())

    tasks = [asyncio.create_task(call()) for _ in range(10)]
    for _ in range(100):
        await asyncio.sleep(0)
        if gate.stats().waiting and len(started) == 10:
            break
    assert gate.stats().waiting
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=10)
    assert all(task.cancelled() for task in tasks)
    assert len(ended) == 10


async def test_the_loop_turns_between_the_steps_of_many() -> None:
    turns = 0
    order: list[int] = []

    async def host() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def client(gate: asyncio.Event) -> None:
        await gate.wait()
        before = time.perf_counter()
        while time.perf_counter() - before < 0.002:  # an answer's parsing
            pass
        order.append(turns)

    async def call(gate: asyncio.Event) -> None:
        await Paced(client(gate))

    gate = asyncio.Event()
    ticking = asyncio.create_task(host())
    calls = [asyncio.create_task(call(gate)) for _ in range(50)]
    await asyncio.sleep(0.01)
    gate.set()
    await asyncio.wait_for(asyncio.gather(*calls), 30)
    ticking.cancel()
    # All were ready in one iteration; 100 ms of work in slices of 2 ms takes many.
    assert len(set(order)) >= 5
