"""The kinds of documents, through every format."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests import crews  # noqa: F401  (imports CrewAI past its warnings)

# isort: split
from crewai.crews.crew_output import CrewOutput
from crewai.events.base_events import BaseEvent
from crewai.events.types.task_events import TaskCompletedEvent
from crewai.tasks.output_format import OutputFormat
from crewai.tasks.task_output import TaskOutput
from crewai.tools.tool_failure import ToolFailure, ToolFailureRecord
from crewai.types.usage_metrics import UsageMetrics

from fastcrew_async import AgentMessage, RunState, codec
from fastcrew_async.codec.crewai import Result
from fastcrew_async.errors import CodecError, DecodeError, EncodeError, SchemaVersionError
from fastcrew_async.messages import EPOCH, RunPart, calls_in

FORMATS: list[codec.Format] = ["json", "msgpack", "protobuf"]
RELEASED = Path(__file__).parent / "documents"
PROTO = Path(__file__).parents[2] / "docs" / "fastcrew.proto"


class Report(BaseModel):
    title: str
    pages: list[int] = []


SENT = datetime(2026, 1, 2, 3, 4, 5, 678901, timezone(timedelta(hours=2)))


def message() -> AgentMessage:
    return AgentMessage(
        id="m-1",
        sender="Writer",
        recipient="Editor",
        content="Tea needs time. ☕\x00",
        timestamp=SENT,
        metadata={"round": 3, "big": 2**80, "score": 0.5, "raw": b"\x00\xff", "at": SENT, "parts": [{"a": None}]},
    )


def task_output(**more: Any) -> TaskOutput:
    output = TaskOutput(
        description="Write about tea",
        name="write",
        expected_output="One sentence",
        raw="Tea needs time.",
        agent="Writer",
        pydantic=Report(title="Tea", pages=[1, 2]),
        json_dict={"title": "Tea"},
        output_format=OutputFormat.PYDANTIC,
        tool_failures=[ToolFailureRecord(tool_name="search", failure=ToolFailure(message="no network"))],
        **more,
    )
    call = {"id": "c1", "type": "function", "function": {"name": "search", "arguments": '{"q": "tea"}'}}
    output.messages = [
        {"role": "user", "content": "Write"},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning": "hm"},  # type: ignore[typeddict-unknown-key]
    ]
    return output


def run_state(messages: int = 3) -> RunState:
    return RunState(
        id="r-1",
        crew="tea",
        status="running",
        started_at=SENT,
        seconds=1.5,
        inputs={"topic": "tea", "count": 2},
        messages=[{"role": "user", "content": f"message {number}"} for number in range(messages)],
        tool_calls=[{"id": "c1", "name": "search", "arguments": {"q": "tea"}, "result": "found", "seconds": 0.25}],
        usage={"total_tokens": 12, "successful_requests": 1},
        outputs=[{"description": "Write", "agent": "Writer", "raw": "Tea"}],
        events=[{"type": "task_started", "task_id": "t1", "own": [1]}],
        error="none yet",
        metadata={"tenant": "a"},
    )


def made(document: Any) -> Any:
    """All that is in a document, as plain values."""
    return codec._codec.decode(codec.encode(document, "json"), "json", 100_000)


@pytest.mark.parametrize("format", FORMATS)
def test_a_message_comes_back(format: codec.Format) -> None:
    sent = message()
    data = getattr(sent, f"to_{format}")()
    assert data == codec.encode(sent, format)
    assert getattr(AgentMessage, f"from_{format}")(data) == sent
    assert codec.decode(data) == codec.decode(bytearray(data), format) == sent


def test_a_message_has_an_id_and_a_time() -> None:
    one, other = AgentMessage("a", "x"), AgentMessage("a", "x")
    assert one.id != other.id
    assert one.recipient is None
    assert one.timestamp.tzinfo is timezone.utc
    with pytest.raises(TypeError, match=r"sender=5 must be str, not int"):
        AgentMessage(5, "x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"metadata=\[\] must be dict"):
        AgentMessage("a", "x", metadata=[])  # type: ignore[arg-type]


@pytest.mark.parametrize("format", FORMATS)
def test_a_run_state_comes_back(format: codec.Format) -> None:
    assert codec.decode(codec.encode(run_state(40), format)) == run_state(40)
    assert getattr(RunState, f"from_{format}")(getattr(RunState(), f"to_{format}")()) == RunState()


@pytest.mark.parametrize("format", FORMATS)
def test_a_task_output_comes_back(format: codec.Format) -> None:
    output = task_output()
    read = codec.decode(codec.encode(output, format))
    assert type(read) is TaskOutput
    assert read.messages == output.messages
    assert read.tool_failures == output.tool_failures
    assert read.output_format is OutputFormat.PYDANTIC
    assert (read.raw, read.summary, read.json_dict) == (output.raw, output.summary, output.json_dict)
    assert isinstance(read.pydantic, Result)
    assert read.pydantic.class_name == f"{__name__}.Report"
    assert Report.model_validate(dict(read.pydantic)) == output.pydantic
    assert made(read) == made(output)


@pytest.mark.parametrize("format", FORMATS)
def test_a_crew_output_comes_back(format: codec.Format) -> None:
    output = CrewOutput(
        raw="Tea", tasks_output=[task_output(), task_output()], token_usage=UsageMetrics(total_tokens=7)
    )
    read = codec.decode(codec.encode(output, format))
    assert type(read) is CrewOutput
    assert read.token_usage == output.token_usage
    assert read.tasks_output[1].messages == output.tasks_output[1].messages
    assert made(read) == made(output)


@pytest.mark.parametrize("format", FORMATS)
def test_an_event_comes_back(format: codec.Format) -> None:
    event = TaskCompletedEvent(output=task_output(), task_name="write", emission_sequence=3)
    read = codec.decode(codec.encode(event, format))
    assert type(read) is TaskCompletedEvent
    assert (read.event_id, read.timestamp, read.emission_sequence) == (event.event_id, event.timestamp, 3)
    assert read.output.raw == "Tea needs time."
    assert made(read) == made(event)


@pytest.mark.parametrize("format", FORMATS)
def test_an_event_of_an_unknown_type_keeps_its_fields(format: codec.Format) -> None:
    whole = {"major": 1, "minor": 0, "event": {"type": "brewed", "event_id": "e", "cups": 3}}
    read = codec.decode(codec._codec.encode(whole, format, 1000))
    assert type(read) is BaseEvent
    assert codec.unknown(read).fields == {"cups": 3}
    assert codec.decode(codec.encode(read, format)).event_id == "e"
    assert codec.unknown(codec.decode(codec.encode(read, format))).fields == {"cups": 3}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("value", [None, 1, "tea", [1, {"a": b"b"}], {"major": 7}])
def test_a_plain_value_is_a_document(format: codec.Format, value: Any) -> None:
    assert codec.decode(codec.encode(value, format)) == value


def _documents() -> list[Any]:
    return [message(), run_state(), RunPart("message", {"role": "user", "content": "x"}), task_output(), CrewOutput()]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("document", _documents(), ids=lambda document: type(document).__name__)
def test_unknown_fields_survive(format: codec.Format, document: Any) -> None:
    whole = codec._codec.decode(codec.encode(document, format), format, 100_000)
    (kind,) = (name for name in whole if name not in {"major", "minor"})
    later = {"mood": "calm", "parts": [1, {"deep": b"x"}], "none": None}
    whole[kind].update(later)
    whole.update(minor=9, trace="t-1")
    read = codec.decode(codec._codec.encode(whole, format, 100_000))
    assert codec.unknown(read) == (later, {"trace": "t-1"})
    again = codec._codec.decode(codec.encode(read, format), format, 100_000)
    assert again == {**whole, "minor": 0}


def test_unknown_protobuf_numbers_survive() -> None:
    body = b"\x12\x01s" + b"\xa2\x06\x03abc"
    data = b"\x08\x01\x10\x00\x1a" + bytes([len(body)]) + body + b"\xa0\x06\x07"
    read = AgentMessage.from_protobuf(data)
    assert (read.sender, codec.unknown(read)) == (
        "s",
        ({"$protobuf": b"\xa2\x06\x03abc"}, {"$protobuf": b"\xa0\x06\x07"}),
    )
    for through in (read, AgentMessage.from_json(read.to_json()), AgentMessage.from_msgpack(read.to_msgpack())):
        written = through.to_protobuf()
        assert b"\xa2\x06\x03abc" in written
        assert written.endswith(b"\xa0\x06\x07")


@pytest.mark.parametrize("format", FORMATS)
def test_missing_fields_have_their_defaults(format: codec.Format) -> None:
    def read(kind: str) -> Any:
        return codec.decode(codec._codec.encode({"major": 1, kind: {}}, format, 1000))

    sent = read("agent_message")
    assert (sent.id, sent.sender, sent.recipient, sent.content, sent.timestamp, sent.metadata) == (
        "",
        "",
        None,
        "",
        EPOCH,
        {},
    )
    assert read("run_state") == RunState()
    task, crew = read("task_output"), read("crew_output")
    assert (task.description, task.agent, task.raw, task.messages) == ("", "", "", [])
    assert task.output_format is OutputFormat.RAW
    assert (crew.raw, crew.tasks_output, crew.token_usage) == ("", [], UsageMetrics())
    assert read("event").type == ""


@pytest.mark.parametrize("format", FORMATS)
def test_a_newer_major_is_refused_with_both_versions(format: codec.Format) -> None:
    data = codec._codec.encode({"major": 2, "minor": 5, "agent_message": {}}, format, 1000)
    with pytest.raises(SchemaVersionError, match=r"version 2\.5, and this release .* reads 1\.x \(its own is 1\.0\)"):
        codec.decode(data)
    with pytest.raises(SchemaVersionError, match="older than any release"):
        codec.decode(codec._codec.encode({"major": 0, "agent_message": {}}, format, 1000))


@pytest.mark.parametrize(
    ("whole", "text"),
    [
        ({}, "names no schema version"),
        ({"major": "1"}, "names no schema version"),
        ({"major": 1}, "must have one of agent_message, .* and has nothing"),
        ({"major": 1, "recipe": {}}, "must have one of .* and has recipe"),
        ({"major": 1, "event": {}, "value": 1}, "must have one of .* and has event, value"),
        ({"major": 1, "agent_message": 5}, "agent_message must be a map, not int"),
        ({"major": 1, "agent_message": {"id": 5}}, r"agent_message\.id must be str, not int"),
        ({"major": 1, "agent_message": {"timestamp": "now"}}, r"timestamp is 'now', which is no ISO 8601"),
        ({"major": 1, "run_state": {"messages": {}}}, r"run_state\.messages must be list, not dict"),
        ({"major": 1, "run_state": {"seconds": True}}, r"run_state\.seconds must be a number, not bool"),
        ({"major": 1, "run_part": {"lid": 1}}, "a part of a run that this release does not know: lid"),
        ({"major": 1, "task_output": {"raw": 5}}, r"task_output\.raw: Input should be a valid string"),
        ({"major": 1, "task_output": {"messages": [5]}}, "messages must be a list of maps"),
        ({"major": 1, "task_output": {"pydantic": 5}}, "pydantic must be a map"),
        ({"major": 1, "crew_output": {"tasks_output": [5]}}, "tasks_output must be a list of maps"),
        ({"major": 1, "event": {"timestamp": "x"}}, r"event\.timestamp: Input should be a valid datetime"),
    ],
)
@pytest.mark.parametrize("format", FORMATS)
def test_what_is_no_such_document_is_refused(format: codec.Format, whole: Any, text: str) -> None:
    with pytest.raises(CodecError, match=text):
        codec.decode(codec._codec.encode(whole, format, 1000), format)


def test_what_is_no_document_is_refused() -> None:
    with pytest.raises(EncodeError, match="object is no document; use an AgentMessage"):
        codec.encode(object())
    with pytest.raises(EncodeError, match=r"agent_message\.metadata\.tags: set cannot be written; use None"):
        AgentMessage("a", "x", metadata={"tags": {1}}).to_json()
    with pytest.raises(DecodeError, match="these bytes begin as none of JSON, MessagePack and protobuf"):
        codec.decode(b"\xffabc")
    with pytest.raises(TypeError, match=r"a document is bytes, not str; text\.encode\(\) makes them"):
        codec.decode('{"major": 1}')  # type: ignore[arg-type]
    with pytest.raises(DecodeError, match=r"of kind value, not a AgentMessage; codec\.decode reads any kind"):
        AgentMessage.from_json(codec.encode(5))
    with pytest.raises(EncodeError, match="no part of the name 'lid'"):
        codec.encode(RunPart("lid", {}))


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)),
        ("2026-01-02T03:04:05.5Z", datetime(2026, 1, 2, 3, 4, 5, 500_000, timezone.utc)),
        ("2026-01-02T03:04:05.123456000+00:00", datetime(2026, 1, 2, 3, 4, 5, 123456, timezone.utc)),
        ("2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5)),
    ],
)
def test_times_of_other_writers_are_read(text: str, time: datetime) -> None:
    data = codec._codec.encode({"major": 1, "agent_message": {"timestamp": text}}, "json", 1000)
    assert AgentMessage.from_json(data).timestamp == time


def test_calls_are_found_in_messages_with_their_results() -> None:
    messages = [
        *task_output().messages,
        {"role": "tool", "tool_call_id": "c1", "content": "found"},
        {"role": "assistant", "tool_calls": [{"id": "c2"}]},
        {"role": "assistant", "tool_calls": [{"id": "c1"}]},  # of another agent: some providers only count
        {"role": "tool", "tool_call_id": "c1", "content": "found more"},
    ]
    assert calls_in(messages) == [  # type: ignore[arg-type]
        {"id": "c1", "name": "search", "arguments": '{"q": "tea"}', "result": "found"},
        {"id": "c2", "name": None, "arguments": None},
        {"id": "c1", "name": None, "arguments": None, "result": "found more"},
    ]


def test_the_published_schema_is_the_one_in_use() -> None:
    assert PROTO.read_text() == codec.proto(), f"write codec.proto() to {PROTO.name}"


RELEASED_FILES = sorted(RELEASED.glob("*/*.*"))


@pytest.mark.parametrize("file", RELEASED_FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_documents_of_every_version_are_read(file: Path) -> None:
    expected = {
        "agent_message": message(),
        "run_state": run_state(),
        "run_part": RunPart("message", {"role": "user", "content": "x"}),
        "task_output": task_output(),
        "crew_output": CrewOutput(raw="Tea", tasks_output=[task_output()], token_usage=UsageMetrics(total_tokens=7)),
        "event": TaskCompletedEvent(
            output=TaskOutput(description="d", agent="a", raw="r"), event_id="e-1", timestamp=SENT, task_name="write"
        ),
        "value": [None, True, -1, 2**64, 0.5, float("inf"), "é", b"\xff", SENT, {"$bytes": 1}],
    }[file.stem]
    format: Any = {"json": "json", "msgpack": "msgpack", "pb": "protobuf"}[file.suffix[1:]]
    read = codec.decode(file.read_bytes(), format)
    assert codec.decode(file.read_bytes()) is not None
    assert type(read) is type(expected)
    assert made(read) == made(expected)


def test_there_is_a_document_of_this_version_in_each_format() -> None:
    from fastcrew_async.codec.schema import KINDS, MAJOR, MINOR

    here = {file.name for file in (RELEASED / f"{MAJOR}.{MINOR}").iterdir()}
    assert here == {f"{kind}.{suffix}" for kind in KINDS for suffix in ("json", "msgpack", "pb")}


def test_messages_do_without_crewai() -> None:
    code = """
