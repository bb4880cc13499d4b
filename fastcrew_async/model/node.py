"""JSON objects as attributes, with what CrewAI's OpenAI provider reads of an answer."""

from __future__ import annotations

from typing import Any

from openai._models import construct_type
from openai.types.chat import ChatCompletionMessageToolCallUnion

_CALL: Any = ChatCompletionMessageToolCallUnion


class Node:
    """One object; an attribute that is not there is None, as in the models of the openai package."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.__dict__ = {name: _wrapped(value) for name, value in fields.items()}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None

    def __repr__(self) -> str:
        return f"Node({self.__dict__})"


def _wrapped(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return Node(value)
    if kind is list:
        return [_wrapped(item) for item in value]
    return value


def completion(fields: dict[str, Any]) -> Node:
    """A whole answer. Its tool calls are the objects of the openai package, because CrewAI hands them on."""
    answer = Node(fields)
    for choice, raw in zip(answer.choices or (), fields.get("choices") or (), strict=True):
        calls = (raw.get("message") or {}).get("tool_calls")
        if calls:
            choice.message.tool_calls = [construct_type(type_=_CALL, value=call) for call in calls]
    return answer
