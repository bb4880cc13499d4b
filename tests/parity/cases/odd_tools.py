"""Tools that misbehave, and tool calls in odd forms."""

from __future__ import annotations

import asyncio
from typing import Any

from crewai.tools import BaseTool
from pydantic import BaseModel

from ..case import Case
from ..models import action, call, final
from ..recorder import Recorder
from ..tools import ping
from .building import solo
from .native import native
from .tasks import Report

TEXT = [action("ping", x=1), final("done")]
NATIVE = [[call("ping", x=1)], "done"]


def raising(error: BaseException) -> Any:
    def fail(*args: Any) -> Any:
        raise error

    return fail


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Odd:
    def __str__(self) -> str:
        return "an odd object"

    __repr__ = __str__


def both(name: str, answer: Any, **options: Any) -> list[Case]:
    """A tool that answers by `answer`, in both forms."""
    return [
        Case(f"react, tool {name}", lambda r: solo(r, TEXT, tools=[ping(r, answer)], **options)),
        Case(f"native, tool {name}", lambda r: native(r, NATIVE, tools=[ping(r, answer)], **options)),
    ]


class Mute:
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class NoArguments(BaseModel):
    pass


class Many(BaseModel):
    x: int
    y: str | None = None
    z: list[dict[str, int]] = []


def with_schema(r: Recorder, schema: Any, name: str = "ping") -> BaseTool:
    class Found(BaseTool):
        name: str = "ping"
        description: str = "Answers pong."
        args_schema: type[BaseModel] = schema

        def _run(self, **arguments: Any) -> str:
            r.note("tool", "ping", **arguments)
            return "pong"

    return Found(name=name)


