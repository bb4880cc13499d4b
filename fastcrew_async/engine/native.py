"""Tool use by function calling.

Source: ``AgentExecutor.execute_native_tool`` and ``_execute_single_native_tool_call`` of CrewAI 1.15.30.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from crewai.agents.agent_executor import AgentExecutor as StockAgentExecutor
from crewai.agents.parser import AgentFinish
from crewai.events.types.tool_usage_events import ToolUsageErrorEvent, ToolUsageFinishedEvent, ToolUsageStartedEvent
from crewai.hooks.dispatch import HookAborted
from crewai.hooks.tool_hooks import ToolCallHookContext, run_after_tool_call_hooks, run_before_tool_call_hooks
from crewai.tools.base_tool import BaseTool
from crewai.tools.tool_failure import (
    ToolExecutionFailedError,
    ToolFailure,
    ToolFailureReason,
    detect_tool_failure,
    failure_from_exception,
    handle_tool_failure,
    reportable_failure,
)
from crewai.utilities.agent_utils import (
    check_repeated_tool_call,
    extract_tool_call_info,
    parse_tool_call_args,
    track_delegation_if_needed,
)
from crewai.utilities.types import LLMMessage

from fastcrew_async.engine.branches import Together
from fastcrew_async.engine.effects import Blocking
from fastcrew_async.engine.events import tell
from fastcrew_async.engine.fields import private
from fastcrew_async.engine.model import counts_here
from fastcrew_async.engine.structured_tool import original_of, shown_natively
from fastcrew_async.engine.tool_call import DELEGATIONS, ask_whether_to_cache, native_call, own_error, tool_name
from fastcrew_async.errors import ToolRecursionError

if TYPE_CHECKING:
    from fastcrew_async.engine.executor import AgentExecutor

PARALLEL_CALLS = 8
"""CrewAI's bound for the calls of one answer that run at the same time."""

_STOCK_SINGLE = StockAgentExecutor._execute_single_native_tool_call

_Info = tuple[str, str, Any]
"""A call's id, the name of its tool, and its arguments, as text or as a dictionary."""


async def run_native_tools(executor: AgentExecutor) -> bool:
    """Run the pending tool calls and append their messages. True when a result is the answer."""
    state = executor.state
    pending = list(state.pending_tool_calls)
    state.pending_tool_calls.clear()
    runnable = _report(executor, pending)
    if executor._should_parallelize_native_tool_calls([call for call, _ in runnable]):
        results = await Together(
            [_one_of_many(executor, *call) for call in runnable],
            PARALLEL_CALLS,
            (HookAborted, ToolExecutionFailedError),
        )
        for result in results:
            if await _append(executor, result):
                return True
        return False
    for call in runnable:
        if await _append(executor, await _execute(executor, *call)):
            return True
    return False


def _report(executor: AgentExecutor, pending: list[Any]) -> list[tuple[Any, _Info]]:
    """Append the one assistant message that reports all calls; the calls that can be read, and what they ask for."""
    runnable: list[tuple[Any, _Info]] = []
    reported: list[dict[str, Any]] = []
    for call in pending:
        info = _info(call)
        if info is None:
            continue
        call_id, name, arguments = info
        runnable.append((call, info))
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        reported.append({"id": call_id, "type": "function", "function": {"name": name, "arguments": text}})
    if reported:
        message: LLMMessage = {"role": "assistant", "content": None, "tool_calls": reported}
        if all(type(call).__qualname__ == "Part" for call in pending):
            message["raw_tool_call_parts"] = list(pending)
        executor.state.messages.append(message)
    return runnable


def _info(call: Any) -> _Info | None:
    """``extract_tool_call_info``, which makes the tool's name a name again each time."""
    if type(call) is dict:
        function = call.get("function", {})
        return (
            call.get("call_id") or call.get("id") or call.get("toolUseId") or f"call_{id(call)}",
            tool_name(function.get("name", "") or call.get("name", "")),
            function.get("arguments") or call.get("arguments") or call.get("input") or {},
        )
    if hasattr(call, "function"):
        return getattr(call, "id", f"call_{id(call)}"), tool_name(call.function.name), call.function.arguments
    return extract_tool_call_info(call)


