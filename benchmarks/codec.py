"""Encode and decode of a 40-message run state, beside pydantic, json and msgspec in the same process, on the same data.

    python benchmarks/codec.py [--megabytes 200]

First a run state of 200 MB is written to a file and read back in frames, each message as it comes: how much the
resident memory grew at most, and how long the loop stood. Then, of each contestant, the best of several rounds, all of
them in turn in each round, in microseconds. pydantic has models for the state, its messages and its calls, as CrewAI
has, and once more plain dicts inside one model; msgspec has structs, and once more dicts. msgspec is in the extra
`dev`; without it its lines are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel, TypeAdapter

from fastcrew_async import RunState, codec
from fastcrew_async.messages import RunPart

try:
    import msgspec
except ImportError:
    msgspec = None  # type: ignore[assignment]

WORDS = [
    "the",
    "tea",
    "needs",
    "time",
    "and",
    "water",
    "near",
    "ninety",
    "degrees",
    "while",
    "leaves",
    "open",
    "slowly",
    "search",
    "result",
    "says",
    "that",
    "green",
    "oolong",
    "black",
    "white",
    "differ",
    '"quoted"',
    "in",
    "oxidation\n-",
    "item",
    "one\n-",
    "item",
    "two",
    "café",
    "naïve",
    "茶",
    "temperature",
]


def text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choice(WORDS) for _ in range(words))


def state_of(messages: int, seed: int = 1) -> dict[str, Any]:
    """A run of two tasks with function calls: every fourth message calls a tool, the next one is its result."""
    chance = random.Random(seed)
    said: list[dict[str, Any]] = [{"role": "system", "content": text(chance, 150)}]
    calls: list[dict[str, Any]] = []
    while len(said) < messages:
        number = len(said)
        if number % 4 == 1:
            said.append({"role": "user", "content": text(chance, 80)})
        elif number % 4 == 2:
            arguments = {"query": text(chance, 6), "limit": number, "exact": False, "weights": [0.25, 0.5, number / 7]}
            call = {"id": f"call_{number:08x}", "name": "search", "arguments": arguments, "seconds": 0.125 * number}
            calls.append({**call, "result": text(chance, 60)})
            function = {"name": "search", "arguments": json.dumps(arguments)}
            tool_calls = [{"id": call["id"], "type": "function", "function": function}]
            said.append({"role": "assistant", "content": "", "tool_calls": tool_calls})
        elif number % 4 == 3:
            said.append(
                {"role": "tool", "tool_call_id": calls[-1]["id"], "name": "search", "content": text(chance, 120)}
            )
        else:
            said.append({"role": "assistant", "content": text(chance, 140)})
    task = {"description": text(chance, 40), "expected_output": "a report", "agent": "Writer", "output_format": "raw"}
    return {
        "id": "7c0f9a52-5a3e-4d6b-9f57-0f6b1f6f2d11",
        "crew": "tea",
        "status": "running",
        "started_at": "2026-01-02T03:04:05.678901+00:00",
        "seconds": 12.75,
        "inputs": {"topic": "tea", "year": 2026},
        "messages": said,
        "tool_calls": calls,
        "usage": {"total_tokens": 48211, "prompt_tokens": 40102, "completion_tokens": 8109, "successful_requests": 21},
        "outputs": [{**task, "raw": text(chance, 200)}, {**task, "raw": text(chance, 200)}],
        "metadata": {"tenant": "a", "attempt": 1},
    }


class PydanticMessage(BaseModel):
    role: str
    content: str | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class PydanticCall(BaseModel):
    id: str
    name: str
    arguments: dict[str, Any]
    result: str
    seconds: float


class PydanticTask(BaseModel):
    description: str
    expected_output: str
    agent: str
    output_format: str
    raw: str


class PydanticRun(BaseModel):
    id: str
    crew: str
    status: str
    started_at: datetime
    seconds: float
    inputs: dict[str, Any]
    messages: list[PydanticMessage]
    tool_calls: list[PydanticCall]
    usage: dict[str, int]
    outputs: list[PydanticTask]
    metadata: dict[str, Any]


class PydanticPlain(BaseModel):
    id: str
    crew: str
    status: str
    started_at: datetime
    seconds: float
    inputs: dict[str, Any]
    messages: list[dict[str, Any]]
    tool_calls: list[dict[str, Any]]
    usage: dict[str, int]
    outputs: list[dict[str, Any]]
    metadata: dict[str, Any]


if msgspec is not None:

    class StructMessage(msgspec.Struct, omit_defaults=True):
        role: str
        content: str | None = None
        name: str | None = None
        tool_call_id: str | None = None
        tool_calls: list[dict[str, Any]] | None = None

    class StructCall(msgspec.Struct):
        id: str
        name: str
        arguments: dict[str, Any]
        result: str
        seconds: float

    class StructTask(msgspec.Struct):
        description: str
        expected_output: str
        agent: str
        output_format: str
        raw: str

    class StructRun(msgspec.Struct):
        id: str
        crew: str
        status: str
        started_at: datetime
        seconds: float
        inputs: dict[str, Any]
        messages: list[StructMessage]
        tool_calls: list[StructCall]
        usage: dict[str, int]
        outputs: list[StructTask]
        metadata: dict[str, Any]

    class StructPlain(msgspec.Struct):
        id: str
        crew: str
        status: str
        started_at: datetime
        seconds: float
        inputs: dict[str, Any]
        messages: list[dict[str, Any]]
        tool_calls: list[dict[str, Any]]
        usage: dict[str, int]
        outputs: list[dict[str, Any]]
        metadata: dict[str, Any]


Pair = tuple[Callable[[], Any], Callable[[], Any], int]


def contestants(plain: dict[str, Any]) -> dict[str, Pair]:
    """Of each: its encoding, its decoding, and how many bytes there are."""
    made: dict[str, Pair] = {}

    def add(name: str, value: Any, encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> None:
        data = encode(value)
        size = len(data.encode() if isinstance(data, str) else data)
        if decode(data) != value:
            raise AssertionError(f"{name} does not give back what it was given")
        made[name] = (lambda: encode(value), lambda: decode(data), size)

    state = RunState(**{**plain, "started_at": datetime.fromisoformat(plain["started_at"])})
    add("codec json", state, lambda value: codec.encode(value, "json"), codec.decode)
    add("codec msgpack", state, lambda value: codec.encode(value, "msgpack"), codec.decode)
    add("codec protobuf", state, lambda value: codec.encode(value, "protobuf"), codec.decode)
    for name, model in (("pydantic json, models", PydanticRun), ("pydantic json, dicts", PydanticPlain)):
        adapter: Any = TypeAdapter(model)
        add(name, model(**plain), lambda value: value.model_dump_json(exclude_none=True), adapter.validate_json)
    add("json, dicts", plain, json.dumps, json.loads)
    if msgspec is not None:
        for name, module in (("json", msgspec.json), ("msgpack", msgspec.msgpack)):
            for shape, struct in (("structs", StructRun), ("one struct of dicts", StructPlain)):
                value = msgspec.convert(plain, struct)
                add(f"msgspec {name}, {shape}", value, module.Encoder().encode, module.Decoder(struct).decode)
            add(f"msgspec {name}, dicts", plain, module.Encoder().encode, module.Decoder().decode)
    return made


def best(call: Callable[[], Any], count: int) -> float:
    begin = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - begin) / count * 1e6


def resident(key: str) -> float:
    """A line of the process's status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def fresh_peak() -> float:
    """What is resident; the peak begins anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


async def streamed(megabytes: int, format: codec.Format) -> str:
    said = {"role": "assistant", "content": text(random.Random(1), 4000), "name": "writer"}
    size = len(codec.encode(RunPart("message", said), format))
    count = megabytes * 1_000_000 // size
    stall, began = 0.0, time.perf_counter()

    async def watch() -> None:
        nonlocal stall
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            stall = max(stall, time.perf_counter() - before - 0.001)

    def parts() -> Iterator[RunPart]:
        yield RunPart("header", RunState(id="r"))
        for _ in range(count):
            yield RunPart("message", said)
        yield RunPart("end", {"messages": count})

    with TemporaryDirectory() as folder:
        file = Path(folder) / "run"
        await codec.write(file, ["warm"], format)
        assert [item async for item in codec.read(file)] == ["warm"]
        gc.collect()
        before = fresh_peak()
        watching = asyncio.create_task(watch())
        await codec.write(file, parts(), format)
        written = time.perf_counter()
        grown = resident("VmHWM") - before
        found = 0
        async for part in codec.read(file):
            found += part.name == "message"
        assert found == count
        watching.cancel()
        read_grown = resident("VmHWM") - before
        return (
            f"{format:10} {count * size / 1e6:6.0f} MB in {count + 2} frames: written in {written - began:.2f} s, "
            f"read in {time.perf_counter() - written:.2f} s; memory grew by {grown:.1f} MiB at most, and by "
            f"{read_grown:.1f} with the reading; longest stall {stall * 1000:.1f} ms"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=100, help="calls a round")
    parser.add_argument("--megabytes", type=int, default=200)
    options = parser.parse_args()
    from fastcrew_async import _native

    for format in ("json", "msgpack", "protobuf"):  # first, while nothing of the heap is free
        print(asyncio.run(streamed(options.megabytes, format)))
    found = contestants(state_of(options.messages))
    times = {name: [float("inf"), float("inf")] for name in found}
    gc.collect()
    gc.freeze()
    for _ in range(options.rounds):
        for name, (encode, decode, _) in found.items():
            times[name][0] = min(times[name][0], best(encode, options.count))
            times[name][1] = min(times[name][1], best(decode, options.count))
    print(f"{options.messages} messages, backend {_native.backend}, {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC")
    print(f"{'':34} {'bytes':>8} {'encode':>8} {'decode':>8} {'both':>8}  of the codec's, same format")
    for name, (encoded, decoded) in times.items():
        ours = "codec msgpack" if "msgpack" in name else "codec json"
        ratio = "" if name.startswith("codec") else f"{(encoded + decoded) / sum(times[ours]):8.2f}"
        print(f"{name:34} {found[name][2]:8} {encoded:8.1f} {decoded:8.1f} {encoded + decoded:8.1f}  {ratio}")


if __name__ == "__main__":
    main()
