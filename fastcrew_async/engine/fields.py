"""The fields of CrewAI's models, past pydantic's own ways to them.

An assignment goes through five calls there, a look at a private attribute through four; a kickoff has a hundred of
them.
"""

from __future__ import annotations

from typing import Any


def put(model: Any, **values: Any) -> None:
    """Set fields without validation, as pydantic does where ``validate_assignment`` is off."""
    model.__dict__.update(values)
    model.__pydantic_fields_set__.update(values)


def private(model: Any) -> dict[str, Any]:
    """The private attributes, to be read and set."""
    found: dict[str, Any] = model.__pydantic_private__
    return found
