"""CrewAI's agent executor on the engine.

It keeps the name ``AgentExecutor``: event sources, checkpoints and isinstance checks of CrewAI go by it.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Annotated, Any, ClassVar, cast

from crewai.agents.agent_executor import AgentExecutor as StockAgentExecutor
from crewai.agents.agent_executor import AgentExecutorState
from crewai.agents.parser import AgentAction, AgentFinish
from crewai.core.providers.human_input import get_provider
from crewai.events.base_events import BaseEvent
from crewai.events.event_bus import crewai_event_bus
from crewai.events.listeners.tracing.utils import (
    is_tracing_enabled_in_context,
)
from crewai.events.types.flow_events import FlowFailedEvent, FlowFinishedEvent, FlowStartedEvent
from crewai.events.types.logging_events import AgentLogsExecutionEvent, AgentLogsStartedEvent
from crewai.events.types.observation_events import PlanStepCompletedEvent, PlanStepStartedEvent
from crewai.hooks.contexts import ExecutionEndContext, ExecutionStartContext, InputContext, OutputContext
from crewai.hooks.dispatch import HookAborted, InterceptionPoint
from crewai.hooks.llm_hooks import get_after_llm_call_hooks, get_before_llm_call_hooks
from crewai.utilities.agent_utils import _llm_stop_words_applied, handle_unknown_error, is_inside_event_loop
from crewai.utilities.env import _env_context_emitted, get_env_context
from crewai.utilities.planning_types import TodoItem, TodoList
from crewai.utilities.token_counter_callback import TokenCalcHandler
from crewai.utilities.types import LLMMessage
from crewai_core.printer import PRINTER
from opentelemetry import baggage
from opentelemetry.context import attach, detach
from pydantic import ConfigDict, PlainSerializer, PrivateAttr

from fastcrew_async.engine import events, files, flow_scope, progress, terminal
from fastcrew_async.engine.drivers import drive, drive_in_place
from fastcrew_async.engine.effects import Blocking, Closing, Either, Handled
from fastcrew_async.engine.fields import private
from fastcrew_async.engine.loop import agent_loop
from fastcrew_async.engine.memory import keep_answer
from fastcrew_async.engine.nesting import working
from fastcrew_async.engine.seams import OURS, Pair, async_form_stands
from fastcrew_async.engine.seams import theirs as call_theirs
from fastcrew_async.engine.tool_schema import native_tools


class AgentExecutor(StockAgentExecutor):
    """Runs an agent: prompt in, answer out. One instance runs one execution at a time.

    ``invoke`` and ``invoke_async`` have CrewAI's signatures; :meth:`run` is what both drive.
    """

    # The class itself: CrewAI otherwise builds a new pydantic class for each executor, which costs 8 ms. A checkpoint
    # has None here, as one of CrewAI's own has.
    initial_state: Annotated[Any, PlainSerializer(lambda _: None, return_type=None, when_used="json")] = (
        AgentExecutorState
    )
    is_crewai_internal: ClassVar[bool] = True
    # Building it is a third of what importing the engine would cost: `kickoff.prepare_process` does it.
    model_config = ConfigDict(defer_build=True)
    _reserved: bool = PrivateAttr(default=False)  # chosen for an execution that is about to start
    _retried: bool = PrivateAttr(default=False)  # its execution has failed and goes on in another executor
    _beside: bool = PrivateAttr(default=False)  # made while another one of its agent was running

    def __getattr__(self, name: str) -> Any:
        """Private attributes first: pydantic's own way to them takes several times as long."""
        private = object.__getattribute__(self, "__pydantic_private__")
        if private is not None and name in private:
            return private[name]
        return super().__getattr__(name)  # type: ignore[misc]

    def __setattr__(self, name: str, value: Any) -> None:
        private = self.__pydantic_private__
        if private is not None and name in private:
            private[name] = value
        else:
            super().__setattr__(name, value)

    @property
    def state(self) -> AgentExecutorState:
        """The run's state."""
        found: AgentExecutorState = private(self)["_state"]
        return found

    @property
    def flow_id(self) -> str:
        """The id of the run's state; empty before there is one."""
        state = private(self).get("_state")
        return state.id if state is not None else ""

    @property
    def messages(self) -> list[LLMMessage]:
        """The run's messages."""
        return self.state.messages

    @messages.setter
    def messages(self, value: list[LLMMessage]) -> None:
        self.state.messages = value

    def _setup_native_tools(self) -> None:
        if self.original_tools:
            self._openai_tools, self._available_functions, mapping = native_tools(self.original_tools)
            self._tool_name_mapping = cast(Any, mapping)

    def _cleanup_deferred_tool_results(self) -> None:
        own = private(self)
        if own["_deferred_file_aliases"] or own["_tool_result_artifact_store"] or own["_deferred_file_reader"]:
            super()._cleanup_deferred_tool_results()

    def _flow_post_init(self, definition: Any = None) -> None:
        """CrewAI's set-up of a flow, without binding its methods, which its own engine alone would run."""
        if definition is not None or getattr(self, "_flow_post_init_done", False):
            super()._flow_post_init(definition)
            return
        object.__setattr__(self, "_flow_post_init_done", True)
        self._initialize_runtime_extension_attrs()
        self._definition = type(self).flow_definition()
        self._instance_persistence = self.persistence is not None
        flow_scope.follow_traces(self.tracing)
        unbound: Any = dict.fromkeys(self._definition.methods)
        self._methods.update(unbound)

    def invoke(self, inputs: dict[str, Any]) -> dict[str, Any] | Coroutine[Any, Any, dict[str, Any]]:
        """Run in place; inside a running event loop, give the coroutine that runs on it, as CrewAI does."""
        if is_inside_event_loop():
            return self.invoke_async(inputs)
        return drive_in_place(self.run(inputs))

    async def invoke_async(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Run on the current event loop. Cancelling it cancels the run.

        Raises:
            RuntimeError: this executor is running already.
        """
        return await drive(self.run(inputs))

    def kickoff(self, *args: Any, **kwargs: Any) -> Any:
        """The agent loop over the messages there are; human feedback comes back to it."""
        return drive_in_place(self.execute())

    async def kickoff_async(self, *args: Any, **kwargs: Any) -> Any:
        """The agent loop over the messages there are; human feedback comes back to it."""
        return await drive(self.execute())

    async def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """One execution, as a coroutine of the engine.

        Raises:
            RuntimeError: it is running already, or was not fully initialised.
            ToolRecursionError: the agent was called from too deep.
        """
        with working(getattr(self.agent, "role", None) or "agent"):
            return await self._one_execution(inputs)

    async def _one_execution(self, inputs: dict[str, Any]) -> dict[str, Any]:
        with self._execution_lock:
            if self._is_executing:
                raise RuntimeError(
                    "Executor is already running. Cannot invoke the same executor instance concurrently."
                )
            self._is_executing = True
            self._has_been_invoked = True
        agent: Any = self.agent
        watched = progress.current.get()
        try:
            self._reset()
            if watched is not None:
                watched.begin_execution(self)
            self._kickoff_input = inputs.get("input", "")
            if self.llm is None or self.prompt is None:
                raise RuntimeError(
                    "AgentExecutor.llm or .prompt is unset; the executor was not fully restored or initialized before "
                    "execution."
                )
            self._setup_messages(inputs)
            if files.given(inputs) or (self.crew and self.task and files.stored(self.crew.id, self.task.id)):
                await Either(
                    lambda: self._inject_files_from_inputs(inputs), lambda: self._ainject_files_from_inputs(inputs)
                )
            self.state.ask_for_human_input = bool(inputs.get("ask_for_human_input", False))
            with _llm_stop_words_applied(self.llm, self):
                if await call_theirs(self, _KICKOFF) is OURS:
                    await self.execute()
                answer = self.state.current_answer
                if not isinstance(answer, AgentFinish):
                    raise RuntimeError("Agent execution ended without reaching a final answer.")
                if self.state.ask_for_human_input:
                    finish = answer
                    answer = await self._reviewed(finish)
            await keep_answer(self, answer)
            return {"output": answer.output}
        except Exception as error:
            handle_unknown_error(PRINTER, error, verbose=agent.verbose)
            raise
        finally:
            if watched is not None:
                watched.end_execution(self)
            try:
                kept_aside, self._tool_result_artifact_store = self._tool_result_artifact_store, None
                self._cleanup_deferred_tool_results()
                if kept_aside is not None:
                    await Closing(kept_aside.cleanup)  # it deletes files
            finally:
                self._is_executing = False

    async def _reviewed(self, answer: AgentFinish) -> AgentFinish:
        """The answer after what a human says to it. A provider that has only sync forms is asked on a worker."""
        if _asks_on_loop(get_provider()):
            return cast(
                AgentFinish,
                await Either(lambda: self._handle_human_feedback(answer), lambda: self._asked_on_loop(answer)),
            )
        return cast(AgentFinish, await Blocking(self._handle_human_feedback, answer))

    async def _asked_on_loop(self, answer: AgentFinish) -> AgentFinish:
        with terminal.LOAN:
            return await self._ahandle_human_feedback(answer)

    async def execute(self) -> str:
        """The agent loop inside its flow scope: the events and context that CrewAI's flow engine gives it."""
        attached = attach(baggage.set_baggage("flow_input_files", {}, context=baggage.set_baggage("flow_inputs", {})))
        entered = flow_scope.enter(self)
        runtime_scope = crewai_event_bus._enter_runtime_scope()
        execution_token = None
        mark = events.scope()
        started = ended = False
        pending = events.begin_run()
        try:
            execution_token = self._begin_trace_execution()
            inputs: Any = None
            context: Any = ExecutionStartContext(flow=self, inputs={}, payload=None)
            try:
                started = self._dispatch_interception(InterceptionPoint.EXECUTION_START, context)
                inputs = context.payload
                context = InputContext(flow=self, inputs=inputs if inputs is not None else {}, payload=inputs)
                self._dispatch_interception(InterceptionPoint.INPUT, context)
                inputs = context.payload
            except HookAborted:
                await self._open_scope(context.payload)
                raise
            await self._open_scope(inputs)
            await self._work()
            output: Any = "completed"
            boundary: Any = OutputContext(flow=self, output=output, payload=output)
            self._dispatch_interception(InterceptionPoint.OUTPUT, boundary)
            boundary = ExecutionEndContext(flow=self, output=boundary.payload, payload=boundary.payload)
            ended = not self._skip_interception(InterceptionPoint.EXECUTION_END)
            self._dispatch_interception(InterceptionPoint.EXECUTION_END, boundary)
            output = boundary.payload
            await events.wait_for_handlers()
            await self._tell(
                FlowFinishedEvent,
                lambda: {"type": "flow_finished", "result": output, "state": self._copy_and_serialize_state()},
            )
            return cast(str, output)
        except (Exception, asyncio.CancelledError) as error:
            if started and not ended and isinstance(error, Exception):
                self._dispatch_execution_end_failure(error)
            if len(events.scope()) > len(mark):  # a cancellation may come before the scope, or after its end
                await self._fail(error, (*mark, *events.scope()[len(mark) : len(mark) + 1]))
            raise
        finally:
            events.end_run(pending)
            flow_scope.leave(entered)
            self._end_trace_execution(execution_token)
            detach(attached)
            crewai_event_bus._exit_runtime_scope(runtime_scope)

    def _reset(self) -> None:
        self._cleanup_deferred_tool_results()
        self._finalize_called = False
        self._tool_call_counts.clear()
        if self.tools_handler:
            self.tools_handler.last_used_tool = None
        state = self._state
        state.messages.clear()
        # Past pydantic's checks of each assignment: these are the defaults of the fields.
        state.__dict__.update(
            iterations=0,
            current_answer=None,
            is_finished=False,
            use_native_tools=False,
            pending_tool_calls=[],
            plan=None,
            plan_ready=False,
            todos=TodoList(),
            replan_count=0,
            last_replan_reason=None,
            observations={},
            execution_log=[],
        )

    async def _work(self) -> None:
        if not getattr(self.agent, "planning_enabled", False):
            await agent_loop(self)
            return
        from fastcrew_async.engine.plan_and_execute import plan_and_execute  # with what it needs: a tenth of the engine

        await plan_and_execute(self)

    async def _open_scope(self, inputs: Any) -> None:
        events.reset_order()
        await self._tell(FlowStartedEvent, lambda: {"type": "flow_started", "inputs": inputs})
        if not _env_context_emitted.get():
            # CrewAI's sync form runs on a loop of its own and so forgets that it has told it.
            await Either(lambda: contextvars.copy_context().run(get_env_context), _environment)

    async def _tell(self, kind: type[BaseEvent], body: Callable[[], dict[str, Any]]) -> None:
        """Emit an event of the flow and wait for its handlers."""
        _, future = events.tell(self, kind, lambda: {"flow_name": self._definition.name, **body()})
        if future is not None:
            await Handled(future)

    async def _fail(self, error: BaseException, mark: events.Scope) -> None:
        """Close what is open and emit ``flow_failed``; for a cancellation too, which CrewAI leaves open."""
        events.close_scopes(mark, error, self.llm)
        await events.wait_for_handlers()
        failure = error if isinstance(error, Exception) else RuntimeError("cancelled")
        await self._tell(FlowFailedEvent, lambda: {"type": "flow_failed", "error": failure})

    def _emit_plan_step_started(self, todo: TodoItem) -> None:
        with suppress(Exception):
            events.tell(self.agent, PlanStepStartedEvent, lambda: self._about_step(todo))

    def _emit_plan_step_completed(
        self, todo: TodoItem, *, success: bool, result: str | None = None, error: str | None = None
    ) -> None:
        outcome = {"success": success, "result": result, "error": error}
        with suppress(Exception):
            events.tell(self.agent, PlanStepCompletedEvent, lambda: outcome | self._about_step(todo))

    def _about_step(self, todo: TodoItem) -> dict[str, Any]:
        agent: Any = self.agent
        return {
            "agent_role": agent.role,
            "step_number": todo.step_number,
            "step_description": todo.description,
            "tool_to_use": todo.tool_to_use,
            "from_task": self.task,
            "from_agent": agent,
        }

    def _show_start_logs(self) -> None:
        agent: Any = self.agent
        task = self.task
        if task is None:
            return
        verbose = agent.verbose or getattr(self.crew, "verbose", False)
        events.tell(
            agent,
            AgentLogsStartedEvent,
            lambda: {"agent_role": agent.role, "task_description": task.description, "verbose": verbose},
            verbose,
        )

    def _show_logs(self, formatted_answer: AgentAction | AgentFinish) -> None:
        agent: Any = self.agent
        verbose = agent.verbose or getattr(self.crew, "verbose", False)
        events.tell(
            agent,
            AgentLogsExecutionEvent,
            lambda: {"agent_role": agent.role, "formatted_answer": formatted_answer, "verbose": verbose},
            verbose,
        )


AgentExecutor._flow_definition = StockAgentExecutor.flow_definition()
_KICKOFF = Pair.of(AgentExecutor, "kickoff", "kickoff_async")


def _asks_on_loop(provider: Any) -> bool:
    """Whether its async forms stand for it: of a subclass that has only ``handle_feedback``, they do not."""
    forms = (("handle_feedback", "handle_feedback_async"), ("_prompt_input", "_prompt_input_async"))
    return all(async_form_stands(provider, *names) for names in forms if hasattr(provider, names[0]))


async def _environment() -> None:
    get_env_context()


_prototype: AgentExecutor | None = None


def new_executor(agent: Any) -> AgentExecutor:
    """An executor for `agent`, with the parameters that last for its life; the others are set for each task.

    It is a copy of a prototype, which costs a fiftieth of CrewAI's constructor: the state of the flow engine, which
    nothing uses, is shared with the prototype.
    """
    global _prototype
    lasting = {
        "llm": agent.llm,
        "agent": agent,
        "crew": agent.crew,
        "max_iter": agent.max_iter,
        "tools_handler": agent.tools_handler,
        "step_callback": agent.step_callback,
        "function_calling_llm": agent.__dict__.get("function_calling_llm"),  # deprecated; read past its warning
        "respect_context_window": agent.respect_context_window,
        "callbacks": [TokenCalcHandler(agent._token_process)],
    }
    if _prototype is None:
        _prototype = AgentExecutor()
    executor = copy.copy(_prototype)
    executor.__dict__.update(
        lasting,
        before_llm_call_hooks=get_before_llm_call_hooks(),
        after_llm_call_hooks=get_after_llm_call_hooks(),
        tools=[],
        original_tools=[],
        stop_words=[],
        max_method_calls=agent.max_iter * 10,
    )
    state = AgentExecutorState()
    executor.__pydantic_private__.update(  # type: ignore[union-attr]
        _state=state,
        _execution_lock=threading.Lock(),
        _finalize_lock=threading.Lock(),
        _tool_call_counts={},
        _deferred_file_aliases=[],
        _instance_id=state.id[:8],
    )
    tracing = is_tracing_enabled_in_context()
    executor.__dict__["tracing"] = tracing or None
    flow_scope.follow_traces(tracing or None)
    remember(executor)
    return executor


_living: dict[int, weakref.ref[AgentExecutor]] = {}


def remember(executor: AgentExecutor) -> None:
    """Note an executor that an agent keeps, for :func:`release`."""
    key = id(executor)
    _living[key] = weakref.ref(executor, lambda _: _living.pop(key, None))


def release() -> None:
    """Take idle executors from their agents, which then make CrewAI's own again."""
    for reference in list(_living.values()):
        executor = reference()
        agent: Any = executor.agent if executor is not None else None
        if agent is not None and agent.agent_executor is executor and not executor._is_executing:
            agent.agent_executor = None
