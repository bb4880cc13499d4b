"""Records of CrewAI's as the core takes and gives them."""

from __future__ import annotations

import functools
import json
import struct
from array import array
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, TypeAlias

from crewai.memory.types import MemoryRecord

from fastcrew_async.memory import tags
from fastcrew_async.memory.words import FIRST_MARK, unwrapped

Incoming: TypeAlias = "tuple[Any, ...]"
Outgoing: TypeAlias = "tuple[dict[str, Any], bytes | None]"

_PLAIN = (str, int, float, bool, type(None))
_quoted = json.encoder.encode_basestring_ascii
_of_quoted = tags.of_quoted
_UTC_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)


def incoming(record: MemoryRecord) -> Incoming:
    """A record on its way to the store.

    Raises:
        TypeError: its metadata cannot be told in JSON, or a number of its vector is none.
        ValueError: a text of it holds a lone surrogate, which no file can hold.
    """
    # A model's attributes are searched for in its class first: the dictionary is three times as quick.
    fields = record.__dict__ if type(record) is MemoryRecord else {name: getattr(record, name) for name in _FIELDS}
    identity, content, scope, source = fields["id"], fields["content"], fields["scope"], fields["source"]
    if not (identity.isascii() and content.isascii() and scope.isascii() and (source is None or source.isascii())):
        for name in ("id", "content", "scope", "source"):
            _check_text(name, fields[name] or "", identity)
    told, names = [], []
    for category in fields["categories"]:
        if not category.isascii():
            _check_text("a category", category, identity)
        quoted, tag = _category(category)
        told.append(quoted)
        names.append(tag)
    metadata, values = _metadata(fields["metadata"])
    embedding: Any = fields["embedding"]
    # What is no list of floats, or may carry a text, is looked at more closely.
    if type(embedding) is not list or (embedding and embedding[0] == FIRST_MARK):
        embedding = _packed(embedding)
    importance = fields["importance"]
    return (
        identity,
        content,
        scope,
        f"[{', '.join(told)}]",
        metadata,
        names + values,
        importance if type(importance) is float else float(importance),
        _times(fields["created_at"], fields["last_accessed"]),
        (source or None, bool(fields["private"])),
        embedding or None,
    )


@functools.lru_cache(4096)
def _category(category: str) -> tuple[str, str]:
    """A category in JSON, and its tag."""
    return _quoted(category), tags.of_category(category)


def _packed(embedding: Sequence[float] | None) -> Sequence[float] | bytes | None:
    """The numbers of an embedding; a list's are read by the core, which needs no copy of it."""
    if embedding is None:
        return None
    _, embedding = unwrapped(embedding)
    return embedding if type(embedding) is list else vector(embedding)


def _times(created: datetime, accessed: datetime) -> tuple[int, int, tuple[str, str] | None]:
    """Times in microseconds; the core writes them as text, but for those that are more than a number."""
    if type(created) is type(accessed) is datetime and created.tzinfo is accessed.tzinfo is None:
        # As ``microseconds`` counts, for half of the cost.
        since, until = created - _EPOCH, accessed - _EPOCH
        return (
            (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds,
            (until.days * 86_400 + until.seconds) * 1_000_000 + until.microseconds,
            None,
        )
    return microseconds(created), microseconds(accessed), (created.isoformat(), accessed.isoformat())


def _metadata(given: dict[str, Any]) -> tuple[str, list[str]]:
    """The metadata in JSON, and its tags."""
    if not given:
        return "{}", []
    told: list[str] = []
    named: list[str] = []
    for key, value in given.items():  # as json.dumps does, which costs three times as much for what most are
        kind = type(value)
        if type(key) is not str or (kind is not str and kind is not int):
            break
        quoted, text = _quoted(key), _quoted(value) if kind is str else str(value)
        told.append(f"{quoted}: {text}")
        named += _of_quoted(quoted, text)
    else:
        return f"{{{', '.join(told)}}}", named
    text = json.dumps(given)
    plain = all(type(key) is str and type(value) in _PLAIN for key, value in given.items())
    return text, tags.of_metadata(given if plain else json.loads(text))


def _check_text(name: str, text: str, record_id: Any) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} of record {record_id!r} holds a lone surrogate at place {error.start}: it is not Unicode text, "
            'encode it with errors="replace" first'
        ) from None


