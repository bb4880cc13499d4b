"""CrewAI's flow engine on the caller's loop, without what holds the loop up.

The engine stays CrewAI's. Its steps pass the turnstile, with one place for all of a flow, so that the flow that began
first is served first, the crews inside it included. What it hands to threads goes to the worker pool instead of the
loop's few default threads: sync steps, people who are asked, persistence. At its end a flow waits for the handlers of
its own events, on the loop, where CrewAI stops the loop until those of all runs are done; and one handler counts the
tokens of all flows, where CrewAI adds one per flow, which sees the model calls of all.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from functools import lru_cache, partial
from types import ModuleType
from typing import Any, TypeVar, cast
from uuid import uuid4

from crewai.events.event_bus import crewai_event_bus
from crewai.events.types.llm_events import LLMCallCompletedEvent
from crewai.flow.flow_context import current_flow_id
from crewai.flow.runtime import Flow, FlowState, _usage_dict_to_metrics
from crewai.types.usage_metrics import UsageMetrics
from pydantic import BaseModel

from fastcrew_async import workers
from fastcrew_async.engine import collector, events
from fastcrew_async.engine.drivers import drive, own_run
from fastcrew_async.engine.in_order import in_order, step_in_worker
from fastcrew_async.engine.paced import Paced

T = TypeVar("T")
_FLUSH = type(crewai_event_bus).flush


async def run(flow: Any, work: Coroutine[Any, Any, T]) -> T:
    """`work`, which is ``Flow.kickoff_async`` of `flow`, as a run of the engine."""
    try:
        with collector.BUSY, own_run():
            return await Paced(_run(flow, work))
    finally:
        work.close()  # cancelled before its first step


async def _run(flow: Any, work: Coroutine[Any, Any, T]) -> T:
    pending = events.begin_run()
    try:
        with _Counted(flow) as counted:
            try:
                result = await work
            except Exception:
                await counted.all_told()
                raise
            await counted.all_told()
            return result
    finally:
        events.end_run(pending)


class _Counted:
    """While inside, the tokens of the flow's model calls are counted, as ``Flow.usage_metrics`` gives them.

    A kickoff inside another one of the same flow is counted there, as in CrewAI.
    """

    def __init__(self, flow: Any) -> None:
        self._flow = flow
        self._counts = flow._usage_aggregation_handler is None

    def __enter__(self) -> _Counted:
        if self._counts:
            flow, flow_id = self._flow, current_flow_id.get()
            flow._flow_match_id = flow.flow_id if flow_id is None else flow_id
            flow._aggregated_usage_metrics = UsageMetrics()
            flow._usage_aggregation_handler = _count  # CrewAI adds none of its own where there is one
            self._entry = flow._aggregated_usage_metrics, flow._usage_metrics_lock
            _begin_counting(flow._flow_match_id, self._entry)
        return self

    async def all_told(self) -> None:
        """Wait until the handlers of the flow's events have run."""
        if self._counts:
            await drive(events.wait_for_handlers())

    def __exit__(self, *_: object) -> None:
        if self._counts:
            self._flow._usage_aggregation_handler = None
            _end_counting(self._flow._flow_match_id, self._entry)


_Entry = tuple[UsageMetrics, Any]
_lock = threading.Lock()
_counted: dict[str, list[_Entry]] = {}


def _count(source: Any, event: LLMCallCompletedEvent) -> None:
    entries = _counted.get(current_flow_id.get() or "")
    metrics = _usage_dict_to_metrics(event.usage) if entries else None
    if metrics is not None:
        for total, lock in list(entries or ()):
            with lock:
                total.add_usage_metrics(metrics)


def _begin_counting(flow_id: str, entry: _Entry) -> None:
    with _lock:
        if not _counted:
            crewai_event_bus.on(LLMCallCompletedEvent)(_count)
        _counted[flow_id] = [*_counted.get(flow_id, ()), entry]


def _end_counting(flow_id: str, entry: _Entry) -> None:
    with _lock:
        rest = [one for one in _counted.get(flow_id, ()) if one is not entry]
        if rest:
            _counted[flow_id] = rest
        else:
            _counted.pop(flow_id, None)
        if not _counted:
            crewai_event_bus.off(LLMCallCompletedEvent, _count)


class Asyncio(ModuleType):
    """``asyncio`` for CrewAI's flow engine: its steps are paced, and its threads are workers."""

    def __init__(self) -> None:
        super().__init__("asyncio", asyncio.__doc__)

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    @staticmethod
    async def to_thread(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """``asyncio.to_thread`` on a worker; a flow waits for the handlers of its own events only."""
        if getattr(function, "__func__", None) is _FLUSH and events.in_run():
            await drive(events.wait_for_handlers())
            return cast(T, True)
        call = partial(function, *args, **kwargs)
        if isinstance(getattr(function, "__self__", None), contextvars.Context):  # a step's own code, in a context
            return await step_in_worker(call)
        return await workers.pool().run_in("flow", call)

    @staticmethod
    def gather(*steps: Any, return_exceptions: bool = False) -> Any:
        """``asyncio.gather``, with coroutines paced, and begun in their order."""
        if not all(asyncio.iscoroutine(step) for step in steps):
            return asyncio.gather(*steps, return_exceptions=return_exceptions)
        tasks = [Asyncio.create_task(step) for step in in_order(list(steps))]
        for task, step in zip(tasks, steps, strict=True):
            task.add_done_callback(lambda _, step=step: step.close())  # type: ignore[misc]
        return asyncio.gather(*tasks, return_exceptions=return_exceptions)

    @staticmethod
    def create_task(step: Any, *, name: str | None = None) -> asyncio.Task[Any]:
        """``asyncio.create_task``, paced."""
        task = asyncio.create_task(_paced(step), name=name)
        task.add_done_callback(lambda _: step.close())  # one that was cancelled before its start
        return task


async def _paced(step: Coroutine[Any, Any, T]) -> T:
    return await Paced(step)


def initial_state(flow: Any, stock: Callable[[Any], Any]) -> Any:
    """``Flow._create_initial_state``; CrewAI builds a pydantic class for every flow whose state has no id."""
    kind = getattr(flow, "_initial_state_t", None)
    if (
        flow.initial_state is not None
        or not (isinstance(kind, type) and issubclass(kind, BaseModel) and not issubclass(kind, FlowState))
        or flow._create_default_extension_state() is not None
    ):
        return stock(flow)
    state = _with_id(kind)()
    if not getattr(state, "id", None):
        object.__setattr__(state, "id", str(uuid4()))
    return state


@lru_cache(maxsize=256)
def _with_id(kind: type[BaseModel]) -> type[FlowState]:
    class StateWithId(FlowState, kind):  # type: ignore[misc, valid-type]
        __module__ = Flow.__module__
        __qualname__ = "Flow._create_initial_state.<locals>.StateWithId"

    return StateWithId
