"""Running the body of a tool: an async one on the caller's loop, a sync one on a worker thread.

Around it what is set for the tool (:class:`fastcrew_async.ToolPolicy`), and the counters of
:func:`fastcrew_async.tools.stats`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from functools import lru_cache, partial
from operator import attrgetter
from time import perf_counter
from types import FunctionType
from typing import Any, TypeVar, cast

from crewai.tools.base_tool import BaseTool, Tool, _default_cache_function
from crewai.tools.structured_tool import CrewStructuredTool, ToolUsageLimitExceededError
from crewai.utilities.string_utils import sanitize_tool_name

from fastcrew_async import limits, tools, workers
from fastcrew_async.config import Settings, settings
from fastcrew_async.engine.drivers import drive, drive_in_place
from fastcrew_async.engine.effects import CallUser, Effect
from fastcrew_async.engine.limited import a_call_of
from fastcrew_async.engine.nesting import awaited, called, entered, shortened
from fastcrew_async.engine.observer import reported, reported_in_place
from fastcrew_async.engine.structured_tool import count_use, original_of
from fastcrew_async.engine.tool_arguments import is_quiet
from fastcrew_async.engine.tool_cache import cached, key_of
from fastcrew_async.engine.tool_time import within, within_in_place
from fastcrew_async.engine.waiting_tools import in_engine, on_the_loop
from fastcrew_async.errors import ToolTimeoutError

T = TypeVar("T")

_STOCK_RUNS = (BaseTool.run, Tool.run)
_STOCK_INVOKE = CrewStructuredTool.invoke
_STOCK_CHECKS = (CrewStructuredTool._parse_args, BaseTool._validate_kwargs)

tool_name = lru_cache(maxsize=4096)(sanitize_tool_name)
"""``sanitize_tool_name``, which is asked for the same few names again and again."""

DELEGATIONS = frozenset({tool_name("Delegate work to coworker"), tool_name("Ask question to coworker")})


class _Stopped(Exception):
    """Carries a StopIteration through the engine's coroutines, which it could not pass as itself."""


