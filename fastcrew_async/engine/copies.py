"""One crew object, any number of kickoffs at once.

An idle crew runs itself, so that ``task.output`` and ``crew.usage_metrics`` are where its user looks. While it is busy,
a run takes a copy from the crew's free list, or makes one. A copy shares what is configuration (callbacks, knowledge,
memory, clients, the rate limit) and has its own of what a run changes: ids, texts with inputs in them, outputs,
counters, executors, the tool cache, and the token counters of its models.

Crews may share agents and tasks. Where a run of another crew works with one of its agents, an idle crew runs itself
with copies of its agents; where it works with one of its tasks, the run takes a copy.
"""

from __future__ import annotations

import copy
import os
import threading
from typing import Any, cast
from uuid import uuid4

from crewai.agents.cache.cache_handler import CacheHandler
from crewai.agents.tools_handler import ToolsHandler
from crewai.crew import Crew
from crewai.llms.base_llm import BaseLLM
from crewai.tasks.llm_guardrail import LLMGuardrail
from crewai.utilities.token_counter_callback import TokenProcess

from fastcrew_async.engine.beside import Beside
from fastcrew_async.engine.fields import private, put, shallow_copy
from fastcrew_async.engine.outputs import TaskOutputs

IDLE_COPIES = 64
"""How many idle copies a crew keeps; more are made in a burst and dropped after it."""


class Copies:
    """The free list of one crew."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running = 0
        self.idle: list[Crew] = []


_copies: Beside[Copies] = Beside(Copies)
_at_work: set[int] = set()
"""The identities of the agents and tasks, no copies, that runs work with."""
_lock = threading.Lock()  # of the above


class exclusive:
    """``with exclusive(crew) as taken``: `crew` itself when nothing runs it, else a copy; given back at the end.

    As long as a copy runs the crew itself is not taken either: a crew counts its usage over all its runs, as CrewAI's
    do, and whether a run beside others counts those before it must not hang on who ends first.
    """

    __slots__ = ("_claimed", "_copies", "_crew", "_lent", "_own", "_taken")

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._copies = _copies.of(crew)
        self._claimed: set[int] = set()
        self._lent: _LentAgents | None = None

    def __enter__(self) -> Crew:
        copies = self._copies
        with copies.lock:
            self._own = not copies.running and self._claim({id(task) for task in self._crew.tasks})
            copies.running += 1
            taken = self._crew if self._own else (copies.idle.pop() if copies.idle else None)
        try:
            if self._own:
                if not self._claim({id(agent) for agent in _agents(self._crew)}):
                    self._lent = _LentAgents(self._crew)
            elif taken is None:
                taken = copy_of(self._crew)
            else:
                _forget_run(taken)
        except BaseException:
            with copies.lock:
                copies.running -= 1
            self._release()
            raise
        self._taken = cast(Crew, taken)
        return self._taken

    def __exit__(self, *_: object) -> None:
        copies = self._copies
        if self._lent is not None:
            self._lent.give_back()
        self._release()
        with copies.lock:
            copies.running -= 1
            if self._own:
                return
            if len(copies.idle) < IDLE_COPIES:
                copies.idle.append(self._taken)
            else:
                _take_apart(self._taken)

    def _claim(self, parts: set[int]) -> bool:
        """Take these agents or tasks for this run alone, unless another one works with any of them."""
        with _lock:
            if not _at_work.isdisjoint(parts):
                return False
            _at_work.update(parts)
        self._claimed |= parts
        return True

    def _release(self) -> None:
        with _lock:
            _at_work.difference_update(self._claimed)


class _LentAgents:
    """Copies in the places of a crew's agents, until they are given back."""

    def __init__(self, crew: Any) -> None:
        self._crew = crew
        self._agents = crew.agents
        made = _Copy(crew)
        originals = _agents(crew)
        copies = {id(agent): made.agent(agent) for agent in originals}
        self._copies = list(copies.values())
        self._originals = {id(copies[id(agent)]): agent for agent in originals}
        put(crew, agents=[copies[id(agent)] for agent in crew.agents])
        self._replace(copies)
        for agent in self._copies:
            _forget_run_of_agent(agent, crew._cache_handler)
            _forget_counts(agent)

    def give_back(self) -> None:
        """The crew has its own agents again."""
        put(self._crew, agents=self._agents)
        self._replace(self._originals)
        for agent in self._copies:
            put(agent, agent_executor=None)  # a cycle

    def _replace(self, others: dict[int, Any]) -> None:
        for owner, name in ((self._crew, "manager_agent"), *((task, "agent") for task in self._crew.tasks)):
            other = others.get(id(getattr(owner, name)))
            if other is not None:
                put(owner, **{name: other})


