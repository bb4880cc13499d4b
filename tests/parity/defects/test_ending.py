"""Runs that are cancelled, too slow, stopped or too long: 5, 6, 17, 19, 20."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from crewai import Crew
from crewai.events.event_context import get_current_parent_id
from crewai.tools.tool_failure import ToolExecutionFailedError, ToolFailurePolicy
from crewai.utilities.exceptions.context_window_exceeding_exception import LLMContextLengthExceededError

from ..cases.building import agent, solo, task
from ..cases.failures import ONE, TOO_LONG, refuse
from ..models import CallOnlyModel
from ..recorder import Recorder
from ..tools import ping
from ..ways import Way
from .roads import INPUTS, ON_THE_LOOP, Kickoff, once, ours, run, stock
from .slow import SlowModel, slow_crew, slow_model


# 5
async def _cancelled_in_the_model(kickoff: Kickoff, model: SlowModel, crew: Crew) -> None:
    running = asyncio.create_task(kickoff(crew, INPUTS))
    await model.entered()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@stock("akickoff", "kickoff_async")
def test_stock_goes_on_after_a_cancel(way: Way) -> None:
    model, crew = slow_crew(0.2)
    run(way, lambda kickoff: _cancelled_in_the_model(kickoff, model, crew))
    assert model._went_on.wait(5)


@ours(*ON_THE_LOOP)
def test_a_cancel_ends_the_run(way: Way) -> None:
    model, crew = slow_crew(0.2)

    async def cancel_and_run_again(kickoff: Kickoff) -> Any:
        await _cancelled_in_the_model(kickoff, model, crew)
        await asyncio.sleep(0.4)
        assert not model._went_on.is_set()
        return await kickoff(crew, INPUTS)

    assert run(way, cancel_and_run_again).raw == "late"


async def _scope_after_a_timeout(kickoff: Kickoff) -> str | None:
    """The event scope that is left open where a kickoff was ended from outside, in the same task."""
    model, crew = slow_crew(0.5)
    current = asyncio.current_task()
    assert current is not None

    async def end() -> None:
        await model.entered()
        current.cancel()

    ending = asyncio.create_task(end())
    with pytest.raises(asyncio.CancelledError):
        await kickoff(crew, INPUTS)
    await ending
    return get_current_parent_id()


@stock("akickoff")
def test_stock_leaves_scopes_open_after_a_cancel(way: Way) -> None:
    assert run(way, _scope_after_a_timeout) is not None


@ours(*ON_THE_LOOP)
def test_a_cancel_leaves_no_scope_open(way: Way) -> None:
    assert run(way, _scope_after_a_timeout) is None


# 6
def _past_its_time(way: Way) -> SlowModel:
    model, crew = slow_crew(3)
    crew.agents[0].max_execution_time = 1
    with pytest.raises(TimeoutError, match="timed out after 1 seconds"):
        once(way, crew)
    return model


@stock("kickoff", "kickoff_async")
def test_stock_waits_for_the_model_past_max_execution_time(way: Way) -> None:
    assert _past_its_time(way)._went_on.is_set()


@stock("akickoff")
def test_stock_goes_on_in_its_thread_past_max_execution_time(way: Way) -> None:
    assert _past_its_time(way)._went_on.wait(10)


@ours()
def test_max_execution_time_ends_the_run(way: Way) -> None:
    model = _past_its_time(way)
    assert not model._went_on.is_set()
    model._release.set()


# 17; all stops and all interception points: test_stopped.py
async def _scope_after_a_policy_raised(kickoff: Kickoff) -> str | None:
    recorder = Recorder()
    crew = solo(recorder, ONE, tools=[ping(recorder, refuse)], tool_failure_policy=ToolFailurePolicy.RAISE)
    with pytest.raises(ToolExecutionFailedError):
        await kickoff(crew, INPUTS)
    return get_current_parent_id()


@stock("akickoff")
def test_stock_leaves_a_scope_open_when_a_policy_raises(way: Way) -> None:
    assert run(way, _scope_after_a_policy_raised) is not None


@ours()
def test_no_scope_is_open_when_a_policy_has_raised(way: Way) -> None:
    assert run(way, _scope_after_a_policy_raised) is None


# 19
async def _sibling_of_a_failed_task_goes_on(kickoff: Kickoff) -> bool:
    """Whether a task that runs beside one that fails goes on after the kickoff has raised."""
    recorder = Recorder()
    model = slow_model(0.5)

    def fail(messages: Any) -> Any:
        model._entered.wait(5)
        raise RuntimeError("down")

    failing = agent(recorder, role="Failing", max_retry_limit=0, llm=CallOnlyModel.of(recorder, fail))
    slow_one = agent(recorder, role="Slow", llm=model)
    tasks = [task(failing, 0, async_execution=True), task(slow_one, 1, async_execution=True), task(failing, 2)]
    with pytest.raises(RuntimeError, match="down"):
        await kickoff(Crew(agents=[failing, slow_one], tasks=tasks), INPUTS)
    assert not model._went_on.is_set()
    return await asyncio.to_thread(model._went_on.wait, 1.5)


@stock()
def test_stock_leaves_siblings_of_a_failed_task_running(way: Way) -> None:
    assert run(way, _sibling_of_a_failed_task_goes_on) is True


@ours(*ON_THE_LOOP)
def test_siblings_of_a_failed_task_are_cancelled(way: Way) -> None:
    assert run(way, _sibling_of_a_failed_task_goes_on) is False


# 20
def _too_long_for_its_agent() -> Crew:
    return solo(Recorder(), [TOO_LONG] * 3, respect_context_window=False, max_retry_limit=0)


@stock("akickoff", "kickoff")
def test_stock_exits_the_process_when_the_context_is_too_long(way: Way) -> None:
    with pytest.raises(SystemExit):
        once(way, _too_long_for_its_agent())


@ours()
def test_a_context_that_is_too_long_is_an_error_of_its_run(way: Way) -> None:
    with pytest.raises(LLMContextLengthExceededError):
        once(way, _too_long_for_its_agent())
