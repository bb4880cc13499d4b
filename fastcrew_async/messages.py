"""What agents send each other, and what a run holds, as documents."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

if TYPE_CHECKING:
    from crewai.tasks.task_output import TaskOutput

    from fastcrew_async import codec

T = TypeVar("T", bound="_Document")

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
"""The time of a document that names none."""


class _Document:
    """To bytes and back, in each format; the arguments and errors are those of :mod:`fastcrew_async.codec`."""

    __slots__ = ()

    def to_json(self) -> bytes:
        """As JSON, in UTF-8."""
        from fastcrew_async import codec

        return codec.encode(self, "json")

    def to_msgpack(self) -> bytes:
        """As MessagePack."""
        from fastcrew_async import codec

        return codec.encode(self, "msgpack")

    def to_protobuf(self) -> bytes:
        """As the message ``Document`` of ``docs/fastcrew.proto``."""
        from fastcrew_async import codec

        return codec.encode(self, "protobuf")

    @classmethod
    def from_json(cls: type[T], data: bytes) -> T:
        """What ``to_json`` wrote."""
        from fastcrew_async import codec

        return codec.decode_as(cls, data, "json")

    @classmethod
    def from_msgpack(cls: type[T], data: bytes) -> T:
        """What ``to_msgpack`` wrote."""
        from fastcrew_async import codec

        return codec.decode_as(cls, data, "msgpack")

    @classmethod
    def from_protobuf(cls: type[T], data: bytes) -> T:
        """What ``to_protobuf`` wrote."""
        from fastcrew_async import codec

        return codec.decode_as(cls, data, "protobuf")


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _new_id() -> str:
    return str(uuid4())


@dataclass(slots=True)
class AgentMessage(_Document):
    """A message of one agent to another, or to all.

    Fields that a document has and this release does not know are kept, and written again
    (:func:`fastcrew_async.codec.unknown` gives them).

    Raises:
        TypeError: a field has another type than it is declared with.
    """

    sender: str
    """The role, or another name, of the agent that sends it."""
    content: Any
    """A text, or any other plain value."""
    recipient: str | None = None
    """Whom it is for; None is everybody."""
    id: str = field(default_factory=_new_id)
    """Tells this message from others."""
    timestamp: datetime = field(default_factory=_now)
    """When it was sent; with a time zone, unless it was made without one."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Whatever else belongs to it, as plain values."""
    _unknown: codec.Unknown | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check("sender", self.sender, str)
        _check("id", self.id, str)
        if self.recipient is not None:
            _check("recipient", self.recipient, str)
        _check("timestamp", self.timestamp, datetime)
        _check("metadata", self.metadata, dict)


@dataclass(slots=True)
class RunState(_Document):
    """What a run holds, at its end or on its way, as plain values.

    Raises:
        TypeError: a field has another type than it is declared with.
    """

    id: str = ""
    """The run's id."""
    crew: str = ""
    """The crew's name."""
    status: str = ""
    """Where the run stands, as :attr:`fastcrew_async.Run.status` has it."""
    started_at: datetime | None = None
    """When it began."""
    seconds: float = 0.0
    """How long it has run, in seconds of wall time."""
    inputs: dict[str, Any] = field(default_factory=dict)
    """What it was started with."""
    messages: list[dict[str, Any]] = field(default_factory=list)
    """What was said to the models and by them, as CrewAI's messages: ``role``, ``content`` and whatever else."""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    """The calls of tools: ``id``, ``name``, ``arguments``, ``result``, ``error``, ``seconds``, where there is one."""
    usage: dict[str, int] = field(default_factory=dict)
    """Tokens and requests, by the names of CrewAI's ``UsageMetrics``."""
    outputs: list[dict[str, Any]] = field(default_factory=list)
    """The outputs of the tasks so far, as plain values; see :meth:`task_outputs`."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """CrewAI's events, as plain values."""
    error: str | None = None
    """What ended the run, where it failed."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Whatever else belongs to it, as plain values."""
    _unknown: codec.Unknown | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("id", "crew", "status"):
            _check(name, getattr(self, name), str)
        if self.started_at is not None:
            _check("started_at", self.started_at, datetime)
        if self.error is not None:
            _check("error", self.error, str)
        _check("seconds", self.seconds, (float, int))
        for name in ("inputs", "usage", "metadata"):
            _check(name, getattr(self, name), dict)
        for name in ("messages", "tool_calls", "outputs", "events"):
            _check(name, getattr(self, name), list)

    def task_outputs(self) -> list[TaskOutput]:
        """The outputs so far as CrewAI's objects.

        Raises:
            DecodeError: one of them is no task output.
        """
        from fastcrew_async import codec

        return [codec.made("task_output", output) for output in self.outputs]


@dataclass(slots=True)
class RunPart(_Document):
    """A part of a run state that is written in frames; see :func:`fastcrew_async.codec.split`."""

    name: str
    """One of ``header``, ``message``, ``tool_call``, ``output``, ``event`` and, last, ``end``."""
    value: Any
    """A :class:`RunState` without its lists for the header, otherwise plain values; for the end, how many of each there
    were."""
    _unknown: codec.Unknown | None = field(default=None, init=False, repr=False, compare=False)


def calls_in(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The calls of tools that these messages tell of, each with its result where a later message has it. Of calls with
    the same id, as some providers give them, the first without a result has the next one."""
    calls: list[dict[str, Any]] = []
    for said in messages:
        if said.get("role") == "tool":
            answered = said.get("tool_call_id")
            waiting = next((call for call in calls if call["id"] == answered and "result" not in call), None)
            if waiting is not None:
                waiting["result"] = said.get("content")
        for given in said.get("tool_calls") or ():
            if not isinstance(given, dict):  # an object of a provider's own
                continue
            function = given.get("function") or {}
            calls.append({"id": given.get("id"), "name": function.get("name"), "arguments": function.get("arguments")})
    return calls


def _check(name: str, value: object, kind: type | tuple[type, ...]) -> None:
    if not isinstance(value, kind):
        wanted = kind.__name__ if isinstance(kind, type) else "a number"
        raise TypeError(f"{name}={value!r:.80} must be {wanted}, not {type(value).__name__}")


def time_of(text: str) -> datetime:
    """A time as ISO 8601 has it, as it may come from other writers: ``Z`` for UTC, any number of decimals up to six.

    Raises:
        ValueError: it is none.
    """
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    if text.endswith(("Z", "z")):
        text = text[:-1] + "+00:00"
    head, dot, rest = text.partition(".")
    if dot:  # Python 3.10 reads three or six decimals
        decimals = len(rest) - len(rest.lstrip("0123456789"))
        digits = rest[:decimals]
        if not digits or digits[6:].strip("0"):
            raise ValueError(f"{text!r} is no time of microseconds")
        text = f"{head}.{digits[:6]:0<6}{rest[decimals:]}"
    return datetime.fromisoformat(text)
