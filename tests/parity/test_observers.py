"""A listener for one kind of event sees it as it would beside listeners for all kinds."""

from __future__ import annotations

import asyncio
import os
from typing import Any
from unittest import mock

import pytest
from crewai.events.base_events import BaseEvent
from crewai.events.event_bus import crewai_event_bus
from crewai.events.types.agent_events import AgentExecutionCompletedEvent
from crewai.events.types.crew_events import CrewKickoffCompletedEvent, CrewKickoffStartedEvent
from crewai.events.types.flow_events import FlowFinishedEvent, FlowStartedEvent
from crewai.events.types.hook_events import HookDispatchedEvent
from crewai.events.types.llm_events import LLMCallCompletedEvent, LLMCallStartedEvent
from crewai.events.types.logging_events import AgentLogsExecutionEvent, AgentLogsStartedEvent
from crewai.events.types.task_events import TaskCompletedEvent, TaskStartedEvent
from crewai.events.types.tool_usage_events import ToolUsageFinishedEvent, ToolUsageStartedEvent

from . import cases
from .case import Case
from .recorder import Recorder, event_classes, fresh_context
from .recording import storage
from .ways import OURS, Way, installation

CASES = [case for case in cases.ALL if case.name in ("react 1 round, hooks", "native 1 round", "two tasks")]
WAYS = [way for way in OURS["crew"] if way.name in ("AsyncCrew.kickoff", "installed kickoff")]
KINDS = [
    CrewKickoffStartedEvent,
    CrewKickoffCompletedEvent,
    TaskStartedEvent,
    TaskCompletedEvent,
    AgentExecutionCompletedEvent,
    FlowStartedEvent,
    FlowFinishedEvent,
    AgentLogsStartedEvent,
    AgentLogsExecutionEvent,
    LLMCallStartedEvent,
    LLMCallCompletedEvent,
    ToolUsageStartedEvent,
    ToolUsageFinishedEvent,
    HookDispatchedEvent,
]


def places(case: Case, way: Way, kinds: set[type[BaseEvent]]) -> list[tuple[int, str, bool, bool]]:
    """Number, type and which links each event has, as handlers for `kinds` see them."""
    seen: list[Any] = []

    def handler(source: Any, event: BaseEvent) -> None:
        seen.append(event)

    def kickoff() -> None:
        run = way.start(crew, {"topic": "tea"})
        if way.awaited:
            asyncio.run(run)

    recorder = Recorder()
    with mock.patch.dict(os.environ, {"CREWAI_STORAGE_DIR": storage()}), installation(way), recorder.hooks():
        crew = case.build(recorder)
        for kind in kinds:
            crewai_event_bus.register_handler(kind, handler)
        try:
            fresh_context().run(kickoff)
            crewai_event_bus.flush()
        finally:
            for kind in kinds:
                crewai_event_bus.off(kind, handler)
    numbered = sorted(seen, key=lambda event: event.emission_sequence)
    return [
        (event.emission_sequence, event.type, event.parent_event_id is not None, event.started_event_id is not None)
        for event in numbered
    ]


@pytest.mark.parametrize("way", WAYS, ids=lambda value: value.name)
@pytest.mark.parametrize("case", CASES, ids=lambda value: value.name)
def test_one_kind_keeps_its_places_in_the_order(case: Case, way: Way) -> None:
    every = places(case, way, event_classes())
    for kind in KINDS:
        name = kind.model_fields["type"].default
        assert places(case, way, {kind}) == [place for place in every if place[1] == name]


@pytest.mark.parametrize("way", WAYS, ids=lambda value: value.name)
def test_two_kinds_are_linked(way: Way) -> None:
    seen: dict[str, Any] = {}

    def handler(source: Any, event: Any) -> None:
        seen[event.type] = event

    def kickoff() -> None:
        run = way.start(crew, {"topic": "tea"})
        if way.awaited:
            asyncio.run(run)

    case = CASES[0]
    with mock.patch.dict(os.environ, {"CREWAI_STORAGE_DIR": storage()}), installation(way):
        crew = case.build(Recorder())
        for kind in (CrewKickoffStartedEvent, TaskStartedEvent, TaskCompletedEvent):
            crewai_event_bus.register_handler(kind, handler)
        try:
            fresh_context().run(kickoff)
            crewai_event_bus.flush()
        finally:
            for kind in (CrewKickoffStartedEvent, TaskStartedEvent, TaskCompletedEvent):
                crewai_event_bus.off(kind, handler)
    assert seen["task_started"].parent_event_id == seen["crew_kickoff_started"].event_id
    assert seen["task_completed"].parent_event_id == seen["crew_kickoff_started"].event_id
    assert seen["task_completed"].started_event_id == seen["task_started"].event_id
