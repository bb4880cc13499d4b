"""Runs one case in one way and brings what was observed into a normal form."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from crewai import Crew
from crewai.events.event_context import _event_id_stack
from crewai.flow.flow import Flow

from fastcrew_async.engine.outputs import TaskOutputs, replayable

from . import seen
from .case import Case
from .plain import plain
from .recorder import Entry, Recorder, fresh_context, is_ending
from .ways import Way, installation, stock_way


@dataclass
class Recording:
    """The normal form. Equal runs have equal recordings."""

    trace: list[Any] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    rows: list[Any] = field(default_factory=list)
    contexts: list[Any] = field(default_factory=list)
    undelivered: list[str] = field(default_factory=list)
    open_scopes: list[int] = field(default_factory=list)
    # Variables that the run left changed in its caller's context; ours may leave fewer.
    left_behind: set[str] = field(default_factory=set)


@functools.cache
def storage() -> str:
    """The folder for everything that CrewAI stores; it goes with the process."""
    folder = tempfile.TemporaryDirectory(prefix="parity-", ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    return os.path.realpath(folder.name)


def record(case: Case, way: Way) -> Recording:
    """Run `case` in `way`."""
    recorder = Recorder()
    recording = Recording()
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, {"CREWAI_STORAGE_DIR": storage()}))
        recorder.names.give_path(storage(), "<storage>")
        stack.enter_context(installation(way))
        if case.around:
            stack.enter_context(case.around(recorder))
        if case.hooks:
            stack.enter_context(recorder.hooks())
        subject = case.build(recorder)
        stack.enter_context(recorder.observing())
        fresh_context().run(_run, case, way, subject, recorder, recording)
        recording.state = _state(subject)
        recording.rows = _rows(subject)
    _normalise(case, subject, recorder, recording)
    return recording


def _run(case: Case, way: Way, subject: Any, recorder: Recorder, recording: Recording) -> None:
    if way.awaited:
        asyncio.run(_run_awaited(case, way, subject, recorder, recording))
        return
    before = _begin(case, recorder)
    for argument in case.rounds:
        try:
            result = way.start(subject, argument)
            recording.results.append(_consumed(result))
        except Exception as error:
            recording.results.append({"raised": plain(error)})
        _after_round(before, recording)


async def _run_awaited(case: Case, way: Way, subject: Any, recorder: Recorder, recording: Recording) -> None:
    before = _begin(case, recorder)
    for argument in case.rounds:
        try:
            result = await way.start(subject, argument)
            recording.results.append(await _aconsumed(result))
        except Exception as error:
            recording.results.append({"raised": plain(error)})
        _after_round(before, recording)


def _begin(case: Case, recorder: Recorder) -> dict[str, Any]:
    recorder.enter_context()
    if case.inside:
        case.inside(recorder)
    seen.user_mark.set("mine")
    return seen.snapshot()


def _after_round(before: dict[str, Any], recording: Recording) -> None:
    recording.open_scopes.append(len(_event_id_stack.get()))
    after = seen.snapshot()
    missing = object()
    recording.left_behind |= {
        name for name in before.keys() | after.keys() if before.get(name, missing) is not after.get(name, missing)
    }


def _consumed(result: Any) -> Any:
    if hasattr(result, "get_full_text"):
        chunks = [plain(chunk) for chunk in result]
        return {"chunks": chunks, "result": plain(result.result)}
    return plain(result)


async def _aconsumed(result: Any) -> Any:
    if hasattr(result, "get_full_text"):
        chunks = [plain(chunk) async for chunk in result]
        return {"chunks": chunks, "result": plain(result.result)}
    return plain(result)


def _state(subject: Any) -> dict[str, Any]:
    """The counters and other marks that a run leaves on a crew's objects."""
    if isinstance(subject, Flow):
        return {
            "usage": plain(subject.usage_metrics),
            "state": plain(subject.state),
            "class": f"{type(subject.state).__module__}.{type(subject.state).__qualname__}",
            "outputs": plain(subject.method_outputs),
            "inner": _state(subject.crew),
        }
    if not isinstance(subject, Crew):
        return {"agent": _agent_state(subject)}
    agents = {id(agent): agent for agent in [*subject.agents, *(task.agent for task in subject.tasks if task.agent)]}
    if subject.manager_agent is not None:
        agents[id(subject.manager_agent)] = subject.manager_agent
    return {
        "usage": plain(subject.usage_metrics),
        "inputs": plain(subject._inputs),
        "stream": subject.stream,
        "tasks": [
            {
                "output": plain(task.output),
                "description": task.description,
                "context": task.prompt_context,
                "used_tools": task.used_tools,
                "tools_errors": task.tools_errors,
                "delegations": task.delegations,
                "retry_count": task.retry_count,
                "processed_by": sorted(task.processed_by_agents),
                "timed": (task.start_time is not None, task.end_time is not None),
                "agent": task.agent.role if task.agent else None,
            }
            for task in subject.tasks
        ],
        "agents": [_agent_state(agent) for agent in agents.values()],
    }


