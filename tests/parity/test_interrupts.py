"""KeyboardInterrupt, SystemExit and CancelledError raised by the user's own code reach the caller of a kickoff."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest
from crewai import Crew
from crewai.tasks.task_output import TaskOutput
from crewai.tools import tool

from .cases.building import solo
from .cases.native import native
from .defects.roads import INPUTS, Kickoff, ours, run
from .models import action, call, final
from .recorder import Recorder
from .tools import ping
from .ways import Way, stock_way

ERRORS = [KeyboardInterrupt("k"), SystemExit(3), asyncio.CancelledError("c")]
NATIVE = [[call("ping", x=1)], "done"]
Raise = Callable[[Any], Any]


def in_the_model(fail: Raise) -> Crew:
    return solo(Recorder(), lambda messages: fail(final("done")))


def in_a_react_tool(fail: Raise) -> Crew:
    recorder = Recorder()
    return solo(recorder, [action("ping", x=1), final("done")], tools=[ping(recorder, fail)])


def in_a_native_tool(fail: Raise) -> Crew:
    recorder = Recorder()
    return native(recorder, [*NATIVE, *NATIVE], tools=[ping(recorder, fail)])


def in_an_async_tool(fail: Raise) -> Crew:
    @tool("ping")
    async def found(x: int) -> Any:
        """Answers with the number."""
        await asyncio.sleep(0)
        return fail(x)

    return native(Recorder(), [*NATIVE, *NATIVE], tools=[found])


def in_a_step_callback(fail: Raise) -> Crew:
    recorder = Recorder()
    return native(recorder, [*NATIVE, *NATIVE], tools=[ping(recorder)], step_callback=fail)


def in_a_task_callback(fail: Raise) -> Crew:
    return solo(Recorder(), lambda messages: final("done"), task_options={"callback": fail})


def in_before_kickoff(fail: Raise) -> Crew:
    return solo(Recorder(), lambda messages: final("done"), crew_options={"before_kickoff_callbacks": [fail]})


def in_after_kickoff(fail: Raise) -> Crew:
    return solo(Recorder(), lambda messages: final("done"), crew_options={"after_kickoff_callbacks": [fail]})


def in_a_guardrail(fail: Raise) -> Crew:
    def guardrail(output: TaskOutput):  # type: ignore[no-untyped-def]  # CrewAI reads the annotation
        return (True, fail(output.raw))

    return solo(Recorder(), lambda messages: final("done"), task_options={"guardrail": guardrail})


PLACES = [
    in_the_model,
    in_a_react_tool,
    in_a_native_tool,
    in_an_async_tool,
    in_a_step_callback,
    in_a_task_callback,
    in_before_kickoff,
    in_after_kickoff,
    in_a_guardrail,
]


async def _twice(kickoff: Kickoff, place: Callable[[Raise], Crew], error: BaseException) -> tuple[BaseException, str]:
    """What a kickoff raises whose crew raises `error` once, and what the next kickoff of that crew gives."""
    left = [error]

    def fail(value: Any) -> Any:
        if left:
            raise left.pop()
        return value

    crew = place(fail)
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - which one is what the tests ask
        await kickoff(crew, INPUTS)
    return raised.value, (await kickoff(crew, INPUTS)).raw


@ours("AsyncCrew.kickoff", "installed akickoff", "installed kickoff_async")
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", PLACES)
def test_it_reaches_the_caller_and_the_crew_runs_again(way: Way, place: Any, error: BaseException) -> None:
    raised, raw = run(way, lambda kickoff: _twice(kickoff, place, error))
    assert type(raised) is type(error)
    assert raised.args == error.args
    assert raw == "done"


@ours("installed kickoff_async")
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", PLACES)
def test_kickoff_async_of_stock_gives_the_same(way: Way, place: Any, error: BaseException) -> None:
    raised, raw = run(stock_way("crew", way.reference), lambda kickoff: _twice(kickoff, place, error))
    assert (type(raised), raw) == (type(error), "done")
    if sys.version_info >= (3, 11) or not isinstance(error, asyncio.CancelledError):
        assert raised.args == error.args  # before, a task loses the message of a cancellation, and some of CrewAI's do
