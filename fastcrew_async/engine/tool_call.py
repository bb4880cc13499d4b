"""Running the body of a tool: an async one on the caller's loop, a sync one on a worker thread."""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, cast

from crewai.tools.base_tool import BaseTool, Tool, _default_cache_function
from crewai.tools.structured_tool import CrewStructuredTool, ToolUsageLimitExceededError
from crewai.utilities.string_utils import sanitize_tool_name

from fastcrew_async import workers
from fastcrew_async.engine.effects import CallUser, Effect
from fastcrew_async.engine.waiting_tools import on_the_loop

_STOCK_RUNS = (BaseTool.run, Tool.run)
tool_name = lru_cache(maxsize=4096)(sanitize_tool_name)
"""``sanitize_tool_name``, which is asked for the same few names again and again."""

_STOCK_INVOKE = CrewStructuredTool.invoke


class _Stopped(Exception):
    """Carries a StopIteration through the engine's coroutines, which it could not pass as itself."""


def own_error(error: Exception) -> Exception:
    """What the tool raised."""
    return cast(Exception, error.__cause__) if type(error) is _Stopped else error


def _contained(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except StopIteration as error:
        raise _Stopped from error


class RunTool(Effect):
    """A tool's body. `blocking` is CrewAI's own sync call; `asynchronous` its equivalent where the body is async.

    As in CrewAI, the body sees a copy of the run's context and what it sets there stays there.
    """

    __slots__ = ("asynchronous", "blocking")

    def __init__(self, blocking: Callable[[], Any], asynchronous: Callable[[], Awaitable[Any]] | None) -> None:
        self.blocking = blocking
        self.asynchronous = asynchronous

    def perform(self) -> Any:
        return contextvars.copy_context().run(_contained, self.blocking)

    async def aperform(self) -> Any:
        if self.asynchronous is None:
            return await workers.pool().run(_contained, self.blocking)
        return await self.asynchronous()


async def ask_whether_to_cache(cache_function: Any, arguments: Any, result: Any) -> bool:
    """The tool's ``cache_function`` on a result; CrewAI's default says yes to everything."""
    if cache_function is None or cache_function is _default_cache_function:
        return True
    return bool(await CallUser(cache_function, arguments, result))


def invocation(tool: CrewStructuredTool, arguments: dict[str, Any], config: dict[str, Any]) -> RunTool:
    """``tool.invoke(arguments, config)``, as the ReAct form calls a tool."""
    function = _async_function(tool.func) if type(tool).invoke is _STOCK_INVOKE else None

    async def asynchronous() -> Any:
        assert function is not None
        parsed = tool._parse_args(arguments)
        if tool.has_reached_max_usage_count():
            name = tool_name(tool.name)
            raise ToolUsageLimitExceededError(
                f"Tool '{name}' has reached its maximum usage limit of {tool.max_usage_count}. "
                f"You should not use the {name} tool again."
            )
        tool._increment_usage_count()
        return await function(**parsed)

    return RunTool(lambda: tool.invoke(input=arguments, config=config), asynchronous if function else None)


def native_call(run: Callable[..., Any], arguments: dict[str, Any]) -> RunTool:
    """``tool.run(**arguments)``, as function calling calls a tool; `run` is the bound method that CrewAI registers."""
    tool = getattr(run, "__self__", None)
    function = None
    if isinstance(tool, BaseTool) and getattr(run, "__func__", None) in _STOCK_RUNS:
        function = _async_function(tool._run)

    async def asynchronous() -> Any:
        assert function is not None
        assert isinstance(tool, BaseTool)
        validated = tool._validate_kwargs(arguments)
        limit_error = tool._claim_usage()
        return limit_error if limit_error else await function(**validated)

    return RunTool(lambda: run(**arguments), asynchronous if function else None)


def _async_function(function: Any) -> Callable[..., Awaitable[Any]] | None:
    """The coroutine function behind a tool, or the async form of one of CrewAI's own; None for a sync body."""
    tool = getattr(function, "__self__", None)
    if isinstance(tool, Tool) and getattr(function, "__func__", None) is Tool._run:
        function = tool.func
    found: Callable[..., Awaitable[Any]] | None = function if inspect.iscoroutinefunction(function) else None
    return found or on_the_loop(function)
