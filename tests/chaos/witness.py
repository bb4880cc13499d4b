"""What is seen of each run: model and tool calls as they start, events, and the context it leaves."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from crewai.events.base_events import BaseEvent, _last_emitted
from crewai.events.event_bus import crewai_event_bus
from crewai.events.event_context import SCOPE_ENDING_EVENTS, SCOPE_STARTING_EVENTS, _event_id_stack

import fastcrew_async

OURS = fastcrew_async.__file__.rpartition("/")[0]
current_run: contextvars.ContextVar[str] = contextvars.ContextVar("chaos_run", default="none")


class Witness:
    """Keeps what each run did, by the run's name."""

    def __init__(self) -> None:
        self.starts: Counter[str] = Counter()
        self.events: defaultdict[str, list[BaseEvent]] = defaultdict(list)
        self.scopes: dict[str, tuple[Any, ...]] = {}
        self.contexts: dict[str, set[str]] = {}

    def call(self) -> None:
        """A model or a tool starts for the current run."""
        self.starts[current_run.get()] += 1

    def on_event(self, source: Any, event: BaseEvent) -> None:
        self.events[current_run.get()].append(event)

    async def watch(self, run: str, kickoff: Any) -> Any:
        """Await `kickoff` about `run`; note the scopes and the context variables that it leaves in this task."""
        current_run.set(run)
        _last_emitted.set(-1)  # the numbers start anew in each run: one that began where it ends would seem untouched
        before = dict(contextvars.copy_context().items())
        try:
            return await kickoff(inputs={"topic": run})
        finally:
            after = contextvars.copy_context().items()
            self.scopes[run] = _event_id_stack.get()
            self.contexts[run] = {variable.name for variable, value in after if before.get(variable) is not value}

    def unclosed(self, run: str) -> list[str]:
        """The started events of a run without exactly one event that ends them."""
        ends = Counter(event.started_event_id for event in self.events[run] if event.type in SCOPE_ENDING_EVENTS)
        begun = [event for event in self.events[run] if event.type in SCOPE_STARTING_EVENTS]
        wrong = [f"{event.type} has {ends[event.event_id]} ends" for event in begun if ends[event.event_id] != 1]
        if wrong:  # the whole story, which cannot be had again
            print(run, *(f"{event.emission_sequence} {event.type}" for event in self.events[run]), sep="\n    ")
        return wrong


@asynccontextmanager
async def witnessed() -> AsyncIterator[Witness]:
    """A witness of every event of the block."""
    witness = Witness()
    kinds = all_kinds(BaseEvent)
    for kind in kinds:
        crewai_event_bus.on(kind)(witness.on_event)
    try:
        yield witness
        await asyncio.to_thread(crewai_event_bus.flush)
    finally:
        for kind in kinds:
            crewai_event_bus.off(kind, witness.on_event)


def all_kinds(kind: type[BaseEvent]) -> set[type[BaseEvent]]:
    found: set[type[BaseEvent]] = set()
    for sub in kind.__subclasses__():
        found |= {sub} | all_kinds(sub)
    return found


def suspended_coroutines() -> list[str]:
    """The engine's coroutines that exist and have not ended: a run that nobody drives any more."""
    gc.collect()
    return [
        found.__qualname__
        for found in gc.get_objects()
        if inspect.iscoroutine(found)
        and found.cr_code.co_filename.startswith(OURS)
        and inspect.getcoroutinestate(found) in (inspect.CORO_CREATED, inspect.CORO_SUSPENDED)
    ]
