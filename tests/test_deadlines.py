"""Deadlines of runs, tasks and what they call: the nearest one ends the waiting, whatever still runs in a thread."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from crewai import LLM
from crewai.tools import tool

import fastcrew_async
from fastcrew_async import AsyncCrew, time_left, workers
from fastcrew_async.deadlines import within
from fastcrew_async.engine.kickoff import kickoff_in_place
from fastcrew_async.errors import RunTimeoutError
from fastcrew_async.testing import ModelServer, ToolCall
from tests.crews import crew, storage

__all__ = ["storage"]

pytestmark = pytest.mark.usefixtures("storage")


@pytest.fixture
def installed() -> Iterator[None]:
    fastcrew_async.install()
    yield
    fastcrew_async.uninstall()


@pytest.fixture
def late_model() -> Iterator[ModelServer]:
    with ModelServer("too late", latency=60) as server:
        yield server


def openai(server: ModelServer) -> LLM:
    return LLM(model="openai/gpt-4o-mini", base_url=server.base_url, api_key="unused")


def test_the_nearest_deadline_counts() -> None:
    assert time_left() is None
    with within(60):
        with within(5):
            left = time_left()
            assert left is not None
            assert left <= 5
        with within(600):
            left = time_left()
            assert left is not None
            assert 50 < left <= 60
    with within(0):
        assert time_left() == 0
    assert time_left() is None


@pytest.mark.parametrize("way", ["kickoff", "akickoff", "AsyncCrew"])
@pytest.mark.usefixtures("installed")
def test_a_task_past_its_time_does_not_wait_for_its_sync_tool(way: str, caplog: pytest.LogCaptureFixture) -> None:
    release, ended, left = threading.Event(), threading.Event(), []

    @tool("slow")
    def slow() -> str:
        """Takes its time."""
        left.append(time_left())
        release.wait(60)
        ended.set()
        return "late"

    late = crew(ToolCall("slow"), tools=[slow], native=True, max_execution_time=1)
    ways: dict[str, Callable[[], Any]] = {
        "kickoff": lambda: late.kickoff({"topic": "tea"}),
        "akickoff": lambda: asyncio.run(late.akickoff({"topic": "tea"})),
        "AsyncCrew": lambda: asyncio.run(AsyncCrew(late).kickoff({"topic": "tea"})),
    }
    before = workers.pool().stats()
    with caplog.at_level(logging.WARNING, "fastcrew_async"), pytest.raises(TimeoutError, match="after 1 seconds"):
        ways[way]()
    assert not ended.is_set()
    stats = workers.pool().stats()
    assert stats["abandoned"] - before["abandoned"] == 1
    assert stats["still_running"] - before["still_running"] == 1
    assert "cannot be stopped" in caplog.text
    assert left[0] is not None
    assert 0 < left[0] <= 1
    release.set()
    assert ended.wait(10)
    for _ in range(1000):
        if workers.pool().stats()["still_running"] == before["still_running"]:
            return
        time.sleep(0.01)
    pytest.fail("a call that has ended still counts as running")


async def test_a_run_in_a_tool_has_the_deadline_of_the_run_around_it() -> None:
    """The inner run allows itself a minute; neither it nor what it left in a thread goes on after the outer's end."""
    release, seen = threading.Event(), []

    @tool("inner")
    def inner_tool() -> str:
        """Waits."""
        seen.append(time_left())
        release.wait(60)
        return "late"

    def inner_answer(request: Any) -> Any:
        seen.append("asked")
        return ToolCall("inner")

    below = crew(inner_answer, tools=[inner_tool], native=True, max_execution_time=60)

    @tool("outer")
    def outer_tool() -> str:
        """Kicks a crew off."""
        return str(kickoff_in_place(below, {"topic": "tea"}))

    outer = crew(ToolCall("outer"), tools=[outer_tool], native=True)
    with pytest.raises(RunTimeoutError):
        await asyncio.wait_for(AsyncCrew(outer).kickoff({"topic": "tea"}, timeout=2), 30)
    assert [entry for entry in seen if entry == "asked"] == ["asked"]
    assert all(entry == "asked" or (entry is not None and entry <= 2) for entry in seen)
    release.set()


async def test_a_cancelled_model_call_closes_its_connection(late_model: ModelServer, until: Any) -> None:
    llm = await asyncio.to_thread(openai, late_model)  # it reads certificates
    running = asyncio.create_task(AsyncCrew(crew(llm=llm)).kickoff({"topic": "tea"}))
    await until(lambda: late_model.in_flight == 1)
    assert late_model.connections == 1
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: late_model.connections == 0)


async def test_a_run_past_its_time_closes_its_connection(late_model: ModelServer, until: Any) -> None:
    llm = await asyncio.to_thread(openai, late_model)
    with pytest.raises(RunTimeoutError):
        await AsyncCrew(crew(llm=llm)).kickoff({"topic": "tea"}, timeout=1)
    await until(lambda: late_model.connections == 0)
