from __future__ import annotations

import threading
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from crewai import execution

from fastcrew_async.engine import traced
from fastcrew_async.engine.drivers import drive, drive_in_place


class Traces:
    """In the place of CrewAI's traces: where they begin and end, and with which error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[int] = []
        self.ended: list[Any] = []
        monkeypatch.setenv("CREWAI_TRACING_ENABLED", "true")
        monkeypatch.setattr(execution, "_start_tracing", self._start)

    def _start(self, uuid: str, tracing: bool | None) -> None:
        self.threads.append(threading.get_ident())
        own: Any = SimpleNamespace(activate=ExitStack)
        cleanup = ExitStack()
        cleanup.push(self._end)
        execution._activate_tracing(execution.ExecutionTrace(own, cleanup))

    def _end(self, kind: Any, error: Any, traceback: Any) -> None:
        self.threads.append(threading.get_ident())
        self.ended.append(error)


async def one(error: Exception | None = None) -> str | None:
    token = await traced.begin()
    try:
        inner = await traced.begin()
        assert inner is None
        await traced.end(inner)
        if error is not None:
            raise error
        return execution.get_execution_uuid()
    finally:
        await traced.end(token)


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Traces:
    return Traces(monkeypatch)


async def test_a_trace_begins_and_ends_beside_the_loop(traces: Traces) -> None:
    assert await drive(one())
    assert len(traces.threads) == 2
    assert threading.get_ident() not in traces.threads
    assert traces.ended == [None]
    assert execution.get_execution_uuid() is None
    assert execution._execution_tracing.get() is None


def test_in_place_it_begins_and_ends_on_this_thread(traces: Traces) -> None:
    assert drive_in_place(one())
    assert traces.threads == [threading.get_ident()] * 2
    assert traces.ended == [None]
    assert execution.get_execution_uuid() is None


async def test_it_is_told_of_the_error_of_its_run_and_not_of_one_around_it(traces: Traces) -> None:
    error = LookupError("no tea")
    with pytest.raises(LookupError):
        await drive(one(error))
    assert traces.ended == [error]
    try:
        raise ValueError("around")
    except ValueError:
        await drive(one())
    assert traces.ended == [error, None]


async def test_without_tracing_a_run_has_an_id_and_no_worker(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREWAI_TRACING_ENABLED", "")
    monkeypatch.setattr(traced.utils, "should_enable_tracing", lambda override: False)
    monkeypatch.setattr(traced.utils, "should_auto_collect_first_time_traces", lambda: False)
    assert await drive(one())
    assert execution.get_execution_uuid() is None
    assert traces.threads == []
