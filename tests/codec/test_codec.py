"""The codec's contract, on the compiled core and on its Python twin."""

from __future__ import annotations

import json
import math
import random
from contextlib import suppress
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcrew_async._fallback.codec import Codec as InPython
from fastcrew_async.codec.schema import DESCRIBED
from fastcrew_async.errors import DecodeError, EncodeError

FORMATS = ["json", "msgpack", "protobuf"]
BOUND = 1 << 26


@pytest.fixture
def codec(backend: Any) -> Any:
    return backend.Codec(DESCRIBED)


def around(value: Any) -> dict[str, Any]:
    return {"major": 1, "minor": 0, "value": value}


def deep(levels: int, inner: Any = 1) -> Any:
    for level in range(levels):
        inner = [inner] if level % 2 else {"a": inner}
    return inner


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types, with NaN equal to itself."""
    return repr(one) == repr(other)


FAITHFUL = {
    "null": None,
    "bools": [True, False],
    "ints": [0, 1, -1, 127, 128, -32, -33, -128, -129, 255, 256, 2**15, -(2**15) - 1, 2**31, 2**32, 2**53 + 1],
    "64 bits": [2**63 - 1, -(2**63), 2**63, 2**64 - 1, -(2**63) - 1, 2**64],
    "beyond": [10**1000, -(10**1000), 2**4095 - 1, -(2**4095) + 1],
    "floats": [0.0, -0.0, 1.5, 1e16, 1e-5, 5e-324, 1.7976931348623157e308, 0.1 + 0.2],
    "no numbers": [math.nan, math.inf, -math.inf],
    "texts": ["", "é", "\x00", "\x1f\x7f", '"\\/\b\f\n\r\t', "😀", "\u2028", "a" * 31, "a" * 32, "a" * 70_000],
    "bytes": [b"", b"\x00\xff", b"a" * 70_000],
    "keys": {"": 1, "é\x00": 2, "a" * 300: 3},
    "times": [
        datetime(2026, 1, 2, 3, 4, 5),
        datetime(2026, 1, 2, 3, 4, 5, 6, timezone.utc),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=-11, minutes=-30))),
        datetime(9999, 12, 31, 23, 59, 59, 999999, timezone(timedelta(hours=1, seconds=2, microseconds=3))),
    ],
    "tags": [{"$bytes": 1}, {"$bytes": "YQ=="}, {"$$float": "nan"}, {"$datetime": 1, "b": 2}, {"$ref": "#/x"}],
    "empty": [[], {}, [[]], [{}], {"a": {}}],
    "wide": [[None] * 66_000, dict.fromkeys(map(str, range(66_000)))],
    "deep": deep(99),
    "deep bytes": deep(99, b"x"),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", FAITHFUL)
def test_what_is_written_reads_back(codec: Any, format: str, name: str) -> None:
    document = around(FAITHFUL[name])
    data = codec.encode(document, format, BOUND)
    assert same(codec.decode(data, format, BOUND), document)
    assert data == InPython(DESCRIBED).encode(document, format, BOUND)


class Text(str): ...


class Numbers(list): ...  # type: ignore[type-arg]


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_derived_from_a_plain_type_comes_back_as_that(codec: Any, format: str) -> None:
    data = codec.encode(around([Text("a"), Numbers([1]), (1, (2,)), {Text("k"): 1}]), format, BOUND)
    assert same(codec.decode(data, format, BOUND)["value"], ["a", [1], [1, [2]], {"k": 1}])


REFUSED: list[tuple[str, Any, str]] = [
    ("half a pair", {"a": ["\ud800"]}, r"value\.a\[0\]: half a surrogate pair at index 0 has no UTF-8; replace it"),
    ("half a pair in a key", {"a\udfff": 1}, r"value: half a surrogate pair at index 1"),
    ("a key that is no text", {"a": {1: 2}}, r"value\.a: a key is int; use a str"),
    ("a set", [{1}], r"value\[0\]: set cannot be written; use None, bool"),
    ("an object", {"a": object()}, r"value\.a: object cannot be written"),
    ("too wide a number", 2**4095, r"value: an integer of 4096 bits cannot be written; the most is 4095"),
    ("too deep", deep(100), "nested deeper than 100 levels; flatten it"),
]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("value", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_cannot_be_written_is_refused_by_name(codec: Any, format: str, value: Any, message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        codec.encode(around(value), format, BOUND)


@pytest.mark.parametrize("format", FORMATS)
def test_a_document_that_contains_itself_is_refused(codec: Any, format: str) -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(EncodeError, match="see that it does not contain itself"):
        codec.encode(around(value), format, BOUND)


@pytest.mark.parametrize("format", FORMATS)
def test_code_that_runs_meanwhile_may_change_the_document(codec: Any, format: str) -> None:
    inner: dict[str, Any] = {"a": 1}
    outer: dict[str, Any] = {"inner": inner}

    class Zone(tzinfo):
        def utcoffset(self, when: Any) -> timedelta:
            outer.clear()
            inner.clear()
            inner.update({str(number): bytearray(9) for number in range(100)})
            return timedelta()

    inner.update({"at": datetime(2026, 1, 1, tzinfo=Zone()), "b": ["x"] * 10})
    outer["more"] = ["y"] * 10
    with suppress(EncodeError):
        codec.encode(around(outer), format, BOUND)
    assert outer == {}


@pytest.mark.parametrize("format", FORMATS)
def test_sizes_are_bounded_both_ways(codec: Any, format: str) -> None:
    data = codec.encode(around("x" * 1000), format, BOUND)
    assert codec.encode(around("x" * 1000), format, len(data)) == data
    for value in ("x" * 1000, b"x" * 1000, ["x"] * 1000, {"x" * 1000: 1}):
        with pytest.raises(EncodeError, match="larger than max_bytes=900; raise it, or write the document in frames"):
            codec.encode(around(value), format, 900)
    with pytest.raises(DecodeError, match=f"has {len(data)} bytes, more than max_bytes=900, at byte 900"):
        codec.decode(data, format, 900)


def test_ten_megabytes(codec: Any) -> None:
    text = "é\n" * 1000 + "tea " * 2_500_000
    for format in FORMATS:
        assert codec.decode(codec.encode(around(text), format, BOUND), format, BOUND)["value"] == text


BAD: list[tuple[str, bytes, int, str]] = [
    ("json", b"", 0, "the document ends too early"),
    ("json", b'{"a":1', 6, "the document ends too early"),
    ("json", b'{"a":1}x', 7, "something follows"),
    ("json", b'{"a":1,}', 7, "expected a key in quotes"),
    ("json", b"[1,]", 3, "expected a value"),
    ("json", b"[1 2]", 3, "expected ',' or ']'"),
    ("json", b'{"a" 1}', 5, "expected ':'"),
    ("json", b'{"a":1 "b"', 7, "expected ',' or '}'"),
    ("json", b"[NaN]", 1, "expected a value"),
    ("json", b"[Infinity]", 1, "expected a value"),
    ("json", b"[01]", 1, "does not begin with 0"),
    ("json", b"[-]", 2, "expected a digit"),
    ("json", b"[1.]", 3, "expected a digit"),
    ("json", b"[1e999]", 1, "the number is too large"),
    ("json", b"[" + b"9" * 1300 + b"]", 1, "the number is too large"),
    ("json", b"[" + b"9" * 1236 + b"]", 1, "the number is too large"),
    ("json", b'["a\nb"]', 3, "a control character must be escaped"),
    ("json", b'["\\x"]', 2, "there is no such escape"),
    ("json", b'["\\ud800"]', 2, "half a surrogate pair has no UTF-8"),
    ("json", b'["\\ud800\\u0041"]', 2, "half a surrogate pair has no UTF-8"),
    ("json", b'["\\udc00"]', 2, "half a surrogate pair has no UTF-8"),
    ("json", b'["abc\xff"]', 5, "not UTF-8"),
    ("json", b'["\\n\xed\xa0\x80"]', 4, "not UTF-8"),
    ("json", b'{"a":1,"a":2}', 0, "a key is there twice"),
    ("json", b'[{"$bytes":"*"}]', 11, "not base64"),
    ("json", b'[{"$bytes":5}]', 11, "a tag needs a text"),
    ("json", b'[{"$float":"1"}]', 11, "is one of nan, inf, -inf"),
    ("json", b'[{"$datetime":"2026-02-30T00:00:00"}]', 14, "no date and time"),
    ("json", b"[" * 101, 100, "nested deeper than 100 levels"),
    ("json", b'{"a":' * 101, 500, "nested deeper than 100 levels"),
    ("json", b"[" * 1_000_000, 100, "nested deeper than 100 levels"),
    ("msgpack", b"", 0, "the document ends too early"),
    ("msgpack", b"\xdd\xff\xff\xff\xff", 5, "the document ends too early"),
    ("msgpack", b"\xc6\xff\xff\xff\xff", 5, "the document ends too early"),
    ("msgpack", b"\xc1", 0, "expected a value"),
    ("msgpack", b"\x81\x01\x01", 1, "a key must be a text"),
    ("msgpack", b"\x82\xa1a\x01\xa1a\x01", 0, "a key is there twice"),
    ("msgpack", b"\xa3a\xffb", 2, "not UTF-8"),
    ("msgpack", b"\xd6\xff\x00\x00\x00\x00", 0, "extension -1 is not known here"),
    ("msgpack", b"\xc7\x00\x01", 0, "the number is too large"),
    ("msgpack", b"\xc7\x03\x02abc", 0, "no date and time"),
    ("msgpack", b"\x91" * 101, 100, "nested deeper than 100 levels"),
    ("msgpack", b"\x01\x01", 1, "something follows"),
    ("protobuf", b"\x08", 1, "the document ends too early"),
    ("protobuf", b"\x08\x01\x08\x01", 2, "field 1 is there twice"),
    ("protobuf", b"\x0a\x01a", 1, "field 1 has wire type 2 in place of 0"),
    ("protobuf", b"\x08" + b"\xff" * 10, 1, "a varint has 64 bits at most"),
    ("protobuf", b"\x00", 0, "no such field number"),
    ("protobuf", b"\x4a\x05\x32\x03abc"[:5], 1, "a length goes beyond what holds it"),
    ("protobuf", b"\x4a\x05\x32\x03a\xffb", 5, "not UTF-8"),
    ("protobuf", b"\x4a\x02\x58\x01", 2, "a Value has no such field"),
    ("protobuf", b"\x4a\x04\x10\x01\x18\x01", 4, "a Value holds one thing"),
    ("protobuf", b"\xa3\x06", 2, "wire type 3 is not known here"),
]


@pytest.mark.parametrize(("format", "data", "offset", "message"), BAD, ids=range(len(BAD)))
def test_what_is_no_document_is_refused_at_its_byte(
    codec: Any, format: str, data: bytes, offset: int, message: str
) -> None:
    with pytest.raises(DecodeError, match=message) as caught:
        codec.decode(data, format, BOUND)
    assert caught.value.offset == offset
    assert str(caught.value).endswith(f", at byte {offset}")


def test_an_unknown_format_is_named(codec: Any) -> None:
    for call in (lambda: codec.encode({}, "xml", 10), lambda: codec.decode(b"", "xml", 10)):
        with pytest.raises(ValueError, match='format="xml" is not known; use json, msgpack or protobuf'):
            call()


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ([], "one record at least"),
        ([("A", [(1, "a", "B", False)])], r'A\.a: there is no kind "B"'),
        ([("A", [(15, "a", "bool", False)])], r"A\.a: number 15 cannot be used"),
    ],
)
def test_a_wrong_schema_is_refused(backend: Any, schema: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        backend.Codec(schema)


def test_what_others_write_is_read(codec: Any) -> None:
    text = json.dumps({"major": 1, "value": ["é", "😀", 1.0, 1e3, -1, {"a": [True, None]}]}, indent=1)
    assert codec.decode(text.encode(), "json", BOUND)["value"] == ["é", "😀", 1.0, 1e3, -1, {"a": [True, None]}]
    wide = b"\xdf\x00\x00\x00\x01\xdb\x00\x00\x00\x01a\xdd\x00\x00\x00\x02\xca\x3f\x80\x00\x00\xd3" + b"\xff" * 8
    assert codec.decode(wide, "msgpack", BOUND) == {"a": [1.0, -1]}
    in_any_order = b"\x10\x00\x08\x01\x4a\x00"
    assert codec.decode(in_any_order, "protobuf", BOUND) == {"minor": 0, "major": 1, "value": None}


def test_unknown_protobuf_fields_are_kept(codec: Any) -> None:
    unknown = b"\xa0\x06\x05" + b"\xaa\x06\x03abc" + b"\xb5\x06\x00\x00\x00\x00" + b"\xb9\x06" + b"\x00" * 8
    data = b"\x08\x01\x10\x00\x1a\x03\x12\x01s" + unknown
    document = codec.decode(data, "protobuf", BOUND)
    assert document == {"major": 1, "minor": 0, "agent_message": {"sender": "s"}, "$protobuf": unknown}
    assert codec.encode(document, "protobuf", BOUND) == data
    through = codec.decode(codec.encode(document, "json", BOUND), "json", BOUND)
    assert codec.encode(through, "protobuf", BOUND) == data


@pytest.mark.parametrize("kept", [b"", b"\x08\x02", b"\xa0", "text", b"\x7a\x00"])
def test_what_only_claims_to_be_unknown_fields_is_a_value(codec: Any, kept: Any) -> None:
    document = {"major": 1, "$protobuf": kept}
    assert codec.decode(codec.encode(document, "protobuf", BOUND), "protobuf", BOUND) == document


ODD = {
    "id": 5,
    "sender": None,
    "recipient": ["a"],
    "metadata": {},
    "later": [1, {"a": b"b"}],
    "extra": {"extra": 1},
}


@pytest.mark.parametrize("format", FORMATS)
def test_a_field_of_another_type_is_kept(codec: Any, format: str) -> None:
    task = {"messages": [{"role": "user", "content": None}, 5], "tool_failures": [], "raw": 1.5, "json_dict": {}}
    document = {"major": 1, "minor": 2.5, "agent_message": ODD, "task_output": task, "run_state": 7}
    assert codec.decode(codec.encode(document, format, BOUND), format, BOUND) == document


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**130), 2**130)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(timezone.utc)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.sampled_from(["$bytes", "$$float"]), inner, max_size=3)
    ),
    max_leaves=12,
)
documents = st.dictionaries(
    st.sampled_from([str(field[1]) for field in DESCRIBED[0][1]]), plain, max_size=4
) | st.fixed_dictionaries(
    {"agent_message": st.dictionaries(st.sampled_from(["id", "sender", "content", "metadata", "other"]), plain)}
)


@given(documents, st.sampled_from(FORMATS))
def test_both_write_the_same_and_read_it_back(document: Any, format: str) -> None:
    core = pytest.importorskip("fastcrew_async._core", reason="the compiled core is not built here")
    data = core.Codec(DESCRIBED).encode(document, format, BOUND)
    assert data == InPython(DESCRIBED).encode(document, format, BOUND)
    assert core.Codec(DESCRIBED).decode(data, format, BOUND) == document
    assert InPython(DESCRIBED).decode(data, format, BOUND) == document


def outcome(codec: Any, data: bytes, format: str) -> tuple[str, str]:
    try:
        return "read", repr(codec.decode(data, format, BOUND))
    except DecodeError as error:
        return "refused", str(error)


@pytest.mark.parametrize("format", FORMATS)
def test_both_read_and_refuse_the_same(format: str) -> None:
    core = pytest.importorskip("fastcrew_async._core", reason="the compiled core is not built here")
    compiled, twin = core.Codec(DESCRIBED), InPython(DESCRIBED)
    chance = random.Random(7)
    value = {name: FAITHFUL[name] for name in ("bools", "64 bits", "floats", "no numbers", "times", "tags", "empty")}
    document = {"major": 1, "agent_message": {**ODD, "metadata": value}, "value": ["é\n", b"ab", {"k": "v"}]}
    whole = compiled.encode(document, format, BOUND)
    for _ in range(1000):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(data))
            change = chance.randrange(4)
            if change == 0:
                data[at] = chance.randrange(256)
            elif change == 1:
                del data[at : at + chance.randrange(5)]
            elif change == 2:
                data[at:at] = chance.randbytes(chance.randrange(4))
            else:
                start = chance.randrange(len(data))
                data[at:at] = data[start : start + chance.randrange(20)]
        assert outcome(compiled, bytes(data), format) == outcome(twin, bytes(data), format)


def test_frames_are_cut_wherever_the_pieces_end(backend: Any) -> None:
    contents = [b"", b"a", b"b" * 127, b"c" * 128, b"", b"d" * 20_000, b"e"]
    lengths = [b"\0", b"\1", b"\x7f", b"\x80\1", b"\0", b"\xa0\x9c\1", b"\1"]
    stream = b"".join(length + content for length, content in zip(lengths, contents, strict=True))
    for size in (1, 2, 3, 129, 1000, len(stream)):
        splitter = backend.FrameSplitter(20_000)
        found = [frame for at in range(0, len(stream), size) for frame in splitter.feed(stream[at : at + size])]
        assert found == contents
        assert splitter.waiting == 0
        splitter.end()


@pytest.mark.parametrize(
    ("data", "offset", "message"),
    [
        (b"\x01a\x65", 2, "a frame of 101 bytes is larger than max_frame=100"),
        (b"\xff" * 5, 0, "this is not the length of a frame"),
        (b"\x02a", 2, "the stream ends within a frame"),
        (b"\x01a\x82", 3, "the stream ends within a frame"),
    ],
)
def test_frames_that_are_too_long_or_too_short(backend: Any, data: bytes, offset: int, message: str) -> None:
    for size in (1, len(data)):
        splitter = backend.FrameSplitter(100)
        with pytest.raises(DecodeError, match=message) as caught:  # noqa: PT012
            for at in range(0, len(data), size):
                splitter.feed(data[at : at + size])
            splitter.end()
        assert caught.value.offset == offset
