"""What runs here, what ``install()`` would do, and what would not run on the engine: ``fastcrew-async doctor``."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcrew_async import __version__, status
from fastcrew_async.config import VARIABLES, Settings, settings
from fastcrew_async.environment import ABANDONED, BACKEND, WORKERS, unknown
from fastcrew_async.install import versions
from fastcrew_async.install.apply import Target, refusal

if TYPE_CHECKING:
    from crewai import Crew

# Methods that the engine stands in for. Where a user's class or object has another one, theirs is called.
_OF_AGENT = ("execute_task", "aexecute_task", "create_agent_executor")
_OF_TASK = ("execute_sync", "aexecute_sync", "execute_async", "_execute_core", "_aexecute_core")
_OF_CREW = (
    "kickoff",
    "akickoff",
    "kickoff_async",
    "_execute_tasks",
    "_aexecute_tasks",
    "_run_sequential_process",
    "_arun_sequential_process",
    "_run_hierarchical_process",
    "_arun_hierarchical_process",
    "_handle_crew_planning",
)


@dataclass(frozen=True)
class Setting:
    """A setting that is not at its default, and where its value comes from."""

    name: str
    value: str
    default: str
    source: str


@dataclass(frozen=True)
class Fallback:
    """Something that does not run on the engine: what takes its place, and why."""

    what: str
    instead: str
    why: str


@dataclass(frozen=True)
class Report:
    """What :func:`examine` found. ``refusal`` is why ``install()`` would refuse, or None."""

    python: str
    crewai: str | None
    crewai_supported: str
    fastcrew_async: str
    core: str | None
    backend: str | None
    backend_reason: str
    loop_policy: str
    uvloop: str | None
    storage_path: str | None
    storage_writable: bool
    settings: list[Setting]
    installed: bool
    refusal: str | None
    names: list[Target]
    fallbacks: list[Fallback]


def examine(crew: Crew | None = None) -> Report:
    """Look at this process, and at `crew` if one is given. Changes nothing."""
    backend, backend_reason, core = _core()
    refused = refusal()
    names = [] if refused else _names()
    path = _storage_path()
    return Report(
        python=f"{platform.python_version()} ({platform.python_implementation()}, {sys.platform} {platform.machine()})",
        crewai=_version("crewai"),
        crewai_supported=versions.SUPPORTED,
        fastcrew_async=__version__,
        core=core,
        backend=backend,
        backend_reason=backend_reason,
        loop_policy=_loop_policy(),
        uvloop=_version("uvloop"),
        storage_path=None if path is None else str(path),
        storage_writable=_writable(path),
        settings=list(_settings()),
        installed=any(target.active for target in names),
        refusal=refused,
        names=names,
        fallbacks=list(_fallbacks(backend, backend_reason, refused, names, crew)),
    )


def crew_at(place: str) -> Crew:
    """The crew at ``module:attribute``: a crew, or what takes no arguments and gives one, as a function, or a class
    with a method ``crew``.

    Raises:
        ValueError: there is none, or importing or making it failed; the message says which.
    """
    name, _, attribute = place.partition(":")
    if not name or not attribute:
        raise ValueError(f"{place!r} is not of the form module:attribute")
    if name.endswith(".py") or "/" in name:
        raise ValueError(
            f"{place!r} names a file; go to its folder and name the module, as {Path(name).stem}:{attribute}"
        )
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    from crewai import Crew

    try:
        found: Any = import_module(name)
        for part in attribute.split("."):
            found = getattr(found, part)
        if callable(found):
            found = found()
        if asyncio.iscoroutine(found):
            found.close()
        elif not isinstance(found, Crew):
            inner = getattr(found, "crew", None)
            found = inner() if callable(inner) else inner
    except (Exception, SystemExit) as error:  # a script may end itself
        raise ValueError(f"{place!r} gives no crew: {type(error).__name__}: {error}") from error
    if not isinstance(found, Crew):
        raise ValueError(f"{place!r} is no crew, nor does it give one: it is, or gives, a {type(found).__qualname__}")
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _core() -> tuple[str | None, str, str | None]:
    """The backend, why it is that one, and the version of the compiled core."""
    try:
        from fastcrew_async import _native

        backend, reason = _native.backend, _native.reason
    except (ImportError, ValueError) as error:
        return None, str(error), None
    if backend == "python":
        return backend, reason, None
    from fastcrew_async import _core

    return backend, reason, _core.__version__


def _loop_policy() -> str:
    kind = type(asyncio.get_event_loop_policy())
    return f"{kind.__module__}.{kind.__qualname__}"


def _storage_path() -> Path | None:
    try:
        chosen = settings().storage_path
        if chosen is not None:
            return chosen
        from crewai_core.paths import db_storage_path

        return Path(db_storage_path()) / "fastcrew_async.db"
    except (ImportError, OSError, ValueError):
        return None


def _writable(path: Path | None) -> bool:
    if path is None:
        return False
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    return os.access(there, os.W_OK)


def _settings() -> Iterator[Setting]:
    for name, default in ((BACKEND, "auto"), (WORKERS, "64"), (ABANDONED, "64")):
        value = os.environ.get(name, "").strip()
        if value and value.lower() != default:
            yield Setting(name, value, default, "environment")
    for name in unknown(VARIABLES.values()):
        yield Setting(name, os.environ[name], "none", "environment; nothing reads it")
    try:
        current = settings()
    except ValueError:  # told as the refusal
        return
    for entry in fields(Settings):
        default = entry.metadata.get("default", entry.default)
        value = getattr(current, entry.name)
        if value != default:
            source = entry.metadata.get("environment", "")
            yield Setting(entry.name, str(value), str(default), source if os.environ.get(source) else "configure()")


def _names() -> list[Target]:
    return [
        target if target.active or target.reason.startswith("replaced") else Target(target.name, False, "")
        for target in status()
    ]


def _fallbacks(
    backend: str | None, backend_reason: str, refused: str | None, names: list[Target], crew: Crew | None
) -> Iterator[Fallback]:
    if backend == "python":
        yield Fallback("the compiled core", "its pure-Python twins", backend_reason)
    if refused is not None:
        yield Fallback("every crew", "stock CrewAI", "install() refuses")
        return
    for target in names:
        if target.reason and not target.active:
            yield Fallback(target.name, "the code that replaced it", target.reason)
    if crew is not None:
        yield from _of_crew(crew)


def _of_crew(crew: Crew) -> Iterator[Fallback]:
    from crewai.crew import Crew as StockCrew
    from crewai.task import Task

    yield from _overrides("the crew", crew, StockCrew, _OF_CREW)
    for number, task in enumerate(crew.tasks):
        yield from _overrides(f"task {task.name or number}", task, Task, _OF_TASK)
    agents = [*crew.agents, *(task.agent for task in crew.tasks if task.agent is not None)]
    if crew.manager_agent is not None:
        agents.append(crew.manager_agent)
    for agent in {id(agent): agent for agent in agents}.values():
        yield from _of_agent(agent)


def _of_agent(agent: Any) -> Iterator[Fallback]:
    from crewai.agent.core import Agent
    from crewai.llms.base_llm import BaseLLM

    from fastcrew_async.engine.executor import AgentExecutor
    from fastcrew_async.engine.model import has_async_side
    from fastcrew_async.install.models import uncovered

    who = f"agent {' '.join(str(agent.role).split())!r}"
    if not isinstance(agent, Agent):
        yield Fallback(who, "its own aexecute_task or execute_task", f"it is a {type(agent).__qualname__}, no Agent")
        return
    yield from _overrides(who, agent, Agent, _OF_AGENT)
    known = (AgentExecutor, AgentExecutor.__base__)
    if agent.executor_class not in known:
        yield Fallback(who, "its own executor", f"executor_class={agent.executor_class.__qualname__}")
    elif agent.agent_executor is not None and type(agent.agent_executor) not in known:
        yield Fallback(who, "its own executor", f"agent_executor is a {type(agent.agent_executor).__qualname__}")
    if isinstance(agent.llm, BaseLLM) and not has_async_side(agent.llm):
        model = type(agent.llm).__qualname__
        yield Fallback(f"{who}: its model", "a worker thread for each call", f"{model} has call() and no acall() of it")
    for role in ("llm", "function_calling_llm"):
        llm = vars(agent).get(role)  # not getattr: one of them is deprecated
        if isinstance(llm, BaseLLM) and type(llm).__module__.startswith("crewai.") and (why := uncovered(llm)):
            yield Fallback(f"{who}: its {role}", "its provider's own client", why)


def _overrides(who: str, thing: Any, stock: type, names: tuple[str, ...]) -> Iterator[Fallback]:
    theirs = [
        name for name in names if name in vars(thing) or getattr(type(thing), name) is not getattr(stock, name, None)
    ]
    if theirs:
        yield Fallback(f"{who}: {', '.join(theirs)}", "the user's own code", "overridden")
