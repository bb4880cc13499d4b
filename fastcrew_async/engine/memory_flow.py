"""The two flows that CrewAI's memory runs inside, taken apart: their methods are called, their engine is not.

Source: ``crewai/memory/recall_flow.py: RecallFlow`` and ``crewai/memory/encoding_flow.py: EncodingFlow`` of CrewAI
1.15.30.
"""

from __future__ import annotations

import copy
import sys
from functools import cached_property
from importlib import import_module
from typing import Any

from crewai.memory.unified_memory import Memory

from fastcrew_async.engine.effects import Blocking
from fastcrew_async.engine.fields import private
from fastcrew_async.engine.flow_scope import follow_traces
from fastcrew_async.engine.seams import is_crewais

_PROPERTIES = {name: Memory.__dict__[name] for name in ("_llm", "_embedder")}


class MemoryFlow:
    """One of them. Its module is imported when it is first needed, as CrewAI does: that takes 40 ms."""

    def __init__(self, module: str, name: str, *steps: str) -> None:
        self._path = module
        self._name = name
        self._steps = steps

    @cached_property
    def module(self) -> Any:
        """CrewAI's module."""
        return import_module(self._path)

    async def in_place(self) -> bool:
        """Whether the class, and the methods that are called or stood in for, are those of CrewAI."""
        if self._path not in sys.modules:
            await Blocking(import_module, self._path)
        own = getattr(self.module, self._name).__dict__
        return "kickoff" not in own and all(is_crewais(own.get(step)) for step in self._steps)

    @cached_property
    def _prototype(self) -> Any:
        return getattr(self.module, self._name)(storage=None, llm=None, embedder=None)

    async def of(self, memory: Any) -> Any:
        """One for what belongs to `memory`: a copy of a prototype, a hundredth of the constructor's cost.

        Raises:
            RuntimeError: the memory's model or embedder cannot be made.
        """
        llm = await made(memory, "_llm")
        embedder = await made(memory, "_embedder")
        if "_prototype" not in self.__dict__:
            await Blocking(lambda: self._prototype)
        flow = copy.copy(self._prototype)
        flow.__dict__.update(_storage=memory._storage, _llm=llm, _embedder=embedder, _config=memory._config)
        private(flow)["_state"] = flow.initial_state()
        follow_traces(None)
        return flow


async def made(memory: Any, name: str) -> Any:
    """The memory's ``_llm`` or ``_embedder``, which is made of its name when it is first needed.

    Raises:
        RuntimeError: it cannot be made.
    """
    if private(memory)[f"{name}_instance"] is not None and getattr(type(memory), name) is _PROPERTIES[name]:
        return getattr(memory, name)
    return await Blocking(getattr, memory, name)
