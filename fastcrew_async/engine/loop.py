"""The agent loop: ask the model, run the tools it asks for, until there is an answer.

One coroutine without I/O; what it waits for are effects. It is the part of CrewAI's ``AgentExecutor`` flow that runs
when planning is off, written as the loop it is. Source: ``crewai/agents/agent_executor.py`` of CrewAI 1.15.30
(``initialize_reasoning`` .. ``finalize``).
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from crewai.agents.parser import AgentAction, AgentFinish
from crewai.utilities.agent_utils import (
    handle_unknown_error,
    has_reached_max_iterations,
    is_context_length_exceeded,
    is_native_tool_calling_unsupported_error,
    process_llm_response,
)
from crewai.utilities.exceptions.context_window_exceeding_exception import LLMContextLengthExceededError
from crewai_core.printer import PRINTER
from pydantic import BaseModel
from rich.text import Text

from fastcrew_async.engine import events
from fastcrew_async.engine.effects import Blocking, CallUser
from fastcrew_async.engine.model import ask, force_final_answer
from fastcrew_async.engine.native import run_native_tools
from fastcrew_async.engine.react import run_text_tool

if TYPE_CHECKING:
    from fastcrew_async.engine.executor import AgentExecutor


class Next(Enum):
    """Where a step leads."""

    FINISH = "finish"
    TOOLS = "tools"
    AS_TEXT = "as text"
    TOO_LONG = "too long"


async def agent_loop(executor: AgentExecutor) -> None:
    """Run until ``executor.state.current_answer`` holds the answer.

    Raises:
        LLMContextLengthExceededError: the context is too long and the agent does not respect the context window.
        Exception: what the model, a hook or a tool under the policy ``raise`` has raised.
    """
    state = executor.state
    executor._show_start_logs()
    if state.iterations == 0:
        state.use_native_tools = executor._check_native_tool_support()
        if state.use_native_tools:
            executor._setup_native_tools()
    opened = events.scope()
    while True:
        events.restore(opened)  # CrewAI's steps run in contexts of their own: no scope gets out of one
        if has_reached_max_iterations(state.iterations, executor.max_iter):
            state.current_answer = await force_final_answer(executor)
            break
        step = await (_ask_natively(executor) if state.use_native_tools else _ask_in_text(executor))
        if step is Next.AS_TEXT:
            step = await _ask_in_text(executor)
        if step is Next.FINISH:
            break
        if step is Next.TOO_LONG:
            await _shorten(executor)
        elif state.use_native_tools:
            if await run_native_tools(executor):
                state.iterations += 1
                break
        elif await run_text_tool(executor):
            state.iterations += 1
            break
        state.iterations += 1
    events.restore(opened)
    announce_end(executor)
    finish(executor)


async def _ask_in_text(executor: AgentExecutor) -> Next:
    agent: Any = executor.agent
    state = executor.state
    try:
        answer = await ask(executor, None, None if executor.original_tools else executor.response_model)
        if isinstance(answer, BaseModel):
            state.current_answer = AgentFinish(thought="", output=answer, text=str(answer))
            return Next.FINISH
        formatted = process_llm_response(answer, executor.use_stop_words)
        state.current_answer = formatted
        both = "Final Answer:" in answer  # a TypeError for an answer that is a number, as in CrewAI
        if isinstance(formatted, AgentFinish):
            return Next.FINISH
        if both:
            _warn(executor, f"LLM returned 'Final Answer:' but parsed as AgentAction (tool: {formatted.tool})", answer)
        return Next.TOOLS
    except Exception as error:
        return _failed(error, agent.verbose)


async def _ask_natively(executor: AgentExecutor) -> Next:
    agent: Any = executor.agent
    state = executor.state
    try:
        state.pending_tool_calls.clear()
        answer = await ask(executor, executor._openai_tools, None)
        if isinstance(answer, list) and answer and executor._is_tool_call_list(answer):
            state.pending_tool_calls = list(answer)
            return Next.TOOLS
        if isinstance(answer, BaseModel):
            text = answer.model_dump_json()
            finish = AgentFinish(thought="", output=answer, text=text)
        else:
            text = answer if isinstance(answer, str) else str(answer)
            finish = AgentFinish(thought="", output=text, text=text)
        state.current_answer = finish
        await call_step_callback(executor, finish)
        executor._append_message_to_state(text)
        return Next.FINISH
    except Exception as error:
        if is_native_tool_calling_unsupported_error(error):
            executor._downgrade_to_text_tool_calling()
            return Next.AS_TEXT
        return _failed(error, agent.verbose)


async def call_step_callback(executor: AgentExecutor, step: Any) -> None:
    """Tell the user's ``step_callback``, if there is one."""
    if executor.step_callback:
        await CallUser(executor.step_callback, step)


def _failed(error: Exception, verbose: bool) -> Next:
    if is_context_length_exceeded(error):
        return Next.TOO_LONG
    if not type(error).__module__.startswith("litellm"):
        handle_unknown_error(PRINTER, error, verbose=verbose)
    raise error


async def _shorten(executor: AgentExecutor) -> None:
    """Summarise the messages in place.

    CrewAI raises SystemExit where the agent does not respect the context window, which ends the whole process or event
    loop; here it is an error of this run only.
    """
    agent: Any = executor.agent
    llm: Any = executor.llm
    if not executor.respect_context_window:
        if agent.verbose:
            PRINTER.print(
                content="Context length exceeded. Consider using smaller text or RAG tools from crewai_tools.",
                color="red",
            )
        raise LLMContextLengthExceededError(
            "Context length exceeded and user opted not to summarize. Consider using smaller text or RAG tools from "
            "crewai_tools."
        )
    if agent.verbose:
        PRINTER.print(
            content="Context length exceeded. Summarizing content to fit the model context window. "
            "Might take a while...",
            color="yellow",
        )
    await Blocking(llm.summarize_messages, executor.state.messages, executor.callbacks, agent.verbose)


def announce_end(executor: AgentExecutor) -> None:
    """Say on the console, where the agent is verbose, that the answer is made now."""
    executor._finalize_called = True
    agent: Any = executor.agent
    if agent.verbose:
        todos = executor.state.todos.items
        done = sum(1 for todo in todos if todo.result)
        PRINTER.print(content=f"[Finalize] todos_count={len(todos)}, todos_with_results={done}", color="magenta")


def finish(executor: AgentExecutor) -> None:
    """The run has its answer: mark it finished and tell of the answer.

    Raises:
        RuntimeError: there is no answer.
    """
    state = executor.state
    answer = state.current_answer
    if answer is None or isinstance(answer, AgentAction):  # pragma: no cover - the loop ends on an answer only
        raise RuntimeError("Agent execution ended without reaching a final answer.")
    state.is_finished = True
    executor._show_logs(answer)


def _warn(executor: AgentExecutor, warning: str, answer: str) -> None:
    text = Text()
    text.append("⚠️ ", style="yellow bold")
    text.append(warning, style="yellow")
    executor._console.print(text)
    preview = Text()
    preview.append("Answer preview: ", style="yellow")
    preview.append(f"{answer[:200]}...", style="yellow dim")
    executor._console.print(preview)