import sys
from fastcrew_async import AgentMessage, RunState, codec
assert AgentMessage.from_json(AgentMessage("a", "x").to_json()).content == "x"
assert codec.decode(RunState(id="r").to_protobuf()).id == "r"
assert "crewai" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_google_reads_and_writes_the_same() -> None:
    """With Google's own protobuf, which CrewAI's environment has."""
    google = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    from fastcrew_async.codec.schema import EXTRA, RECORDS

    file = google.FileDescriptorProto(name="fastcrew.proto", package="fastcrew", syntax="proto3")
    types = {"int64": 3, "double": 1, "bool": 8, "string": 9, "sint64": 18, "bytes": 12}

    def add(into: Any, number: int, name: str, kind: str, repeated: bool = False) -> None:
        if kind == "map":
            entry = into.nested_type.add(name=name.title().replace("_", "") + "Entry")
            entry.options.map_entry = True
            entry.field.add(name="key", number=1, type=9, label=1)
            entry.field.add(name="value", number=2, type=11, label=1, type_name=".fastcrew.Value")
            into.field.add(name=name, number=number, type=11, label=3, type_name=f".fastcrew.{into.name}.{entry.name}")
        elif kind in types:
            into.field.add(name=name, number=number, type=types[kind], label=3 if repeated else 1)
        else:
            into.field.add(name=name, number=number, type=11, label=3 if repeated else 1, type_name=f".fastcrew.{kind}")

    value = file.message_type.add(name="Value")
    parts = ["bool", "bool", "sint64", "bytes", "double", "string", "bytes", "string", "List", "Map"]
    names = ["null", "truth", "int", "big_int", "float", "text", "bytes", "datetime", "list", "map"]
    value.oneof_decl.add(name="kind")
    for number, (name, kind) in enumerate(zip(names, parts, strict=True), 1):
        add(value, number, name, kind)
        value.field[-1].oneof_index = 0
    add(file.message_type.add(name="List"), 1, "items", "Value", True)
    add(file.message_type.add(name="Map"), 1, "items", "map")
    for record, fields in RECORDS.items():
        own = file.message_type.add(name=record)
        for field in (*fields, (EXTRA, "extra", "map", False)):
            add(own, *field)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    Document = message_factory.GetMessageClass(pool.FindMessageTypeByName("fastcrew.Document"))
    theirs = Document.FromString(message().to_protobuf())
    assert theirs.agent_message.sender == "Writer"
    assert theirs.agent_message.content.text == "Tea needs time. ☕\x00"
    assert theirs.agent_message.metadata["round"].int == 3
    assert codec.decode(theirs.SerializeToString(), "protobuf") == message()
    state = Document.FromString(run_state(40).to_protobuf())
    assert [said.content for said in state.run_state.messages][-1] == "message 39"
    assert state.run_state.usage.total_tokens == 12
    assert codec.decode(state.SerializeToString(), "protobuf") == run_state(40)
    task = Document.FromString(codec.encode(task_output(), "protobuf"))
    assert made(codec.decode(task.SerializeToString(), "protobuf")) == made(task_output())
