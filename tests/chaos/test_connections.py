"""Cancels of model calls over HTTP, under limits: every connection is closed, and nothing is left of the runs."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import certifi
import openai
import pytest
from crewai import LLM

import fastcrew_async
from fastcrew_async import AsyncCrew, Limit, Limits
from fastcrew_async.testing import ModelServer
from tests import crews

AT_ONCE, ROUNDS = 20, 3


@pytest.fixture
def server() -> Iterator[ModelServer]:
    openai.OpenAI(api_key="unused").platform_headers()  # read from files, once
    certifi.where()
    with ModelServer("late", latency=600) as started:
        yield started


@pytest.fixture
def limited() -> Iterator[None]:
    before = fastcrew_async.settings().limits
    fastcrew_async.configure(limits=Limits(kickoffs=AT_ONCE, model=Limit(concurrent=AT_ONCE - 5, tokens=10**9)))
    yield
    fastcrew_async.configure(limits=before)


async def soon(condition: Callable[[], bool]) -> None:
    """Waits a minute at most, as a busy machine needs its time for so many calls at once."""
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("the condition never came true")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(sys.platform != "linux", reason="open files are counted in /proc")
@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize("kind", [LLM, fastcrew_async.LLM])
async def test_nothing_is_left_of_cancelled_calls(kind: Any, server: ModelServer) -> None:
    noted: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: noted.append(context))
    moments = random.Random(5)
    llm = kind(model="openai/gpt-4o-mini", base_url=server.base_url, api_key="unused")
    kickoff = AsyncCrew(crews.crew(llm=llm)).kickoff
    files = 0
    threads: list[int] = []
    for _ in range(ROUNDS):
        runs = [asyncio.create_task(kickoff({"topic": str(number)})) for number in range(AT_ONCE)]
        await soon(lambda: server.in_flight == AT_ONCE - 5)  # the others wait for a permit
        moments.shuffle(runs)
        for run in runs:
            for _ in range(moments.randrange(3)):
                await asyncio.sleep(0)
            run.cancel()
        assert len((await asyncio.wait(runs, timeout=10))[0]) == AT_ONCE
        if kind is LLM:  # httpx keeps a connection whose request is cancelled just when it is open
            await llm._async_client._client._transport.aclose()
        await soon(lambda: server.connections == 0)
        found = fastcrew_async.stats()
        assert [(key.used, key.waiting, key.reserved) for key in found.limits.values()] == [(0, 0, 0)] * 2
        assert found.runs.running == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        gc.collect()
        files = files or open_files()
        await soon(lambda most=files: open_files() <= most)  # the server closes its ends in a thread of its own
        threads.append(sum(not thread.name.startswith("CrewAISyncHandler") for thread in threading.enumerate()))
    assert max(threads) == threads[0]
    assert server.abandoned >= ROUNDS * (AT_ONCE - 5)
    assert noted == []
    await llm._async_client.close()
