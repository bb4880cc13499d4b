"""What an agent knows, put into its prompt.

Source: ``crewai/agent/utils.py: handle_knowledge_retrieval`` and ``Agent._get_knowledge_search_query`` of CrewAI
1.15.30. The model that words the query is awaited; the store is asked in its sync form on both roads, because the async
one loses the knowledge with CrewAI's default store. A ``KnowledgeStore`` is awaited.
"""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import Any

from crewai.agent.core import Agent
from crewai.agent.utils import _combine_knowledge_context, get_knowledge_config
from crewai.crew import Crew
from crewai.events.event_bus import crewai_event_bus
from crewai.events.types.knowledge_events import (
    KnowledgeQueryCompletedEvent,
    KnowledgeQueryFailedEvent,
    KnowledgeQueryStartedEvent,
    KnowledgeRetrievalCompletedEvent,
    KnowledgeRetrievalStartedEvent,
    KnowledgeSearchQueryFailedEvent,
)
from crewai.hooks.dispatch import HookAborted
from crewai.knowledge.knowledge import Knowledge
from crewai.knowledge.utils.knowledge_utils import extract_knowledge_context
from crewai.llms.base_llm import BaseLLM
from crewai.task import Task
from crewai.utilities.i18n import I18N_DEFAULT

from fastcrew_async.engine.effects import Blocking, Effect, Either
from fastcrew_async.engine.model import CallModel
from fastcrew_async.engine.seams import Pair, replaced

_STOCK_QUERY = Agent._get_knowledge_search_query
_OF_AGENT = Pair.of(Knowledge, "query", "aquery")
_OF_CREW = Pair.of(Crew, "query_knowledge", "aquery_knowledge")
_OURS = "fastcrew_async.memory.knowledge"
# A search in Chroma puts sys.stdout aside for as long as it takes (crewai/utilities/logger_utils.py); two at once leave
# it aside for ever.
_one_at_a_time = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_one_at_a_time.acquire,
        after_in_parent=_one_at_a_time.release,
        after_in_child=_one_at_a_time.release,
    )


async def add_knowledge(agent: Any, crew: Any, task: Task, prompt: str) -> str:
    """`prompt` with what the agent's and the crew's knowledge has for it; without, where asking fails.

    Raises:
        HookAborted: a hook stopped the run.
    """
    where = {"from_task": task, "from_agent": agent}
    config = get_knowledge_config(agent)
    crewai_event_bus.emit(agent, KnowledgeRetrievalStartedEvent(**where))
    try:
        query = agent.knowledge_search_query = await _search_query(agent, task, prompt)
        if query:
            if agent.knowledge:
                found = await _asked(agent.knowledge, agent.knowledge, _OF_AGENT, query, config)
                if found:
                    agent.agent_knowledge_context = extract_knowledge_context(found)
                    prompt += agent.agent_knowledge_context or ""
            found = await _asked(crew, crew.knowledge, _OF_CREW, query, config) if crew else None
            if found:
                agent.crew_knowledge_context = extract_knowledge_context(found)
                prompt += agent.crew_knowledge_context or ""
            retrieved = _combine_knowledge_context(agent)
            crewai_event_bus.emit(
                agent, KnowledgeRetrievalCompletedEvent(query=query, retrieved_knowledge=retrieved, **where)
            )
    except Exception as error:
        query = agent.knowledge_search_query or ""
        crewai_event_bus.emit(agent, KnowledgeSearchQueryFailedEvent(query=query, error=str(error), **where))
        if isinstance(error, HookAborted):
            raise
    return prompt


def _asked(owner: Any, knowledge: Any, names: Pair, query: Any, config: dict[str, Any]) -> Effect:
    """The search of `owner` in `knowledge`, under one of those names."""
    sync = getattr(owner, names.sync_name)
    if type(getattr(knowledge, "storage", None)).__module__ == _OURS and not (
        replaced(owner, names.sync_name, names.sync) or replaced(knowledge, _OF_AGENT.sync_name, _OF_AGENT.sync)
    ):
        asynchronous = getattr(owner, names.async_name)
        return Either(partial(sync, [query], **config), partial(asynchronous, [query], **config))
    return Blocking(_search, sync, [query], config)


def _search(search: Any, queries: list[str], config: dict[str, Any]) -> Any:
    with _one_at_a_time:
        return search(queries, **config)


async def _search_query(agent: Any, task: Task, prompt: str) -> Any:
    """The query that the agent's model makes of the prompt; None where it fails."""
    if replaced(agent, "_get_knowledge_search_query", _STOCK_QUERY):
        return await Blocking(agent._get_knowledge_search_query, prompt, task)
    where = {"from_task": task, "from_agent": agent}
    crewai_event_bus.emit(agent, KnowledgeQueryStartedEvent(task_prompt=prompt, **where))
    query = I18N_DEFAULT.slice("knowledge_search_query").format(task_prompt=prompt)
    if not isinstance(agent.llm, BaseLLM):
        reason = f"Knowledge search query failed: LLM for agent '{agent.role}' is not an instance of BaseLLM"
        agent._logger.log("warning", reason)
        error = "LLM is not compatible with knowledge search queries"
        crewai_event_bus.emit(agent, KnowledgeQueryFailedEvent(error=error, **where))
        return None
    try:
        messages = [
            {"role": "system", "content": I18N_DEFAULT.slice("knowledge_search_query_system_prompt")},
            {"role": "user", "content": query},
        ]
        rewritten = await CallModel(agent.llm, messages)
        crewai_event_bus.emit(agent, KnowledgeQueryCompletedEvent(query=query, **where))
        return rewritten
    except Exception as failure:
        crewai_event_bus.emit(agent, KnowledgeQueryFailedEvent(error=str(failure), **where))
        if isinstance(failure, HookAborted):
            raise
        return None
