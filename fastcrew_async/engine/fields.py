"""The fields of CrewAI's models, past pydantic's own ways to them.

An assignment goes through five calls there, a look at a private attribute through four; a kickoff has a hundred of
them.
"""

from __future__ import annotations

import copy
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined


def put(model: Any, **values: Any) -> None:
    """Set fields without validation, as pydantic does where ``validate_assignment`` is off."""
    model.__dict__.update(values)
    model.__pydantic_fields_set__.update(values)


def private(model: Any) -> dict[str, Any]:
    """The private attributes, to be read and set."""
    found: dict[str, Any] = model.__pydantic_private__
    return found


def new(cls: Any, values: dict[str, Any], fields_set: set[str], own: Any = None, extra: Any = None) -> Any:
    """A model of these fields, private attributes and extra fields, which are kept as they are."""
    made = cls.__new__(cls)
    for name, value in (
        ("__dict__", values),
        ("__pydantic_extra__", extra),
        ("__pydantic_fields_set__", fields_set),
        ("__pydantic_private__", own),
    ):
        object.__setattr__(made, name, value)
    return made


def shallow_copy(model: Any) -> Any:
    """``copy.copy(model)``, also while another thread sets what was not set before: pydantic's own then fails."""
    cls: Any = type(model)
    if getattr(cls, "__copy__", None) is not BaseModel.__copy__:
        return copy.copy(model)
    own = model.__pydantic_private__
    return new(
        cls,
        model.__dict__.copy(),
        model.__pydantic_fields_set__.copy(),
        own and {k: v for k, v in own.copy().items() if v is not PydanticUndefined},
        copy.copy(model.__pydantic_extra__),
    )
