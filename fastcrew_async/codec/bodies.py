"""The plain body of each kind of document, and the object for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from fastcrew_async.codec import Unknown
from fastcrew_async.errors import DecodeError, EncodeError
from fastcrew_async.messages import EPOCH, AgentMessage, RunPart, RunState, time_of

CLASSES: dict[str, type] = {"agent_message": AgentMessage, "run_state": RunState, "run_part": RunPart}
_PLAIN = (str, dict, list, tuple, bool, int, float, bytes, datetime, type(None))


def body_of(document: Any) -> tuple[str, Any, Unknown | None]:
    """The kind of a document, its body, and what it had beside its body when it was read."""
    if type(document) is AgentMessage:
        return "agent_message", _message_body(document), document._unknown
    if type(document) is RunState:
        return "run_state", _state_body(document), document._unknown
    if type(document) is RunPart:
        return "run_part", _part_body(document), document._unknown
    if isinstance(document, _PLAIN):
        return "value", document, None
    from fastcrew_async.codec import crewai

    return crewai.body_of(document)


def made(kind: str, body: Any, around: dict[str, Any]) -> Any:
    """The object for a body, which is used up; it keeps what this release does not know.

    Raises:
        DecodeError: a field has a value of a wrong type.
    """
    if kind == "value":
        return body
    if type(body) is not dict:
        raise DecodeError(f"{kind} must be a map, not {type(body).__name__}")
    make = _MAKERS.get(kind)
    if make is None:
        from fastcrew_async.codec import crewai

        return crewai.made(kind, body, around)
    document, unknown = make(body)
    if unknown or around:
        document._unknown = Unknown(unknown, around)
    return document


def unknown_of(document: Any) -> Unknown | None:
    if isinstance(document, AgentMessage | RunState | RunPart):
        return document._unknown
    if isinstance(document, _PLAIN):
        return None
    from fastcrew_async.codec import crewai

    return crewai.unknown_of(document)


def _message_body(message: AgentMessage) -> dict[str, Any]:
    body: dict[str, Any] = {"id": message.id, "sender": message.sender}
    if message.recipient is not None:
        body["recipient"] = message.recipient
    body["content"] = message.content
    body["timestamp"] = message.timestamp.isoformat()
    if message.metadata:
        body["metadata"] = message.metadata
    if message._unknown is not None:
        body.update(message._unknown.fields)
    return body


def _message(body: dict[str, Any]) -> tuple[AgentMessage, dict[str, Any]]:
    kind, take = "agent_message", body.pop
    message = AgentMessage.__new__(AgentMessage)
    message.id = value if type(value := take("id", "")) is str else _checked(kind, "id", value, str, "")
    message.sender = value if type(value := take("sender", "")) is str else _checked(kind, "sender", value, str, "")
    message.recipient = _checked(kind, "recipient", take("recipient", None), str, None)
    message.content = take("content", "")
    message.timestamp = _time(kind, "timestamp", take("timestamp", None)) or EPOCH
    message.metadata = _checked(kind, "metadata", take("metadata", None), dict, None) or {}
    message._unknown = None
    return message, body


def _state_body(state: RunState, lists: bool = True) -> dict[str, Any]:
    body: dict[str, Any] = {"id": state.id, "crew": state.crew, "status": state.status}
    if state.started_at is not None:
        body["started_at"] = state.started_at.isoformat()
    body["seconds"] = float(state.seconds)
    if state.inputs:
        body["inputs"] = state.inputs
    if lists:
        if state.messages:
            body["messages"] = state.messages
        if state.tool_calls:
            body["tool_calls"] = state.tool_calls
        if state.outputs:
            body["outputs"] = [plain_part(item) for item in state.outputs]
        if state.events:
            body["events"] = [plain_part(item) for item in state.events]
    if state.usage:
        body["usage"] = state.usage
    if state.metadata:
        body["metadata"] = state.metadata
    if state.error is not None:
        body["error"] = state.error
    if state._unknown is not None:
        body.update(state._unknown.fields)
    return body


def plain_part(item: Any) -> Any:
    """A task output or an event as plain values, where it is none yet."""
    return item if isinstance(item, dict) else body_of(item)[1]


def _state(body: dict[str, Any]) -> tuple[RunState, dict[str, Any]]:
    kind, take = "run_state", body.pop
    state = RunState.__new__(RunState)
    state.id = value if type(value := take("id", "")) is str else _checked(kind, "id", value, str, "")
    state.crew = value if type(value := take("crew", "")) is str else _checked(kind, "crew", value, str, "")
    state.status = value if type(value := take("status", "")) is str else _checked(kind, "status", value, str, "")
    state.started_at = _time(kind, "started_at", take("started_at", None))
    state.seconds = float(_checked(kind, "seconds", take("seconds", None), (float, int), 0.0))
    state.inputs = _checked(kind, "inputs", take("inputs", None), dict, None) or {}
    state.messages = _checked(kind, "messages", take("messages", None), list, None) or []
    state.tool_calls = _checked(kind, "tool_calls", take("tool_calls", None), list, None) or []
    state.usage = _checked(kind, "usage", take("usage", None), dict, None) or {}
    state.outputs = _checked(kind, "outputs", take("outputs", None), list, None) or []
    state.events = _checked(kind, "events", take("events", None), list, None) or []
    state.error = _checked(kind, "error", take("error", None), str, None)
    state.metadata = _checked(kind, "metadata", take("metadata", None), dict, None) or {}
    state._unknown = None
    return state, body


def _part_body(part: RunPart) -> dict[str, Any]:
    value = part.value
    if part.name == "header":
        value = _state_body(value, lists=False)
    elif part.name in ("output", "event"):
        value = plain_part(value)
    elif part.name not in ("message", "tool_call", "end"):
        raise EncodeError(f"a run has no part of the name {part.name!r}")
    body = {part.name: value}
    if part._unknown is not None:
        body.update(part._unknown.fields)
    return body


def _part(body: dict[str, Any]) -> tuple[RunPart, dict[str, Any]]:
    for name in ("header", "message", "tool_call", "output", "event", "end"):
        if name in body:
            value = _checked("run_part", name, body.pop(name), dict, {})
            return RunPart(name, made("run_state", value, {}) if name == "header" else value), body
    raise DecodeError(f"a part of a run that this release does not know: {', '.join(body)[:200] or 'it is empty'}")


_MAKERS: dict[str, Callable[[dict[str, Any]], tuple[Any, dict[str, Any]]]] = {
    "agent_message": _message,
    "run_state": _state,
    "run_part": _part,
}


def _checked(kind: str, name: str, value: Any, of: type | tuple[type, ...], default: Any) -> Any:
    """The value of a field; `default` where it is missing or null."""
    if value is None:
        return default
    if type(value) is of:
        return value
    if not isinstance(value, of) or type(value) is bool:
        wanted = of.__name__ if isinstance(of, type) else "a number"
        raise DecodeError(f"{kind}.{name} must be {wanted}, not {type(value).__name__}")
    return value


def _time(kind: str, name: str, value: Any) -> datetime | None:
    text = _checked(kind, name, value, str, None)
    if text is None:
        return None
    try:
        return time_of(text)
    except ValueError as error:
        raise DecodeError(f"{kind}.{name} is {text!r:.80}, which is no ISO 8601 date and time") from error
