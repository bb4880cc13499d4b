"""``install()``, ``uninstall()`` and ``status()``."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastcrew_async.errors import FastcrewError, UnsupportedCrewAIError

if TYPE_CHECKING:
    from fastcrew_async.install.patch import Patch


@dataclass(frozen=True)
class Target:
    """One name of CrewAI that is replaced after ``install()``: whether it is, and why, or why not."""

    name: str
    active: bool
    reason: str


@dataclass(frozen=True)
class _Applied:
    patch: Patch
    stock: Any
    ours: Any

    @property
    def intact(self) -> bool:
        return self.patch.owner.__dict__.get(self.patch.attribute) is self.ours


_lock = threading.Lock()
_applied: list[_Applied] = []
_refused: str | None = None


def install(strict: bool = True, *, llm: bool = True, memory: bool = False, knowledge: bool = False) -> None:
    """Put every crew of this process on the engine: ``kickoff``, ``akickoff``, ``kickoff_async``, the ``for_each``
    family, ``Agent.kickoff*`` and guardrail agents. Crews made before or after it are served. Calling it again does
    nothing, but for ``memory`` and ``knowledge``. All or nothing: when CrewAI is not one we know, nothing is changed.

    Args:
        strict: when False, an unsupported CrewAI gives a warning and stays as it was, instead of an error.
        llm: send the chat completions of CrewAI's OpenAI provider, and of the compatible ones, over the core's
            connections. What that does not cover stays with the openai package; ``status()`` says what that is.
        memory: a ``Memory`` that is made from now on and names no storage keeps its records in a ``MemoryStore``.
        knowledge: knowledge that is made from now on and is given no storage is kept in a ``KnowledgeStore``.

    Raises:
        UnsupportedCrewAIError: CrewAI's version, or one of its names, is not what this release was made for.
        BackendUnavailableError: ``FASTCREW_ASYNC_BACKEND=rust`` and there is no compiled core.
        ValueError: an environment variable of ours has a value that cannot be read.
    """
    global _refused
    from fastcrew_async.memory import factory

    with _lock:
        if _applied:
            factory.as_default = factory.as_default or memory
            factory.keeps_knowledge = factory.keeps_knowledge or knowledge
            return
        try:
            prepared = _prepared(llm)
        except (ImportError, AttributeError) as error:
            refused = error if isinstance(error, FastcrewError) else UnsupportedCrewAIError(str(error))
            _refused = str(refused)
            if strict:
                raise refused from (None if refused is error else error)
            warnings.warn(f"fastcrew_async.install() left CrewAI as it was: {refused}", RuntimeWarning, stacklevel=2)
            return
        _refused = None
        try:
            for entry in prepared:
                setattr(entry.patch.owner, entry.patch.attribute, entry.ours)
                _applied.append(entry)
        except BaseException:
            _restore()
            raise
        factory.as_default = memory
        factory.keeps_knowledge = knowledge
    from fastcrew_async.engine.kickoff import prepare_process

    prepare_process()


def uninstall() -> None:
    """Undo ``install()``: every name is again the very object that it was. A name that someone else has replaced since
    is left to them. Runs that are under way end as they began."""
    with _lock:
        was_installed = bool(_applied)
        _restore()
    if was_installed:
        from fastcrew_async.memory import factory

        factory.as_default = factory.keeps_knowledge = False
        from fastcrew_async.engine import collector, events, executor

        executor.release()
        events.release()
        collector.stop()


def status() -> list[Target]:
    """Every name that ``install()`` replaces, or lends while it is needed; whether it is active, and why or why not."""
    with _lock:
        applied = {entry.patch.name: entry for entry in _applied}
        refused = _refused
    if refused is not None:
        return [Target("crewai", False, refused)]
    try:
        table = _patches()
    except (ImportError, AttributeError) as error:
        return [Target("crewai", False, str(error))]
    from fastcrew_async.install.targets import LENT

    targets = []
    for patch in table:
        entry = applied.get(patch.name)
        if entry is None and applied and patch.llm:
            targets.append(Target(patch.name, False, "install() was called with llm=False"))
        elif entry is None:
            targets.append(Target(patch.name, False, "install() has not been called"))
        elif not entry.intact:
            targets.append(Target(patch.name, False, "replaced by other code after install()"))
        else:
            targets.append(Target(patch.name, True, patch.reason))
    lent = ((name, reason if applied else "install() has not been called") for name, reason in LENT.items())
    return [*targets, *(Target(name, bool(applied), reason) for name, reason in lent)]


def refusal() -> str | None:
    """Why ``install()`` would refuse here; None where it would not. Changes nothing."""
    with _lock:
        if _applied:
            return None
    try:
        _prepared()
    except (ImportError, AttributeError, ValueError) as error:
        return str(error)
    except Exception as error:  # its import makes folders and reads settings
        return f"CrewAI cannot be imported: {type(error).__name__}: {error}"
    return None


def _prepared(llm: bool = True) -> list[_Applied]:
    """All that ``install()`` will do, with everything checked that can be; nothing is changed yet."""
    from fastcrew_async.config import settings

    settings()
    return [_prepare(patch) for patch in _patches() if llm or not patch.llm]


def _patches() -> list[Patch]:
    """The table; importing it imports CrewAI.

    Raises:
        ImportError: CrewAI is not one that we know (``UnsupportedCrewAIError``), or cannot be imported.
        AttributeError: it lacks a name.
    """
    from fastcrew_async.install import versions

    versions.check()
    from fastcrew_async.install.targets import patches

    return patches()


def _prepare(patch: Patch) -> _Applied:
    """What one patch will do; nothing is changed yet."""
    if patch.attribute not in patch.owner.__dict__:
        raise UnsupportedCrewAIError(f"CrewAI has no {patch.name}, which install() replaces")
    stock = patch.owner.__dict__[patch.attribute]
    return _Applied(patch, stock, patch.make(stock))


def _restore() -> None:
    for entry in reversed(_applied):
        if entry.intact:
            setattr(entry.patch.owner, entry.patch.attribute, entry.stock)
    _applied.clear()
