"""One task on one agent.

Source: ``crewai/agent/core.py: Agent.execute_task`` and ``aexecute_task`` of CrewAI 1.15.30, which are one thing here.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from crewai.agent.core import Agent, AgentResponseProtocol, _passthrough_exceptions
from crewai.agent.utils import (
    build_task_prompt_with_schema,
    format_task_with_context,
    process_tool_results,
    save_last_messages,
    validate_max_execution_time,
)
from crewai.agents.agent_builder.base_agent import BaseAgent
from crewai.events.types.agent_events import (
    AgentExecutionCompletedEvent,
    AgentExecutionErrorEvent,
    AgentExecutionStartedEvent,
)
from crewai.task import Task
from crewai.utilities.agent_utils import is_inside_event_loop
from crewai.utilities.env import get_env_context
from crewai.utilities.i18n import I18N_DEFAULT
from pydantic import BaseModel

from fastcrew_async.engine import events, files
from fastcrew_async.engine.drivers import Deadline
from fastcrew_async.engine.effects import Blocking, Either
from fastcrew_async.engine.equip import ready_executor, set_up_executor
from fastcrew_async.engine.executor import AgentExecutor
from fastcrew_async.engine.fields import private, put
from fastcrew_async.engine.knowledge import add_knowledge
from fastcrew_async.engine.memory import add_memories
from fastcrew_async.engine.observer import reported
from fastcrew_async.engine.remote import AskingRemoteAgents, asks_remote_agents
from fastcrew_async.engine.seams import OURS, Pair, replaced
from fastcrew_async.engine.seams import theirs as call_theirs
from fastcrew_async.engine.training import follow_training

_EXECUTE = Pair.of(Agent, "execute_task", "aexecute_task")
_STOCK_PROMPT = Task.prompt
_STOCK_FINALIZE = Agent._finalize_task_execution
_INVOKE = AgentExecutor.invoke


@reported("agent", lambda agent, *_: agent.role)
async def execute_task(agent: BaseAgent, task: Task, context: str | None, tools: Any) -> Any:
    """The agent's answer to the task: text, or a model object.

    Raises:
        TimeoutError: ``max_execution_time`` is over.
        Exception: the last of ``max_retry_limit + 1`` attempts failed.
    """
    if asks_remote_agents(agent):
        return await AskingRemoteAgents(agent, _execute, task, context, tools)
    theirs = await call_theirs(agent, _EXECUTE, task=task, context=context, tools=tools)
    return await _execute(agent, task, context, tools) if theirs is OURS else theirs


async def _execute(agent: BaseAgent, task: Task, context: str | None, tools: Any) -> Any:
    own: Any = agent
    mark = events.scope()
    prompt = await _prompt(own, task, context)
    executor = ready_executor(own)
    ours = isinstance(executor, AgentExecutor)
    if ours:
        executor._reserved = True
    try:
        set_up_executor(own, tools or own.tools or [], task)
        executor = own.agent_executor
        own._emit_skill_usage(task)
        prompt = await follow_training(own, prompt)
        try:
            started = {"agent": own, "tools": own.tools, "task_prompt": prompt, "task": task}
            events.tell(own, AgentExecutionStartedEvent, lambda: started)
            validate_max_execution_time(own.max_execution_time)
            result = await _invoke(own, executor, task, prompt)
        except (TimeoutError, asyncio.CancelledError) as error:
            events.close_scopes((*mark, *events.scope()[len(mark) : len(mark) + 1]), error, own.llm)
            message = str(error) if isinstance(error, TimeoutError) else "cancelled"
            events.tell(own, AgentExecutionErrorEvent, lambda: {"agent": own, "task": task, "error": message})
            raise
        except Exception as error:
            try:
                own._check_execution_error(error, task)
            finally:
                events.close_scopes(mark, error)  # a deliberate stop emits no closing event of its own
            if ours:
                executor._retried = True
            return await execute_task(agent, task, context, tools)
    finally:
        if ours:
            executor._reserved = executor._retried = False
    if ours:
        put(own, agent_executor=executor)  # whose messages are kept; another task of this agent may have its own by now
    if private(own)["_mcp_resolver"] is not None or replaced(own, "_finalize_task_execution", _STOCK_FINALIZE):
        return await Blocking(own._finalize_task_execution, task, result)
    return _finalize(own, task, result)


def _finalize(agent: Any, task: Task, result: Any) -> Any:
    """``Agent._finalize_task_execution`` without MCP clients to close."""
    if agent.max_rpm and agent._rpm_controller:
        agent._rpm_controller.stop_rpm_counter()
    result = process_tool_results(agent, result)
    shown = result
    if (
        AgentResponseProtocol is not None
        and isinstance(result, BaseModel)
        and isinstance(result, AgentResponseProtocol)
    ):
        shown = str(result.message)
    elif not isinstance(result, str):
        shown = str(result)
    events.tell(agent, AgentExecutionCompletedEvent, lambda: {"agent": agent, "task": task, "output": shown})
    save_last_messages(agent)
    return result


async def _prompt(agent: Any, task: Task, context: str | None) -> str:
    get_env_context()
    agent.reset_tool_failures()
    if agent.tools_handler:
        agent.tools_handler.last_used_tool = None
    crew = agent.crew if not isinstance(agent.crew, str) else None
    if replaced(task, "prompt", _STOCK_PROMPT) or (crew and files.stored(crew.id, task.id)):
        text = cast(str, await Blocking(task.prompt))
    else:
        text = _plain_prompt(agent, task)
    text = format_task_with_context(build_task_prompt_with_schema(task, text), context)
    if agent._is_any_available_memory():
        text = await add_memories(agent, task, text)
    if agent.knowledge or (crew and crew.knowledge):
        text = await add_knowledge(agent, crew, task, text)
    return text


def _plain_prompt(agent: Any, task: Task) -> str:
    """``Task.prompt`` of a task without files. Source: ``crewai/task.py: Task.prompt``."""
    description = task.description
    owner: Any = task.agent
    if task.allow_crewai_trigger_context and owner:
        crew = owner.crew
        if crew and not isinstance(crew, str) and crew._inputs:
            payload = crew._inputs.get("crewai_trigger_payload")
            if payload is not None:
                description += f"\n\nTrigger Payload: {payload}"
    parts = [description, I18N_DEFAULT.slice("expected_output").format(expected_output=task.expected_output)]
    if task.markdown:
        parts.append(_MARKDOWN)
    return "\n".join(parts)


_MARKDOWN = """Your final answer MUST be formatted in Markdown syntax.
Follow these guidelines:
- Use # for headers
- Use ** for bold text
- Use * for italic text
- Use - or * for bullet points
- Use `code` for inline code
- Use ```language for code blocks"""


async def _invoke(agent: Any, executor: Any, task: Task, prompt: str) -> Any:
    if not executor:
        raise RuntimeError("Agent executor is not initialized.")
    inputs = {
        "input": prompt,
        "tool_names": executor.tools_names,
        "tools": executor.tools_description,
        "ask_for_human_input": task.human_input,
    }
    await Either(_refuse_running_loop, _allow)
    run = invoke(executor, inputs)
    seconds = agent.max_execution_time
    if seconds is None:
        return (await run)["output"]
    try:
        return (await Deadline(run, seconds, _as_task_error))["output"]
    except TimeoutError as error:
        raise TimeoutError(
            f"Task '{task.description}' execution timed out after {seconds} seconds. Consider increasing "
            "max_execution_time or optimizing the task."
        ) from error


async def invoke(executor: Any, inputs: dict[str, Any]) -> Any:
    """One execution of an executor, which may be the user's own."""
    if type(executor) is AgentExecutor and "invoke" not in executor.__dict__ and AgentExecutor.invoke is _INVOKE:
        return await executor.run(inputs)
    return await Either(lambda: executor.invoke(inputs), lambda: executor.ainvoke(inputs))


def _as_task_error(error: Exception) -> Exception:
    return error if isinstance(error, _passthrough_exceptions) else RuntimeError(f"Task execution failed: {error!s}")


def _refuse_running_loop() -> None:
    if is_inside_event_loop():
        raise RuntimeError(
            "Agent execution was invoked synchronously from within a running event loop. Use `agent.kickoff_async()` / "
            "`crew.kickoff_async()` (or `await agent.aexecute_task(...)`) when calling from async code."
        )


async def _allow() -> None:
    return None
