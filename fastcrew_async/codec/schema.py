"""The fields of every document and their protobuf numbers, from which ``docs/fastcrew.proto`` is made.

A field is added under a new number, and raises the minor version; nothing is renamed, renumbered or given another kind
without a new major version.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

MAJOR = 1
MINOR = 0

EXTRA = 15
"""The number of ``extra``, which every record has: what the other fields cannot hold, by its name."""


class Field(NamedTuple):
    """A field: its kind is one of ``string int64 double bool Value map``, or the name of a record."""

    number: int
    name: str
    kind: str
    repeated: bool = False


RECORDS: dict[str, list[Field]] = {
    "Document": [
        Field(1, "major", "int64"),
        Field(2, "minor", "int64"),
        Field(3, "agent_message", "AgentMessage"),
        Field(4, "task_output", "TaskOutput"),
        Field(5, "crew_output", "CrewOutput"),
        Field(6, "event", "Event"),
        Field(7, "run_state", "RunState"),
        Field(8, "run_part", "RunPart"),
        Field(9, "value", "Value"),
    ],
    "AgentMessage": [
        Field(1, "id", "string"),
        Field(2, "sender", "string"),
        Field(3, "recipient", "string"),
        Field(4, "content", "Value"),
        Field(5, "timestamp", "string"),
        Field(6, "metadata", "map"),
    ],
    "TaskOutput": [
        Field(1, "description", "string"),
        Field(2, "name", "string"),
        Field(3, "expected_output", "string"),
        Field(4, "summary", "string"),
        Field(5, "raw", "string"),
        Field(6, "pydantic", "Model"),
        Field(7, "json_dict", "map"),
        Field(8, "agent", "string"),
        Field(9, "output_format", "string"),
        Field(10, "messages", "ChatMessage", True),
        Field(11, "tool_failures", "Value", True),
    ],
    "CrewOutput": [
        Field(1, "raw", "string"),
        Field(2, "pydantic", "Model"),
        Field(3, "json_dict", "map"),
        Field(4, "tasks_output", "TaskOutput", True),
        Field(5, "token_usage", "Usage"),
    ],
    "Model": [
        Field(1, "class_name", "string"),
        Field(2, "fields", "map"),
    ],
    "Usage": [
        Field(1, "total_tokens", "int64"),
        Field(2, "prompt_tokens", "int64"),
        Field(3, "cached_prompt_tokens", "int64"),
        Field(4, "completion_tokens", "int64"),
        Field(5, "reasoning_tokens", "int64"),
        Field(6, "cache_creation_tokens", "int64"),
        Field(7, "successful_requests", "int64"),
    ],
    "Event": [
        Field(1, "type", "string"),
        Field(2, "event_id", "string"),
        Field(3, "timestamp", "string"),
        Field(4, "source_fingerprint", "string"),
        Field(5, "source_type", "string"),
        Field(6, "fingerprint_metadata", "map"),
        Field(7, "task_id", "string"),
        Field(8, "task_name", "string"),
        Field(9, "agent_id", "string"),
        Field(10, "agent_role", "string"),
        Field(11, "parent_event_id", "string"),
        Field(12, "previous_event_id", "string"),
        Field(13, "triggered_by_event_id", "string"),
        Field(14, "started_event_id", "string"),
        Field(16, "emission_sequence", "int64"),
    ],
    "ChatMessage": [
        Field(1, "role", "string"),
        Field(2, "content", "string"),
        Field(3, "name", "string"),
        Field(4, "tool_call_id", "string"),
        Field(5, "tool_calls", "Value", True),
    ],
    "ToolCall": [
        Field(1, "id", "string"),
        Field(2, "name", "string"),
        Field(3, "arguments", "Value"),
        Field(4, "result", "Value"),
        Field(5, "error", "string"),
        Field(6, "seconds", "double"),
    ],
    "RunState": [
        Field(1, "id", "string"),
        Field(2, "crew", "string"),
        Field(3, "status", "string"),
        Field(4, "started_at", "string"),
        Field(5, "seconds", "double"),
        Field(6, "inputs", "map"),
        Field(7, "messages", "ChatMessage", True),
        Field(8, "tool_calls", "ToolCall", True),
        Field(9, "usage", "Usage"),
        Field(10, "outputs", "TaskOutput", True),
        Field(11, "events", "Event", True),
        Field(12, "error", "string"),
        Field(13, "metadata", "map"),
    ],
    "RunPart": [
        Field(1, "header", "RunState"),
        Field(2, "message", "ChatMessage"),
        Field(3, "tool_call", "ToolCall"),
        Field(4, "output", "TaskOutput"),
        Field(5, "event", "Event"),
        Field(6, "end", "RunEnd"),
    ],
    "RunEnd": [
        Field(1, "messages", "int64"),
        Field(2, "tool_calls", "int64"),
        Field(3, "outputs", "int64"),
        Field(4, "events", "int64"),
    ],
}

KINDS = tuple(field.name for field in RECORDS["Document"][2:])
"""What a document may be."""

DESCRIBED: list[tuple[str, list[tuple[int, str, str, bool]]]] = [(name, [*fields]) for name, fields in RECORDS.items()]
"""As the codec takes it."""

_HEAD = f"""\
// The documents of fastcrew-async, schema version {MAJOR}.{MINOR}. Made from fastcrew_async/codec/schema.py.
//
// A field that is missing has the default that docs/messages.md names. A field whose value has another type than it is
// declared with (a null, a list of parts where a text is usual, an empty list or map) is in `extra`, under its name.
syntax = "proto3";

package fastcrew;

// Any value. An empty one is null.
message Value {{
  oneof kind {{
    bool null = 1;  // true
    bool truth = 2;
    sint64 int = 3;
    bytes big_int = 4;  // beyond 64 bits: two's complement, the highest byte first
    double float = 5;
    string text = 6;
    bytes bytes = 7;
    string datetime = 8;  // as Python's datetime.isoformat() writes it
    List list = 9;
    Map map = 10;
  }}
}}

message List {{
  repeated Value items = 1;
}}

message Map {{
  map<string, Value> items = 1;
}}
"""


def proto() -> str:
    """The schema in protobuf's language."""
    return _HEAD + "".join(_message(name, fields) for name, fields in RECORDS.items())


def _message(name: str, fields: list[Field]) -> str:
    return f"\nmessage {name} {{\n" + "\n".join(_lines(fields)) + "\n}\n"


def _lines(fields: list[Field]) -> Iterator[str]:
    for number, name, kind, repeated in [*fields, Field(EXTRA, "extra", "map")]:
        if kind == "map":
            yield f"  map<string, Value> {name} = {number};"
        else:
            yield f"  {'repeated' if repeated else 'optional'} {kind} {name} = {number};"
