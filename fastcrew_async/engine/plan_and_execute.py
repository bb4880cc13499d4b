"""Plan-and-Execute: make a plan, work through its steps, look at what came of each, and plan anew where needed.

The part of CrewAI's ``AgentExecutor`` flow that runs before the agent loop when planning is on. As there, each node
answers with the name of the next route. What only decides is CrewAI's own method; what waits for a model is a coroutine
here. Source: ``crewai/agents/agent_executor.py`` of CrewAI 1.15.30 (``generate_plan`` .. ``handle_replan``, and what
``finalize`` does about todos).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from crewai.agents.agent_executor import AgentExecutor as StockAgentExecutor
from crewai.agents.parser import AgentFinish
from crewai.events.types.observation_events import (
    GoalAchievedEarlyEvent,
    PlanRefinementEvent,
    PlanReplanTriggeredEvent,
)
from crewai.hooks.dispatch import HookAborted
from crewai.utilities.i18n import I18N_DEFAULT
from crewai.utilities.planning_types import TodoItem
from pydantic import BaseModel

from fastcrew_async.engine import events
from fastcrew_async.engine.effects import Blocking, CallUser, Effect
from fastcrew_async.engine.loop import agent_loop, announce_end, finish
from fastcrew_async.engine.model import CallModel
from fastcrew_async.engine.observing import refinements
from fastcrew_async.engine.reasoning import reason
from fastcrew_async.engine.seams import stock_methods
from fastcrew_async.engine.todos import (
    execute_todo,
    execute_todos,
    names_its_model,
    observe_step,
    planner_observer,
    say,
)

if TYPE_CHECKING:
    from fastcrew_async.engine.executor import AgentExecutor

T = TypeVar("T")
_REASONING: Any = import_module("crewai.utilities.reasoning_handler")
_GOAL = "Complete the task successfully"
_TASK = "Complete the requested task"


async def plan_and_execute(executor: AgentExecutor) -> None:
    """Run until ``executor.state.current_answer`` holds the answer. Without a plan to follow, that is the agent loop.

    Raises:
        RecursionError: the steps go round in circles: they were looked through more than ``10 * max_iter`` times.
        Exception: what a hook, a tool under the policy ``raise`` or the agent loop has raised.
    """
    await _as_step(_visit(executor, "generate_plan", _generate_plan))
    route = await _visit(executor, "check_todos_available", None)
    looks = 0
    while route in _ROUTES:
        name, node = _ROUTES[route]
        if route == "has_todos":
            looks += 1
            if looks > executor.max_method_calls:
                raise RecursionError(
                    f"Method '{name}' has been called {executor.max_method_calls} times in this flow execution, which "
                    "indicates an infinite loop. This commonly happens when a @listen label matches the method's own "
                    "name."
                )
        route = await _as_step(_visit(executor, name, node))
    if route not in _ENDS:
        await agent_loop(executor)


async def _visit(executor: AgentExecutor, name: str, node: Callable[[AgentExecutor], Any] | None) -> Any:
    """What a node answers: the user's own, where they have replaced it, CrewAI's, or ours."""
    own: Any = getattr(executor, name)
    if not _STOCK.has(executor, name):
        return await CallUser(own)
    return own() if node is None else await node(executor)


async def _as_step(work: Coroutine[Effect, Any, T]) -> T:
    """A node as CrewAI runs it: scopes of events that it leaves open are not those of the next."""
    opened = events.scope()
    try:
        return await work
    finally:
        events.restore(opened)


async def _generate_plan(executor: AgentExecutor) -> None:
    if executor._is_feedback_iteration or not getattr(executor.agent, "planning_enabled", False):
        return
    state = executor.state
    try:
        plan = (await reason(await _planner(executor))).plan
        state.plan = plan.plan
        state.plan_ready = plan.ready
        if plan.ready and plan.steps:
            executor._create_todos_from_plan(plan.steps)
    except HookAborted:
        raise
    except Exception as error:
        _log(executor, f"Error during planning: {error!s}")


async def _planner(executor: AgentExecutor, description: str = "") -> Any:
    if executor.task:
        about: dict[str, Any] = {"task": executor.task}
    else:
        text = description or getattr(executor, "_kickoff_input", "") or _TASK
        about = {"description": text, "expected_output": _GOAL}
    if names_its_model(executor):
        return await Blocking(_REASONING.AgentReasoning, agent=executor.agent, **about)
    return _REASONING.AgentReasoning(agent=executor.agent, **about)


async def _refine(executor: AgentExecutor) -> str:
    """Sharpen the descriptions of the steps to come, as the last observation suggests."""
    state = executor.state
    last = max(state.observations, default=0)
    observation = state.observations.get(last)
    if observation and observation.suggested_refinements:
        remaining = state.todos.get_pending_todos()
        (await planner_observer(executor)).apply_refinements(observation, remaining)
        body = {
            "step_number": last,
            "refined_step_count": len(remaining),
            "refinements": refinements(observation),
        }
        _tell(executor, PlanRefinementEvent, body)
        say(executor, "cyan", f"[Refine] Updated {len(remaining)} pending step(s)")
    return "has_todos"


async def _stop_early(executor: AgentExecutor) -> str:
    completed = executor.state.todos.get_completed_todos()
    body = {
        "step_number": completed[-1].step_number if completed else 0,
        "steps_completed": len(completed),
        "steps_remaining": len(executor.state.todos.get_pending_todos()),
    }
    _tell(executor, GoalAchievedEarlyEvent, body)
    say(executor, "green", "Goal achieved early — skipping remaining steps")
    return "all_todos_complete"


async def _replan_now(executor: AgentExecutor) -> str:
    """After a failed step: new steps instead of those to come, or the end with what there is."""
    return "has_todos" if await _replan(executor, tell=True) else "all_todos_complete"


async def _replan_or_reason(executor: AgentExecutor) -> str:
    """Where no step can be worked on: new steps, or else the agent loop."""
    return "has_todos" if await _replan(executor, tell=False) else "no_todos"


async def _replan(executor: AgentExecutor, tell: bool) -> bool:
    """Whether there are steps to do after another plan was made; without one once ``max_replans`` is reached."""
    state = executor.state
    most = executor._get_max_replans()
    if state.replan_count >= most:
        say(executor, "yellow", f"Max replans ({most}) reached — finalizing with current results")
        return False
    state.replan_count += 1
    reason_given = state.last_replan_reason or "Dynamic replan triggered"
    if tell:
        completed = state.todos.get_completed_todos()
        body = {
            "step_number": completed[-1].step_number if completed else 0,
            "replan_reason": reason_given,
            "replan_count": state.replan_count,
            "completed_steps_preserved": len(completed),
        }
        _tell(executor, PlanReplanTriggeredEvent, body)
    if _STOCK.has(executor, "_trigger_replan"):
        await _make_another_plan(executor, reason_given)
    else:
        await Blocking(executor._trigger_replan, reason_given)
    return bool(state.todos.get_pending_todos())


async def _make_another_plan(executor: AgentExecutor, reason_given: str) -> None:
    state, task = executor.state, executor.task
    state.last_replan_reason = reason_given
    say(executor, "yellow", f"Triggering replan (attempt {state.replan_count}): {reason_given}")
    so_far = executor._build_replan_context()
    try:
        enhanced = executor._enhance_task_for_replan(so_far)
        planner = await _planner(executor, enhanced)
        if task:
            # As in CrewAI: after the planner has read it, so that only events show the enhanced description.
            original = task.description
            task.description = enhanced
            try:
                plan = (await reason(planner)).plan
            finally:
                task.description = original
        else:
            plan = (await reason(planner)).plan
        state.plan = plan.plan
        state.plan_ready = plan.ready
        if plan.ready and plan.steps:
            state.todos.replace_pending_todos(
                [
                    TodoItem(
                        step_number=step.step_number,
                        description=step.description,
                        tool_to_use=step.tool_to_use,
                        depends_on=step.depends_on,
                        status="pending",
                    )
                    for step in plan.steps
                ]
            )
            say(executor, "green", f"Replan: {len(plan.steps)} new steps (completed history preserved)")
    except HookAborted:
        raise
    except Exception as error:
        _log(executor, f"Error during replanning: {error!s}")
        state.last_replan_reason = f"Replan failed: {error!s}"


async def _finalize(executor: AgentExecutor) -> str:
    """The answer out of the results of the steps."""
    state = executor.state
    announce_end(executor)
    if state.current_answer is None:
        results = [todo for todo in state.todos.items if todo.result]
        if results and executor._can_use_last_todo_result_as_final_answer(results):
            last = max(results, key=lambda todo: todo.step_number)
            _answer(executor, "Final answer returned directly from last completed todo", str(last.result or ""))
        elif results and _STOCK.has(executor, "_synthesize_final_answer_from_todos"):
            await _synthesize(executor, results)
        elif results:
            await Blocking(executor._synthesize_final_answer_from_todos)
    if state.current_answer is None:
        partial = [
            f"Step {todo.step_number}: {todo.result or '(no result)'}"
            for todo in state.todos.items
            if todo.status == "completed"
        ]
        text = "\n\n".join(partial) if partial else "Agent completed execution but produced no final output."
        _answer(executor, "Finalize fallback — no explicit answer was set", text)
    finish(executor)
    return "completed"


async def _synthesize(executor: AgentExecutor, results: list[TodoItem]) -> None:
    """One model call that makes an answer of the results; their texts, one after another, where it fails."""
    agent: Any = executor.agent
    texts = [f"Step {todo.step_number} ({todo.description}):\n{todo.result}" for todo in results]
    about = (executor.task.description or "") if executor.task else getattr(executor, "_kickoff_input", "")
    role = agent.role if agent else "Assistant"
    system = I18N_DEFAULT.retrieve("planning", "synthesis_system_prompt").format(role=role)
    user = I18N_DEFAULT.retrieve("planning", "synthesis_user_prompt").format(
        task_description=about.split("\n\nPlanning:\n")[0], combined_steps="\n\n".join(texts)
    )
    try:
        synthesis = await CallModel(
            executor.llm,
            [{"role": "system", "content": system}, {"role": "user", "content": user}],
            response_model=executor.response_model,
            from_task=executor.task,
            from_agent=agent,
        )
        if isinstance(synthesis, BaseModel):
            thought = "Synthesized structured final answer from all completed steps"
            _answer(executor, thought, synthesis, synthesis.model_dump_json())
            return
        if synthesis:
            _answer(executor, "Synthesized final answer from all completed steps", str(synthesis))
            return
    except HookAborted:
        raise
    except Exception as error:
        failed = f"Synthesis LLM call failed ({error}), falling back to concatenation"
        say(executor, "yellow", failed)
    _answer(executor, "All planned steps completed (synthesis unavailable)", "\n\n".join(texts))


def _answer(executor: AgentExecutor, thought: str, output: Any, text: str | None = None) -> None:
    executor.state.current_answer = AgentFinish(thought=thought, output=output, text=output if text is None else text)


def _tell(executor: AgentExecutor, kind: Any, body: dict[str, Any]) -> None:
    agent: Any = executor.agent
    about = {"agent_role": agent.role, "step_description": "", "from_task": executor.task, "from_agent": agent}
    events.tell(agent, kind, lambda: about | body)


def _log(executor: AgentExecutor, text: str) -> None:
    agent: Any = executor.agent
    if hasattr(agent, "_logger"):
        agent._logger.log("error", text)


# By route: the node of CrewAI's flow, and ours in its place where it waits or tells of something.
_ROUTES: dict[str, tuple[str, Callable[[AgentExecutor], Any] | None]] = {
    "has_todos": ("get_ready_todos_method", None),
    "single_todo_ready": ("execute_todo_sequential", execute_todo),
    "multiple_todos_ready": ("execute_todos_parallel", execute_todos),
    "parallel_todos_complete": ("after_parallel_execution", None),
    "step_executed": ("observe_step_result", observe_step),
    "step_observed_low": ("handle_step_observed_low", None),
    "step_observed_medium": ("handle_step_observed_medium", None),
    "step_observed_high": ("decide_next_action", None),
    "continue_plan": ("handle_continue_plan", None),
    "refine_and_continue": ("handle_refine_and_continue", _refine),
    "goal_achieved": ("handle_goal_achieved", _stop_early),
    "replan_now": ("handle_replan_now", _replan_now),
    "needs_replan": ("handle_replan", _replan_or_reason),
    "all_todos_complete": ("finalize", _finalize),
}
_ENDS = ("completed", "skipped")
_STOCK = stock_methods(
    StockAgentExecutor,
    "generate_plan",
    "check_todos_available",
    "_trigger_replan",
    "_synthesize_final_answer_from_todos",
    *(name for name, _ in _ROUTES.values()),
)
