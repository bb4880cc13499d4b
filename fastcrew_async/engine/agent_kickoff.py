"""An agent without a crew: ``Agent.kickoff`` and ``kickoff_async`` on the engine.

Source: ``crewai/agent/core.py: Agent.kickoff`` .. ``_process_kickoff_guardrail`` of CrewAI 1.15.30, without what blocks
the loop there: the guardrail and its second attempt, the memory, the conversion of the answer, tools from servers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from functools import wraps
from typing import Any, cast

from crewai.agent.core import Agent, _carries_payload, _request_index
from crewai.agents.agent_executor import AgentExecutor as StockAgentExecutor
from crewai.events.types.agent_events import (
    LiteAgentExecutionCompletedEvent,
    LiteAgentExecutionErrorEvent,
    LiteAgentExecutionStartedEvent,
)
from crewai.lite_agent_output import LiteAgentOutput
from crewai.llms.base_llm import BaseLLM
from crewai.state.checkpoint_config import apply_checkpoint
from crewai.tasks.llm_guardrail import LLMGuardrail
from crewai.tools.tool_failure import merge_tool_failures, tool_failure_collector
from crewai.utilities.agent_utils import is_inside_event_loop
from crewai.utilities.converter import Converter, ConverterError
from crewai.utilities.i18n import I18N_DEFAULT
from crewai.utilities.message_utils import message_content_text
from crewai.utilities.pydantic_schema_utils import generate_model_description
from crewai.utilities.string_utils import sanitize_tool_name
from crewai.utilities.token_counter_callback import TokenCalcHandler
from pydantic import BaseModel, ValidationError

from fastcrew_async.engine import collector, convert, events, guardrail, limited, traced
from fastcrew_async.engine.agent import invoke
from fastcrew_async.engine.drivers import drive, drive_in_place
from fastcrew_async.engine.effects import Blocking
from fastcrew_async.engine.equip import prompt_of
from fastcrew_async.engine.executor import new_executor
from fastcrew_async.engine.memory import keep_kickoff, memories_for
from fastcrew_async.engine.observer import reported
from fastcrew_async.engine.resumed import restored_from, resumed
from fastcrew_async.engine.seams import replaced
from fastcrew_async.engine.structured_tool import structured
from fastcrew_async.engine.tool_call import tool_names
from fastcrew_async.engine.tool_schema import describe

_STOCK_KICKOFF: Any = Agent.kickoff
_STOCK_KICKOFF_ASYNC: Any = Agent.kickoff_async
# What the engine stands in for as a whole: where one of them is the user's own, CrewAI's kickoff calls it.
_PARTS = {
    name: getattr(Agent, name)
    for name in (
        "_prepare_kickoff",
        "_execute_and_build_output",
        "_execute_and_build_output_async",
        "_build_output_from_result",
        "_process_kickoff_guardrail",
        "_finalize_kickoff",
        "_emit_kickoff_error",
    )
}


@wraps(_STOCK_KICKOFF)
def kickoff(
    self: Agent,
    messages: Any,
    response_format: type[Any] | None = None,
    input_files: Any = None,
    from_checkpoint: Any = None,
) -> LiteAgentOutput | Coroutine[Any, Any, LiteAgentOutput]:
    """In place; inside a running event loop, the coroutine of ``kickoff_async``, as in CrewAI."""
    if _in_parts(self):
        return cast(LiteAgentOutput, _STOCK_KICKOFF(self, messages, response_format, input_files, from_checkpoint))
    restored = apply_checkpoint(self, from_checkpoint)
    if restored is not None:
        again = restored.kickoff(messages=messages, response_format=response_format, input_files=input_files)
        return cast(LiteAgentOutput, again)
    if is_inside_event_loop():
        return self.kickoff_async(messages, response_format, input_files)
    with collector.BUSY:
        return drive_in_place(limited.kickoff(lambda: run_agent(self, messages, response_format, input_files)))


@wraps(_STOCK_KICKOFF_ASYNC)
async def kickoff_async(
    self: Agent,
    messages: Any,
    response_format: type[Any] | None = None,
    input_files: Any = None,
    from_checkpoint: Any = None,
) -> LiteAgentOutput:
    """On the running loop. Cancelling the awaiting task cancels the run."""
    if _in_parts(self):
        theirs = await _STOCK_KICKOFF_ASYNC(self, messages, response_format, input_files, from_checkpoint)
        return cast(LiteAgentOutput, theirs)
    restored = await restored_from(self, from_checkpoint)
    if restored is not None:
        again = await restored.kickoff_async(
            messages=messages, response_format=response_format, input_files=input_files
        )
        return cast(LiteAgentOutput, again)
    with collector.BUSY:
        return await drive(limited.kickoff(lambda: run_agent(self, messages, response_format, input_files)))


def stands_for(agent: type[Agent] | Agent) -> bool:
    """Whether the kickoffs of `agent` are CrewAI's own, or the engine's in their place."""
    kind = agent if isinstance(agent, type) else type(agent)
    return kind.kickoff in (_STOCK_KICKOFF, kickoff) and kind.kickoff_async in (_STOCK_KICKOFF_ASYNC, kickoff_async)


def _in_parts(agent: Agent) -> bool:
    return any(replaced(agent, name, stock) for name, stock in _PARTS.items())


@reported("agent", lambda agent, *_, **__: agent.role)
async def run_agent(
    agent: Agent, messages: Any, response_format: type[Any] | None = None, input_files: Any = None
) -> LiteAgentOutput:
    """Answer `messages`, a text or a conversation, as `agent`.

    Raises:
        ValueError: the guardrail refused the last of ``guardrail_max_retries + 1`` answers.
        Exception: what the model, a tool, a hook or the guardrail raised.
    """
    own: Any = agent
    execution_token = await traced.begin()
    pending = events.begin_run()
    try:
        executor, inputs, info, tools = await _prepare(own, messages, response_format, input_files)
        if resumed(own):
            own._kickoff_event_id = own.checkpoint_kickoff_event_id
            own.checkpoint_kickoff_event_id = None
        else:
            started = {"agent_info": info, "tools": tools, "messages": messages}
            own._kickoff_event_id, _ = events.tell(own, LiteAgentExecutionStartedEvent, lambda: started)
        opened = events.scope()
        try:
            used = own._current_usage_summary()
            output = await _attempt(own, executor, inputs, response_format, used)
            if own.guardrail is not None:
                output = await _guard(own, output, lambda: _attempt(own, executor, inputs, response_format, used))
            if own.memory is not None:
                await keep_kickoff(own, messages, output.raw)
        except (Exception, asyncio.CancelledError) as error:
            events.close_scopes(opened, error, own.llm)
            text = str(error) if isinstance(error, Exception) else "cancelled"
            events.tell(own, LiteAgentExecutionErrorEvent, lambda: {"agent_info": info, "error": text})
            raise
        events.tell(own, LiteAgentExecutionCompletedEvent, lambda: {"agent_info": info, "output": output.raw})
        return output
    finally:
        events.end_run(pending)
        await traced.end(execution_token)


async def _prepare(agent: Any, messages: Any, response_format: Any, input_files: Any) -> tuple[Any, Any, Any, Any]:
    """``Agent._prepare_kickoff``: the executor, its inputs, the agent as events tell of it, and its tools."""
    agent.reset_tool_failures()
    if agent.tools_handler:
        agent.tools_handler.last_used_tool = None
    for servers, resolve in ((agent.apps, agent.get_platform_tools), (agent.mcps, agent.get_mcp_tools)):
        if servers and (found := await Blocking(resolve, servers)):
            if agent.tools is None:
                agent.tools = []
            agent.tools.extend(found)
    raw_tools = list(agent.tools or [])
    if agent.memory is not None:
        from crewai.tools.memory_tools import create_memory_tools  # builds pydantic classes, for few agents

        names = {sanitize_tool_name(tool.name) for tool in raw_tools}
        of_memory = create_memory_tools(agent.memory)
        raw_tools.extend(tool for tool in of_memory if sanitize_tool_name(tool.name) not in names)
    raw_tools = agent._add_skill_loader_tool(raw_tools)
    tools = structured(raw_tools)
    info = {
        "id": agent.id,
        "role": agent.role,
        "goal": agent.goal,
        "backstory": agent.backstory,
        "tools": raw_tools,
        "verbose": agent.verbose,
    }
    executor = _executor(agent, raw_tools, tools, response_format)
    text, searched, around = _request(messages)
    files = around.pop("files", {}) | (input_files or {})
    if agent.memory is not None:
        text += await memories_for(agent, searched)
    inputs = {"input": text, "tool_names": executor.tools_names, "tools": executor.tools_description, **around}
    if files:
        inputs["files"] = files
    return executor, inputs, info, tools


def _executor(agent: Any, raw_tools: list[Any], tools: list[Any], response_format: Any) -> Any:
    prompt, stop_words, rate_check = prompt_of(agent, raw_tools)
    executor = agent.agent_executor
    if not (isinstance(executor, StockAgentExecutor) and executor._resuming):
        executor = new_executor(agent)
        executor.__dict__["crew"] = None  # the kickoff is not part of the crew that the agent may belong to
    elif not isinstance(agent.llm, BaseLLM):
        raise RuntimeError("LLM must be resolved before resuming agent executor.")
    executor.__dict__.update(
        llm=agent.llm,
        tools=tools,
        original_tools=raw_tools,
        tools_names=tool_names(tools),
        tools_description=describe(tools),
        prompt=prompt,
        response_model=response_format,
        stop_words=stop_words,
        tools_handler=agent.tools_handler,
        step_callback=agent.step_callback,
        function_calling_llm=agent.__dict__.get("function_calling_llm"),
        respect_context_window=agent.respect_context_window,
        use_better_compaction=agent.use_better_compaction,
        request_within_rpm_limit=rate_check,
        callbacks=[TokenCalcHandler(agent._token_process)],
    )
    return executor


def _request(messages: Any) -> tuple[str, str, dict[str, Any]]:
    """What is asked, what the memory is searched for, and what stands around it: files, earlier and later messages."""
    if isinstance(messages, str):
        return messages, messages, {}
    carried = [message for message in messages if _carries_payload(message)]
    searched = "\n".join(message_content_text(message) for message in carried if message.get("content"))
    if not carried:
        return "", searched, {}
    index = _request_index(carried)
    request = carried[index]
    parts = {"history": carried[:index], "trailing": carried[index + 1 :], "files": dict(request.get("files") or {})}
    return message_content_text(request), searched, {name: part for name, part in parts.items() if part}


async def _attempt(agent: Any, executor: Any, inputs: Any, response_format: Any, used: Any) -> LiteAgentOutput:
    """One answer; `used` is what the model had been used for before the kickoff."""
    with tool_failure_collector() as failures:
        result = await invoke(executor, inputs)
    answer = result.get("output", "")
    as_model = None
    if response_format and not isinstance(answer, BaseModel):
        as_model = await _structured(agent, str(answer), response_format)
    output = agent._build_output_from_result(result, executor, None, used, failures)
    if as_model is not None:
        output.pydantic = as_model
    return cast(LiteAgentOutput, output)


async def _structured(agent: Any, text: str, response_format: type[Any]) -> BaseModel | None:
    try:
        return cast(BaseModel, response_format.model_validate_json(text))
    except ValidationError:
        schema = json.dumps(generate_model_description(response_format), indent=2)
    converter = Converter(
        llm=agent.llm,
        text=text,
        model=response_format,
        instructions=I18N_DEFAULT.slice("formatted_task_instructions").format(output_format=schema),
    )
    try:
        converted = await convert.to_pydantic(converter)
    except ConverterError:
        return None
    return converted if isinstance(converted, BaseModel) else None


async def _guard(agent: Any, output: LiteAgentOutput, ask_again: Any) -> LiteAgentOutput:
    """Put `output` before the agent's guardrail; on refusal ask again, up to ``guardrail_max_retries`` times.

    The model is not told of the refusal: CrewAI adds it to messages that the next attempt begins by clearing.
    """
    judged_by = agent.guardrail
    if isinstance(judged_by, str):
        judged_by = LLMGuardrail(description=judged_by, llm=agent.llm)
    elif not callable(judged_by):
        return output
    retries = 0
    while True:
        verdict = await guardrail.judge(output, judged_by, retries, agent, agent)
        if verdict.success:
            break
        if retries >= agent.guardrail_max_retries:
            raise ValueError(
                f"Agent's guardrail failed validation after {agent.guardrail_max_retries} retries. "
                f"Last error: {verdict.error}"
            )
        refused = output.tool_failures
        output = await ask_again()
        output.tool_failures = merge_tool_failures(refused, output.tool_failures)
        retries += 1
    if isinstance(verdict.result, str):
        output.raw = verdict.result
    elif isinstance(verdict.result, BaseModel):
        output.pydantic = verdict.result
    return output
