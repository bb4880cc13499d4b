"""What ``install()`` puts in CrewAI's place: each name, the new value and the reason."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

from crewai.agent.core import Agent
from crewai.crew import Crew
from crewai.flow.runtime import Flow
from crewai.memory.unified_memory import Memory
from crewai.state.checkpoint_config import apply_checkpoint
from crewai.utilities.task_output_storage_handler import TaskOutputStorageHandler

from fastcrew_async.engine import agent_kickoff, checkpoints, flows, memory_store, remote_tls, terminal
from fastcrew_async.engine import kickoff as engine
from fastcrew_async.engine.equip import create_agent_executor
from fastcrew_async.engine.executor import AgentExecutor
from fastcrew_async.engine.for_each import for_each_input
from fastcrew_async.engine.outputs import kept, latest_rows, replayable
from fastcrew_async.engine.resumed import restored_from
from fastcrew_async.install import models
from fastcrew_async.install.patch import Patch
from fastcrew_async.memory import factory

_AGENT = "crewai.agent.core"
_CREW = "crewai.crew.Crew"
_FLOW = "crewai.flow.runtime"
_MEMORY = "crewai.memory.unified_memory"
_STORES = "crewai.memory.storage.factory"
_KNOWLEDGE = "crewai.knowledge.storage.factory"
_OUTPUTS = "crewai.utilities.task_output_storage_handler.TaskOutputStorageHandler"
_OF_ENGINE = "_fastcrew_async"


LENT = {name: loan.reason for loan in (remote_tls.LOAN, checkpoints.LOAN, terminal.LOAN) for name in loan.names}
"""Names that are replaced by the engine, only while it needs them, and why."""


def _is_ours(method: Any) -> bool:
    """Whether this is one of the methods below; a wrapper that copies its attributes is not."""
    return getattr(method, _OF_ENGINE, None) is getattr(method, "__func__", method)


def _kickoff(stock: Any) -> Any:
    @wraps(stock)
    def kickoff(self: Crew, inputs: Any = None, input_files: Any = None, from_checkpoint: Any = None) -> Any:
        if self.stream and not _is_ours(self.kickoff):  # CrewAI's stream runs the user's own, which comes back here
            return stock(self, inputs, input_files, from_checkpoint)
        restored = apply_checkpoint(self, from_checkpoint)
        if restored is not None:  # by its own method, which may be the user's
            return restored.kickoff(inputs=inputs, input_files=input_files)
        return engine.kickoff_in_place(self, inputs, input_files)

    setattr(kickoff, _OF_ENGINE, kickoff)
    return kickoff


def _akickoff(stock: Any) -> Any:
    @wraps(stock)
    async def akickoff(self: Crew, inputs: Any = None, input_files: Any = None, from_checkpoint: Any = None) -> Any:
        if self.stream and not _is_ours(self.akickoff):
            return await stock(self, inputs, input_files, from_checkpoint)
        restored = await restored_from(self, from_checkpoint)
        if restored is not None:
            return await restored.akickoff(inputs=inputs, input_files=input_files)
        return await engine.kickoff(self, inputs, input_files)

    setattr(akickoff, _OF_ENGINE, akickoff)
    return akickoff


def _kickoff_async(stock: Any) -> Any:
    @wraps(stock)
    async def kickoff_async(
        self: Crew, inputs: Any = None, input_files: Any = None, from_checkpoint: Any = None
    ) -> Any:
        if not _is_ours(self.kickoff):  # the user's own, which CrewAI calls in a thread
            return await stock(self, inputs, input_files, from_checkpoint)
        restored = await restored_from(self, from_checkpoint)
        if restored is not None:
            return await restored.kickoff_async(inputs=inputs, input_files=input_files)
        return await engine.kickoff_like_sync(self, inputs or {}, input_files)

    return kickoff_async


def _for_each(stock: Any) -> Any:
    @wraps(stock)
    def kickoff_for_each(self: Crew, *args: Any, **kwargs: Any) -> Any:
        with kept(self):
            return stock(self, *args, **kwargs)

    return kickoff_for_each


def _for_each_async(kickoff: str) -> Callable[[Any], Any]:
    def make(stock: Any) -> Any:
        @wraps(stock)
        async def for_each(self: Crew, inputs: Any, input_files: Any = None) -> Any:
            return await for_each_input(
                self, inputs, lambda taken, given: getattr(taken, kickoff)(inputs=given, input_files=input_files)
            )

        return for_each

    return make


def _replay(stock: Any) -> Any:
    @wraps(stock)
    def replay(self: Crew, task_id: str, inputs: Any = None) -> Any:
        with replayable(self, task_id):
            return stock(self, task_id, inputs)

    return replay


def _load(stock: Any) -> Any:
    @wraps(stock)
    def load(self: TaskOutputStorageHandler) -> Any:
        return latest_rows() or stock(self)

    return load


def _create_agent_executor(stock: Any) -> Any:
    @wraps(stock)
    def create(self: Agent, tools: Any = None, task: Any = None) -> None:
        create_agent_executor(self, tools, task)

    return create


def _flow_kickoff_async(stock: Any) -> Any:
    @wraps(stock)
    async def kickoff_async(
        self: Flow[Any],
        inputs: Any = None,
        input_files: Any = None,
        from_checkpoint: Any = None,
        restore_from_state_id: Any = None,
    ) -> Any:
        if self.stream or type(self).is_crewai_internal or None not in (from_checkpoint, restore_from_state_id):
            return await stock(self, inputs, input_files, from_checkpoint, restore_from_state_id)
        restored = await restored_from(self, from_checkpoint)
        if restored is not None:
            return await restored.kickoff_async(inputs=inputs, input_files=input_files)
        return await flows.run(self, stock(self, inputs, input_files, None, restore_from_state_id))

    return kickoff_async


def _flow_state(stock: Any) -> Any:
    @wraps(stock)
    def create_initial_state(self: Flow[Any]) -> Any:
        return flows.initial_state(self, stock)

    return create_initial_state


def _memory_post_init(stock: Any) -> Any:
    @wraps(stock)
    def model_post_init(self: Memory, context: Any, /) -> None:
        memory_store.unopened(self, lambda: stock(self, context))

    return model_post_init


def _exported_executor(module: str) -> Patch:
    owner: Any = import_module(module)
    owner.AgentExecutor  # a lazy export becomes an attribute  # noqa: B018
    return Patch(
        module,
        owner,
        "AgentExecutor",
        lambda stock: AgentExecutor,
        "who imports the executor, to wrap or to extend it, gets the one that runs",
    )


def patches() -> list[Patch]:
    """The table, in the order in which it is applied."""
    return [
        Patch(
            _AGENT,
            import_module(_AGENT),
            "AgentExecutor",
            lambda stock: AgentExecutor,
            "CrewAI's own Agent.kickoff, where parts of it are overridden, builds it by this name, past executor_class",
        ),
        _exported_executor("crewai.agents.agent_executor"),
        _exported_executor("crewai.agents"),
        Patch(
            f"{_AGENT}.Agent",
            Agent,
            "create_agent_executor",
            _create_agent_executor,
            "the executor of agents made before or after install(); an executor_class of the user's own is kept",
        ),
        Patch(_CREW, Crew, "kickoff", _kickoff, "the body of a kickoff, in place"),
        Patch(_CREW, Crew, "akickoff", _akickoff, "the body of a kickoff, on the loop"),
        Patch(_CREW, Crew, "kickoff_async", _kickoff_async, "on the loop instead of a thread per kickoff"),
        Patch(_CREW, Crew, "kickoff_for_each", _for_each, "keeps the task outputs of earlier runs"),
        Patch(
            _CREW,
            Crew,
            "kickoff_for_each_async",
            _for_each_async("kickoff_async"),
            "copies the crew without holding up the loop; keeps the task outputs of earlier runs",
        ),
        Patch(
            _CREW,
            Crew,
            "akickoff_for_each",
            _for_each_async("akickoff"),
            "copies the crew without holding up the loop; keeps the task outputs of earlier runs",
        ),
        Patch(
            f"{_AGENT}.Agent",
            Agent,
            "kickoff",
            lambda stock: agent_kickoff.kickoff,
            "an agent without a crew, in place",
        ),
        Patch(
            f"{_AGENT}.Agent",
            Agent,
            "kickoff_async",
            lambda stock: agent_kickoff.kickoff_async,
            "an agent without a crew, on the loop; akickoff is CrewAI's alias of it",
        ),
        Patch(
            f"{_FLOW}.Flow",
            Flow,
            "kickoff_async",
            _flow_kickoff_async,
            "a flow's steps take turns with the host's callbacks, and its end does not stop the loop",
        ),
        Patch(
            _FLOW,
            import_module(_FLOW),
            "asyncio",
            lambda stock: flows.Asyncio(),
            "steps that run beside each other are paced; sync steps and persistence go to the worker pool",
        ),
        Patch(
            f"{_FLOW}.Flow",
            Flow,
            "_create_initial_state",
            _flow_state,
            "the class of a state without an id is built once, and not for every flow",
        ),
        Patch(
            f"{_MEMORY}.Memory",
            Memory,
            "model_post_init",
            _memory_post_init,
            "the default store, which every flow has, is opened when it is first used",
        ),
        Patch(
            _STORES,
            import_module(_STORES),
            "_factory",
            factory.after,
            'Memory(storage="fastcrew") is a MemoryStore, and with install(memory=True) so is the default',
        ),
        Patch(
            _KNOWLEDGE,
            import_module(_KNOWLEDGE),
            "_factory",
            factory.knowledge_after,
            "with install(knowledge=True) knowledge is kept in a KnowledgeStore",
        ),
        Patch(_CREW, Crew, "replay", _replay, "finds the task in any run that is still kept"),
        Patch(
            _OUTPUTS, TaskOutputStorageHandler, "load", _load, "task outputs of the latest run, where they are kept now"
        ),
        *models.patches(),
    ]