def _is_short(llm: Any, text: Any) -> bool:
    """Whether `text` is within the quarter of the context window from which on CrewAI keeps a result aside."""
    return counts_here(llm) and isinstance(text, str) and len(text) <= llm.get_context_window_size()


async def _append(executor: AgentExecutor, result: dict[str, Any]) -> bool:
    if not executor.use_better_compaction or _is_short(executor.llm, result["result"]):
        content = executor._prepare_tool_result_for_context(result)
    else:  # its tokens are counted, and a long one goes into a file
        content = await Blocking(executor._prepare_tool_result_for_context, result)
    message: LLMMessage = {
        "role": "tool",
        "tool_call_id": result["call_id"],
        "name": result["func_name"],
        "content": content,
    }
    executor.state.messages.append(message)
    tool = result["original_tool"]
    if not (tool and getattr(tool, "result_as_answer", False) and result.get("tool_failure") is None):
        return False
    executor.state.current_answer = AgentFinish(thought="Tool result is the final answer", output=content, text=content)
    executor.state.is_finished = True
    return True


async def _one_of_many(executor: AgentExecutor, call: Any, info: _Info) -> dict[str, Any]:
    """A parallel call, whose error becomes a text for the model; a deliberate stop passes through."""
    try:
        return await _execute(executor, call, info)
    except (HookAborted, ToolExecutionFailedError):
        raise
    except Exception as error:
        return {
            "call_id": info[0],
            "func_name": info[1],
            "result": f"Error executing tool: {error}",
            "from_cache": False,
            "original_tool": None,
        }


async def _execute(executor: AgentExecutor, call: Any, info: _Info) -> dict[str, Any]:
    single = executor._execute_single_native_tool_call
    if getattr(single, "__func__", None) is not _STOCK_SINGLE:
        return cast(dict[str, Any], await Blocking(single, call))
    call_id, name, raw_arguments = info
    where: dict[str, Any] = {"agent": executor.agent, "task": executor.task, "crew": executor.crew}
    parsed, parse_error = parse_tool_call_args(raw_arguments, name, call_id)
    if parse_error is not None:
        handle_tool_failure(parse_error["tool_failure"], tool_name=name, tool_args=raw_arguments, **where)
        return parse_error
    arguments: dict[str, Any] = parsed or {}
    return await NativeCall(executor, call_id, name, arguments, where).run()


