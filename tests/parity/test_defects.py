"""Defects of CrewAI that show under concurrency, cancellation or errors: what it does, and what we do instead."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar
from unittest import mock

import pytest
from crewai import Crew
from crewai.events.event_bus import crewai_event_bus
from crewai.events.event_context import get_current_parent_id
from crewai.events.types.crew_events import CrewKickoffCompletedEvent, CrewKickoffFailedEvent
from crewai.events.types.llm_events import LLMCallCompletedEvent
from crewai.events.types.task_events import TaskCompletedEvent
from crewai.knowledge.knowledge import Knowledge
from crewai.knowledge.storage.base_knowledge_storage import BaseKnowledgeStorage
from crewai.state.checkpoint_config import CheckpointConfig
from crewai.utilities.exceptions.context_window_exceeding_exception import LLMContextLengthExceededError

import fastcrew_async
from fastcrew_async import AsyncCrew

from .cases.building import agent, solo, task
from .cases.failures import TOO_LONG
from .cases.tools import TEXT
from .models import ScriptedModel, action, final
from .recorder import Recorder, fresh_context
from .recording import storage
from .tools import ping

T = TypeVar("T")
Kickoff = Callable[..., Coroutine[Any, Any, Any]]


def stock(crew: Crew, **arguments: Any) -> Coroutine[Any, Any, Any]:
    return crew.akickoff(**arguments)


def ours(crew: Crew, **arguments: Any) -> Coroutine[Any, Any, Any]:
    return AsyncCrew(crew).kickoff(**arguments)


@pytest.fixture(autouse=True)
def _stored_aside() -> Iterator[None]:
    with mock.patch.dict(os.environ, {"CREWAI_STORAGE_DIR": storage()}):
        yield


@contextlib.contextmanager
def installed() -> Iterator[None]:
    fastcrew_async.install()
    try:
        yield
    finally:
        fastcrew_async.uninstall()


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return fresh_context().run(asyncio.run, work())


def _fails(error: type[Exception], match: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    with pytest.raises(error, match=match):
        run(work)
    gc.collect()  # what was never awaited says so now


def answering(text: str = "done") -> Crew:
    return solo(Recorder(), lambda messages: final(text))


class SlowModel(ScriptedModel):
    """Waits in the middle of a call, for `release` or a while, and notes when it went on."""

    patience: float = 0.3

    def hold(self) -> SlowModel:
        object.__setattr__(self, "entered", threading.Event())
        object.__setattr__(self, "release", threading.Event())
        object.__setattr__(self, "went_on", threading.Event())
        return self

    def call(self, *args: Any, **kwargs: Any) -> Any:
        self.entered.set()
        self.release.wait(self.patience)
        self.went_on.set()
        return super().call(*args, **kwargs)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        self.entered.set()
        await asyncio.sleep(self.patience)
        self.went_on.set()
        return await super().acall(*args, **kwargs)


def slow(patience: float) -> tuple[SlowModel, Crew]:
    recorder = Recorder()
    model = SlowModel.of(recorder, lambda messages: final("late"), patience=patience).hold()
    return model, solo(recorder, [], llm=model)


# 1
async def _two_crews_then_replay(kickoff: Kickoff) -> tuple[Crew, str]:
    first, second = answering("first"), answering("second")
    await kickoff(first, inputs={"topic": "a"})
    await kickoff(second, inputs={"topic": "b"})
    return first, str(first.tasks[0].id)


def test_stock_loses_the_replay_of_the_crew_before() -> None:
    crew, task_id = run(lambda: _two_crews_then_replay(stock))
    with pytest.raises(ValueError, match="not found"):
        crew.replay(task_id)


def test_replay_finds_the_crew_before() -> None:
    with installed():
        crew, task_id = run(lambda: _two_crews_then_replay(stock))
        assert fresh_context().run(crew.replay, task_id).raw == "first"


# 2, 3
async def _async_before(inputs: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"topic": "changed"}


async def _async_after(result: Any) -> Any:
    await asyncio.sleep(0)
    return result.model_copy(update={"raw": "changed"})


def test_stock_does_not_await_before_kickoff() -> None:
    crew = solo(Recorder(), [final("x")], crew_options={"before_kickoff_callbacks": [_async_before]})
    with pytest.warns(RuntimeWarning, match="never awaited"):
        _fails(ValueError, "validation error", lambda: stock(crew, inputs={"topic": "tea"}))


def test_before_kickoff_is_awaited() -> None:
    crew = solo(Recorder(), [final("x")], crew_options={"before_kickoff_callbacks": [_async_before]})
    run(lambda: ours(crew, inputs={"topic": "tea"}))
    assert crew.tasks[0].description == "Job 0 about changed"


def test_stock_does_not_await_after_kickoff() -> None:
    crew = solo(Recorder(), [final("x")], crew_options={"after_kickoff_callbacks": [_async_after]})
    unawaited = run(lambda: stock(crew, inputs={"topic": "tea"}))
    assert asyncio.iscoroutine(unawaited)
    unawaited.close()


def test_after_kickoff_is_awaited() -> None:
    crew = solo(Recorder(), [final("x")], crew_options={"after_kickoff_callbacks": [_async_after]})
    assert run(lambda: ours(crew, inputs={"topic": "tea"})).raw == "changed"


# 4
def _checkpointed(folder: Any) -> Crew:
    return solo(
        Recorder(),
        [final("one"), final("two")],
        crew_options={"checkpoint": CheckpointConfig(location=str(folder), on_events=["task_completed"])},
    )


async def _twice(kickoff: Kickoff, crew: Crew) -> list[str]:
    return [(await kickoff(crew, inputs={"topic": topic})).raw for topic in ("a", "b")]


def test_stock_runs_a_checkpointed_crew_once(tmp_path: Any) -> None:
    assert run(lambda: _twice(stock, _checkpointed(tmp_path))) == ["one", "one"]


def test_a_checkpointed_crew_runs_again(tmp_path: Any) -> None:
    assert run(lambda: _twice(ours, _checkpointed(tmp_path))) == ["one", "two"]


# 5
async def _cancelled_in_the_model(kickoff: Kickoff, model: SlowModel, crew: Crew) -> str | None:
    running = asyncio.create_task(kickoff(crew, inputs={"topic": "tea"}))
    while not model.entered.is_set():
        await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    return get_current_parent_id()


def test_stock_goes_on_after_a_cancel() -> None:
    model, crew = slow(0.2)
    run(lambda: _cancelled_in_the_model(stock, model, crew))
    assert model.went_on.wait(5)


def test_a_cancel_ends_the_run() -> None:
    model, crew = slow(0.2)

    async def cancel_and_run_again() -> Any:
        assert await _cancelled_in_the_model(ours, model, crew) is None
        await asyncio.sleep(0.4)
        assert not model.went_on.is_set()
        return await ours(crew, inputs={"topic": "tea"})

    assert run(cancel_and_run_again).raw == "late"


# 6
def test_stock_waits_for_the_model_past_max_execution_time() -> None:
    model, crew = slow(2)
    crew.agents[0].max_execution_time = 1
    with pytest.raises(TimeoutError):
        fresh_context().run(lambda: crew.kickoff(inputs={"topic": "tea"}))
    assert model.went_on.is_set()


def test_max_execution_time_ends_the_run() -> None:
    model, crew = slow(20)
    crew.agents[0].max_execution_time = 1
    with installed(), pytest.raises(TimeoutError):
        fresh_context().run(lambda: crew.kickoff(inputs={"topic": "tea"}))
    assert not model.went_on.is_set()
    model.release.set()


# 7
async def _together(kickoff: Kickoff, crew: Crew) -> list[Any]:
    kickoffs = (kickoff(crew, inputs={"topic": topic}) for topic in ("a", "b"))
    return await asyncio.gather(*kickoffs, return_exceptions=True)


def _one_agent_two_tasks_beside() -> Crew:
    worker = agent(Recorder(), lambda messages: final("done"))
    tasks = [task(worker, 0, async_execution=True), task(worker, 1, async_execution=True), task(worker, 2)]
    return Crew(agents=[worker], tasks=tasks)


def test_stock_runs_one_crew_once_at_a_time() -> None:
    results = run(lambda: _together(stock, answering()))
    assert any("already running" in str(result) for result in results)


def test_one_crew_runs_any_number_of_times_at_once() -> None:
    assert [result.raw for result in run(lambda: _together(ours, answering()))] == ["done", "done"]


def test_stock_runs_one_agent_once_at_a_time() -> None:
    with pytest.raises(RuntimeError, match="already running"):
        run(lambda: stock(_one_agent_two_tasks_beside(), inputs={"topic": "tea"}))


def test_one_agent_runs_two_tasks_beside_each_other() -> None:
    assert run(lambda: ours(_one_agent_two_tasks_beside(), inputs={"topic": "tea"})).raw == "done"


# 8
def test_stock_sleeps_a_minute_with_its_limiter_locked() -> None:
    crew = solo(Recorder(), TEXT, tools=[ping(Recorder())], crew_options={"max_rpm": 1})
    locked: list[bool] = []

    def sleep(seconds: float) -> None:
        if seconds == 60:
            locked.append(crew.agents[0]._rpm_controller._lock.locked())

    with mock.patch("crewai.utilities.rpm_controller.time.sleep", sleep):
        run(lambda: stock(crew, inputs={"topic": "tea"}))
    assert locked == [True]


# 16
async def _beside_a_slow_handler(kickoff: Kickoff) -> bool:
    """Whether a kickoff could end while a handler of another one was still at work."""
    entered, release = threading.Event(), threading.Event()
    handled_first = False

    def handler(source: Any, event: TaskCompletedEvent) -> None:
        if source.description.endswith("slow"):
            entered.set()
            release.wait(0.5)

    crewai_event_bus.register_handler(TaskCompletedEvent, handler)
    try:
        first = asyncio.create_task(kickoff(answering(), inputs={"topic": "slow"}))
        while not entered.is_set():
            await asyncio.sleep(0.001)
        await kickoff(answering(), inputs={"topic": "quick"})
        handled_first = not first.done()
        release.set()
        await first
    finally:
        crewai_event_bus.off(TaskCompletedEvent, handler)
    return handled_first


def test_stock_waits_for_the_handlers_of_others() -> None:
    assert run(lambda: _beside_a_slow_handler(stock)) is False


def test_a_kickoff_waits_for_its_own_handlers_only() -> None:
    assert run(lambda: _beside_a_slow_handler(ours)) is True


# 19
async def _with_a_failing_sibling(kickoff: Kickoff) -> int:
    """How many tasks of the loop outlive a crew of which one task failed while another was at work."""
    recorder = Recorder()
    model = SlowModel.of(recorder, lambda messages: final("late"), patience=0.2).hold()
    failing = agent(recorder, [RuntimeError("down")] * 3, role="Failing")
    slow_one = agent(recorder, [], role="Slow", llm=model)
    tasks = [task(failing, 0, async_execution=True), task(slow_one, 1, async_execution=True), task(failing, 2)]
    before = asyncio.all_tasks()
    with pytest.raises(RuntimeError, match="down"):
        await kickoff(Crew(agents=[failing, slow_one], tasks=tasks), inputs={"topic": "tea"})
    left = asyncio.all_tasks() - before
    await asyncio.gather(*left, return_exceptions=True)
    return len(left)


def test_stock_leaves_siblings_of_a_failed_task_running() -> None:
    assert run(lambda: _with_a_failing_sibling(stock)) > 0


def test_siblings_of_a_failed_task_are_cancelled() -> None:
    assert run(lambda: _with_a_failing_sibling(ours)) == 0


# 20
def _too_long_for_its_agent() -> Crew:
    return solo(Recorder(), [TOO_LONG] * 3, respect_context_window=False, max_retry_limit=0)


def test_stock_exits_the_process_when_the_context_is_too_long() -> None:
    with pytest.raises(SystemExit):
        run(lambda: stock(_too_long_for_its_agent(), inputs={"topic": "tea"}))


def test_a_context_that_is_too_long_is_an_error_of_its_run() -> None:
    with pytest.raises(LLMContextLengthExceededError):
        run(lambda: ours(_too_long_for_its_agent(), inputs={"topic": "tea"}))


# 21
async def _loop_of_the_step_callback(kickoff: Kickoff) -> bool:
    loops = []

    async def step(value: Any) -> None:
        loops.append(asyncio.get_running_loop())

    recorder = Recorder()
    await kickoff(solo(recorder, TEXT, tools=[ping(recorder)], step_callback=step), inputs={"topic": "tea"})
    return all(loop is asyncio.get_running_loop() for loop in loops) and len(loops) == 2


def test_stock_runs_an_async_step_callback_on_a_foreign_loop() -> None:
    assert run(lambda: _loop_of_the_step_callback(stock)) is False


def test_an_async_step_callback_runs_on_the_callers_loop() -> None:
    assert run(lambda: _loop_of_the_step_callback(ours)) is True


# 22
async def _ends_of_a_crew_whose_after_kickoff_fails(kickoff: Kickoff) -> list[str]:
    seen = []

    def handler(source: Any, event: Any) -> None:
        seen.append(event.type)

    crew = solo(Recorder(), [final("x")], crew_options={"after_kickoff_callbacks": [lambda result: 1 / 0]})
    for kind in (CrewKickoffCompletedEvent, CrewKickoffFailedEvent):
        crewai_event_bus.register_handler(kind, handler)
    try:
        with pytest.raises(ZeroDivisionError):
            await kickoff(crew, inputs={"topic": "tea"})
        crewai_event_bus.flush()
    finally:
        for kind in (CrewKickoffCompletedEvent, CrewKickoffFailedEvent):
            crewai_event_bus.off(kind, handler)
    return sorted(seen)


def test_stock_ends_twice_when_after_kickoff_raises() -> None:
    seen = run(lambda: _ends_of_a_crew_whose_after_kickoff_fails(stock))
    assert seen == ["crew_kickoff_completed", "crew_kickoff_failed"]


def test_a_kickoff_ends_once() -> None:
    assert run(lambda: _ends_of_a_crew_whose_after_kickoff_fails(ours)) == ["crew_kickoff_completed"]


# 23
async def _most_usage_handlers(kickoff: Kickoff) -> int:
    """How many handlers of one event type ten kickoffs at once add to the bus."""
    most = 0
    usual = len(crewai_event_bus._sync_handlers.get(LLMCallCompletedEvent, ()))

    def answer(messages: Any) -> str:
        nonlocal most
        time.sleep(0.01)
        most = max(most, len(crewai_event_bus._sync_handlers.get(LLMCallCompletedEvent, ())) - usual)
        return final("done")

    await asyncio.gather(*(kickoff(solo(Recorder(), answer), inputs={"topic": "tea"}) for _ in range(10)))
    return most


def test_stock_adds_a_handler_for_each_running_agent() -> None:
    assert run(lambda: _most_usage_handlers(stock)) > 1


def test_running_agents_add_no_handlers() -> None:
    assert run(lambda: _most_usage_handlers(ours)) == 0


# 30
class SyncStorage(BaseKnowledgeStorage):
    """A store as CrewAI's default one: only its sync search works."""

    def search(self, query: Any, limit: int = 5, metadata_filter: Any = None, score_threshold: float = 0.6) -> Any:
        return [{"id": "1", "content": "tea is a leaf", "metadata": {}, "score": 1.0}]

    async def asearch(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("the client is sync")

    def save(self, documents: list[str]) -> None: ...

    async def asave(self, documents: list[str]) -> None: ...

    def reset(self) -> None: ...

    async def areset(self) -> None: ...


async def _told_of_its_knowledge(kickoff: Kickoff) -> bool:
    told = []

    def answer(messages: Any) -> str:
        told.append("tea is a leaf" in str(messages))
        return final("done")

    crew = solo(Recorder(), answer)
    crew.agents[0].knowledge = Knowledge(collection_name="known", sources=[], storage=SyncStorage())
    await kickoff(crew, inputs={"topic": "tea"})
    return told[-1]


def test_stock_loses_an_agents_knowledge_on_the_loop() -> None:
    assert run(lambda: _told_of_its_knowledge(stock)) is False


def test_an_agent_gets_its_knowledge_on_the_loop() -> None:
    assert run(lambda: _told_of_its_knowledge(ours)) is True


# Found while comparing: a text-form agent whose context overflows is ended, or repeats its last action, by CrewAI.
def _too_long_once(recorder: Recorder) -> Crew:
    return solo(recorder, [TOO_LONG, "the summary", final("done")])


def test_stock_ends_a_text_agent_whose_context_overflows() -> None:
    raw = run(lambda: stock(_too_long_once(Recorder()), inputs={"topic": "tea"})).raw
    assert raw == "Agent completed execution but produced no final output."


def test_a_text_agent_goes_on_with_a_summary() -> None:
    assert run(lambda: ours(_too_long_once(Recorder()), inputs={"topic": "tea"})).raw == "done"


def test_a_text_agent_goes_on_with_a_summary_after_a_tool() -> None:
    recorder = Recorder()
    script = [action("ping", x=1), TOO_LONG, "<summary>so far</summary>", final("done")]
    crew = solo(recorder, script, tools=[ping(recorder)])
    assert run(lambda: ours(crew, inputs={"topic": "tea"})).raw == "done"
    last = [entry.body["messages"] for entry in recorder.entries if entry.kind == "model"][-1]
    assert "so far" in str(last)


# Found while comparing: an agent's guardrail cannot ask for another answer on a loop in CrewAI.
def _guarded_agent() -> Any:
    left = [(False, "no"), (True, "better")]
    return agent(Recorder(), [final("one"), final("two")], guardrail=lambda output: left.pop(0))


def test_stock_cannot_retry_an_agents_guardrail_on_a_loop() -> None:
    with pytest.warns(RuntimeWarning, match="never awaited"):
        _fails(AttributeError, "coroutine", lambda: _guarded_agent().kickoff_async("hi"))
