"""The execution id of a run and, where CrewAI's tracing is on, its trace.

CrewAI asks its service for leave over HTTP as a run begins, and sends the spans as it ends, in place. Here both are
done on a worker while the loop goes on. Source: ``crewai/execution.py: begin_execution`` and ``end_execution``.
"""

from __future__ import annotations

import contextvars
import sys
from typing import Any
from uuid import uuid4

from crewai import execution
from crewai.events.listeners.tracing import utils
from crewai.execution import begin_execution, end_execution, get_execution_uuid, set_execution_uuid

from fastcrew_async import workers
from fastcrew_async.engine.effects import Closing, Either
from fastcrew_async.engine.lane import Lane

_AT_ONCE = Lane(4)  # much of it is Python; the rest, waiting for the service
Token = contextvars.Token[str | None] | None


async def begin(tracing: bool | None = None) -> Token:
    """``begin_execution(tracing=tracing)``."""
    if get_execution_uuid() is not None or execution._tracing_disabled(tracing):
        return begin_execution(tracing=tracing)
    if not (utils.should_enable_tracing(override=tracing) or utils.should_auto_collect_first_time_traces()):
        return set_execution_uuid(str(uuid4()))
    token: Token = await Either(lambda: begin_execution(tracing=tracing), lambda: _begin(tracing))
    return token


async def end(token: Token) -> None:
    """``end_execution(token)``."""
    held = execution._execution_tracing.get() if token is not None else None
    if held is not None:
        trace, _, error_around, traceback_around = held
        error = sys.exc_info()
        own = error[1] is not error_around or error[2] is not traceback_around
        await _Finish(trace.finish, *(error if own else (None, None, None)))
    end_execution(token)


class _Finish(Closing):
    __slots__ = ()

    async def aperform(self) -> Any:
        async with _AT_ONCE.places():
            return await super().aperform()


async def _begin(tracing: bool | None) -> Token:
    """On the running loop: the trace is begun on a worker, and becomes that of this context."""
    token = set_execution_uuid(uuid := str(uuid4()))
    opening = _Opening(uuid, tracing)
    try:
        async with _AT_ONCE.places():
            trace = await workers.pool().run(opening)
        if trace is not None:
            execution._activate_tracing(trace)
    except BaseException:
        opening.give_up()
        execution.clear_execution_uuid(token)
        raise
    return token


class _Opening:
    """Begins a trace, in a context that is not kept; ends it at once if nobody waits for it any more."""

    def __init__(self, uuid: str, tracing: bool | None) -> None:
        self._uuid = uuid
        self._tracing = tracing
        self._given_up = False

    def __call__(self) -> Any:
        execution._start_tracing(self._uuid, self._tracing)
        held = execution._execution_tracing.get()
        if held is None:
            return None
        trace, activation, *_ = held
        activation.close()
        if self._given_up:
            trace.finish(GeneratorExit, GeneratorExit())
        return trace

    def give_up(self) -> None:
        self._given_up = True
