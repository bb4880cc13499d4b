"""Whether a tool's arguments are checked by pydantic's compiled core alone.

Then CrewAI's own check runs on the loop, before the call takes a thread, and what the model is told of wrong arguments
is CrewAI's to the letter. Where the schema calls Python code of the user (validators, factories, ...) it runs on the
tool's thread, as all that is the user's.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from pydantic import BaseModel

_CALLS = frozenset({"function", "default_factory", "post_init", "missing", "custom_init", "computed_fields"})
_known: WeakKeyDictionary[type, bool] = WeakKeyDictionary()


def is_quiet(schema: Any) -> bool:
    """Whether validating against `schema`, and dumping what comes of it, calls no Python code of the user."""
    if schema is None:
        return True
    quiet = _known.get(schema)
    if quiet is None:
        core = getattr(schema, "__pydantic_core_schema__", None)
        stock = all(
            getattr(getattr(schema, name, None), "__func__", getattr(schema, name, None))
            is getattr(getattr(BaseModel, name), "__func__", getattr(BaseModel, name))
            for name in ("model_validate", "model_dump", "__init__")
        )
        quiet = _known[schema] = stock and isinstance(core, dict) and not _calls(core)
    return quiet


def _calls(part: Any) -> bool:
    if isinstance(part, dict):
        return any(
            key != "metadata" and ((value and key in _CALLS and not _is_field(part)) or _calls(value))
            for key, value in part.items()
        )
    return isinstance(part, (list, tuple)) and any(_calls(item) for item in part)


def _is_field(part: dict[Any, Any]) -> bool:
    """Whether the keys of `part` are the names of fields."""
    return "type" not in part
