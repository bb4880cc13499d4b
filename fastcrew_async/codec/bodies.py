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
_LISTS = ("messages", "tool_calls", "outputs", "events")


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
    """The object for a body, which keeps what this release does not know.

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
    document, unknown = make(dict(body))
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
    message = AgentMessage.__new__(AgentMessage)
    message.id = _taken(body, "agent_message", "id", str, "")
    message.sender = _taken(body, "agent_message", "sender", str, "")
    message.recipient = _taken(body, "agent_message", "recipient", str, None)
    message.content = body.pop("content", "")
    message.timestamp = _time(body, "agent_message", "timestamp") or EPOCH
    message.metadata = _taken(body, "agent_message", "metadata", dict, None) or {}
    message._unknown = None
    return message, body


def _state_body(state: RunState, lists: bool = True) -> dict[str, Any]:
    body: dict[str, Any] = {"id": state.id, "crew": state.crew, "status": state.status}
    if state.started_at is not None:
        body["started_at"] = state.started_at.isoformat()
    body["seconds"] = float(state.seconds)
    for name in ("inputs", *_LISTS, "usage", "metadata") if lists else ("inputs", "usage", "metadata"):
        value = getattr(state, name)
        if value:
            body[name] = value
    if lists:
        for name in ("outputs", "events"):
            if any(type(item) is not dict for item in body.get(name, ())):
                body[name] = [plain_part(item) for item in body[name]]
    if state.error is not None:
        body["error"] = state.error
    if state._unknown is not None:
        body.update(state._unknown.fields)
    return body


def plain_part(item: Any) -> Any:
    """A task output or an event as plain values, where it is none yet."""
    return item if isinstance(item, dict) else body_of(item)[1]


def _state(body: dict[str, Any]) -> tuple[RunState, dict[str, Any]]:
    state = RunState.__new__(RunState)
    for name in ("id", "crew", "status"):
        setattr(state, name, _taken(body, "run_state", name, str, ""))
    state.started_at = _time(body, "run_state", "started_at")
    state.seconds = float(_taken(body, "run_state", "seconds", (float, int), 0.0))
    for name in ("inputs", "usage", "metadata"):
        setattr(state, name, _taken(body, "run_state", name, dict, None) or {})
    for name in _LISTS:
        setattr(state, name, _taken(body, "run_state", name, list, None) or [])
    state.error = _taken(body, "run_state", "error", str, None)
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
            value = _taken(body, "run_part", name, dict, {})
            return RunPart(name, made("run_state", value, {}) if name == "header" else value), body
    raise DecodeError(f"a part of a run that this release does not know: {', '.join(body)[:200] or 'it is empty'}")


_MAKERS: dict[str, Callable[[dict[str, Any]], tuple[Any, dict[str, Any]]]] = {
    "agent_message": _message,
    "run_state": _state,
    "run_part": _part,
}


def _taken(body: dict[str, Any], kind: str, name: str, of: type | tuple[type, ...], default: Any) -> Any:
    """The field, out of the body; `default` where it is missing or null."""
    value = body.pop(name, None)
    if value is None:
        return default
    if not isinstance(value, of) or type(value) is bool:
        wanted = of.__name__ if isinstance(of, type) else "a number"
        raise DecodeError(f"{kind}.{name} must be {wanted}, not {type(value).__name__}")
    return value


def _time(body: dict[str, Any], kind: str, name: str) -> datetime | None:
    text = _taken(body, kind, name, str, None)
    if text is None:
        return None
    try:
        return time_of(text)
    except ValueError as error:
        raise DecodeError(f"{kind}.{name} is {text!r:.80}, which is no ISO 8601 date and time") from error
