"""One task: its agent's answer, the conversion of it, guardrails, callbacks and the output file.

Source: ``crewai/task.py: Task._execute_core`` and ``_aexecute_core`` of CrewAI 1.15.30, which are one thing here.
"""

from __future__ import annotations

import asyncio
import datetime
from typing import Any, cast

from crewai.agents.agent_builder.base_agent import BaseAgent
from crewai.context import reset_current_task_id, set_current_task_id
from crewai.events.event_context import resume_task_scope
from crewai.events.types.task_events import TaskCompletedEvent, TaskFailedEvent, TaskStartedEvent
from crewai.hooks.contexts import StepContext
from crewai.hooks.dispatch import InterceptionPoint, dispatch
from crewai.task import Task
from crewai.tasks.task_output import TaskOutput
from crewai.tools.tool_failure import merge_tool_failures, tool_failure_collector
from crewai.utilities.file_store import clear_task_files
from crewai.utilities.i18n import I18N_DEFAULT
from crewai_core.printer import PRINTER
from pydantic import BaseModel

from fastcrew_async.engine import events, files
from fastcrew_async.engine.agent import execute_task
from fastcrew_async.engine.convert import export
from fastcrew_async.engine.effects import Blocking, CallUser, Closing
from fastcrew_async.engine.fields import private, put
from fastcrew_async.engine.guardrail import judge
from fastcrew_async.engine.observer import reported
from fastcrew_async.engine.seams import OURS, Pair
from fastcrew_async.engine.seams import theirs as call_theirs

_EXECUTE = Pair.of(Task, "execute_sync", "aexecute_sync")
_CORE = Pair.of(Task, "_execute_core", "_aexecute_core")


@reported("task", lambda task, *_: task.name or "")
async def run_task(task: Task, agent: BaseAgent | None, context: str | None, tools: Any) -> TaskOutput:
    """Run `task` on `agent`, or on its own one.

    Raises:
        Exception: there is no agent, or the agent, a guardrail, a callback or writing the output file failed.
    """
    theirs = await call_theirs(task, _EXECUTE, agent=agent, context=context, tools=tools)
    if theirs is not OURS:
        return cast(TaskOutput, theirs)
    put(task, start_time=datetime.datetime.now())
    theirs = await call_theirs(task, _CORE, agent, context, tools)
    if theirs is not OURS:
        return cast(TaskOutput, theirs)
    token = set_current_task_id(str(task.id))
    mark = events.scope()
    try:
        if task.input_files:
            await Blocking(task._store_input_files)
        return await _run(task, agent or task.agent, context, tools, mark)
    finally:
        if files.stored(None, task.id):
            await Closing(clear_task_files, task.id)
        reset_current_task_id(token)


async def _run(task: Task, agent: BaseAgent | None, context: str | None, tools: Any, mark: events.Scope) -> TaskOutput:
    try:
        put(task, agent=agent)
        if not agent:
            raise Exception(
                f"The task '{task.description}' has no agent assigned, therefore it can't be executed directly and "
                "should be executed in a Crew using a specific process that support that, like hierarchical."
            )
        put(task, prompt_context=context)
        tools = tools or task.tools or []
        task.processed_by_agents.add(agent.role)
        executor: Any = agent.agent_executor
        if not (executor and executor._resuming and resume_task_scope(str(task.id))):
            events.tell(task, TaskStartedEvent, lambda: {"context": context, "task": task})
        step = StepContext(kind="task", payload=context, **_step(task, agent))
        dispatch(InterceptionPoint.PRE_STEP, step)
        with tool_failure_collector() as failures:
            result = await execute_task(agent, task, step.payload, tools)
            messages = cast(Any, agent).last_messages  # now: another task of this agent may end while this one waits
        task._post_agent_execution(agent)
        own = private(task)
        guardrails, guardrail = own["_guardrails"], own["_guardrail"]
        guarded = bool(guardrails or guardrail)
        output = await _output(task, agent, result, messages, list(failures), convert=not guarded)
        if guarded:
            for index, one in enumerate(guardrails):
                output = await _guard(task, agent, tools, output, one, index)
            if guardrail:
                output = await _guard(task, agent, tools, output, guardrail, None)
        done = StepContext(kind="task", output=output, payload=output, **_step(task, agent))
        dispatch(InterceptionPoint.POST_STEP, done)
        output = cast(TaskOutput, done.payload)
        put(task, output=output, end_time=datetime.datetime.now())
        if task.callback:
            await CallUser(task.callback, output)
        crew: Any = cast(Any, task.agent).crew
        if crew and not isinstance(crew, str) and crew.task_callback and crew.task_callback != task.callback:
            await CallUser(crew.task_callback, output)
        if task.output_file:
            await Blocking(task._save_file, _file_content(output))
        events.tell(task, TaskCompletedEvent, lambda: {"output": output, "task": task})
        return output
    except (Exception, asyncio.CancelledError) as error:
        task.end_time = datetime.datetime.now()
        events.close_scopes((*mark, *events.scope()[len(mark) : len(mark) + 1]), error)
        text = str(error) if isinstance(error, Exception) else "cancelled"
        failed = type(error) if isinstance(error, Exception) else asyncio.CancelledError
        events.tell(task, TaskFailedEvent, lambda: {"error": text, "error_type": failed, "task": task})
        raise


