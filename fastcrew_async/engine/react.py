"""Tool use in the ReAct text form.

Source: ``crewai/utilities/tool_utils.py: execute_tool_and_check_finality``, ``crewai/tools/tool_usage.py: ToolUsage``
and ``AgentExecutor.execute_tool_action`` of CrewAI 1.15.30. What the model sees is kept to the letter, with CrewAI's
peculiarities: a failing tool is tried six times, and a use counts twice against ``max_usage_count``.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from crewai.agents import agent_executor as stock
from crewai.agents.parser import AgentAction, AgentFinish
from crewai.events.types.tool_usage_events import ToolUsageFinishedEvent, ToolUsageStartedEvent
from crewai.hooks.dispatch import HookAborted
from crewai.hooks.tool_hooks import ToolCallHookContext, run_after_tool_call_hooks, run_before_tool_call_hooks
from crewai.security.fingerprint import Fingerprint
from crewai.telemetry.telemetry import Telemetry
from crewai.tools.structured_tool import CrewStructuredTool
from crewai.tools.tool_calling import ToolCalling
from crewai.tools.tool_failure import (
    ToolExecutionFailedError,
    ToolFailure,
    ToolFailureReason,
    detect_tool_failure,
    failure_from_exception,
    handle_tool_failure,
)
from crewai.tools.tool_types import ToolResult
from crewai.tools.tool_usage import _RAW_RESULT_UNSET, OPENAI_BIGGER_MODELS, ToolUsageError
from crewai.tools.tool_usage import ToolUsage as StockToolUsage
from crewai.utilities.agent_utils import (
    check_repeated_tool_call,
    render_text_description_and_args,
)
from crewai.utilities.i18n import I18N_DEFAULT
from crewai.utilities.types import LLMMessage
from crewai_core.printer import PRINTER

from fastcrew_async.engine.calling import listen
from fastcrew_async.engine.effects import Blocking, CallUser
from fastcrew_async.engine.events import new_id, observed, tell
from fastcrew_async.engine.fields import new, private
from fastcrew_async.engine.structured_tool import count_use, original_of, shown
from fastcrew_async.engine.tool_call import (
    ask_whether_to_cache,
    invocation,
    invokes_as_crewai,
    own_error,
    tool_name,
    tool_names,
)
from fastcrew_async.engine.tool_schema import describe
from fastcrew_async.errors import ToolRecursionError, ToolTimeoutError

if TYPE_CHECKING:
    from crewai.tools.tool_calling import InstructorToolCalling

    from fastcrew_async.engine.executor import AgentExecutor

_STOCK_EXECUTE = stock.execute_tool_and_check_finality
_DELEGATIONS = frozenset({tool_name("Delegate work to coworker"), tool_name("Ask question to coworker")})
_argument_names: WeakKeyDictionary[type, frozenset[str]] = WeakKeyDictionary()


_slice = lru_cache(I18N_DEFAULT.slice)


@lru_cache
def _add_image() -> Any:
    return I18N_DEFAULT.tools("add_image")


async def run_text_tool(executor: AgentExecutor) -> bool:
    """Run the tool of ``state.current_answer`` and record what came of it. True when its result is the answer."""
    state = executor.state
    agent: Any = executor.agent
    action = cast(AgentAction, state.current_answer)
    try:
        tool_result = await _execute(executor, action)
    except (HookAborted, ToolExecutionFailedError):
        raise
    except Exception as error:
        if agent.verbose:
            PRINTER.print(content=f"Error in tool execution: {error}", color="red")
        if executor.task:
            executor.task.increment_tools_errors()
        action.text += f"\nObservation: Error executing tool: {error}"
        action.result = str(error)
        executor._append_message_to_state(action.text)
        _reason_on(executor)
        return False
    check_repeated_tool_call(
        private(executor)["_tool_call_counts"],
        tool_name=action.tool,
        tool_args=action.tool_input,
        result=tool_result.result,
        agent=agent,
        task=executor.task,
    )
    result = await _observe(executor, action, tool_result)
    state.current_answer = result
    if executor.step_callback:
        await CallUser(executor.step_callback, result)
    executor._append_message_to_state(result.text)
    if isinstance(result, AgentFinish):
        state.is_finished = True
        return True
    _reason_on(executor)
    return False


def _reason_on(executor: AgentExecutor) -> None:
    message: LLMMessage = {"role": "user", "content": _slice("post_tool_reasoning")}
    executor.state.messages.append(message)


async def _observe(executor: AgentExecutor, action: AgentAction, tool_result: ToolResult) -> AgentAction | AgentFinish:
    add_image = _add_image()
    if isinstance(add_image, dict) and action.tool.casefold().strip() == add_image.get("name", "").casefold().strip():
        executor.state.messages.append({"role": "assistant", "content": tool_result.result})
        return action
    if executor.step_callback:
        await CallUser(executor.step_callback, tool_result)
    action.text += f"\nObservation: {tool_result.result}"
    action.result = tool_result.result
    if tool_result.result_as_answer:
        return AgentFinish(thought="", output=tool_result.result, text=action.text)
    executor._show_logs(action)
    return action


async def _execute(executor: AgentExecutor, action: AgentAction) -> ToolResult:
    if stock.execute_tool_and_check_finality is _STOCK_EXECUTE:
        return await use_tool(executor, action)
    agent: Any = executor.agent
    return cast(
        ToolResult,
        await Blocking(
            stock.execute_tool_and_check_finality,
            agent_action=action,
            fingerprint_context=_fingerprint(agent),
            tools=executor.tools,
            agent_key=agent.key,
            agent_role=agent.role,
            tools_handler=executor.tools_handler,
            task=executor.task,
            agent=agent,
            function_calling_llm=executor.function_calling_llm,
            crew=executor.crew,
        ),
    )


def _fingerprint(agent: Any) -> dict[str, Any]:
    if hasattr(agent, "security_config") and hasattr(agent.security_config, "fingerprint"):
        return {"agent_fingerprint": str(agent.security_config.fingerprint)}
    return {}


def _new_fingerprint() -> Fingerprint:
    """``Fingerprint.from_dict`` of what knows nothing of its uuid or age: one of this moment."""
    own = {"_uuid_str": new_id(), "_created_at": datetime.now()}
    made: Fingerprint = new(Fingerprint, {"metadata": {}}, {"metadata"}, own)
    return made


async def use_tool(executor: Any, action: AgentAction) -> ToolResult:
    """``execute_tool_and_check_finality``: what the tool of `action` gives, or why it could not be used.

    Raises:
        ToolExecutionFailedError: the tool failed under the policy ``raise``.
        HookAborted: a hook stopped the run.
    """
    agent: Any = executor.agent
    task, crew, tools = executor.task, executor.crew, executor.tools
    if agent.role and callable(getattr(agent, "set_fingerprint", None)):
        try:
            agent.set_fingerprint(fingerprint=_new_fingerprint())
        except Exception as error:
            raise ValueError(f"Failed to set fingerprint: {error}") from error
    usage = ToolUsage(executor, action)
    calling: Any
    if executor.function_calling_llm:
        listen(executor.function_calling_llm)
        calling = await Blocking(usage.parse_tool_calling, action.text)
    else:
        calling = usage.parse_tool_calling(action.text)
    where: dict[str, Any] = {"agent": agent, "task": task, "crew": crew}
    if isinstance(calling, ToolUsageError):
        handle_tool_failure(
            ToolFailure(message=calling.message, reason=ToolFailureReason.INVALID_INPUT),
            tool_name=getattr(action, "tool", "") or "unknown",
            tool_args=getattr(action, "tool_input", None),
            **where,
        )
        return ToolResult(calling.message, False)
    by_name = {tool_name(tool.name): tool for tool in tools}
    name = tool_name(calling.tool_name)
    tool = by_name.get(name)
    if tool is None:
        result = I18N_DEFAULT.errors("wrong_tool_name").format(tool=name, tools=", ".join(by_name))
        handle_tool_failure(
            ToolFailure(message=result, reason=ToolFailureReason.UNKNOWN_TOOL, code=name),
            tool_name=name,
            tool_args=calling.arguments,
            **where,
        )
        return ToolResult(result=result, result_as_answer=False)
    tool_input = calling.arguments if calling.arguments else {}
    hook: dict[str, Any] = {"tool_name": name, "tool_input": tool_input, "tool": tool, **where}
    if run_before_tool_call_hooks(ToolCallHookContext(**hook)):
        blocked = f"Tool execution blocked by hook. Tool: {calling.tool_name}"
        changed = run_after_tool_call_hooks(ToolCallHookContext(**hook, tool_result=blocked, raw_tool_result=blocked))
        return ToolResult(changed if changed is not None else blocked, False)
    result = await usage.run(calling, action.text)
    changed = run_after_tool_call_hooks(
        ToolCallHookContext(**hook, tool_result=result, raw_tool_result=usage.get_last_raw_result(result))
    )
    if usage.last_failure is not None:
        handle_tool_failure(usage.last_failure, tool_name=name, tool_args=tool_input, tool=tool, **where)
    return ToolResult(
        changed if changed is not None else result,
        tool.result_as_answer and usage.last_failure is None,
    )


class ToolUsage(StockToolUsage):
    """CrewAI's tool usage whose tool body is an effect. It keeps the name, which events carry as their source."""

    def __init__(self, executor: Any, action: AgentAction) -> None:
        # Not the parent's: that one renders the schema of every tool, which few uses need.
        self._telemetry = Telemetry()
        self._run_attempts = 1
        self._max_parsing_attempts = 3
        self._remember_format_after_usages = 3
        self.agent = executor.agent
        self.tools = executor.tools
        self.tools_handler = executor.tools_handler
        self.task = executor.task
        self.crew = executor.crew
        self.action = action
        self.function_calling_llm = cast(Any, executor.function_calling_llm)
        self.fingerprint_context = {}
        self.last_raw_result = _RAW_RESULT_UNSET
        self.last_failure = None
        if self.function_calling_llm and self.function_calling_llm.model in OPENAI_BIGGER_MODELS:
            self._max_parsing_attempts = 2
            self._remember_format_after_usages = 4

    @property
    def tools_description(self) -> str:  # type: ignore[override]  # an attribute there, rendered on demand here
        """The tools as the prompt describes them."""
        if all(type(tool) is CrewStructuredTool for tool in self.tools):
            return describe(self.tools)
        return render_text_description_and_args(self.tools)

    @property
    def tools_names(self) -> str:  # type: ignore[override]
        """The tools' names as the prompt lists them."""
        return tool_names(self.tools)

    def _original_tool_calling(self, tool_string: str, raise_error: bool = False) -> Any:
        tool = self._select_tool(self.action.tool)
        try:
            arguments = self._validate_tool_input(self.action.tool_input)
        except Exception:
            if raise_error:
                raise
            return ToolUsageError(f"{I18N_DEFAULT.errors('tool_arguments_error')}")
        return ToolCalling(tool_name=tool_name(tool.name), arguments=arguments)

    def _select_tool(self, name: str) -> Any:
        """The tool whose name is the most similar; an equal name needs no comparing."""
        wanted = tool_name(name)
        equal = next((tool for tool in self.tools if tool_name(tool.name) == wanted), None)
        return super()._select_tool(name) if equal is None else equal

    def _check_tool_repeated_usage(self, calling: Any) -> bool:
        last = self.tools_handler.last_used_tool if self.tools_handler else None
        if not last:
            return False
        same = tool_name(calling.tool_name) == tool_name(last.tool_name)
        return bool(same and calling.arguments == last.arguments)

    async def run(self, calling: ToolCalling | InstructorToolCalling, tool_string: str) -> str:
        """``use`` of CrewAI, with the tool's body as an effect."""
        try:
            tool = self._select_tool(calling.tool_name)
        except Exception as error:
            return self._explained(error)
        if tool_name(tool.name) == tool_name(cast(Any, _add_image())["name"]):
            try:
                return cast(str, await self._run_once(tool, calling, tool_string))
            except Exception as error:
                return self._explained(error)
        return f"{await self._run_once(tool, calling, tool_string)}"

    def _explained(self, error: Exception) -> str:
        text = cast(str, getattr(error, "message", str(error)))
        if self.task:
            self.task.increment_tools_errors()
        if self.agent and self.agent.verbose:
            PRINTER.print(content=f"\n\n{text}\n", color="red")
        return text

    async def _run_once(self, tool: Any, calling: Any, tool_string: str) -> Any:
        name = tool_name(tool.name)
        if self._check_tool_repeated_usage(calling=calling):
            repeated = I18N_DEFAULT.errors("task_repeated_usage").format(tool_names=self.tools_names)
            self.last_raw_result = repeated
            await self._count(self._telemetry.tool_repeated_usage, tool_name=name, attempts=self._run_attempts)
            return self._format_result(result=repeated)
        started_at = time.time()
        self._emit_started()
        from_cache = failed = retry = False
        result: Any = None
        try:
            if self.tools_handler and self.tools_handler.cache:
                result = self.tools_handler.cache.read(
                    tool=tool_name(calling.tool_name), input=_cache_key(calling.arguments)
                )
                from_cache = result is not None
            available = next((entry for entry in self.tools if tool_name(entry.name) == name), None)
            limit_error = self._check_usage_limit(available, name)
            if limit_error:
                self.last_raw_result = limit_error
                self.last_failure = ToolFailure(message=limit_error, reason=ToolFailureReason.USAGE_LIMIT)
                await self._count(self._telemetry.tool_usage_error, tool_name=name)
                result = self._format_result(result=limit_error)
            elif result is None:
                try:
                    result = await self._call(tool, calling, available)
                except Exception as raised:
                    error = own_error(raised)
                    self.on_tool_error(tool=tool, tool_calling=calling, e=error)
                    failed = True
                    if isinstance(error, ToolRecursionError):
                        raise
                    self._run_attempts += 1
                    # As CrewAI, but for a tool that took its time: once is enough to wait for it.
                    retry = self._run_attempts <= self._max_parsing_attempts and type(error) is not ToolTimeoutError
                    if not retry:
                        result = await self._given_up(tool, error)
                    if self.task:
                        self.task.increment_tools_errors()
            else:
                self.last_raw_result = result
                self.last_failure = detect_tool_failure(result)
                result = self._format_result(result=shown(tool, result))
        except (asyncio.CancelledError, TimeoutError) as error:
            self.on_tool_error(tool=tool, tool_calling=calling, e=Exception(f"cancelled: {error}"))
            failed = True
            raise
        finally:
            if self.agent and not failed:
                self.on_tool_use_finished(
                    tool=tool, tool_calling=calling, from_cache=from_cache, started_at=started_at, result=result
                )
        if retry:
            return await self.run(calling, tool_string)
        return result

    def _emit_started(self) -> None:
        if self.agent:
            tell(self, ToolUsageStartedEvent, self._started)

    def _started(self) -> dict[str, Any]:
        agent: Any = self.agent
        data: dict[str, Any] = {
            "agent_key": agent.key,
            "agent_role": agent.role,
            "tool_name": self.action.tool,
            "tool_args": self.action.tool_input,
            "tool_class": self.action.tool,
            "agent": agent,
            "run_attempts": self._run_attempts,
        }
        fingerprint = getattr(agent, "fingerprint", None)
        if fingerprint:
            data.update(fingerprint)
        if self.task:
            data["task_name"] = self.task.name or self.task.description
            data["task_id"] = str(self.task.id)
        return data

    def on_tool_use_finished(self, *args: Any, **kwargs: Any) -> None:
        """Emit ``tool_usage_finished``."""
        if observed(ToolUsageFinishedEvent):
            super().on_tool_use_finished(*args, **kwargs)
        else:
            tell(self, ToolUsageFinishedEvent, dict)

    async def _call(self, tool: CrewStructuredTool, calling: Any, available: Any) -> str:
        name = tool_name(tool.name)
        if tool_name(calling.tool_name) in _DELEGATIONS and self.task:
            self.task.increment_delegations(calling.arguments.get("coworker") if calling.arguments else None)
        # CrewAI's own invoke() has no use for it.
        config = {} if invokes_as_crewai(tool) else self._build_fingerprint_config()
        if calling.arguments:
            try:
                accepted = _accepted_arguments(tool)
                chosen = {key: value for key, value in calling.arguments.items() if key in accepted}
                raw = await invocation(tool, chosen, config)
            except (ToolRecursionError, ToolTimeoutError):
                raise
            except Exception:
                raw = await invocation(tool, calling.arguments, config)
        else:
            raw = await invocation(tool, {}, config)
        original = original_of(available)
        if self.tools_handler:
            cache_function = getattr(original, "cache_function", None) if original else None
            if cache_function is None:
                cache_function = getattr(available, "cache_function", None)
            should_cache = await ask_whether_to_cache(cache_function, calling.arguments, raw)
            self.tools_handler.on_tool_use(calling=calling, output=raw, should_cache=should_cache)
        await self._count(self._telemetry.tool_usage, tool_name=name, attempts=self._run_attempts)
        self.last_raw_result = raw
        self.last_failure = detect_tool_failure(raw)
        result = self._format_result(result=shown(tool, raw))
        data: dict[str, Any] = {"result": result, "tool_name": name, "tool_args": calling.arguments}
        if getattr(available, "result_as_answer", False) and self.last_failure is None:
            data["result_as_answer"] = available.result_as_answer
        if self.agent and hasattr(self.agent, "tools_results"):
            self.agent.tools_results.append(data)
        if available is not None:
            self._count_use(available)
        return result

    async def _count(self, tell: Callable[..., Any], **what: Any) -> None:
        """Tell CrewAI's telemetry, where it is on: it looks the installed version up in files."""
        if self._telemetry._should_execute_telemetry():
            await Blocking(tell, llm=self.function_calling_llm, **what)

    def _count_use(self, available: Any) -> None:
        if hasattr(available, "_increment_usage_count"):
            count_use(available)
        elif hasattr(available, "current_usage_count"):
            available.current_usage_count += 1
        else:
            return
        if getattr(available, "max_usage_count", None) is not None and self.agent and self.agent.verbose:
            PRINTER.print(
                content=f"Tool '{tool_name(available.name)}' usage: "
                f"{available.current_usage_count}/{available.max_usage_count}",
                color="blue",
            )

    async def _given_up(self, tool: Any, error: Exception) -> str:
        name = tool_name(tool.name)
        await self._count(self._telemetry.tool_usage_error, tool_name=name)
        message = I18N_DEFAULT.errors("tool_usage_exception").format(
            error=error, tool=name, tool_inputs=tool.formatted_description
        )
        format_slice = I18N_DEFAULT.slice("format").format(tool_names=self.tools_names)
        result = ToolUsageError(f"\n{message}.\nMoving on then. {format_slice}").message
        self.last_raw_result = result
        self.last_failure = failure_from_exception(error)
        if self.agent and self.agent.verbose:
            PRINTER.print(content=f"\n\n{message}\n", color="red")
        return result


def _cache_key(arguments: Any) -> str:
    if not arguments:
        return ""
    return json.dumps(arguments) if isinstance(arguments, dict) else str(arguments)


def _accepted_arguments(tool: CrewStructuredTool) -> frozenset[str]:
    """The names in the tool's JSON schema; rendered once per schema class."""
    schema = cast(Any, tool.args_schema)
    names = _argument_names.get(schema)
    if names is None:
        names = frozenset(schema.model_json_schema()["properties"])
        _argument_names[schema] = names
    return names