class _Answered(Exception):
    """The call has its answer before the body: its uses are spent."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer


def tool_names(given: Iterable[Any]) -> str:
    """The names of tools as prompts list them."""
    return ", ".join(tool_name(tool.name) for tool in given)


def own_error(error: Exception) -> Exception:
    """What the tool raised."""
    return cast(Exception, error.__cause__) if type(error) is _Stopped else error


class _Body:
    """A sync call on its way to another thread; says whether it is running there."""

    __slots__ = ("call", "running")

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.running = False

    def __call__(self) -> Any:
        self.running = True
        try:
            return self.call()
        except StopIteration as error:
            raise _Stopped from error
        finally:
            self.running = False


class RunTool(Effect):
    """A tool's body. `whole` is CrewAI's own sync call.

    As in CrewAI, the body sees a copy of the run's context and what it sets there stays there.

    Raises:
        ToolCallRefused: the call is nested too deep.
        ToolTimeoutError: the call took longer than it may.
        Exception: what CrewAI's call raises.
    """

    __slots__ = (
        "arguments",
        "asynchronous",
        "begin",
        "body",
        "frame",
        "function",
        "hit",
        "name",
        "of_engine",
        "quiet",
        "tool",
        "whole",
    )

    def __init__(self, name: str, arguments: Any, tool: Any, whole: Callable[[], Any]) -> None:
        self.name = name
        self.arguments = arguments
        self.tool = tool
        self.whole = whole
        self.begin: Callable[[], dict[str, Any]] | None = None
        self.body: _Body | None = None
        self.hit = False

    def take_apart(self, begin: Callable[[], dict[str, Any]], function: Callable[..., Any], quiet: bool) -> None:
        """``function(**begin())`` is the same as the whole. `quiet` says that `begin` calls nothing of the user's, and
        may run on the loop: a call with wrong arguments then takes no thread."""
        self.begin = begin
        self.function = function
        self.quiet = quiet
        self.asynchronous, self.of_engine = _waiting(function)

    @reported_in_place("tool", attrgetter("name"))
    def perform(self) -> Any:
        with entered("tool", self.name, self.arguments) as self.frame:
            return self._perform()

    @reported("tool", attrgetter("name"))
    async def aperform(self) -> Any:
        with entered("tool", self.name, self.arguments) as self.frame:
            return await self._aperform()

    def _perform(self) -> Any:
        policy = _policy(self.name)
        self.body = _Body(self.whole)
        started = perf_counter()
        try:
            if policy is not None:
                answer = _finished(self._under(policy, True))
            else:
                with a_call_of(self.name):
                    answer = self._call_in_place(None, 0.0) if self._delegates() else called(self.frame, self.body)
        except _Answered as answered:
            answer = answered.answer
        except BaseException as error:
            self._count(started, error)
            raise
        self._count(started)
        return answer

    async def _aperform(self) -> Any:
        policy = _policy(self.name)
        started = perf_counter()
        try:
            if policy is not None:
                answer = await self._under(policy, False)
            elif limits.active is None:
                answer = await self._call(None, 0.0)
            else:
                async with a_call_of(self.name):
                    answer = await self._call(None, 0.0)
        except _Answered as answered:
            answer = answered.answer
        except BaseException as error:
            self._count(started, error)
            raise
        self._count(started)
        return answer

    def _count(self, started: float, error: BaseException | None = None) -> None:
        late = type(error) is ToolTimeoutError
        tools.count(
            self.name,
            perf_counter() - started,
            error=isinstance(error, Exception) and not late,
            timeout=late,
            cache_hit=self.hit,
            abandoned=error is not None and self.body is not None and self.body.running,
        )

    async def _call(self, begun: dict[str, Any] | None, seconds: float) -> Any:
        """The body on the loop or on a worker; `begun` is what `begin` gave if it was called already."""
        work: Coroutine[Any, Any, Any]
        if self.begin is not None and self.asynchronous is not None:
            of_tool = cast(Any, self.asynchronous(**(self.begin() if begun is None else begun)))
            # A coworker's in a task of its own: what it sets in the context stays there.
            work = awaited(self.frame, drive(of_tool) if self.of_engine else of_tool, apart=self.of_engine)
        else:
            if begun is None and self.begin is not None and self.quiet:
                begun = self.begin()
            self.body = _Body(self.whole if begun is None else partial(_called, self.function, begun))
            work = workers.pool().run_in(self.name, partial(shortened, self.body))
        return await (within(self.name, seconds, work) if seconds else work)

    def _call_in_place(self, begun: dict[str, Any] | None, seconds: float) -> Any:
        if begun is None and self.begin is not None:
            begun = self.begin()
        if self._delegates():
            self.body = _Body(partial(_worked, self.asynchronous, begun))
        else:
            self.body = _Body(
                self.whole if begun is None else partial(_called, self.function, begun, self.name, seconds)
            )
        if seconds:
            return within_in_place(self.name, seconds, partial(shortened, self.body))
        return called(self.frame, self.body)

    def _delegates(self) -> bool:
        return self.begin is not None and self.of_engine

    async def _under(self, policy: _Policy, in_place: bool) -> Any:
        """The call with a timeout, and with earlier results. In place, nothing of this waits but where it stands."""
        begun: dict[str, Any] | None = None

        async def call() -> Any:
            if in_place:
                with a_call_of(self.name):
                    return self._call_in_place(begun, policy.timeout)
            async with a_call_of(self.name):
                return await self._call(begun, policy.timeout)

        key = key_of(self.name, self.tool, self.arguments) if policy.cache_ttl else None
        if key is None:
            return await call()
        if self.begin is not None:
            # An earlier result is to the crew a call that took no time: arguments are checked and uses are counted.
            if in_place or self.quiet or self.asynchronous:
                begun = self.begin()
            else:
                begun = await workers.pool().run_in(self.name, self.begin)
        result, self.hit = await cached(
            key, policy.cache_ttl, call, partial(self._keeps, in_place), _told_in_place if in_place else _told
        )
        return result

    async def _keeps(self, in_place: bool, result: Any) -> bool:
        """Whether the tool's own ``cache_function`` lets this result be kept."""
        question = _cache_question(self.tool, self.arguments, result)
        try:
            return question is None or bool(question.perform() if in_place else await question.aperform())
        except Exception:  # where CrewAI asks it, it is the tool's failure
            return False


def _finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as stop:
        return cast(T, stop.value)
    raise AssertionError("it waits for a loop")  # pragma: no cover


async def _told(answer: Future[Any], seconds: float) -> Any:
    try:
        return await asyncio.wait_for(asyncio.wrap_future(answer), seconds)
    except asyncio.TimeoutError as error:  # not the builtin before Python 3.11
        raise TimeoutError from error


async def _told_in_place(answer: Future[Any], seconds: float) -> Any:
    try:
        return answer.result(seconds)
    except concurrent.futures.TimeoutError as error:
        raise TimeoutError from error


def _called(function: Callable[..., Any], arguments: dict[str, Any], name: str = "", seconds: float = 0.0) -> Any:
    """The body, an async one on a loop of its own, as CrewAI's sync call has it."""
    result = function(**arguments)
    if not asyncio.iscoroutine(result):
        return result
    return asyncio.run(within(name, seconds, result) if seconds else result)


