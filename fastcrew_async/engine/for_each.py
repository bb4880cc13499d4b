"""A crew for each of many inputs: ``akickoff_for_each`` and ``kickoff_for_each_async``.

Source: ``crewai/crews/utils.py: run_for_each_async`` of CrewAI 1.15.30, which is what runs the copies, merges their
streams and adds up what they used. What it does on the loop before is done here: the copies are made step by step, so
that the loop's own callbacks run in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from crewai.agents.agent_builder.base_agent import BaseAgent
from crewai.crew import Crew
from crewai.crews.utils import run_for_each_async
from crewai.llm_overlay import active as overlay_active
from crewai.task import Task

from fastcrew_async.engine.copies import copy_for_input
from fastcrew_async.engine.drivers import Stop, drive
from fastcrew_async.engine.effects import Blocking, Effect
from fastcrew_async.engine.outputs import outputs_of
from fastcrew_async.engine.seams import replaced
from fastcrew_async.engine.streaming import streams

_STOCK_COPY = Crew.copy
_STOCK_COPY_TASK = Task.copy
_STOCK_COPY_AGENT = BaseAgent.copy


async def for_each_input(crew: Crew, inputs: Iterable[Any], start: Callable[[Crew, Any], Awaitable[Any]]) -> Any:
    """Start a copy of `crew` with each of `inputs`; the outputs in their order, or one stream of a crew that streams.

    The first error cancels the other runs, which CrewAI leaves running, and is raised.
    """
    given = list(inputs)
    streaming = streams(crew)
    source: Any = _Source(crew, streaming, await drive(_copies(crew, streaming, len(given))))
    running: set[asyncio.Task[Any]] = set()
    failed = False

    async def kickoff(taken: Crew, entry: Any) -> Any:
        if failed:
            raise asyncio.CancelledError
        task = asyncio.current_task()
        if task is not None and not streaming:
            running.add(task)
        return await start(taken, entry)

    try:
        results = await run_for_each_async(source, given, kickoff)
    except BaseException:
        failed = True
        await Stop(list(running)).aperform()
        raise
    if outputs_of(crew) is None and not streaming:
        await Blocking(crew._task_output_handler.reset).aperform()
    return results


async def _copies(crew: Crew, streaming: bool, count: int) -> list[Crew]:
    made: list[Crew] = []
    ordinary = _ordinary(crew)
    for _ in range(count):
        copied = copy_for_input(crew) if ordinary else await Blocking(crew.copy)
        if streaming and not copied.stream:  # the crew's own is off while it runs
            copied.stream = True
        made.append(copied)
        await _Step()
    return made


def _ordinary(crew: Any) -> bool:
    """Whether copies are made by nobody's code but CrewAI's, and of the models that the agents have now."""
    agents = [*crew.agents, *(task.agent for task in crew.tasks if task.agent is not None)]
    return (
        overlay_active.get() is None
        and not replaced(crew, "copy", _STOCK_COPY)
        and not any(replaced(task, "copy", _STOCK_COPY_TASK) for task in crew.tasks)
        and not any(replaced(agent, "copy", _STOCK_COPY_AGENT) for agent in agents)
    )


class _Step(Effect):
    """The end of a step: the turnstile may let others go first."""

    __slots__ = ()

    def perform(self) -> None:
        return None

    async def aperform(self) -> None:
        return None


class _Source:
    """What ``run_for_each_async`` sees of the crew."""

    def __init__(self, crew: Any, streaming: bool, copies: list[Crew]) -> None:
        self._crew = crew
        self._left = iter(copies)
        self.stream = streaming
        self._task_output_handler = self

    def copy(self) -> Crew:
        return next(self._left)

    def reset(self) -> None:
        """CrewAI empties the table of task outputs at the end, for everyone."""

    @property
    def usage_metrics(self) -> Any:
        return self._crew.usage_metrics

    @usage_metrics.setter
    def usage_metrics(self, used: Any) -> None:
        self._crew.usage_metrics = used
