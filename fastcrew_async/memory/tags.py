"""What filters may ask of a record, as short texts that the store keeps an index of.

Two metadata values have one text exactly when Python calls them equal after a round trip through JSON, which is how
CrewAI's stores compare: ``1``, ``1.0`` and ``True`` are one value.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

_quoted = json.encoder.encode_basestring_ascii
_told = json.JSONEncoder(sort_keys=True).encode
_LONGEST = 200  # a longer text is told by its digest


def of_metadata(metadata: Mapping[str, Any]) -> list[str]:
    """The tags of a record's metadata, as it is after JSON."""
    tags = []
    for key, value in metadata.items():
        if value is not None:
            tags.append(of_key(key))
            if (tag := of_value(key, value)) is not None:
                tags.append(tag)
    return tags


def of_quoted(key: str, value: str) -> tuple[str, str]:
    """The tags of a key and its value, a text or an int, both as they are told in JSON."""
    text = f"[{key}, {value}]"
    return (f"k{key}", f"m{text}") if len(text) <= _LONGEST else (_short("k", key), _short("m", text))


def of_category(category: str) -> str:
    """A category; its text is read back from the tag, so it is never shortened."""
    return f"c{category}"


def of_key(key: str) -> str:
    """There is a value for this key that is not None."""
    return _short("k", _quoted(key))


def of_value(key: str, value: Any) -> str | None:
    """This key has this value; None for a value that equals nothing that JSON can hold."""
    if type(value) in (str, int):  # most are, and this is a tenth of the encoder's cost
        return _short("m", f"[{_quoted(key)}, {_quoted(value) if type(value) is str else value}]")
    try:
        return _short("m", _told([key, _plain(value)]))
    except _EqualsNothing:
        return None


class _EqualsNothing(Exception):
    pass


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bool, int)):
        return int(value)
    if isinstance(value, float):
        if math.isnan(value):
            raise _EqualsNothing
        return int(value) if value.is_integer() else value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    raise _EqualsNothing


def _short(kind: str, text: str) -> str:
    if len(text) <= _LONGEST:
        return kind + text
    return f"{kind}#{hashlib.sha256(text.encode()).hexdigest()}"
