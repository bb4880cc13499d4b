"""Agents that may ask remote agents, over the A2A protocol.

Source: ``crewai/a2a/wrapper.py: wrap_agent_with_a2a_instance`` of CrewAI 1.15.30. It puts two functions on such an
agent, around what the agent does with a task by itself, which they hold in a cell. Here the same functions are called
with the engine in that cell.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any

from fastcrew_async.engine import remote_tls
from fastcrew_async.engine.drivers import Work, drive, drive_in_place
from fastcrew_async.engine.effects import Effect
from fastcrew_async.engine.paced import Paced

_WRAPPER = "crewai.a2a.wrapper"


def asks_remote_agents(agent: Any) -> bool:
    """Whether both ways to execute a task on `agent` are CrewAI's functions around them."""
    return _around(agent, "execute_task") is not None and _around(agent, "aexecute_task") is not None


class AskingRemoteAgents(Effect):
    """Execute a task on an agent that may ask remote ones; `alone` is what it does with a task by itself."""

    __slots__ = ("agent", "alone", "asked")

    def __init__(self, agent: Any, alone: Callable[..., Work[Any]], *asked: Any) -> None:
        self.agent = agent
        self.alone = alone
        self.asked = asked

    def perform(self) -> Any:
        def execute_task(agent: Any, *asked: Any) -> Any:
            return drive_in_place(self.alone(agent, *asked))

        return self._with("execute_task", execute_task)

    async def aperform(self) -> Any:
        before = _cancels()

        async def aexecute_task(agent: Any, *asked: Any) -> Any:
            _unless_cancelled(before)
            return await drive(self.alone(agent, *asked))

        with remote_tls.given(await remote_tls.contexts(self.agent)):
            result = await Paced(self._with("aexecute_task", aexecute_task))
        _unless_cancelled(before)
        return result

    def _with(self, name: str, engine: Callable[..., Any]) -> Any:
        function: Any = _around(self.agent, name)
        names = function.__code__.co_freevars
        cells = dict(zip(names, function.__closure__, strict=True)) | {f"original_{name}": CellType(engine)}
        ours = FunctionType(function.__code__, function.__globals__, closure=tuple(cells[cell] for cell in names))
        return ours(self.agent, *self.asked)


def _cancels() -> int:
    """How often the running task was asked to cancel itself; unknown, so none, on Python 3.10."""
    task: Any = asyncio.current_task()
    return task.cancelling() if sys.version_info >= (3, 11) else 0


def _unless_cancelled(before: int) -> None:
    """CrewAI's client takes a cancellation for a lost connection, and would ask the model what to do about it."""
    if _cancels() > before:
        raise asyncio.CancelledError


def _around(agent: Any, name: str) -> FunctionType | None:
    function = getattr(agent.__dict__.get(name), "__func__", None)
    if not isinstance(function, FunctionType) or function.__globals__.get("__name__") != _WRAPPER:
        return None
    return function if f"original_{name}" in function.__code__.co_freevars else None
