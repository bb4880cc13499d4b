"""The steps of a plan, one after another or beside each other, and what is noted of each.

Source: ``crewai/agents/agent_executor.py`` of CrewAI 1.15.30 (``execute_todo_sequential``, ``execute_todos_parallel``,
``observe_step_result``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crewai.agents.agent_executor import AgentExecutor as StockAgentExecutor
from crewai.hooks.dispatch import HookAborted
from crewai.llms.base_llm import BaseLLM
from crewai.tools.tool_failure import ToolExecutionFailedError
from crewai.utilities.planning_types import StepObservation, TodoItem
from crewai.utilities.step_execution_context import StepResult
from crewai_core.printer import PRINTER

from fastcrew_async.engine.branches import Together
from fastcrew_async.engine.effects import Blocking
from fastcrew_async.engine.observing import observe
from fastcrew_async.engine.seams import stock_methods
from fastcrew_async.engine.steps import run_step

if TYPE_CHECKING:
    from fastcrew_async.engine.executor import AgentExecutor

_STOCK = stock_methods(StockAgentExecutor, "_observe_completed_step")


async def execute_todo(executor: AgentExecutor) -> str:
    """``execute_todo_sequential``: do the step that is marked as running."""
    todo = executor.state.todos.current_todo
    if todo is None:
        return "todo_injected"
    say(executor, "cyan", f"[Execute] Step {todo.step_number}: {todo.description[:60]}...")
    result = await _run_step(executor, todo)
    todo.result = result.result  # whether it is completed is for the observation to say
    _note_result(executor, todo, result)
    return "step_executed"


async def execute_todos(executor: AgentExecutor) -> str:
    """``execute_todos_parallel``: do all steps that are ready beside each other; then observe them one by one."""
    todos = executor.state.todos
    ready = todos.get_ready_todos()
    for todo in ready:
        executor._mark_todo_running(todo)
    done: list[tuple[TodoItem, StepResult]] = []
    outcomes = await Together([_outcome(executor, todo) for todo in ready], len(ready), ())
    for todo, outcome in zip(ready, outcomes, strict=True):
        if isinstance(outcome, (HookAborted, ToolExecutionFailedError)):
            raise outcome
        if isinstance(outcome, Exception):
            text = f"Error: {outcome!s}"
            todo.result = text
            executor._mark_todo_failed(todo.step_number, result=text, error=text)
            say(executor, "red", f"Todo {todo.step_number} failed: {text}")
        else:
            todo.result = outcome.result
            _note_result(executor, todo, outcome)
            done.append((todo, outcome))
    for todo, result in done:
        observation = await _observe(executor, todo, result.success)
        if observation.step_completed_successfully:
            executor._mark_todo_completed(todo.step_number, result=todo.result)
        else:
            executor._mark_todo_failed(todo.step_number, result=todo.result)
        _say_observed(executor, todo, observation)
    return "parallel_todos_complete"


async def _outcome(executor: AgentExecutor, todo: TodoItem) -> StepResult | Exception:
    try:
        return await _run_step(executor, todo)
    except Exception as error:
        return error


async def _run_step(executor: AgentExecutor, todo: TodoItem) -> StepResult:
    steps = executor._ensure_step_executor()
    context = executor._build_context_for_todo(todo)
    return await run_step(steps, todo, context, executor._get_max_step_iterations(), executor._get_step_timeout())


def _note_result(executor: AgentExecutor, todo: TodoItem, result: StepResult) -> None:
    executor.state.execution_log.append(
        {
            "type": "step_execution",
            "step_number": todo.step_number,
            "success": result.success,
            "result_preview": result.result[:200] if result.result else "",
            "error": result.error,
            "tool_calls": result.tool_calls_made,
            "execution_time": result.execution_time,
        }
    )
    status, color = ("success", "green") if result.success else ("failed", "red")
    calls = len(result.tool_calls_made)
    say(
        executor,
        color,
        f"[Execute] Step {todo.step_number} {status} ({result.execution_time:.1f}s, {calls} tool calls)",
    )


async def observe_step(executor: AgentExecutor) -> str:
    """``observe_step_result``: judge the step that was done, by the model or by whether it succeeded."""
    todo = executor.state.todos.current_todo
    if todo is None:
        return "step_observed_low"
    observation = await _observe(executor, todo)
    _say_observed(executor, todo, observation)
    effort = executor._get_reasoning_effort()
    return f"step_observed_{effort}" if effort in ("high", "medium") else "step_observed_low"


async def _observe(executor: AgentExecutor, todo: TodoItem, success: bool | None = None) -> StepObservation:
    state = executor.state
    about: dict[str, Any] = {
        "completed_step": todo,
        "result": todo.result or "",
        "all_completed": state.todos.get_completed_todos(),
        "remaining_todos": state.todos.get_pending_todos(),
    }
    observation: StepObservation
    if not _STOCK.in_place(executor):
        observation = await Blocking(executor._observe_completed_step, **about, step_success=success)
    elif executor._should_observe_steps():
        observation = await observe(await planner_observer(executor), **about)
    else:
        observation = executor._observe_completed_step(**about, step_success=success)
    state.observations[todo.step_number] = observation
    state.execution_log.append(
        {
            "type": "observation",
            "step_number": todo.step_number,
            "step_completed_successfully": observation.step_completed_successfully,
            "key_information_learned": observation.key_information_learned,
            "remaining_plan_still_valid": observation.remaining_plan_still_valid,
            "needs_full_replan": observation.needs_full_replan,
            "goal_already_achieved": observation.goal_already_achieved,
            "reasoning_effort": executor._get_reasoning_effort(),
            "llm_observation": executor._should_observe_steps(),
        }
    )
    return observation


async def planner_observer(executor: AgentExecutor) -> Any:
    """The executor's ``PlannerObserver``."""
    if executor._planner_observer is None and names_its_model(executor):
        return await Blocking(executor._ensure_planner_observer)
    return executor._ensure_planner_observer()


def _say_observed(executor: AgentExecutor, todo: TodoItem, observation: StepObservation) -> None:
    say(
        executor,
        "cyan",
        f"[Observe] Step {todo.step_number} (effort={executor._get_reasoning_effort()}): "
        f"success={observation.step_completed_successfully}, plan_valid={observation.remaining_plan_still_valid}, "
        f"learned={observation.key_information_learned[:80]}...",
    )


def names_its_model(executor: AgentExecutor) -> bool:
    """Whether the planning model is a name, so that its client has to be made, which reads files."""
    config = getattr(executor.agent, "planning_config", None)
    return config is not None and config.llm is not None and not isinstance(config.llm, BaseLLM)


def say(executor: AgentExecutor, color: Any, text: str) -> None:
    """Print `text` where the agent is verbose."""
    agent: Any = executor.agent
    if agent.verbose:
        PRINTER.print(content=text, color=color)