def copy_of(crew: Crew) -> Crew:
    """A copy that shares the crew's configuration and none of the state that a run changes."""
    return _Copy().of(crew)


def copy_for_input(crew: Crew) -> Crew:
    """What ``Crew.copy()`` gives, at a fraction of its cost.

    As there, and unlike :func:`copy_of`, the copy shares the counters of the crew's models and tools, and its texts are
    those that the crew has now, with the inputs of its last run in them.
    """
    return _Copy(shares_counts=True).of(crew)


class _Copy:
    """Copies of the parts of a crew, each made once; agents belong to `crew`."""

    def __init__(self, crew: Any = None, *, shares_counts: bool = False) -> None:
        self._crew = crew
        self._shares_counts = shares_counts
        self._made: dict[int, Any] = {}

    def of(self, original: Any) -> Crew:
        """A copy of the crew."""
        crew: Any = shallow_copy(original)
        self._crew = crew
        put(crew, id=uuid4(), security_config=copy.copy(original.security_config))
        if not isinstance(original._task_output_handler, TaskOutputs):
            crew._task_output_handler = original._task_output_handler
        else:
            crew._task_output_handler = TaskOutputs()
        put(crew, function_calling_llm=self._llm(original.__dict__.get("function_calling_llm")))
        put(crew, manager_llm=self._llm(original.manager_llm))
        put(crew, agents=[self.agent(agent) for agent in original.agents])
        put(crew, manager_agent=self.agent(original.manager_agent))
        put(crew, tasks=[self._task(task) for task in original.tasks])
        if self._shares_counts:
            _begin_from_texts(crew)
        _forget_run(crew, counts=not self._shares_counts)
        if self._shares_counts:
            for agent in _agents(original):
                put(self._made[id(agent)], tools_results=list(agent.tools_results))
        return cast(Crew, crew)

    def _llm(self, original: Any) -> Any:
        if not isinstance(original, BaseLLM):
            return original
        if id(original) not in self._made:
            llm = shallow_copy(original)
            if not self._shares_counts:
                llm._token_usage = dict.fromkeys(original._token_usage, 0)
            self._made[id(original)] = llm
        return self._made[id(original)]

    def _tool(self, original: Any) -> Any:
        """A tool with a usage limit counts its uses, run by run; others are shared."""
        if self._shares_counts or getattr(original, "max_usage_count", None) is None:
            return original
        if id(original) not in self._made:
            self._made[id(original)] = shallow_copy(original)
        return self._made[id(original)]

    def agent(self, original: Any) -> Any:
        """A copy of the agent."""
        if original is None:
            return None
        if id(original) in self._made:
            return self._made[id(original)]
        agent: Any = shallow_copy(original)
        self._made[id(original)] = agent
        put(
            agent,
            id=uuid4(),
            crew=self._crew,
            agent_executor=None,
            llm=self._llm(original.llm),
            tools=[self._tool(tool) for tool in original.tools] if original.tools else original.tools,
            security_config=copy.copy(original.security_config),
        )
        if "function_calling_llm" in original.__dict__:
            put(agent, function_calling_llm=self._llm(original.__dict__["function_calling_llm"]))
        agent._token_process = TokenProcess()
        if hasattr(agent, "_mcp_resolver"):
            agent._mcp_resolver = None
        return agent

    def _task(self, original: Any) -> Any:
        if id(original) in self._made:
            return self._made[id(original)]
        task: Any = shallow_copy(original)
        self._made[id(original)] = task
        context = original.context
        put(
            task,
            id=uuid4(),
            agent=self.agent(original.agent),
            context=[self._task(other) for other in context] if isinstance(context, list) else context,
            tools=[self._tool(tool) for tool in original.tools] if original.tools else original.tools,
            security_config=copy.copy(original.security_config),
        )
        task._guardrail = self._guardrail(original._guardrail)
        task._guardrails = [self._guardrail(guardrail) for guardrail in original._guardrails]
        return task

    def _guardrail(self, original: Any) -> Any:
        if type(original) is LLMGuardrail:
            return LLMGuardrail(description=original.description, llm=self._llm(original.llm))
        return original


