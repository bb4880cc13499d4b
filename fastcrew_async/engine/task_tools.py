"""The tools that an agent has for a task: its own, and those that the crew adds.

Source: ``crewai/crew.py: Crew._prepare_tools`` of CrewAI 1.15.30, which looks into the file store at its end: a thread
with an event loop of its own each time. What adds tools without waiting for anything is called in place.
"""

from __future__ import annotations

from typing import Any

from crewai.agent.core import Agent
from crewai.crew import Crew
from crewai.process import Process

from fastcrew_async.engine import files
from fastcrew_async.engine.effects import Blocking
from fastcrew_async.engine.fields import private
from fastcrew_async.engine.seams import replaced, stock_methods

_PREPARE = Crew._prepare_tools
_ADDING = stock_methods(
    Crew,
    "_add_delegation_tools",
    "_add_memory_tools",
    "_inject_delegation_tools",
    "_merge_tools",
    "_update_manager_tools",
)
_DELEGATION = Agent.get_delegation_tools
_WAITING = ("allow_code_execution", "multimodal", "apps", "mcps")
"""What makes ``Crew._prepare_tools`` import, ask servers or resolve."""


async def prepare_tools(crew: Any, agent: Any, task: Any) -> list[Any]:
    """The tools with which `agent` goes to work on `task`.

    Raises:
        ValueError: the process is hierarchical, and the crew has no manager.
        Exception: what the making of the tools raised.
    """
    tools = task.tools or agent.tools or []
    if replaced(crew, "_prepare_tools", _PREPARE):
        return await _theirs(crew, agent, task, tools)
    fields = agent.__dict__  # read past the deprecation warnings of some of them
    delegates = fields.get("allow_delegation")
    memory = fields.get("memory") or private(crew)["_memory"]
    waits = any(map(fields.get, _WAITING)) or files.stored(crew.id, task.id)
    if not (delegates or waits or memory is not None):
        return tools
    if waits or not _ADDING.in_place(crew):
        return await _theirs(crew, agent, task, tools)
    if delegates:
        hierarchical = crew.process == Process.hierarchical
        if hierarchical and not crew.manager_agent:
            raise ValueError("Manager agent is required for hierarchical process.")
        makers = {id(one): one for one in (agent, task.agent, crew.manager_agent) if one is not None}.values()
        if any(replaced(maker, "get_delegation_tools", _DELEGATION) for maker in makers):
            return await _theirs(crew, agent, task, tools)
        tools = (crew._update_manager_tools if hierarchical else crew._add_delegation_tools)(task, tools)
    if memory is not None:
        tools = crew._add_memory_tools(tools, memory)
    return tools


async def _theirs(crew: Any, agent: Any, task: Any, tools: list[Any]) -> list[Any]:
    return await Blocking(crew._prepare_tools, agent, task, tools)  # type: ignore[no-any-return]
