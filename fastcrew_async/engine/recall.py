"""Searching CrewAI's memory.

Source: ``crewai/memory/unified_memory.py: Memory.recall``, ``crewai/memory/memory_scope.py`` and
``crewai/memory/recall_flow.py: RecallFlow`` of CrewAI 1.15.30. The flow's methods that only decide are called as they
are; what waits for the model, the embedder or the store is an effect, so that no flow engine, event loop and threads of
its own are needed for each search.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from datetime import datetime
from typing import Any

from crewai.events.types.memory_events import (
    MemoryQueryCompletedEvent,
    MemoryQueryFailedEvent,
    MemoryQueryStartedEvent,
)
from crewai.hooks.dispatch import HookAborted
from crewai.memory.memory_scope import MemoryScope, MemorySlice
from crewai.memory.types import _RECALL_OVERSAMPLE_FACTOR
from crewai.memory.unified_memory import Memory
from crewai.memory.utils import join_scope_paths

from fastcrew_async.engine import events
from fastcrew_async.engine.analysis import analysed
from fastcrew_async.engine.effects import Closing, Effect
from fastcrew_async.engine.flow_scope import kickoff_internal, method
from fastcrew_async.engine.lane import Abreast, Lane, OnLane
from fastcrew_async.engine.memory_flow import MemoryFlow
from fastcrew_async.engine.model import CallModel
from fastcrew_async.engine.seams import stock_methods
from fastcrew_async.engine.stored import stored
from fastcrew_async.memory.words import WordEmbedder

EMBEDDERS = Lane(16)  # they mostly wait for a server
THEIRS = Lane(8)  # memories of the user's own, and CrewAI's own code: up to five threads and an event loop for each

_MEMORY = stock_methods(Memory, "recall", "drain_writes")
_SCOPE = stock_methods(MemoryScope, "recall", "_require_memory")
_SLICE = stock_methods(MemorySlice, "recall", "_require_memory")
_FLOW = MemoryFlow(
    "crewai.memory.recall_flow",
    "RecallFlow",
    "__init__",
    "_do_search",
    "_merged_categories",
    "analyze_query_step",
    "filter_and_chunk",
    "search_chunks",
    "decide_depth",
    "recursive_exploration",
    "re_search",
    "re_decide_depth",
    "synthesize_results",
)
_AT_ONCE = 4  # searches of one recall, as in CrewAI
_MOST_ROUNDS = 100  # CrewAI's flows refuse to run one method more often


async def recall(memory: Any, query: str, **asked: Any) -> Any:
    """``memory.recall(query, **asked)`` for a deep search.

    Raises:
        HookAborted: a hook stopped the run.
        Exception: what the memory, its model's or its embedder's making, or the store raised.
    """
    if isinstance(memory, MemoryScope) and _SCOPE.in_place(memory):
        return await recall(memory._require_memory(), query, **_in_view(memory._root or "/", None, asked["limit"]))
    if isinstance(memory, MemorySlice) and _SLICE.in_place(memory):
        return await _recall_slice(memory, query, asked["limit"])
    if isinstance(memory, Memory) and _MEMORY.in_place(memory) and await _searches_as_crewai(memory):
        return await _recall(memory, query, asked["limit"], asked.get("scope"), asked.get("categories"))
    return await OnLane(THEIRS, memory.recall, query, **asked)


class Drained(Effect):
    """Wait until what is being saved is saved; what fails was reported. Source: ``Memory.drain_writes``."""

    __slots__ = ("saves",)
    starts = False

    def __init__(self, memory: Memory) -> None:
        own: Any = memory
        with own._pending_lock:
            self.saves: list[Future[Any]] = list(own._pending_saves)

    def perform(self) -> None:
        wait(self.saves)

    async def aperform(self) -> None:
        if self.saves:
            loop = asyncio.get_running_loop()
            left = len(self.saves)
            all_done = loop.create_future()

            def done() -> None:
                nonlocal left
                left -= 1
                if not left and not all_done.done():
                    all_done.set_result(None)

            def tell(_: Future[Any]) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(done)

            for save in self.saves:
                save.add_done_callback(tell)
            await all_done


async def drained(memory: Any) -> None:
    """``memory.drain_writes()``, if it has that."""
    if isinstance(memory, Memory) and _MEMORY.has(memory, "drain_writes"):
        await Drained(memory)
    elif callable(drain := getattr(memory, "drain_writes", None)):
        await Closing(drain)


def _in_view(scope: str, categories: Any, limit: int) -> dict[str, Any]:
    """The arguments with which a view asks the memory behind it."""
    narrowed = {"scope": scope, "categories": categories, "limit": limit}
    return {**narrowed, "depth": "deep", "source": None, "include_private": False}


async def _recall_slice(view: Any, query: str, limit: int) -> list[Any]:
    """Source: ``MemorySlice.recall``."""
    found: list[Any] = []
    for scope in view.scopes:
        asked = _in_view(scope, view.categories, limit * _RECALL_OVERSAMPLE_FACTOR)
        found.extend(await recall(view._require_memory(), query, **asked))
    unique: dict[str, Any] = {}
    for match in sorted(found, key=lambda match: match.score, reverse=True):
        unique.setdefault(match.record.id, match)
    return list(unique.values())[: max(limit, 1)]


async def _searches_as_crewai(memory: Any) -> bool:
    return memory._config.exploration_budget < _MOST_ROUNDS and await _FLOW.in_place()


async def _recall(memory: Any, query: str, limit: int, scope: str | None, categories: Any) -> Any:
    await Drained(memory)
    if memory.root_scope:
        scope = memory.root_scope if scope is None else join_scope_paths(memory.root_scope, scope)
    asked = {"query": query, "limit": limit, "score_threshold": None, "source_type": "unified_memory"}
    mark = events.scope()
    try:
        events.tell(memory, MemoryQueryStartedEvent, lambda: asked)
        begun = time.perf_counter()
        flow = await _FLOW.of(memory)
        inputs = {"query": query, "scope": scope, "categories": categories or [], "limit": limit}
        await kickoff_internal(flow, inputs | {"source": None, "include_private": False}, _search)
        results = flow.state.final_results
        if results and not memory.read_only:
            await _touch(memory._storage, results)
        took = (time.perf_counter() - begun) * 1000
        events.tell(memory, MemoryQueryCompletedEvent, lambda: {**asked, "results": results, "query_time_ms": took})
        return results
    except (Exception, asyncio.CancelledError) as error:
        text = str(error) if isinstance(error, Exception) else "cancelled"
        events.close_scopes((*mark, *events.scope()[len(mark) : len(mark) + 1]), error)
        events.tell(memory, MemoryQueryFailedEvent, lambda: {**asked, "error": text})
        raise


async def _touch(storage: Any, results: list[Any]) -> None:
    try:
        if getattr(storage, "touch_records", None) is not None:
            await stored(storage, "touch_records", [match.record.id for match in results])
    except Exception:
        pass  # as CrewAI: a search does not fail because of it


async def _search(flow: Any) -> Any:
    """The methods of the flow, in the order in which its engine runs them."""
    with method("analyze_query_step"):
        await _analyse_query(flow)
    with method("filter_and_chunk"):
        await _choose_scopes(flow)
    with method("search_chunks"):
        await _search_chunks(flow)
    while flow.decide_depth() == "explore_deeper":
        with method("recursive_exploration"):
            await _explore(flow)
        with method("re_search"):
            await _search_chunks(flow)
    return flow.synthesize_results()


async def _analyse_query(flow: Any) -> None:
    state = flow.state
    state.exploration_budget = flow._config.exploration_budget
    if len(state.query) < flow._config.query_analysis_threshold:
        state.query_analysis = _FLOW.module.QueryAnalysis(
            keywords=[], suggested_scopes=[], complexity="simple", recall_queries=[state.query]
        )
    else:
        scopes = await stored(flow._storage, "list_scopes", state.scope or "/") or ["/"]
        info = await stored(flow._storage, "get_scope_info", state.scope) if state.scope else None
        state.query_analysis = await analysed(_FLOW.module.analyze_query, state.query, scopes, info, flow._llm)
        if state.query_analysis.time_filter:
            with contextlib.suppress(ValueError):
                state.time_cutoff = datetime.fromisoformat(state.query_analysis.time_filter)
    queries = (state.query_analysis.recall_queries or [state.query])[:3]
    embeddings = await _embedded(flow, queries)
    pairs = [(query, found) for query, found in zip(queries, embeddings, strict=False) if found]
    if not pairs:
        again = await _embedded(flow, [state.query])
        if again and again[0]:
            pairs = [(state.query, again[0])]
    state.query_embeddings = pairs


async def _embedded(flow: Any, texts: list[str]) -> list[list[float]]:
    embed_texts, embedder = _FLOW.module.embed_texts, flow._embedder
    if type(embedder) is WordEmbedder and embedder.embedder is None:
        return embed_texts(embedder, texts)  # type: ignore[no-any-return]
    return await OnLane(EMBEDDERS, embed_texts, embedder, texts)  # type: ignore[no-any-return]


async def _choose_scopes(flow: Any) -> None:
    """Source: ``RecallFlow.filter_and_chunk``."""
    state = flow.state
    below = (state.scope or "/").rstrip("/") or "/"
    if state.query_analysis.suggested_scopes:
        scopes = [scope for scope in state.query_analysis.suggested_scopes if scope]
    else:
        try:
            scopes = await stored(flow._storage, "list_scopes", below)
        except Exception:
            text = "Storage list_scopes failed in filter_and_chunk, falling back to scope prefix"
            _FLOW.module.logger.warning(text, exc_info=True)
            scopes = []
    state.candidate_scopes = (scopes or [below])[:20]


async def _search_chunks(flow: Any) -> None:
    """Source: ``RecallFlow._do_search``; what is found is in the order of the searches, and not of their ends."""
    state = flow.state
    searches = [
        _search_one(flow, embedding, scope)
        for _, embedding in state.query_embeddings
        for scope in state.candidate_scopes
    ]
    found = await Abreast(searches, _AT_ONCE) if searches else []
    state.chunk_findings = [finding for finding in found if finding]
    state.confidence = max((finding["top_score"] for finding in state.chunk_findings), default=0.0)


async def _search_one(flow: Any, embedding: Sequence[float], scope: str) -> dict[str, Any] | None:
    state = flow.state
    try:
        results = await stored(
            flow._storage,
            "search",
            embedding,
            scope_prefix=scope,
            categories=flow._merged_categories(),
            limit=state.limit * _RECALL_OVERSAMPLE_FACTOR,
            min_score=0.0,
        )
        if state.time_cutoff and results:
            results = [found for found in results if found[0].created_at >= state.time_cutoff]
        if not state.include_private and results:
            results = [found for found in results if not found[0].private or _created_by(state.source, found[0])]
    except Exception:
        _FLOW.module.logger.warning("Storage search failed in recall flow, skipping scope", exc_info=True)
        return None
    if not results:
        return None
    top_score, _ = _FLOW.module.compute_composite_score(*results[0], flow._config)
    return {"scope": scope, "results": results, "top_score": top_score}


def _created_by(source: str | None, record: Any) -> bool:
    return source is not None and record.source == source


async def _explore(flow: Any) -> None:
    """Source: ``RecallFlow.recursive_exploration``."""
    state = flow.state
    state.exploration_budget -= 1
    explored = []
    for finding in state.chunk_findings:
        results = finding.get("results")
        if not results:
            continue
        excerpts = "\n---\n".join(found[0].content for found in results[:5])
        prompt = (
            f"Query: {state.query}\n\n"
            f"Relevant memory excerpts:\n{excerpts}\n\n"
            "Extract the most relevant information for the query. "
            "If something is missing, say what's missing in one short line."
        )
        try:
            answer = await CallModel(flow._llm, [{"role": "user", "content": prompt}])
            if isinstance(answer, str) and "missing" in answer.lower():
                state.evidence_gaps.append(answer[:200])
        except HookAborted:
            raise
        except Exception:
            answer = ""
        explored.append({"scope": finding["scope"], "extraction": answer, "results": results})
    state.chunk_findings = explored
