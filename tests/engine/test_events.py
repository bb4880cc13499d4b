from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from crewai.events.event_bus import crewai_event_bus
from crewai.events.event_context import _event_id_stack, pop_event_scope, push_event_scope
from crewai.events.event_listener import EventListener, event_listener
from crewai.events.types.llm_events import LLMCallCompletedEvent, LLMCallFailedEvent, LLMStreamChunkEvent
from crewai.events.types.task_events import TaskCompletedEvent, TaskStartedEvent
from crewai.execution import begin_execution, end_execution

from fastcrew_async.engine import events
from fastcrew_async.engine.drivers import drive_in_place
from tests import crews


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No scope is open before or after, and the console is quiet as in a kickoff of a crew that is not verbose."""
    monkeypatch.setattr(event_listener.formatter, "verbose", False)
    token = _event_id_stack.set(())
    yield
    _event_id_stack.reset(token)


@pytest.fixture
def in_a_run() -> Iterator[None]:
    """Inside a kickoff, where CrewAI's own listeners have nothing to do."""
    token = begin_execution()
    yield
    end_execution(token)


def body() -> dict[str, Any]:
    return {"context": None, "task": crews.task(crews.agent())}


def not_built() -> dict[str, Any]:
    raise AssertionError("nobody can see it, so it must not be built")


@pytest.mark.usefixtures("in_a_run")
def test_an_event_that_nobody_sees_is_not_built_but_has_its_place() -> None:
    opened, future = events.tell(object(), TaskStartedEvent, not_built)
    assert future is None
    assert events.scope() == ((opened, "task_started"),)
    events.tell(object(), TaskCompletedEvent, not_built)
    assert events.scope() == ()


@pytest.mark.usefixtures("in_a_run")
def test_a_handler_sees_the_event_and_the_same_tree() -> None:
    seen: list[Any] = []

    def handler(source: Any, event: TaskStartedEvent) -> None:
        seen.append(event)

    push_event_scope("outer", "crew_kickoff_started")
    crewai_event_bus.register_handler(TaskStartedEvent, handler)
    try:
        assert events.observed(TaskStartedEvent)
        event_id, future = events.tell(object(), TaskStartedEvent, body)
        assert future is not None
        future.result(10)
    finally:
        crewai_event_bus.off(TaskStartedEvent, handler)
    assert not events.observed(TaskStartedEvent)
    assert [event.event_id for event in seen] == [event_id]
    assert seen[0].parent_event_id == "outer"
    assert events.scope()[-1] == (event_id, "task_started")


@pytest.mark.usefixtures("in_a_run")
def test_verbose_events_are_built() -> None:
    built: list[dict[str, Any]] = []

    def noted() -> dict[str, Any]:
        built.append(body())
        return built[-1]

    events.tell(object(), TaskStartedEvent, noted, verbose=True)
    assert len(built) == 1


@pytest.mark.usefixtures("in_a_run")
def test_the_listeners_of_another_event_listener_see_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not events.observed(TaskStartedEvent)
    monkeypatch.setattr(EventListener, "_instance", object())
    assert events.observed(TaskStartedEvent)


def test_a_bare_model_call_that_is_not_streamed_is_seen_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    console = events.event_listener.formatter
    own = frozenset(
        handler
        for handler in crewai_event_bus._sync_handlers[LLMCallCompletedEvent]
        if handler.__module__ == "crewai.events.event_listener"
    )
    for kind in (LLMCallCompletedEvent, LLMStreamChunkEvent):
        monkeypatch.setitem(crewai_event_bus._sync_handlers, kind, own)  # without the tracer of a first execution
    monkeypatch.setattr(console, "verbose", True)
    assert not events.observed(LLMCallCompletedEvent)
    assert events.observed(LLMStreamChunkEvent)
    monkeypatch.setattr(console, "_is_streaming", True)
    assert events.observed(LLMCallCompletedEvent)
    monkeypatch.setattr(console, "verbose", False)
    assert not events.observed(LLMStreamChunkEvent)


def test_a_replaced_emit_sees_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    token = begin_execution()
    try:
        assert not events.observed(TaskStartedEvent)
        monkeypatch.setattr(crewai_event_bus, "emit", lambda source, event: None)
        assert events.observed(TaskStartedEvent)
    finally:
        end_execution(token)


def test_a_run_waits_for_the_handlers_of_its_own_events_whoever_emits_them() -> None:
    blocked = threading.Event()
    handled: list[Any] = []

    def handler(source: Any, event: TaskStartedEvent) -> None:
        blocked.wait(10)
        handled.append(source)

    def waits_for() -> int:
        waiting = events.wait_for_handlers()
        try:
            effect: Any = waiting.send(None)
        except StopIteration:
            return 0
        finally:
            waiting.close()
        return len(effect.futures)

    def emit(source: Any) -> None:  # as CrewAI's model clients do
        crewai_event_bus.emit(source, TaskStartedEvent(**body()))

    crewai_event_bus.register_handler(TaskStartedEvent, handler)
    try:
        emit("of no run")
        token = events.begin_run()
        assert waits_for() == 0
        emit("of the run")
        assert waits_for() == 1
        nested = events.begin_run()
        assert waits_for() == 1
        events.end_run(nested)
        blocked.set()
        drive_in_place(events.wait_for_handlers())
        assert "of the run" in handled
        assert waits_for() == 0
        events.end_run(token)
    finally:
        blocked.set()
        crewai_event_bus.off(TaskStartedEvent, handler)
        crewai_event_bus.flush()


def test_the_bus_gets_its_own_bookkeeping_back() -> None:
    events.end_run(events.begin_run())
    assert type(crewai_event_bus._pending_futures) is not set
    events.release()
    assert type(crewai_event_bus._pending_futures) is set


def test_closing_what_an_error_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    emitted: list[Any] = []

    def emit(source: Any, event: Any) -> None:
        emitted.append(event)
        pop_event_scope()

    monkeypatch.setattr(crewai_event_bus, "emit", emit)
    push_event_scope("outer", "crew_kickoff_started")
    mark = events.scope()
    push_event_scope("task", "task_started")
    push_event_scope("call", "llm_call_started")
    events.close_scopes(mark, RuntimeError("down"), source="the model")
    assert events.scope() == mark
    assert [type(event) for event in emitted] == [LLMCallFailedEvent]
    assert (emitted[0].error, emitted[0].call_id) == ("down", "call")


def test_handlers_that_end_while_they_are_looked_through_do_not_disturb() -> None:
    pending: set[Any] = set()

    class Ending:
        def done(self) -> bool:
            pending.clear()  # as a handler's thread does with its own
            return True

    pending.update({Ending(), Ending(), Ending()})
    token = events._pending.set(pending)
    try:
        drive_in_place(events.wait_for_handlers())
    finally:
        events._pending.reset(token)
    assert not pending