def _step(task: Task, agent: BaseAgent) -> dict[str, Any]:
    return {
        "step_name": task.name or task.description,
        "agent": agent,
        "agent_role": getattr(agent, "role", None),
        "task": task,
    }


async def _output(
    task: Task, agent: Any, result: Any, messages: Any, failures: list[Any], *, convert: bool
) -> TaskOutput:
    """The task output of an agent's result; text is converted to the configured model only where `convert` says so."""
    as_model: Any = None
    as_json: Any = None
    if isinstance(result, BaseModel):
        raw = result.model_dump_json()
        if task.output_pydantic:
            as_model = result
        elif task.output_json:
            as_json = result.model_dump()
    else:
        raw = result
        if convert:
            as_model, as_json = await export(task, result)
    return TaskOutput(
        name=task.name or task.description,
        description=task.description,
        expected_output=task.expected_output,
        raw=raw,
        pydantic=as_model,
        json_dict=as_json,
        agent=agent.role,
        output_format=task._get_output_format(),
        messages=messages,
        tool_failures=failures,
    )


async def _guard(
    task: Task, agent: Any, tools: Any, output: TaskOutput, guardrail: Any, index: int | None
) -> TaskOutput:
    """Put `output` before a guardrail; on refusal ask the agent again, up to ``guardrail_max_retries`` times.

    Raises:
        Exception: it was refused at the last attempt, or the guardrail gave None.
    """
    retries = task._guardrail_retry_counts.get(index, 0) if index is not None else task.retry_count
    failures = list(output.tool_failures)
    for attempt in range(task.guardrail_max_retries + 1):
        verdict = await judge(output, guardrail, retries, task, agent, task)
        if verdict.success:
            return await _accepted(task, output, verdict.result, failures)
        if attempt >= task.guardrail_max_retries:
            name = f"guardrail {index}" if index is not None else "guardrail"
            raise Exception(
                f"Task failed {name} validation after {task.guardrail_max_retries} retries. Last error: {verdict.error}"
            )
        if index is not None:
            retries += 1
            task._guardrail_retry_counts[index] = retries
        else:
            task.retry_count += 1
            retries = task.retry_count
        context = I18N_DEFAULT.errors("validation_error").format(
            guardrail_result_error=verdict.error, task_output=output.raw
        )
        if agent and agent.verbose:
            PRINTER.print(
                content=f"Guardrail {index if index is not None else ''} blocked (attempt {attempt + 1}/"
                f"{task.guardrail_max_retries + 1}), retrying due to: {verdict.error}\n",
                color="yellow",
            )
        with tool_failure_collector() as collected:
            result = await execute_task(agent, task, context, tools)
            messages = agent.last_messages
        failures = merge_tool_failures(failures, collected)
        output = await _output(task, agent, result, messages, failures, convert=True)
        failures = list(output.tool_failures)
    return output


async def _accepted(task: Task, output: TaskOutput, result: Any, failures: list[Any]) -> TaskOutput:
    if result is None:
        raise Exception("Task guardrail returned None as result. This is not allowed.")
    if isinstance(result, str):
        output.raw = result
        output.pydantic, output.json_dict = await export(task, result)
    elif isinstance(result, TaskOutput):
        output = result
        output.tool_failures = merge_tool_failures(failures, output.tool_failures)
    return output


def _file_content(output: TaskOutput) -> Any:
    if output.json_dict:
        return output.json_dict
    return output.pydantic.model_dump_json() if output.pydantic else output.raw