CASES = (
    [
        case
        for cases in [
            both("raises StopIteration", raising(StopIteration("ended"))),
            both("raises StopAsyncIteration", raising(StopAsyncIteration("ended"))),
            both("raises TimeoutError", raising(TimeoutError("slow"))),
            both("raises an error without a text", raising(Unprintable())),
            both("raises RecursionError", raising(RecursionError("deep"))),
            both("raises an empty error", raising(ValueError())),
            both("returns an object", lambda x: Odd()),
            both("returns a model", lambda x: Report(title="t", pages=1)),
            both("returns bytes", lambda x: b"\xff"),
            both("returns an empty text", lambda x: ""),
            both("returns a list", lambda x: [1, {"a": None}]),
            both("returns an exception", lambda x: ValueError("a value")),
            both("returns a generator", lambda x: (n for n in ())),
            both("returns None", lambda x: None),
            both("returns a coroutine", lambda x: asyncio.sleep(0, "slept")),
            both("returns an object without a text", lambda x: Mute()),
            both("returns a huge text", lambda x: "pong " * 50_000),
            both("returns text of an answer", lambda x: "Final Answer: no\nAction: ping"),
        ]
        for case in cases
    ]
    + [
        Case(
            "react, tool without arguments",
            lambda r: solo(
                r, ["Thought: so\nAction: ping\nAction Input: {}", final("done")], tools=[with_schema(r, NoArguments)]
            ),
        ),
        Case(
            "native, tool without arguments",
            lambda r: native(r, [[call("ping")], "done"], tools=[with_schema(r, NoArguments)]),
        ),
        Case(
            "react, arguments null",
            lambda r: solo(
                r, ["Thought: so\nAction: ping\nAction Input: null", final("done")], tools=[with_schema(r, NoArguments)]
            ),
        ),
        Case(
            "react, arguments a list",
            lambda r: solo(r, ["Thought: so\nAction: ping\nAction Input: [1]", final("done")], tools=[ping(r)]),
        ),
        Case(
            "react, arguments that default",
            lambda r: solo(r, [action("ping", x=1), final("done")], tools=[with_schema(r, Many)]),
        ),
        Case(
            "react, arguments nested",
            lambda r: solo(r, [action("ping", x=1, y=None, z=[{"a": 1}]), final("done")], tools=[with_schema(r, Many)]),
        ),
        Case(
            "native, arguments nested",
            lambda r: native(r, [[call("ping", x=1, y=None, z=[{"a": 1}])], "done"], tools=[with_schema(r, Many)]),
        ),
        *(
            Case(
                f"native, arguments {text!r}",
                lambda r, text=text: native(  # type: ignore[misc]
                    r,
                    [[{"id": "call_1", "type": "function", "function": {"name": "ping", "arguments": text}}], "done"],
                    tools=[with_schema(r, Many)],
                ),
            )
            for text in ("", "null", "[]", "1", '{"x": 1', {"x": 1}, None)
        ),
        Case(
            "native, same id twice",
            lambda r: native(r, [[call("ping", x=1), call("ping", x=1)], "done"], tools=[ping(r, max_usage_count=9)]),
        ),
        Case(
            "native, anthropic form",
            lambda r: native(
                r, [[{"id": "t1", "type": "tool_use", "name": "ping", "input": {"x": 1}}], "done"], tools=[ping(r)]
            ),
        ),
        Case(
            "native, bedrock form",
            lambda r: native(r, [[{"toolUseId": "t1", "name": "ping", "input": {"x": 1}}], "done"], tools=[ping(r)]),
        ),
        Case("native, list that holds no calls", lambda r: native(r, [[1, 2], "done"], tools=[ping(r)])),
        Case("native, empty list", lambda r: native(r, [[], "done"], tools=[ping(r)], max_retry_limit=0)),
        Case("react, two tools of one name", lambda r: solo(r, TEXT, tools=[ping(r), ping(r, lambda x: "second")])),
        Case(
            "native, two tools of one name",
            lambda r: native(
                r,
                [[call("ping", x=1), call("ping_2", "c2", x=2)], "done"],
                tools=[ping(r, max_usage_count=9), ping(r, lambda x: "second", max_usage_count=9)],
            ),
        ),
        Case(
            "react, tool with an odd name",
            lambda r: solo(
                r, [action("Pïng: the, tool!", x=1), final("done")], tools=[ping(r, name="Pïng: the, tool!")]
            ),
        ),
        Case(
            "native, tool with an odd name",
            lambda r: native(r, [[call("ping_the_tool", x=1)], "done"], tools=[ping(r, name="Ping: the, tool!")]),
        ),
        Case(
            "react, both limits",
            lambda r: solo(
                r,
                [action("ping", x=1), action("ping", x=2), action("ping", x=3), final("done")],
                tools=[ping(r, max_usage_count=2)],
            ),
        ),
        Case(
            "react, cache_function raises",
            lambda r: solo(
                r, TEXT, tools=[ping(r, cache_function=raising(ValueError("no")))], crew_options={"cache": True}
            ),
        ),
        Case(
            "native, cache_function raises",
            lambda r: native(
                r, NATIVE, tools=[ping(r, cache_function=raising(ValueError("no")))], crew_options={"cache": True}
            ),
        ),
        Case(
            "react, tools of an agent with cache off",
            lambda r: solo(r, TEXT, tools=[ping(r)], cache=False, crew_options={"cache": False}),
        ),
        Case(
            "react, result as answer that fails",
            lambda r: solo(r, TEXT, tools=[ping(r, raising(ValueError("no")), result_as_answer=True)]),
        ),
        Case(
            "native, result as answer that fails",
            lambda r: native(r, NATIVE, tools=[ping(r, raising(ValueError("no")), result_as_answer=True)]),
        ),
        Case(
            "native, result as answer with a model",
            lambda r: native(
                r,
                NATIVE[:1],
                tools=[ping(r, lambda x: Report(title="t", pages=1), result_as_answer=True)],
                task_options={"output_pydantic": Report},
            ),
        ),
        Case(
            "react, multimodal",
            lambda r: solo(
                r, [action("Add image to content", image_url="http://x/y.png"), final("seen")], multimodal=True
            ),
        ),
    ]
)
