"""Saving to CrewAI's memory.

Source: ``crewai/memory/unified_memory.py: Memory.remember_many`` and ``crewai/memory/encoding_flow.py: EncodingFlow``
of CrewAI 1.15.30. As there, a save goes on in the background, on the one thread of its memory: the next one compares
what it has with what this one stored. It is driven there in place, because whoever waits for it (a sync ``recall`` of
the user, on the loop's own thread) must not wait for the loop. What is gone is the flow engine, its event loop, and the
threads that were started for each save.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from crewai.events.types.memory_events import MemorySaveCompletedEvent, MemorySaveStartedEvent
from crewai.memory.memory_scope import MemoryScope, MemorySlice
from crewai.memory.unified_memory import Memory
from crewai.memory.utils import join_scope_paths

from fastcrew_async.engine import events
from fastcrew_async.engine.analysis import analysed
from fastcrew_async.engine.beside import Beside
from fastcrew_async.engine.drivers import drive_in_place
from fastcrew_async.engine.effects import Blocking
from fastcrew_async.engine.flow_scope import kickoff_internal, method
from fastcrew_async.engine.lane import Abreast, OnLane, performed
from fastcrew_async.engine.memory_flow import MemoryFlow, made
from fastcrew_async.engine.recall import EMBEDDERS, THEIRS
from fastcrew_async.engine.seams import stock_methods
from fastcrew_async.engine.stored import lane_of

if TYPE_CHECKING:
    from crewai.memory.encoding_flow import ItemState

_UNIFIED: Any = import_module("crewai.memory.unified_memory")
_SAVING = stock_methods(
    Memory, "remember_many", "_submit_save", "_on_save_done", "_background_encode_batch", "_encode_batch"
)
_EXTRACT = stock_methods(Memory, "extract_memories")
_SCOPE = stock_methods(MemoryScope, "remember_many", "extract_memories", "_scope_path", "_require_memory")
_SLICE = stock_methods(MemorySlice, "extract_memories", "_require_memory")
_FLOW = MemoryFlow(
    "crewai.memory.encoding_flow",
    "EncodingFlow",
    "__init__",
    "batch_embed",
    "intra_batch_dedup",
    "parallel_find_similar",
    "parallel_analyze",
    "_apply_defaults",
    "execute_plans",
)
_SEARCHES = 8  # at once for one save, as in CrewAI
QUESTIONS = 10
"""To the model, at once for one save, as in CrewAI; and the most threads of one memory beside the one that saves."""
_threads: Beside[ThreadPoolExecutor] = Beside(partial(ThreadPoolExecutor, QUESTIONS, "memory-save-beside"))


async def extract(memory: Any, content: str) -> Any:
    """``memory.extract_memories(content)``: what a model finds worth keeping.

    Raises:
        HookAborted: a hook stopped the run.
        Exception: what the making of the memory's model raised.
    """
    behind = memory
    if (isinstance(memory, MemoryScope) and _SCOPE.in_place(memory)) or (
        isinstance(memory, MemorySlice) and _SLICE.in_place(memory)
    ):
        behind = memory._require_memory()
    if isinstance(behind, Memory) and _EXTRACT.in_place(behind):
        return await analysed(_UNIFIED.extract_memories_from_content, content, await made(behind, "_llm"))
    return await OnLane(THEIRS, memory.extract_memories, content)


async def remember_many(memory: Any, contents: list[str], **asked: Any) -> None:
    """``memory.remember_many(contents, **asked)``, which goes on in the background."""
    behind, scope = memory, None
    if isinstance(memory, MemoryScope) and _SCOPE.in_place(memory):
        behind, scope = memory._require_memory(), memory._scope_path("/")
    if isinstance(behind, Memory) and _SAVING.in_place(behind) and await _FLOW.in_place():
        if contents and not behind.read_only:
            # On a worker: the memory may be being reset, which holds its lock.
            await Blocking(_submit, behind, contents, scope, asked.get("agent_role"), asked.get("root_scope"))
        return
    await OnLane(THEIRS, memory.remember_many, contents, **asked)


def _submit(memory: Any, contents: list[str], scope: str | None, role: str | None, root: str | None) -> None:
    item = dict.fromkeys(("categories", "metadata", "importance", "source"))
    root = root if root is not None else memory.root_scope
    items = [{"content": text, "scope": scope, **item, "private": False, "root_scope": root} for text in contents]
    memory._submit_save(lambda: drive_in_place(_save(memory, items, role)))


async def _save(memory: Any, items: list[dict[str, Any]], role: str | None) -> list[Any]:
    """Source: ``Memory._background_encode_batch``. The process may be ending: then there is no event bus any more, and
    no further thread."""
    about: dict[str, Any] = {"source_type": "unified_memory"}
    started = {"value": f"{len(items)} memories (background)", "metadata": None, **about}
    with contextlib.suppress(RuntimeError):
        events.tell(memory, MemorySaveStartedEvent, lambda: started)
    begun = time.perf_counter()
    try:
        records = await encode(memory, items)
    except RuntimeError as error:
        if "cannot schedule new futures" in str(error):
            return []
        raise
    took = (time.perf_counter() - begun) * 1000
    saved: dict[str, Any] = {
        "value": f"{len(records)} memories saved",
        "metadata": {},
        "agent_role": role,
        "save_time_ms": took,
    }
    with contextlib.suppress(RuntimeError):
        events.tell(memory, MemorySaveCompletedEvent, lambda: saved | about)
    return records


async def encode(memory: Any, items: list[dict[str, Any]]) -> list[Any]:
    """``Memory._encode_batch``: the records that `items` have become.

    Raises:
        HookAborted: a hook stopped the run.
        Exception: what the embedder or the store raised.
    """
    flow = await _FLOW.of(memory)
    await kickoff_internal(flow, {"items": items}, lambda flow: _encode(flow, memory))
    return [item.result_record for item in flow.state.items if not item.dropped and item.result_record is not None]


async def _encode(flow: Any, memory: Any) -> None:
    """The methods of the flow, in the order in which its engine runs them."""
    with method("batch_embed"):
        await OnLane(EMBEDDERS, flow.batch_embed)
    items: list[ItemState] = flow.state.items
    with method("intra_batch_dedup"):
        if len(items) > 1:
            await Blocking(flow.intra_batch_dedup)  # every vector with every other
    threads = _threads.of(memory)
    with method("parallel_find_similar"):
        embedded = [item for item in items if not item.dropped and item.embedding]
        if embedded:
            searches = [performed(OnLane(lane_of(flow._storage), _find_similar, flow, item)) for item in embedded]
            await Abreast(searches, _SEARCHES, threads)
    with method("parallel_analyze"):
        await _analyse(flow, items, threads)
    with method("execute_plans"):
        await OnLane(lane_of(flow._storage), flow.execute_plans)


def _find_similar(flow: Any, item: ItemState) -> None:
    prefix = None
    if item.root_scope:
        prefix = item.root_scope.rstrip("/")
        if item.scope and item.scope.strip("/"):
            prefix += "/" + item.scope.strip("/")
    elif item.scope and item.scope.strip("/"):
        prefix = item.scope
    limit = flow._config.consolidation_limit
    found: Sequence[Any]
    try:
        found = flow._storage.search(item.embedding, scope_prefix=prefix, categories=None, limit=limit, min_score=0.0)
    except Exception:
        logger = _FLOW.module.logger
        logger.warning("Storage search failed in parallel_find_similar, treating item as new", exc_info=True)
        found = []
    item.similar_records = [record for record, _ in found]
    item.top_similarity = float(found[0][1]) if found else 0.0


async def _analyse(flow: Any, items: list[ItemState], threads: ThreadPoolExecutor) -> None:
    """Source: ``EncodingFlow.parallel_analyze``."""
    kept = [item for item in items if not item.dropped]
    scopes: list[str] = []
    categories: list[str] = []
    if not all(_is_placed(item) for item in kept):
        root = next((item.root_scope for item in kept if item.root_scope), None)
        scopes, categories = await OnLane(lane_of(flow._storage), _known, flow._storage, root)
    questions: list[Any] = []
    placing: list[tuple[ItemState, int]] = []
    merging: list[tuple[ItemState, int]] = []
    for item in kept:
        similar = item.top_similarity >= flow._config.consolidation_threshold
        if _is_placed(item):
            flow._apply_defaults(item)
        else:
            placing.append((item, len(questions)))
            questions.append(analysed(_FLOW.module.analyze_for_save, item.content, scopes, categories, flow._llm))
        if similar:
            merging.append((item, len(questions)))
            records = list(item.similar_records)
            questions.append(analysed(_FLOW.module.analyze_for_consolidation, item.content, records, flow._llm))
        else:
            item.plan = _FLOW.module.ConsolidationPlan(actions=[], insert_new=True)
    answers = await Abreast(questions, QUESTIONS, threads) if questions else []
    for item, index in placing:
        _place(item, answers[index])
    for item, index in merging:
        item.plan = answers[index]


def _is_placed(item: ItemState) -> bool:
    return item.scope is not None and item.categories is not None and item.importance is not None


def _known(storage: Any, root: str | None) -> tuple[list[str], list[str]]:
    return storage.list_scopes(root or "/") or ["/"], list(storage.list_categories(scope_prefix=root).keys())


def _place(item: ItemState, analysis: Any) -> None:
    scope = item.scope or analysis.suggested_scope or "/"
    item.resolved_scope = join_scope_paths(item.root_scope, scope) if item.root_scope else scope
    item.resolved_categories = item.categories if item.categories is not None else analysis.categories
    item.resolved_importance = item.importance if item.importance is not None else analysis.importance
    extracted = analysis.extracted_metadata.model_dump() if analysis.extracted_metadata else {}
    item.resolved_metadata = dict(item.metadata or {}, **extracted)
    item.resolved_source = item.source
    item.resolved_private = item.private