class StoredRecord(MemoryRecord):
    """A record of the store. What few look at is made when somebody does: its vector becomes a list of numbers, which
    costs more than all the rest of a search. It is equal to a ``MemoryRecord`` of the same content, and told as one."""

    __slots__ = ("_packed",)

    def __getattr__(self, name: str) -> Any:
        found: Any
        if name == "embedding":
            found = self.__dict__["embedding"] = numbers(self._packed)
            return found
        if name == "__pydantic_fields_set__":
            found = set(_FIELDS)
        elif name in ("__pydantic_extra__", "__pydantic_private__"):
            found = None
        else:
            return super().__getattr__(name)  # type: ignore[misc]
        _set(self, name, found)
        return found

    def __eq__(self, other: object) -> bool:
        if type(other) not in (MemoryRecord, StoredRecord):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _FIELDS)

    __hash__ = None  # type: ignore[assignment]

    def __iter__(self) -> Any:
        self._unpack()
        return super().__iter__()

    def __copy__(self) -> StoredRecord:
        self._unpack()
        return super().__copy__()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> StoredRecord:
        self._unpack()
        return super().__deepcopy__(memo)

    def __reduce__(self) -> Any:
        return _constructed, ({name: getattr(self, name) for name in _FIELDS},)

    def __repr_name__(self) -> str:
        return "MemoryRecord"

    def _unpack(self) -> None:
        self.embedding  # noqa: B018


def _constructed(values: dict[str, Any]) -> MemoryRecord:
    return MemoryRecord.model_construct(**values)


_FIELDS = tuple(MemoryRecord.model_fields)
_new, _set = StoredRecord.__new__, object.__setattr__


def outgoing(found: Outgoing) -> MemoryRecord:
    """A record as the core tells it, its fields and its vector's bytes; it was validated when it was made."""
    values, packed = found
    record = _new(StoredRecord)
    _set(record, "__dict__", values)
    if packed is not None:
        _set(record, "_packed", packed)
    return record


def vector(embedding: Iterable[float]) -> bytes:
    """Numbers of 32 bits; one that does not fit becomes infinite, which the core refuses."""
    if type(embedding) is list:  # a fifth of what an array costs
        try:
            return _packer(len(embedding))(*embedding)
        except struct.error:
            pass  # the array tells what is wrong
    return (embedding if isinstance(embedding, array) else array("f", embedding)).tobytes()


@functools.lru_cache(16)
def _packer(length: int) -> Callable[..., bytes]:
    return struct.Struct(f"{length}f").pack


def numbers(embedding: bytes) -> list[float]:
    """The numbers of a stored vector."""
    found = array("f")
    found.frombytes(embedding)
    return found.tolist()


def moment(text: str) -> datetime:
    """A time as it was saved."""
    return datetime.fromisoformat(text.replace("Z", "+00:00") if text.endswith("Z") else text)


def now() -> datetime:
    """The time as CrewAI's records have it: in UTC, and without a zone."""
    return datetime.now(timezone.utc).replace(tzinfo=None)


def microseconds(time: datetime) -> int:
    """Since 1970; a time without a zone is taken for UTC, as CrewAI's are."""
    return (time - (_UTC_EPOCH if time.tzinfo else _EPOCH)) // _MICROSECOND


def wanted(
    prefix: str | None,
    categories: Sequence[str] | None = None,
    metadata: dict[str, Any] | None = None,
    visible_to: str | None = None,
    newer_than: datetime | None = None,
    older_than: datetime | None = None,
) -> tuple[Any, ...]:
    """A filter as the core takes it."""
    every, none = [], []
    for key, value in (metadata or {}).items():
        if value is None:  # as ``metadata.get(key) == None``
            none.append(tags.of_key(key))
        else:
            # A category is a text; what begins with "!" is no tag, so nothing has it.
            every.append(tags.of_value(key, value) or "!")
    times = tuple(None if time is None else microseconds(time) for time in (newer_than, older_than))
    return prefix, [tags.of_category(category) for category in categories or ()], every, none, visible_to, times