def _worked(work: Any, arguments: Any) -> Any:
    """A coworker's answer, in place."""
    return drive_in_place(work(**arguments))


class _Policy:
    """What holds for one tool: seconds, 0 for none."""

    __slots__ = ("cache_ttl", "timeout")

    def __init__(self, timeout: float, cache_ttl: float) -> None:
        self.timeout = timeout
        self.cache_ttl = cache_ttl


_policies: tuple[Settings | None, dict[str, _Policy | None]] = (None, {})


def _policy(name: str) -> _Policy | None:
    """What is set for the tool `name`; None for nothing."""
    global _policies
    now = settings()
    if not now.tools and not now.tool_timeout:
        return None
    of, known = _policies
    if of is not now:
        known = {}
        _policies = (now, known)
    if name not in known:
        known[name] = _found(now, name)
    return known[name]


def _found(now: Settings, name: str) -> _Policy | None:
    shown = tool_name(name)
    own = now.tools.get(name) or next((own for other, own in now.tools.items() if tool_name(other) == shown), None)
    timeout = own.timeout if own and own.timeout is not None else 0.0 if shown in DELEGATIONS else now.tool_timeout
    cache_ttl = own.cache_ttl if own else 0.0
    return _Policy(timeout, cache_ttl) if timeout or cache_ttl else None


def _cache_question(tool: Any, arguments: Any, result: Any) -> CallUser | None:
    function = getattr(tool, "cache_function", None)
    if function is None or function is _default_cache_function:
        return None
    return CallUser(function, arguments, result)


async def ask_whether_to_cache(cache_function: Any, arguments: Any, result: Any) -> bool:
    """The tool's ``cache_function`` on a result; CrewAI's default says yes to everything."""
    if cache_function is None or cache_function is _default_cache_function:
        return True
    return bool(await CallUser(cache_function, arguments, result))


def invocation(tool: CrewStructuredTool, arguments: dict[str, Any], config: dict[str, Any]) -> Effect:
    """``tool.invoke(arguments, config)``, as the ReAct form calls a tool."""
    call = RunTool(tool.name, arguments, original_of(tool) or tool, lambda: tool.invoke(input=arguments, config=config))

    def begin() -> dict[str, Any]:
        parsed = tool._parse_args(arguments)
        if tool.has_reached_max_usage_count():
            name = tool_name(tool.name)
            raise ToolUsageLimitExceededError(
                f"Tool '{name}' has reached its maximum usage limit of {tool.max_usage_count}. "
                f"You should not use the {name} tool again."
            )
        count_use(tool)
        return parsed

    if invokes_as_crewai(tool):
        call.take_apart(begin, tool.func, type(tool)._parse_args in _STOCK_CHECKS and is_quiet(tool.args_schema))
    return call


def invokes_as_crewai(tool: Any) -> bool:
    """Whether the tool's ``invoke`` is CrewAI's own."""
    return type(tool).invoke is _STOCK_INVOKE


def native_call(run: Callable[..., Any], arguments: dict[str, Any]) -> Effect:
    """``tool.run(**arguments)``, as function calling calls a tool; `run` is the bound method that CrewAI registers."""
    tool = getattr(run, "__self__", None)
    name = getattr(tool, "name", None) or getattr(run, "__name__", None)
    call = RunTool(str(name or "tool"), arguments, tool, lambda: run(**arguments))
    stock = getattr(run, "__func__", None)
    if not isinstance(tool, BaseTool) or stock not in _STOCK_RUNS or "self" in arguments:
        return call

    def begin() -> dict[str, Any]:
        validated = tool._validate_kwargs(arguments)
        limit_error = tool._claim_usage()
        if limit_error:
            raise _Answered(limit_error)
        return validated

    function = tool.func if isinstance(tool, Tool) and stock is Tool.run else tool._run
    call.take_apart(begin, function, type(tool)._validate_kwargs in _STOCK_CHECKS and is_quiet(tool.args_schema))
    return call


def _waiting(function: Any) -> tuple[Callable[..., Awaitable[Any]] | None, bool]:
    """The coroutine function behind a tool, or the async form of one of CrewAI's own, and whether that is one of the
    engine's; None for a sync body."""
    if getattr(function, "__func__", None) is Tool._run:
        function = function.__self__.func
    if type(function) is FunctionType and not function.__dict__:  # nothing that inspect would have to follow
        return (function, False) if function.__code__.co_flags & inspect.CO_COROUTINE else (None, False)
    if inspect.iscoroutinefunction(function):
        return function, False
    work = in_engine(function)
    return (work, True) if work is not None else (on_the_loop(function), False)