def _take_apart(crew: Any) -> None:
    """Cut the cycles of a copy that is not kept, so that it goes at once and not when the collector comes."""
    agents = (*crew.agents, crew.manager_agent, *(task.agent for task in crew.tasks))
    for agent in agents:
        if agent is not None:
            put(agent, agent_executor=None)
    put(crew, agents=[], manager_agent=None, tasks=[])


def _begin_from_texts(crew: Any) -> None:
    """Take the texts that there are for the ones with placeholders."""
    for agent in _agents(crew):
        private(agent).update(dict.fromkeys(("_original_role", "_original_goal", "_original_backstory")))
    for task in crew.tasks:
        names = ("_original_description", "_original_expected_output", "_original_output_file")
        private(task).update(dict.fromkeys(names))


def _agents(crew: Any) -> list[Any]:
    agents = {id(agent): agent for agent in (*crew.agents, crew.manager_agent) if agent is not None}
    agents.update((id(task.agent), task.agent) for task in crew.tasks if task.agent is not None)
    return list(agents.values())


def _forget_run(crew: Any, *, counts: bool = True) -> None:
    """Bring a copy to where a run begins: texts with their placeholders, nothing counted, nothing cached."""
    put(crew, usage_metrics=None, token_usage=None, execution_logs=[], checkpoint_kickoff_event_id=None)
    crew._inputs = None
    crew._kickoff_event_id = None
    crew._cache_handler = CacheHandler()
    for agent in _agents(crew):
        _forget_run_of_agent(agent, crew._cache_handler)
        if counts:
            _forget_counts(agent)
    for task in crew.tasks:
        _forget_run_of_task(task)
        if counts:
            _forget_uses(task.tools)


def _forget_run_of_agent(agent: Any, cache: CacheHandler) -> None:
    put(
        agent,
        role=agent._original_role or agent.role,
        goal=agent._original_goal or agent.goal,
        backstory=agent._original_backstory or agent.backstory,
        tools_results=[],
    )
    if agent.tools_handler is not None:
        handler = ToolsHandler()
        handler.cache = cache if agent.tools_handler.cache is not None else None
        put(agent, tools_handler=handler)
    for name, value in (("_times_executed", 0), ("_last_messages", [])):
        if hasattr(agent, name):
            setattr(agent, name, value)
    if hasattr(agent, "_tool_failures"):
        agent._tool_failures = type(agent._tool_failures)()


def _forget_counts(agent: Any) -> None:
    if isinstance(agent.llm, BaseLLM):
        agent.llm._token_usage = dict.fromkeys(agent.llm._token_usage, 0)
    _forget_uses(agent.tools)


def _forget_run_of_task(task: Any) -> None:
    put(
        task,
        description=task._original_description or task.description,
        expected_output=task._original_expected_output or task.expected_output,
        output_file=task._original_output_file or task.output_file,
        output=None,
        prompt_context=None,
        processed_by_agents=set(),
        used_tools=0,
        tools_errors=0,
        delegations=0,
        retry_count=0,
        start_time=None,
        end_time=None,
    )
    task._guardrail_retry_counts = {}


def _forget_uses(tools: Any) -> None:
    for tool in tools or ():
        if getattr(tool, "max_usage_count", None) is not None:
            tool.current_usage_count = 0


def _after_fork_in_child() -> None:
    # Threads of the parent that work with agents, or hold the lock, do not exist here.
    global _lock
    _lock = threading.Lock()
    _at_work.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
