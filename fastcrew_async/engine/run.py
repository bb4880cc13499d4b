"""One kickoff of a crew, from its inputs to its output.

Source: ``crewai/crew.py: Crew.kickoff`` / ``akickoff`` and ``crewai/crews/utils.py: prepare_kickoff`` of CrewAI
1.15.30, without what blocks the loop there: the file store's threads, the task output table behind a file lock, the
waits for the handlers of other runs, and the memory drains.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal, cast
from uuid import uuid4

from crewai.agents.agent_builder.base_agent import BaseAgent
from crewai.crew import Crew
from crewai.crews.crew_output import CrewOutput
from crewai.crews.utils import _extract_files_from_inputs, _resolve_crew_skills
from crewai.events.event_bus import crewai_event_bus
from crewai.events.event_context import push_event_scope
from crewai.events.types.crew_events import (
    CrewKickoffCompletedEvent,
    CrewKickoffFailedEvent,
    CrewKickoffStartedEvent,
)
from crewai.events.utils.console_formatter import ConsoleFormatter
from crewai.hooks.contexts import ExecutionEndContext, ExecutionStartContext, InputContext, OutputContext
from crewai.hooks.dispatch import InterceptionPoint, dispatch
from crewai.process import Process
from crewai.task import Task
from crewai.tasks.conditional_task import ConditionalTask
from crewai.tasks.task_output import TaskOutput
from crewai.telemetry.tracing.grants import TraceGrantError
from crewai.types.usage_metrics import UsageMetrics
from crewai.utilities.crew.models import CrewContext
from crewai.utilities.file_store import clear_files, store_files
from opentelemetry import baggage
from opentelemetry.context import attach, detach

from fastcrew_async.engine import events, files, progress, traced
from fastcrew_async.engine.drivers import Join, Spawn, Stop
from fastcrew_async.engine.effects import Blocking, CallUser, Closing, Either, Handled
from fastcrew_async.engine.equip import makes_executor, ready_executor
from fastcrew_async.engine.fields import private, put
from fastcrew_async.engine.graph import run_graph
from fastcrew_async.engine.memory import drain, memories
from fastcrew_async.engine.observer import reported
from fastcrew_async.engine.outputs import outputs_of
from fastcrew_async.engine.planning import plan
from fastcrew_async.engine.resumed import resumed
from fastcrew_async.engine.retrying import RunTask, tried_again
from fastcrew_async.engine.seams import OURS, Pair, replaced
from fastcrew_async.engine.seams import theirs as call_theirs
from fastcrew_async.engine.structured_tool import structured
from fastcrew_async.engine.task import run_task
from fastcrew_async.engine.task_tools import prepare_tools
from fastcrew_async.engine.texts import interpolate, key_of_crew
from fastcrew_async.retry import Retry

_SEQUENTIAL = Pair.of(Crew, "_run_sequential_process", "_arun_sequential_process")
_HIERARCHICAL = Pair.of(Crew, "_run_hierarchical_process", "_arun_hierarchical_process")
_EXECUTE_TASKS = Pair.of(Crew, "_execute_tasks", "_aexecute_tasks")
_STOCK_EXECUTE_ASYNC = Task.execute_async
_STOCK_CREATE_MANAGER = Crew._create_manager_agent


Order = Literal["listed", "graph"]
"""In which order the tasks of a crew run: as listed, as in CrewAI, or each as soon as its context is there."""


@reported("run", lambda crew, *_, **__: crew.name or "crew")
async def run_crew(
    crew: Crew,
    inputs: Mapping[str, Any] | None,
    input_files: Any,
    order: Order = "listed",
    retry: Retry | None = None,
) -> CrewOutput:
    """Run `crew`, which nothing else is running; tasks that fail are tried again as `retry` says.

    Raises:
        TypeError: `inputs` is not a mapping.
        Exception: what a task, a hook or a callback raised; ``crew_kickoff_failed`` has been emitted.
    """
    own: Any = crew
    watched = progress.current.get()
    inside = None
    if watched is not None and not watched.begin(own):
        watched, inside = None, progress.current.set(None)
    attached = attach(baggage.set_baggage("crew_context", CrewContext(id=str(own.id), key=key_of_crew(own))))
    runtime_scope = crewai_event_bus._enter_runtime_scope()
    pending = events.begin_run()
    mark = events.scope()
    execution_token = None
    completed = False
    try:
        execution_token = await traced.begin(own.tracing)
        resuming = await _prepare(own, inputs, input_files)
        if own.process == Process.sequential:
            result = await call_theirs(own, _SEQUENTIAL)
        elif own.process == Process.hierarchical:
            result = await call_theirs(own, _HIERARCHICAL)
            if result is OURS:
                await _make_manager(own)
        else:
            raise NotImplementedError(f"The process '{own.process}' is not implemented yet.")
        if result is OURS:
            result = await call_theirs(own, _EXECUTE_TASKS, own.tasks)
        theirs = result is not OURS
        if not theirs:
            start = own._get_execution_start_index(own.tasks) if resuming else None
            run = tried_again(retry)
            if order == "graph" and start is None:
                result = await _run_graph(own, own.tasks, run)
            else:  # a restored run goes on as it was listed
                result = await _run_tasks(own, own.tasks, start, run=run)
        completed = True
        for callback in own.after_kickoff_callbacks:
            result = await CallUser(callback, result)
        result = own._post_kickoff(result)
        if theirs or own.after_kickoff_callbacks:
            own.usage_metrics = own.calculate_usage_metrics()  # otherwise what the output was made with still holds
        return cast(CrewOutput, result)
    except (Exception, asyncio.CancelledError) as error:
        if execution_token is None and isinstance(error, TraceGrantError):
            raise
        own._dispatch_execution_end_failure(error)
        opened = events.scope()[len(mark) : len(mark) + 1]
        events.close_scopes((*mark, *opened), error)
        if opened or not completed:  # after_kickoff callbacks come after the completed event, which has closed it
            if not opened and mark:  # failed before it began: the enclosing run's scope is not its to close
                push_event_scope(str(uuid4()), "crew_kickoff_started")
            failed = {
                "error": str(error) if isinstance(error, Exception) else "cancelled",
                "crew_name": own.name,
                "started_event_id": own._kickoff_event_id,
            }
            events.tell(own, CrewKickoffFailedEvent, lambda: failed)
        raise
    finally:
        if watched is not None:
            watched.end(own)
        if inside is not None:
            with suppress(ValueError):  # where the collector closes a forgotten coroutine, in any context
                progress.current.reset(inside)
        if memories(own):
            await drain(own)
        if files.stored(own.id):
            await Closing(clear_files, own.id)
        events.end_run(pending)
        detach(attached)
        await traced.end(execution_token)
        crewai_event_bus._exit_runtime_scope(runtime_scope)


async def _prepare(crew: Any, inputs: Mapping[str, Any] | None, input_files: Any) -> bool:
    """Everything before the first task: hooks, callbacks, the started event, inputs into texts, the agents.

    Says whether this run goes on where a checkpoint ended.
    """
    resuming = resumed(crew)
    if not resuming:
        events.reset_order()
    given: dict[str, Any] | None = None
    if inputs is not None:
        if not isinstance(inputs, Mapping):
            raise TypeError(f"inputs must be a dict or Mapping, got {type(inputs).__name__}")
        given = dict(inputs)
    start: Any = ExecutionStartContext(crew=crew, inputs=given if given is not None else {}, payload=given)
    own = private(crew)
    own.update(_execution_start_dispatched=False, _execution_end_dispatched=False)
    dispatch(InterceptionPoint.EXECUTION_START, start)
    own["_execution_start_dispatched"] = True
    given = start.payload
    for callback in crew.before_kickoff_callbacks:
        given = await CallUser(callback, {} if given is None else given)
    context: Any = InputContext(crew=crew, inputs=given if given is not None else {}, payload=given)
    dispatch(InterceptionPoint.INPUT, context)
    given = context.payload
    if resuming and own["_kickoff_event_id"]:
        _show_resuming(crew)
    else:
        body = {"crew_name": crew.name, "inputs": given}
        own["_kickoff_event_id"], future = events.tell(crew, CrewKickoffStartedEvent, lambda: body)
        if future is not None:
            await Handled(future)
    outputs = outputs_of(crew)
    if outputs is None:
        await Blocking(crew._task_output_handler.reset)
    else:
        outputs.begin_run()
    own["_logging_color"] = "bold_purple"
    from_flow = baggage.get_baggage("flow_input_files")
    all_files = {**(from_flow if isinstance(from_flow, dict) else {}), **(input_files or {})}
    if given is not None:
        all_files.update(_extract_files_from_inputs(given))
    if all_files:
        await Blocking(store_files, crew.id, all_files)
    if given is not None:
        own["_inputs"] = given
        interpolate(crew, given)
    crew._set_tasks_callbacks()
    crew._set_allow_crewai_trigger_context_for_first_task()
    await _set_up_agents(crew)
    if crew.planning:
        await plan(crew)
    return resuming


async def _set_up_agents(crew: Any) -> None:
    agents: dict[int, Any] = {id(agent): agent for agent in crew.agents}
    agents.update((id(task.agent), task.agent) for task in crew.tasks if task.agent is not None)
    skills = await Blocking(_resolve_crew_skills, crew) if crew.skills else None
    for agent in agents.values():
        agent.crew = crew
        if agent.knowledge_sources:
            await Blocking(agent.set_knowledge, crew_embedder=crew.embedder)
        elif agent.embedder is None and crew.embedder:
            agent.embedder = crew.embedder
        if skills or agent.skills:
            await Blocking(agent.set_skills, resolved_crew_skills=skills)
        # A deprecated field of both: read past its warning, and set only where there is something to set.
        if not agent.__dict__.get("function_calling_llm") and crew.__dict__.get("function_calling_llm"):
            agent.function_calling_llm = crew.__dict__["function_calling_llm"]
        if not agent.step_callback and crew.step_callback:
            agent.step_callback = crew.step_callback
        executor = getattr(agent, "agent_executor", None)
        if executor and getattr(executor, "_resuming", False):
            continue
        if hasattr(agent, "executor_class") and makes_executor(agent):
            structured(agent.tools or ())  # one that cannot be used is found before the first task; all count from here
            ready_executor(agent)
        else:  # an adapter of another framework, or an executor of the user's choice
            agent.create_agent_executor()


async def _run_tasks(
    crew: Any, tasks: list[Task], start: int | None, replayed: bool = False, run: RunTask = run_task
) -> CrewOutput:
    """The tasks in their listed order; those with ``async_execution`` run beside the following ones.

    Source: ``Crew._execute_tasks``. When a task fails, the pending ones are cancelled before the error goes on; CrewAI
    leaves them running.
    """
    outputs: list[TaskOutput] = []
    pending: list[tuple[Task, Any, int]] = []
    branches: list[Any] = []
    last_sync: TaskOutput | None = None
    try:
        for index, task in enumerate(tasks):
            if start is not None and index < start:
                if task.output:
                    outputs.append(task.output)
                    _tell_done(crew, index, task, task.output)
                    last_sync = last_sync if task.async_execution else task.output
                continue
            agent, tools = await _equip(crew, task)
            if isinstance(task, ConditionalTask):
                outputs.extend(await _gather(crew, pending, replayed))
                if await _is_skipped(task, outputs[-1] if outputs else None):
                    outputs.append(await _skip(crew, task, index, replayed))
                    continue
            if task.async_execution:
                context = crew._get_context(task, [last_sync] if last_sync else [])
                pending.append((task, await _start(crew, index, run, agent, context, tools, branches), index))
                continue
            outputs.extend(await _gather(crew, pending, replayed))
            context = crew._get_context(task, outputs)
            output = await run(task, agent, context, tools)
            outputs.append(output)
            crew._process_task_result(task, output)
            await _store(crew, task, output, index, replayed)
        outputs.extend(await _gather(crew, pending, replayed))
    except BaseException:
        await Stop(branches)
        raise
    return await _crew_output(crew, outputs)


async def _run_graph(crew: Any, tasks: list[Task], run: RunTask) -> CrewOutput:
    """Each task as soon as its explicit context is there; without one it is independent and has none."""

    async def begin(index: int, previous: TaskOutput | None, branches: list[Any]) -> Any:
        task = tasks[index]
        agent, tools = await _equip(crew, task)
        if not isinstance(task, ConditionalTask):
            return await _start(crew, index, run, agent, crew._get_context(task, []), tools, branches)

        async def asked(task: ConditionalTask) -> TaskOutput | None:
            if await _is_skipped(task, previous):
                return None
            context = crew._get_context(task, [])
            output: TaskOutput = await Join(await _start(crew, index, run, agent, context, tools, branches))
            return output

        return await Spawn(asked(task), branches)  # its condition may be slow, and others do not wait for it

    async def end(index: int, output: TaskOutput | None) -> TaskOutput:
        task = tasks[index]
        if output is None:
            return await _skip(crew, task, index, False)
        crew._process_task_result(task, output)
        await _store(crew, task, output, index, False)
        return output

    return await _crew_output(crew, await run_graph(tasks, begin, end))


async def _start(
    crew: Any, index: int, run: RunTask, agent: BaseAgent, context: Any, tools: Any, branches: list[Any]
) -> Any:
    """The task beside the following ones; a handle for ``Join``."""
    task = crew.tasks[index]

    async def work() -> TaskOutput:
        output = await run(task, agent, context, tools)
        _tell_done(crew, index, task, output)
        return output

    if not replaced(task, "execute_async", _STOCK_EXECUTE_ASYNC):
        return await Spawn(work(), branches)
    return await Either(
        lambda: task.execute_async(agent=agent, context=context, tools=tools),
        lambda: Spawn(work(), branches).aperform(),
    )


async def _make_manager(crew: Any) -> None:
    if crew.manager_agent is not None and not replaced(crew, "_create_manager_agent", _STOCK_CREATE_MANAGER):
        crew._create_manager_agent()  # which only checks it
    else:
        await Blocking(crew._create_manager_agent)  # it reads prompts, and makes a model of a name


async def _equip(crew: Any, task: Task) -> tuple[BaseAgent, list[Any]]:
    agent = crew._get_agent_to_use(task)
    if agent is None:
        raise ValueError(
            f"No agent available for task: {task.description}. Ensure that either the task has an assigned agent or a "
            "manager agent is provided."
        )
    tools = await prepare_tools(crew, agent, task)
    executor = agent.agent_executor
    if not (executor and executor._resuming):
        crew._log_task_start(task, agent.role)
    return agent, tools


async def _is_skipped(task: ConditionalTask, previous: TaskOutput | None) -> bool:
    return previous is not None and not await CallUser(task.should_execute, previous)


async def _skip(crew: Any, task: Any, index: int, replayed: bool) -> TaskOutput:
    crew._logger.log("debug", f"Skipping conditional task: {task.description}", color="yellow")
    output: TaskOutput = task.get_skipped_task_output()
    if not replayed:
        await _store(crew, task, output, index, replayed)
    return output


async def _gather(crew: Any, pending: list[tuple[Task, Any, int]], replayed: bool) -> list[TaskOutput]:
    outputs: list[TaskOutput] = []
    for task, handle, index in pending:
        output = await Join(handle)
        outputs.append(output)
        crew._process_task_result(task, output)
        await _store(crew, task, output, index, replayed)
    pending.clear()
    return outputs


def _tell_done(crew: Any, index: int, task: Task, output: TaskOutput) -> None:
    watched = progress.current.get()
    if watched is not None:
        watched.done(crew, index, task, output)


async def _store(crew: Any, task: Task, output: TaskOutput, index: int, replayed: bool) -> None:
    _tell_done(crew, index, task, output)
    outputs = outputs_of(crew)
    if outputs is None or "_store_execution_log" in crew.__dict__:
        await Blocking(crew._store_execution_log, task, output, index, replayed)
        return
    log = {
        "task": task,
        "output": {
            "description": output.description,
            "summary": output.summary,
            "raw": output.raw,
            "pydantic": output.pydantic,
            "json_dict": output.json_dict,
            "output_format": output.output_format,
            "agent": output.agent,
            "messages": output.messages,
        },
        "inputs": private(crew)["_inputs"] or {},
        "was_replayed": replayed,
    }
    effect = outputs.write(index, log)
    if effect is not None:
        await effect


async def _crew_output(crew: Any, outputs: list[TaskOutput]) -> CrewOutput:
    """Source: ``Crew._create_crew_output``."""
    if not outputs:
        raise ValueError("No task outputs available to create crew output.")
    final = next((output for output in reversed(outputs) if output.raw), None)
    if final is None:
        raise ValueError("No valid task outputs available to create crew output.")
    own = private(crew)
    crew._finish_execution(final.raw)
    usage: UsageMetrics = crew.calculate_usage_metrics()
    put(crew, token_usage=usage)
    result: Any = CrewOutput(
        raw=final.raw, pydantic=final.pydantic, json_dict=final.json_dict, tasks_output=outputs, token_usage=usage
    )
    boundary: Any = OutputContext(crew=crew, output=result, payload=result)
    dispatch(InterceptionPoint.OUTPUT, boundary)
    end: Any = ExecutionEndContext(crew=crew, output=boundary.payload, payload=boundary.payload)
    own["_execution_end_dispatched"] = True
    dispatch(InterceptionPoint.EXECUTION_END, end)
    result = end.payload
    if isinstance(result, CrewOutput) and final.raw != result.raw:
        final.raw = result.raw
    if memories(crew):
        await drain(crew)
    await events.wait_for_handlers()
    completed = {
        "crew_name": crew.name,
        "output": final,
        "total_tokens": usage.total_tokens,
        "started_event_id": own["_kickoff_event_id"],
    }
    events.tell(crew, CrewKickoffCompletedEvent, lambda: completed)
    return cast(CrewOutput, result)


def _show_resuming(crew: Any) -> None:
    if not crew.verbose:
        return
    console = ConsoleFormatter(verbose=True)
    title, color = "Resuming from Checkpoint", "bright_magenta"
    content = console.create_status_content(title, crew.name or "Crew", color, ID=str(crew.id))
    console.print_panel(content, f"\U0001f504 {title}", color)
