"""Whether the installed CrewAI is one that the engine was made for."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from functools import cache, lru_cache
from importlib import metadata
from importlib.abc import InspectLoader

from fastcrew_async.errors import UnsupportedCrewAIError
from fastcrew_async.install.names import NAMES

SUPPORTED = ">=1.15.29,<1.16"
_LEAST, _NEXT = (1, 15, 29), (1, 16)


def check() -> None:
    """Raise unless CrewAI is of a supported version and has every name the engine needs.

    Raises:
        UnsupportedCrewAIError: names the version, or the missing name.
    """
    try:
        version = metadata.version("crewai")
    except metadata.PackageNotFoundError:
        raise UnsupportedCrewAIError(f"CrewAI is not installed; install crewai{SUPPORTED}") from None
    if not _LEAST <= _release(version) < _NEXT:
        raise UnsupportedCrewAIError(
            f"CrewAI {version} is not supported: this release is made for crewai{SUPPORTED}; install one of "
            "those, or a release of fastcrew-async made for yours"
        )
    missing = [name for name in NAMES if not _exists(name)]
    if missing:
        raise UnsupportedCrewAIError(
            f"CrewAI {version} lacks {missing[0]}, which the engine needs; it was changed after its release, or by "
            f"another package (crewai{SUPPORTED} as published has it)"
        )


def _release(version: str) -> tuple[int, ...]:
    """Its numbers, which is all that the range asks of a version; ``packaging`` alone would cost more to import."""
    found = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def _exists(name: str) -> bool:
    module, _, path = name.partition(":")
    if module not in sys.modules and _in_source(module, path):
        return True  # importing all of them would take longer than all the rest
    try:
        found: object = importlib.import_module(module)
        for part in path.split("."):
            found = _member(found, part)
    except (ImportError, AttributeError):
        return False
    return True


@cache
def _in_source(module: str, path: str) -> bool:
    source = _source(module)
    return source is not None and all(re.search(rf"\b{part}\b", source) for part in path.split("."))


@lru_cache(maxsize=1)  # names of one module follow each other
def _source(module: str) -> str | None:
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        return None
    loader = spec.loader if spec is not None else None
    return loader.get_source(module) if isinstance(loader, InspectLoader) else None


def _member(owner: object, name: str) -> object:
    try:
        return getattr(owner, name)
    except AttributeError:
        if any(name in inspect.get_annotations(cls) for cls in getattr(owner, "__mro__", ())):
            return None  # declared, and set by the constructor
        raise