def _agent_state(agent: Any) -> dict[str, Any]:
    executor = agent.agent_executor
    return {
        "role": agent.role,
        "last_messages": plain(agent.last_messages),
        "tools_results": plain(agent.tools_results),
        "times_executed": agent._times_executed,
        "last_used_tool": plain(agent.tools_handler.last_used_tool) if agent.tools_handler else None,
        "tool_usage": [(tool.name, tool.current_usage_count) for tool in agent.tools or []],
        "has_executor": executor is not None,
        "tokens": plain(agent.llm.get_token_usage_summary()),
        "streams": agent.llm.stream,
    }


def _rows(subject: Any) -> list[Any]:
    """The stored rows that a replay of the crew's tasks starts from.

    CrewAI's are those of the last run of all, ours those of the last run of the task; a crew inside a tool has its own.
    """
    if not isinstance(subject, Crew):
        return []
    own = [str(task.id) for task in subject.tasks]
    with contextlib.ExitStack() as stack:
        if isinstance(subject._task_output_handler, TaskOutputs):
            stack.enter_context(replayable(subject, own[0]))
        rows = [row for row in subject._task_output_handler.load() or [] if row["task_id"] in own]
    return [{key: plain(value) for key, value in row.items() if key != "timestamp"} for row in rows]


def _name_entities(subject: Any, recorder: Recorder) -> None:
    names = recorder.names
    if isinstance(subject, Flow):
        names.give(subject.flow_id, "<flow>")
        _name_entities(subject.crew, recorder)
        return
    if not isinstance(subject, Crew):
        names.give(subject.id, f"<agent {subject.role}>")
        return
    names.give(subject.id, "<crew>")
    for agent in subject.agents:
        names.give(agent.id, f"<agent {agent.role}>")
    for index, task in enumerate(subject.tasks):
        names.give(task.id, f"<task {index}>")


def _normalise(case: Case, subject: Any, recorder: Recorder, recording: Recording) -> None:
    names = recorder.names
    names.number_unknown = not case.concurrent
    _name_entities(subject, recorder)
    recording.undelivered = recorder.undelivered()
    if "llm_call_started" in case.concurrent:  # which of the lists comes first is as it happens
        for entry in recorder.entries:
            entry.body.pop("which_list", None)
    if case.concurrent:
        recording.trace = _tree(recorder.entries, case.concurrent, names.resolve)
        contexts = [[entry.kind, entry.name, entry.context] for entry in recorder.entries if entry.kind != "event"]
        recording.contexts = sorted(names.resolve(contexts), key=repr)
    else:
        for index, entry in enumerate(recorder.entries):
            if entry.event_id:
                names.give(entry.event_id, f"<event {index}>")
        recording.trace = [_row(entry) for entry in recorder.entries]
        recording.contexts = [
            [entry.kind, entry.name, entry.context] for entry in recorder.entries if entry.kind != "event"
        ]
    # One order for all, so that ids nobody named get the same numbers in equal runs.
    for part in ("trace", "results", "state", "rows", "contexts"):
        setattr(recording, part, names.resolve(getattr(recording, part)))


def _row(entry: Entry) -> list[Any]:
    head = f"{entry.kind} {entry.name}" + (f" from {entry.source}" if entry.source else "")
    links = {"parent": entry.parent, "started": entry.started, "seq": entry.sequence}
    return [head, {name: link for name, link in links.items() if link is not None}, entry.body]


def _tree(entries: list[Entry], concurrent: tuple[str, ...], resolve: Callable[[Any], Any]) -> list[Any]:
    """Entries nested in their scopes, with scopes that ran beside each other in a fixed order."""
    known = {entry.event_id for entry in entries if entry.event_id}
    children: dict[str | None, list[Entry]] = {}
    for entry in entries:
        # The event that ends a scope stands inside it, as its last child.
        home = entry.started if is_ending(entry) and entry.started in known else entry.parent
        children.setdefault(home if home in known else None, []).append(entry)

    def under(home: str | None) -> list[Any]:
        nodes = [
            [
                f"{child.kind} {child.name}" + (f" from {child.source}" if child.source else ""),
                resolve(child.body),
                under(child.event_id) if child.event_id else [],
            ]
            for child in children.get(home, [])
        ]
        beside = [index for index, child in enumerate(children.get(home, [])) if child.name in concurrent]
        for index, node in zip(beside, sorted((nodes[index] for index in beside), key=repr), strict=True):
            nodes[index] = node
        return nodes

    return under(None)


def stock_recording(case: Case, way_name: str) -> Recording:
    """What stock CrewAI does, recorded once."""
    found: Recording = pickle.loads(_pickled(case, way_name))
    return found


@functools.cache
def _pickled(case: Case, way_name: str) -> bytes:
    # As bytes: hundreds of recordings as objects would make each garbage collection slow.
    return pickle.dumps(record(case, stock_way(case.kind, way_name)))
