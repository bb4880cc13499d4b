"""Turns any value CrewAI hands out into plain data that is equal for equal runs."""

from __future__ import annotations

import datetime
import enum
import os
import re
import uuid
from typing import Any

from pydantic import BaseModel

UUID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|(?<=tool-result-)[A-Za-z0-9_-]{22}"  # CrewAI's artifacts of large tool results
)
ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+")
# Shown by name only: they are live objects, compared through what they do.
BY_NAME = {
    "Agent": "role",
    "Doubling": "role",
    "LiteAgent": "role",
    "Task": "name",
    "ConditionalTask": "name",
    "Crew": "name",
}


def plain(value: Any, depth: int = 0) -> Any:
    """`value` as plain data; ids stay in it and are named by `Names.resolve` afterwards."""
    if value is None or (isinstance(value, (bool, int, str)) and not isinstance(value, enum.Enum)):
        return TIME.sub("time", ADDRESS.sub("0x", value)) if isinstance(value, str) else value
    if depth > 12:
        return "..."
    if isinstance(value, float):
        return value
    if isinstance(value, enum.Enum):
        return plain(value.value, depth)
    if isinstance(value, (uuid.UUID, os.PathLike)):
        return str(value)
    if isinstance(value, dict):
        return {
            str(plain(key, depth + 1)): plain(item, depth + 1)
            for key, item in value.items()
            if key != "execution_time"  # measured
        }
    if isinstance(value, (list, tuple)):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item, depth + 1) for item in value), key=repr)
    if isinstance(value, (datetime.datetime, datetime.timedelta)):
        return "time"
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {plain(str(value))}"
    if isinstance(value, type):
        return f"<class {value.__name__}>"
    return _plain_object(value, depth)


def _plain_object(value: Any, depth: int) -> Any:
    kind = type(value).__name__
    if kind in BY_NAME:
        return f"<{kind} {getattr(value, BY_NAME[kind], None)}>"
    if hasattr(value, "args_schema"):
        return f"<tool {value.name}>"
    if hasattr(value, "call") and hasattr(value, "acall"):
        return f"<model {value.model}>"
    if isinstance(value, BaseModel):
        return {"": kind} | {name: plain(getattr(value, name, None), depth + 1) for name in type(value).model_fields}
    if callable(value):
        return f"<callable {getattr(value, '__name__', kind)}>"
    if hasattr(value, "__dataclass_fields__"):
        return {"": kind} | {name: plain(item, depth + 1) for name, item in vars(value).items()}
    return f"<{kind}>"


class Names:
    """Gives ids that differ between runs names that do not."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._paths: dict[str, str] = {}
        self._unknown: dict[str, str] = {}
        self.number_unknown = True

    def give(self, value: Any, name: str) -> None:
        """Call the id `value` by `name`."""
        self._known[str(value)] = name

    def give_path(self, path: str, name: str) -> None:
        """Call everything under the folder `path` by `name`."""
        self._paths[path] = name

    def resolve(self, value: Any) -> Any:
        """`value` with every id replaced by its name; an id nobody named is numbered by first sight."""
        if isinstance(value, str):
            for path, name in self._paths.items():
                value = value.replace(path, name)
            return UUID.sub(self._name, value)
        if isinstance(value, dict):
            return {self.resolve(key): self.resolve(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        return value

    def _name(self, match: re.Match[str]) -> str:
        found = match.group()
        if found in self._known:
            return self._known[found]
        if not self.number_unknown:
            return "<id>"
        return self._unknown.setdefault(found, f"<id {len(self._unknown)}>")
