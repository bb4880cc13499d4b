"""Records everything a user of CrewAI can observe of one run.

A recorder is a legitimate observer: it registers a handler for every event class, as a listener does, and a stream
sink, which CrewAI calls on the emitting thread, so events stand in the order in which they were emitted and interleave
truly with hooks, callbacks, model calls and tool calls.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import crewai.events.event_types  # noqa: F401 - defines the event classes
from crewai.events.base_events import BaseEvent
from crewai.events.event_bus import crewai_event_bus
from crewai.events.event_context import SCOPE_ENDING_EVENTS, _event_id_stack
from crewai.events.stream_context import add_stream_sink
from crewai.hooks.dispatch import InterceptionPoint, register, unregister

from .plain import Names, plain
from .seen import context_seen

# Links and times are recorded apart from the body, or differ between any two runs.
NOT_BODY = {
    "type",
    "timestamp",
    "event_id",
    "parent_event_id",
    "previous_event_id",  # differs between CrewAI's own kickoff and akickoff, so it is no contract
    "triggered_by_event_id",
    "started_event_id",
    "emission_sequence",
    "started_at",
    "finished_at",
    "duration_ms",
    "retrieval_time_ms",
    "query_time_ms",
    "save_time_ms",
}


@dataclass
class Entry:
    """One thing that happened: an event, or a note from a model, tool, hook or callback."""

    kind: str
    name: str
    parent: str | None
    body: dict[str, Any]
    source: str | None = None
    started: str | None = None
    sequence: int | None = None
    event_id: str | None = None
    context: dict[str, Any] = field(default_factory=dict)


def event_classes() -> set[type[BaseEvent]]:
    """Every event class that is loaded."""
    found: set[type[BaseEvent]] = set()
    waiting = [BaseEvent]
    while waiting:
        for cls in waiting.pop().__subclasses__():
            if cls not in found:
                found.add(cls)
                waiting.append(cls)
    return found


class Recorder:
    """The observations of one run of one case. Models, tools and callbacks of the case call `note`."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.handled: dict[str, str] = {}
        self.names = Names()
        self._lock = threading.Lock()
        self._lists: dict[str | None, list[Any]] = {}

    def __copy__(self) -> Recorder:
        return self  # a copied crew reports to the same recorder

    def __deepcopy__(self, memo: dict[int, Any]) -> Recorder:
        return self

    def note(self, kind: str, name: str, /, **body: Any) -> None:
        """Record that a model, tool, hook or callback was reached, with what it was given."""
        stack = _event_id_stack.get()
        entry = Entry(kind, name, stack[-1][0] if stack else None, plain(body), context=context_seen(self.names))
        with self._lock:
            self.entries.append(entry)

    def same_list(self, value: Any) -> int:
        """Says which list object of its agent's execution this is: the model gets the one that hooks edit."""
        execution = next((found for found, kind in reversed(_event_id_stack.get()) if kind == "flow_started"), None)
        with self._lock:
            known = self._lists.setdefault(execution, [])  # held, so that an id is never used twice
            for index, found in enumerate(known):
                if found is value:
                    return index
            known.append(value)
            return len(known) - 1

    def path(self, name: str) -> str:
        """A file in the run's own folder."""
        return str(Path(os.environ["CREWAI_STORAGE_DIR"]) / name)

    def callback(self, name: str, answer: Callable[..., Any] | None = None) -> Callable[..., Any]:
        """A sync callback that notes its argument and returns `answer(argument)`, or the argument without `answer`."""

        def recorded(value: Any) -> Any:
            self.note("callback", name, value=value)
            return answer(value) if answer else value

        return recorded

    @contextlib.contextmanager
    def hooks(self) -> Iterator[None]:
        """Note every interception point for as long as the block runs."""
        registered = []
        for point in InterceptionPoint:
            hook = self._hook(point.value)
            register(point, hook)
            registered.append((point, hook))
        try:
            yield
        finally:
            for point, hook in registered:
                unregister(point, hook)

    def _hook(self, name: str) -> Callable[[Any], None]:
        def recorded(ctx: Any) -> None:
            fields = {
                key: value
                for key, value in vars(ctx).items()
                if key not in ("executor", "llm", "crew", "flow", "tool", "inputs")
            }
            self.note("hook", name, **fields)

        return recorded

    @contextlib.contextmanager
    def observing(self) -> Iterator[None]:
        """Observe all events for as long as the block runs."""
        classes = event_classes()

        def handler(source: Any, event: BaseEvent) -> None:
            with self._lock:
                self.handled[event.event_id] = event.type

        for cls in classes:
            crewai_event_bus.register_handler(cls, handler)
        try:
            yield
            crewai_event_bus.flush()
        finally:
            for cls in classes:
                crewai_event_bus.off(cls, handler)

    def enter_context(self) -> None:
        """See the events of everything that runs in, or copies, the current context."""
        add_stream_sink(self._sink)

    def _sink(self, source: Any, event: BaseEvent) -> None:
        body = {name: plain(getattr(event, name, None)) for name in type(event).model_fields if name not in NOT_BODY}
        if isinstance(body.get("state"), dict):
            body["state"].pop(
                "id", None
            )  # of the executor: CrewAI keeps one for an agent, ours is one for an execution
        entry = Entry(
            kind="event",
            name=event.type,
            parent=event.parent_event_id,
            body={name: value for name, value in body.items() if value is not None},
            source=None if source is None else type(source).__name__,
            started=event.started_event_id,
            sequence=event.emission_sequence,
            event_id=event.event_id,
        )
        with self._lock:
            self.entries.append(entry)

    def undelivered(self) -> list[str]:
        """Types of events that handlers and the emitting thread did not see alike."""
        emitted = {entry.event_id: entry.name for entry in self.entries if entry.event_id}
        different = set(emitted) ^ set(self.handled)
        return sorted(emitted.get(event_id) or self.handled[event_id] for event_id in different)


def is_ending(entry: Entry) -> bool:
    """Whether the entry is the event that closes a scope."""
    return entry.kind == "event" and entry.name in SCOPE_ENDING_EVENTS


def fresh_context() -> contextvars.Context:
    """A context as a new process has it, so no case sees what an earlier one left."""
    return contextvars.Context()