class NativeCall:
    """One call whose arguments could be read, for an executor or for what has its tools, agent, task and crew."""

    def __init__(
        self, executor: Any, call_id: str, name: str, arguments: dict[str, Any], where: dict[str, Any]
    ) -> None:
        self.executor = executor
        self.call_id = call_id
        self.name = name
        self.arguments = arguments
        self.where = where
        self.original = self._original()
        self.structured = self._structured()
        self.result: Any = "Tool not found"
        self.raw: Any = self.result
        self.failure: ToolFailure | None = None
        self.from_cache = False
        self.blocked = False
        self.error_emitted = False

    async def run(self) -> dict[str, Any]:
        """The call, as a record of what came of it.

        Raises:
            ToolExecutionFailedError: the tool failed under the policy ``raise``, or the same call gave the same again.
        """
        await self.perform()
        check_repeated_tool_call(
            private(self.executor)["_tool_call_counts"],
            tool_name=self.name,
            tool_args=self.arguments,
            result=self.result,
            agent=self.executor.agent,
            task=self.executor.task,
        )
        return {
            "call_id": self.call_id,
            "func_name": self.name,
            "result": self.result,
            "tool_args": self.arguments,
            "from_cache": self.from_cache,
            "original_tool": self.original,
            "tool_failure": self.failure,
        }

    async def perform(self) -> None:
        """Set ``result`` and ``failure``, with the events and hooks around them.

        Raises:
            ToolExecutionFailedError: the tool failed under the policy ``raise``.
        """
        executor = self.executor
        started_at = datetime.now()
        tell(executor, ToolUsageStartedEvent, self._event)
        try:
            if tool_name(self.name) in DELEGATIONS:
                track_delegation_if_needed(self.name, self.arguments, executor.task)
            hook: dict[str, Any] = {
                "tool_name": self.name,
                "tool_input": self.arguments,
                "tool": self.structured,
                **self.where,
            }
            self.blocked = run_before_tool_call_hooks(ToolCallHookContext(**hook))
            await self._obtain()
            changed = run_after_tool_call_hooks(
                ToolCallHookContext(**hook, tool_result=self.result, raw_tool_result=self.raw)
            )
        except (asyncio.CancelledError, TimeoutError) as error:
            self._emit_error(Exception(f"cancelled: {error}"))
            raise
        if changed is not None:
            self.result = changed
        if not self.error_emitted:
            tell(
                executor,
                ToolUsageFinishedEvent,
                lambda: {
                    "output": self.result,
                    "started_at": started_at,
                    "finished_at": datetime.now(),
                    "failure": reportable_failure(self.failure, tool=self.structured, **self.where),
                    **self._event(),
                },
            )
        if self.failure is not None:
            handle_tool_failure(
                self.failure, tool_name=self.name, tool_args=self.arguments, tool=self.structured, **self.where
            )

    async def _obtain(self) -> None:
        """Set the result: from a hook's block, the cache, the tool, or the reason why it cannot run."""
        if self.blocked:
            self.result = self.raw = f"Tool execution blocked by hook. Tool: {self.name}"
            return
        output_tool = self.original or self.structured
        if output_tool is not None and self._read_cache(output_tool):
            return
        if limit := self._used_up():
            self.result = self.raw = limit
            self.failure = ToolFailure(message=self.result, reason=ToolFailureReason.USAGE_LIMIT)
        elif output_tool is None or self.name not in self.executor._available_functions:
            self.failure = self._unknown()
        else:
            await self._call(output_tool)

    def _used_up(self) -> str | None:
        tool = self.original
        if tool and tool.max_usage_count is not None and tool.current_usage_count >= tool.max_usage_count:
            return (
                f"Tool '{self.name}' has reached its usage limit of {tool.max_usage_count} times and cannot be used "
                "anymore."
            )
        return None

    def _unknown(self) -> ToolFailure:
        failure: ToolFailure = self.executor._unknown_tool_failure(self.name, self.result)
        return failure

    async def _call(self, output_tool: Any) -> None:
        executor = self.executor
        try:
            raw = await native_call(executor._available_functions[self.name], self.arguments)
            self.raw = raw
            handler = executor.tools_handler
            if handler and handler.cache:
                cache_function = self.original.cache_function if self.original else None
                if await ask_whether_to_cache(cache_function, self.arguments, raw):
                    handler.cache.add(tool=self.name, input=self._cache_key(), output=raw)
            self.result = shown_natively(output_tool, raw)
            self.failure = detect_tool_failure(raw)
        except Exception as raised:
            error = own_error(raised)
            if isinstance(error, ToolRecursionError):
                self._emit_error(error)
                raise
            self.result = self.raw = f"Error executing tool: {error}"
            self.failure = failure_from_exception(error)
            if executor.task:
                executor.task.increment_tools_errors()
            self._emit_error(error)

    def _read_cache(self, output_tool: Any) -> bool:
        handler = self.executor.tools_handler
        if not (handler and handler.cache):
            return False
        cached = handler.cache.read(tool=self.name, input=self._cache_key())
        if cached is None:
            return False
        self.raw = cached
        self.result = shown_natively(output_tool, cached)
        self.failure = detect_tool_failure(cached)
        self.from_cache = True
        return True

    def _cache_key(self) -> str:
        return json.dumps(self.arguments) if self.arguments else ""

    def _event(self) -> dict[str, Any]:
        return {
            "tool_name": self.name,
            "tool_args": self.arguments,
            "from_agent": self.executor.agent,
            "from_task": self.executor.task,
            "agent_key": getattr(self.executor.agent, "key", "unknown") if self.executor.agent else "unknown",
        }

    def _emit_error(self, error: Exception) -> None:
        tell(self.executor, ToolUsageErrorEvent, lambda: {"error": error, **self._event()})
        self.error_emitted = True

    def _original(self) -> BaseTool | None:
        mapped = (getattr(self.executor, "_tool_name_mapping", None) or {}).get(self.name)
        if isinstance(mapped, BaseTool):
            return mapped
        return next((tool for tool in self.executor.original_tools or [] if tool_name(tool.name) == self.name), None)

    def _structured(self) -> Any:
        tools = self.executor.tools or []
        if self.original is not None:
            for tool in tools:
                if original_of(tool) is self.original:
                    return tool
        return next((tool for tool in tools if tool_name(tool.name) == self.name), None)
