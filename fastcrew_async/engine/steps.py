"""One step of a plan: a conversation of its own, with tools, until the model answers.

Source: ``crewai/agents/step_executor.py: StepExecutor`` of CrewAI 1.15.30, whose prompts and checks are used.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from importlib import import_module
from typing import Any, cast

from crewai.agents.parser import AgentAction, AgentFinish
from crewai.agents.step_executor import StepExecutor
from crewai.events.types.tool_usage_events import ToolUsageErrorEvent, ToolUsageFinishedEvent, ToolUsageStartedEvent
from crewai.hooks.dispatch import HookAborted
from crewai.tools.tool_failure import ToolExecutionFailedError, ToolFailure, ToolFailureReason, handle_tool_failure
from crewai.utilities.agent_utils import (
    build_text_tool_calling_fallback_message,
    build_tool_calls_assistant_message,
    check_repeated_tool_call,
    extract_tool_call_info,
    is_native_tool_calling_unsupported_error,
    is_tool_call_list,
    parse_tool_call_args,
    process_llm_response,
    render_text_description_and_args,
)
from crewai.utilities.message_utils import format_message_for_llm
from crewai.utilities.planning_types import TodoItem
from crewai.utilities.step_execution_context import StepExecutionContext, StepResult
from crewai.utilities.types import LLMMessage
from pydantic import BaseModel

from fastcrew_async.engine.effects import Blocking
from fastcrew_async.engine.events import tell
from fastcrew_async.engine.model import CallModel
from fastcrew_async.engine.native import NativeCall
from fastcrew_async.engine.rate import WithinRate
from fastcrew_async.engine.react import use_tool
from fastcrew_async.engine.seams import stock_methods
from fastcrew_async.engine.tool_call import tool_names

_MODULE: Any = import_module("crewai.agents.step_executor")
_STOCK_TOOLS = (_MODULE.execute_tool_and_check_finality, _MODULE.execute_single_native_tool_call)
_STOPS = (ToolExecutionFailedError, HookAborted)
_STOCK = stock_methods(
    StepExecutor,
    "execute",
    "_execute_text_parsed",
    "_execute_text_tool_with_events",
    "_execute_native",
    "_execute_native_tool_calls",
)


async def run_step(
    executor: StepExecutor, todo: TodoItem, context: StepExecutionContext, most: int, timeout: int | None
) -> StepResult:
    """``StepExecutor.execute``: what came of `todo` after at most `most` model calls; `timeout` is in seconds.

    A failing model or a tool that was to be used and was not is a result without success.

    Raises:
        ToolExecutionFailedError: a tool failed under the policy ``raise``.
        HookAborted: a hook stopped the run.
    """
    tools = (_MODULE.execute_tool_and_check_finality, _MODULE.execute_single_native_tool_call)
    if tools != _STOCK_TOOLS or not _STOCK.in_place(executor):
        theirs: StepResult = await Blocking(
            executor.execute, todo, context, max_step_iterations=most, step_timeout=timeout
        )
        return theirs
    return await _Step(executor, todo, most, timeout).run(context)


class _Step:
    """One execution of a step."""

    def __init__(self, executor: StepExecutor, todo: TodoItem, most: int, timeout: int | None) -> None:
        self.executor = executor
        self.todo = todo
        self.most = most
        self.timeout = timeout
        self.started = time.monotonic()
        self.messages: list[LLMMessage] = []
        self.called: list[str] = []
        self.counts: dict[int, int] = {}

    async def run(self, context: StepExecutionContext) -> StepResult:
        executor = self.executor
        try:
            if executor.request_within_rpm_limit:
                await WithinRate(executor.request_within_rpm_limit)
            self.messages = executor._build_isolated_messages(self.todo, context)
            text = await self._conversation()
            executor._validate_expected_tool_usage(self.todo, self.called)
        except _STOPS:
            raise
        except Exception as error:
            return self._result(success=False, result="", error=str(error))
        return self._result(success=True, result=text)

    async def _conversation(self) -> str:
        """The model's answer; in the text form where it turns out to know no function calling."""
        if self.executor._use_native_tools:
            try:
                return await self._natively()
            except _STOPS:
                raise
            except Exception as error:
                if not is_native_tool_calling_unsupported_error(error):
                    raise
                self._turn_to_text()
        return await self._in_text()

    def _result(self, **outcome: Any) -> StepResult:
        return StepResult(tool_calls_made=self.called, execution_time=time.monotonic() - self.started, **outcome)

    def _turn_to_text(self) -> None:
        """Go on with the same conversation, in the text form of tool use."""
        executor = self.executor
        executor._use_native_tools = False
        executor._openai_tools = []
        executor._available_functions = {}
        names = tool_names(executor.tools)
        text = build_text_tool_calling_fallback_message(render_text_description_and_args(executor.tools), names)
        self.messages.append(format_message_for_llm(text, role="user"))

    def _late(self) -> str | None:
        """What to say once the step's time is over."""
        elapsed = time.monotonic() - self.started
        return f"Step timed out after {elapsed:.0f}s" if self.timeout and elapsed >= self.timeout else None

    async def _ask(self, **tools: Any) -> Any:
        executor = self.executor
        return await CallModel(
            executor.llm,
            self.messages,
            **tools,
            callbacks=executor.callbacks,
            from_task=executor.task,
            from_agent=executor.agent,
        )

    async def _in_text(self) -> str:
        executor = self.executor
        use_stop_words = executor.llm.supports_stop_words() if executor.llm else False
        last = ""
        for _ in range(self.most):
            if late := self._late():
                return last or late
            answer = await self._ask()
            if not answer:
                raise ValueError("Empty response from LLM")
            text = str(answer)
            formatted = process_llm_response(text, use_stop_words)
            if isinstance(formatted, AgentFinish):
                output = str(formatted.output)
                return output if output.strip() or not last else last
            self.called.append(formatted.tool)
            last = await self._use(formatted)
            self._check_repeated(formatted.tool, formatted.tool_input, last)
            self.messages.append({"role": "assistant", "content": text})
            self.messages.append(executor._build_observation_message(last))
        return last

    async def _use(self, action: AgentAction) -> str:
        """The tool that the text asks for, with events of the step around those of the tool itself, as in CrewAI."""
        executor = self.executor
        arguments = executor._parse_tool_args(action.tool_input)
        started_at = datetime.now()

        def about() -> dict[str, Any]:
            return {"tool_name": action.tool, "tool_args": arguments, **_origin(executor, self.todo)}

        tell(executor, ToolUsageStartedEvent, about)
        try:
            found = await use_tool(executor, action)
        except (Exception, asyncio.CancelledError) as error:
            shown = error if isinstance(error, Exception) else Exception("cancelled")
            tell(executor, ToolUsageErrorEvent, lambda: {"error": shown, **about()})
            raise
        result = str(found.result)
        times = {"started_at": started_at, "finished_at": datetime.now()}
        tell(executor, ToolUsageFinishedEvent, lambda: {"output": result, **about(), **times})
        return result

    async def _natively(self) -> str:
        results: list[str] = []
        for _ in range(self.most):
            if late := self._late():
                return "\n\n".join(results) if results else late
            answer = await self._ask(tools=self.executor._openai_tools)
            if not answer:
                if results:
                    return results[-1]
                raise ValueError("Empty response from LLM")
            if isinstance(answer, BaseModel):
                return answer.model_dump_json()
            if isinstance(answer, list) and is_tool_call_list(answer):
                results.append(await self._use_all(answer))
                continue
            output = str(answer)
            return output if output.strip() or not results else results[-1]
        return "\n".join(filter(None, results))

    async def _use_all(self, calls: list[Any]) -> str:
        """The results of the calls, one after another; of a tool whose result is the answer, that alone."""
        message, _ = build_tool_calls_assistant_message(calls)
        if message:
            self.messages.append(message)
        results: list[str] = []
        for call in calls:
            info = extract_tool_call_info(call)
            if info is None:
                self._check_repeated("", None, "Unrecognized tool call format")
                continue
            call_id, name, arguments = info
            result, is_answer = await self._use_function(call_id, name, arguments)
            if name:
                self.called.append(name)
            self._check_repeated(name, arguments, result)
            if is_answer:
                return str(result)
            told: LLMMessage = {"role": "tool", "tool_call_id": call_id, "name": name, "content": result}
            self.messages.append(told)
            self._see(told, results)
        return "\n".join(results)

    async def _use_function(self, call_id: str, name: str, raw_arguments: Any) -> tuple[Any, bool]:
        executor = self.executor
        where: dict[str, Any] = {"agent": executor.agent, "task": executor.task, "crew": executor.crew}
        parsed, parse_error = parse_tool_call_args(raw_arguments, name, call_id)
        if parse_error is not None:
            handle_tool_failure(parse_error["tool_failure"], tool_name=name, tool_args=raw_arguments, **where)
            return parse_error["result"], False
        arguments: dict[str, Any] = {} if parsed is None else parsed
        call = _StepCall(executor, self.todo, call_id, name, arguments, where)
        await call.perform()
        return call.result, call.is_answer()

    def _see(self, told: LLMMessage, results: list[str]) -> None:
        """Note a tool's result; an image, which comes as a marked text, is shown to the model as one."""
        content: Any = told["content"]
        image = self.executor._parse_vision_sentinel(content) if isinstance(content, str) else None
        if image:
            kind, data = image
            told["content"] = [{"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}]
            results.append("[image]")
        elif content:
            results.append(str(content))

    def _check_repeated(self, name: str, arguments: Any, result: Any) -> None:
        check_repeated_tool_call(
            self.counts,
            tool_name=name,
            tool_args=arguments,
            result=result,
            agent=self.executor.agent,
            task=self.executor.task,
        )


class _StepCall(NativeCall):
    """A function call of a step: its events name the step, and the tool itself counts its uses."""

    def __init__(self, executor: StepExecutor, todo: TodoItem, *call: Any) -> None:
        self.todo = todo
        super().__init__(executor, *call)

    def is_answer(self) -> bool:
        """Whether the result ends the step."""
        wanted = bool(getattr(self.original, "result_as_answer", False))
        return wanted and not self.error_emitted and not self.blocked and self.failure is None

    def _used_up(self) -> None:
        return None

    def _unknown(self) -> ToolFailure:
        return ToolFailure(message=self.result, reason=ToolFailureReason.UNKNOWN_TOOL, code=self.name)

    def _event(self) -> dict[str, Any]:
        return super()._event() | _origin(self.executor, self.todo)


def _origin(executor: StepExecutor, todo: TodoItem) -> dict[str, Any]:
    agent = cast(Any, executor.agent)
    return {
        "from_agent": agent,
        "from_task": executor.task,
        "agent_key": getattr(agent, "key", "unknown") if agent else "unknown",
        "plan_step_number": todo.step_number,
        "plan_step_description": todo.description,
    }
