"""What an agent remembers, put into its prompt, and what it keeps of its answers.

Source: ``Agent._retrieve_memory_context``, ``Agent._save_kickoff_to_memory``, ``BaseAgentExecutor._save_to_memory`` and
``Crew._drain_memory_writes`` of CrewAI 1.15.30.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from crewai.agent.core import Agent
from crewai.agents.agent_builder.base_agent_executor import BaseAgentExecutor
from crewai.agents.parser import AgentFinish
from crewai.crew import Crew
from crewai.events.types.memory_events import (
    MemoryRetrievalCompletedEvent,
    MemoryRetrievalFailedEvent,
    MemoryRetrievalStartedEvent,
)
from crewai.hooks.dispatch import HookAborted
from crewai.memory.utils import sanitize_scope_name
from crewai.utilities.i18n import I18N_DEFAULT
from crewai.utilities.message_utils import message_content_text
from crewai.utilities.string_utils import sanitize_tool_name

from fastcrew_async.engine import events
from fastcrew_async.engine.effects import Blocking, Closing
from fastcrew_async.engine.fields import private
from fastcrew_async.engine.seams import replaced

_RETRIEVE = Agent._retrieve_memory_context
_SAVE = BaseAgentExecutor._save_to_memory
_SAVE_KICKOFF = Agent._save_kickoff_to_memory
_DRAIN = Crew._drain_memory_writes


async def add_memories(agent: Any, task: Any, prompt: str) -> str:
    """`prompt` with what the memory of the agent, which has one, knows for the task; without, where asking fails.

    Raises:
        HookAborted: a hook stopped the run.
    """
    if replaced(agent, "_retrieve_memory_context", _RETRIEVE):
        return str(await _theirs(agent._retrieve_memory_context, task, prompt))
    about = {"task_id": str(task.id) if task else None, "source_type": "agent", "from_agent": agent, "from_task": task}
    memory = getattr(agent, "memory", None) or (getattr(agent.crew, "_memory", None) if agent.crew else None)
    found = await _retrieved(agent, memory, lambda: task.description, 5, about)
    return prompt + I18N_DEFAULT.slice("memory").format(memory=found) if found else prompt


async def memories_for(agent: Any, text: str) -> str:
    """What is added to the request of an agent without a crew.

    Raises:
        HookAborted: a hook stopped the run.
    """
    about = {"task_id": None, "source_type": "agent_kickoff", "from_agent": agent}
    found = await _retrieved(agent, agent.memory, lambda: text, 20, about)
    return "\n\n" + I18N_DEFAULT.slice("memory").format(memory=found) if found else ""


async def _retrieved(agent: Any, memory: Any, query: Any, limit: int, about: dict[str, Any]) -> str:
    mark = events.scope()
    events.tell(agent, MemoryRetrievalStartedEvent, lambda: about)
    begun = time.time()
    found = ""
    try:
        matches = None
        if memory is not None:
            from fastcrew_async.engine.recall import recall  # by those who have a memory: it is not quickly imported

            matches = await recall(memory, query(), limit=limit)
        if matches:
            found = "Relevant memories:\n" + "\n".join(match.format() for match in matches)
        took = (time.time() - begun) * 1000
        told = {"memory_content": found, "retrieval_time_ms": took}
        events.tell(agent, MemoryRetrievalCompletedEvent, lambda: about | told)
        return found
    except (Exception, asyncio.CancelledError) as error:
        text = str(error) if isinstance(error, Exception) else "cancelled"
        events.close_scopes((*mark, *events.scope()[len(mark) : len(mark) + 1]), error)
        events.tell(agent, MemoryRetrievalFailedEvent, lambda: about | {"error": text})
        if isinstance(error, (HookAborted, asyncio.CancelledError)):
            raise
        return ""


async def keep_answer(executor: Any, answer: AgentFinish) -> None:
    """Keep what a model finds worth keeping of a task's answer. What fails is logged.

    Raises:
        HookAborted: a hook stopped the run.
    """
    agent, task = executor.agent, executor.task
    if agent is None:
        return
    memory = getattr(agent, "memory", None) or (getattr(executor.crew, "_memory", None) if executor.crew else None)
    if memory is None or not task:
        return
    if replaced(executor, "_save_to_memory", _SAVE):
        await _theirs(executor._save_to_memory, answer)
        return
    if memory.read_only or f"Action: {sanitize_tool_name('Delegate work to coworker')}" in answer.text:
        return
    text = (
        f"Task: {task.description}\nAgent: {agent.role}\nExpected result: {task.expected_output}\nResult: {answer.text}"
    )
    try:
        from fastcrew_async.engine.encode import extract, remember_many

        extracted = await extract(memory, text)
        if extracted:
            root = getattr(memory, "root_scope", None)
            asked = {"agent_role": agent.role}
            if isinstance(root, str) and root:
                path = f"{root.rstrip('/')}/agent/{sanitize_scope_name(agent.role or 'unknown')}"
                asked["root_scope"] = path if path.startswith("/") else f"/{path}"
            await remember_many(memory, extracted, **asked)
    except HookAborted:
        raise
    except Exception as error:
        await Blocking(agent._logger.log, "error", f"Failed to save to memory: {error}")


async def keep_kickoff(agent: Any, messages: Any, text: str) -> None:
    """Keep what a model finds worth keeping of the answer of an agent without a crew. What fails is logged.

    Raises:
        HookAborted: a hook stopped the run.
    """
    if agent.memory is None:
        return
    if replaced(agent, "_save_kickoff_to_memory", _SAVE_KICKOFF):
        await _theirs(agent._save_kickoff_to_memory, messages, text)
        return
    try:
        if not isinstance(messages, str):
            parts = [message_content_text(message) for message in messages if message.get("content")]
            messages = "\n".join(parts) or "User request"
        from fastcrew_async.engine.encode import extract, remember_many

        extracted = await extract(agent.memory, f"Input: {messages}\nAgent: {agent.role}\nResult: {text}")
        if extracted:
            await remember_many(agent.memory, extracted)
    except HookAborted:
        raise
    except Exception as error:
        await Blocking(agent._logger.log, "error", f"Failed to save kickoff result to memory: {error}")


async def drain(crew: Any) -> None:
    """Wait until everything that the crew's memories are saving is saved."""
    if replaced(crew, "_drain_memory_writes", _DRAIN):
        await Closing(crew._drain_memory_writes)
        return
    behind = {id(memory): memory for memory in (getattr(m, "_memory", None) or m for m in memories(crew))}
    if behind:
        from fastcrew_async.engine.recall import drained

        for memory in behind.values():
            await drained(memory)


async def _theirs(function: Any, *args: Any) -> Any:
    from fastcrew_async.engine.lane import OnLane
    from fastcrew_async.engine.recall import THEIRS

    return await OnLane(THEIRS, function, *args)


def memories(crew: Any) -> list[Any]:
    """The memories of a crew and of its agents."""
    agents = crew.agents if crew.manager_agent is None else [crew.manager_agent, *crew.agents]
    found = (private(crew)["_memory"], crew.memory, *(getattr(agent, "memory", None) for agent in agents))
    return [memory for memory in found if memory is not None and not isinstance(memory, bool)]
