"""Says where two recordings differ, first difference first."""

from __future__ import annotations

from typing import Any

from .recording import Recording

EXACT = ("trace", "results", "state", "rows", "contexts", "undelivered", "open_scopes")


def differences(expected: Recording, found: Recording) -> str:
    """The first difference of each part, or an empty text when a user cannot tell the two runs apart."""
    lines = []
    for part in EXACT:
        if part == "rows" and not expected.rows:
            continue  # CrewAI wipes the rows of earlier runs when a run starts; ours are kept for `replay`
        where = _first(getattr(expected, part), getattr(found, part), part)
        if where:
            lines.append(where)
    more_left = found.left_behind - expected.left_behind
    if more_left:
        lines.append(f"left behind in the caller's context: {sorted(more_left)}")
    return "\n".join(lines)


def _first(expected: Any, found: Any, path: str) -> str:
    if expected == found:
        return ""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in [*expected, *(key for key in found if key not in expected)]:
            if key not in found:
                return f"{path}.{key}: missing, expected {_short(expected[key])}"
            if key not in expected:
                return f"{path}.{key}: not expected, found {_short(found[key])}"
            if inner := _first(expected[key], found[key], f"{path}.{key}"):
                return inner
    if isinstance(expected, list) and isinstance(found, list):
        for index, (left, right) in enumerate(zip(expected, found, strict=False)):
            if inner := _first(left, right, f"{path}[{_label(left, index)}]"):
                return inner
        if len(expected) > len(found):
            return f"{path}: missing from {len(found)} on: {_short(expected[len(found)])}"
        return f"{path}: too much from {len(expected)} on: {_short(found[len(expected)])}"
    return f"{path}:\n    expected {_short(expected)}\n    found    {_short(found)}"


def _label(value: Any, index: int) -> str:
    if isinstance(value, list) and value and isinstance(value[0], str):
        return f"{index} {value[0]}"
    return str(index)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 600 else f"{text[:600]}... ({len(text)} characters)"
