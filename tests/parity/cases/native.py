"""Agents whose model calls functions."""

from __future__ import annotations

import threading
from typing import Any

from crewai import Crew
from crewai.tools.tool_failure import ToolFailure, ToolFailurePolicy

from ..case import Case
from ..models import AwaitingModel, CallOnlyModel, call
from ..recorder import Recorder
from ..tools import ping
from .building import solo
from .react import fail

ONE = [[call("ping", x=1)], "done"]
TWO = [[call("ping", x=1)], [call("ping", "call_2", x=2)], "done"]
BOTH = [[call("ping", "call_1", x=1), call("second", "call_2", x=2)], "done"]


def native(recorder: Recorder, script: list[Any], **fields: Any) -> Crew:
    """`solo` on a model that calls functions."""
    fields["model_options"] = {"native": True} | fields.get("model_options", {})
    return solo(recorder, script, **fields)


def refused(recorder: Recorder, policy: ToolFailurePolicy) -> Crew:
    """A crew whose tool says that it failed."""
    answer = ToolFailure(message="no ping today", code="down")
    return native(recorder, ONE, tools=[ping(recorder, lambda x: answer)], tool_failure_policy=policy)


def parallel(recorder: Recorder, **fields: Any) -> Crew:
    """Two tools that only answer when both are running."""
    meeting = threading.Barrier(2, timeout=10)

    def meet(x: int) -> str:
        meeting.wait()
        return f"pong {x}"

    return native(recorder, BOTH, tools=[ping(recorder, meet), ping(recorder, meet, name="second")], **fields)


CASES = [
    Case("native without tools", lambda r: native(r, ["done"])),
    Case("native 0 rounds", lambda r: native(r, ["done"], tools=[ping(r)])),
    Case("native 1 round", lambda r: native(r, ONE, tools=[ping(r)])),
    Case("native 1 round, hooks", lambda r: native(r, ONE, tools=[ping(r)]), hooks=True),
    *(
        Case(
            f"native, {kind.__name__}",
            lambda r, kind=kind: solo(r, [], llm=kind.of(r, list(ONE), native=True), tools=[ping(r)]),  # type: ignore[misc]
        )
        for kind in (CallOnlyModel, AwaitingModel)
    ),
    Case("native 2 rounds", lambda r: native(r, TWO, tools=[ping(r)])),
    Case("native 2 parallel", parallel, concurrent=("tool_usage_started",)),
    Case("native 2 parallel, hooks", parallel, hooks=True, concurrent=("tool_usage_started",)),
    Case(
        "native, one of two parallel tools raises",
        lambda r: native(r, BOTH, tools=[ping(r, fail), ping(r, name="second")]),
        concurrent=("tool_usage_started", "tool_failure_detected"),
    ),
    Case(
        "native 2 sequential, max_usage_count",
        lambda r: native(r, BOTH, tools=[ping(r), ping(r, name="second", max_usage_count=5)]),
    ),
    Case("native, max_usage_count spent", lambda r: native(r, TWO, tools=[ping(r, max_usage_count=1)])),
    Case("native, result as answer", lambda r: native(r, ONE[:1], tools=[ping(r, result_as_answer=True)])),
    Case(
        "native, result as answer ends its batch",
        lambda r: native(r, BOTH[:1], tools=[ping(r, result_as_answer=True), ping(r, name="second")]),
    ),
    Case("native, max_iter reached", lambda r: native(r, [*TWO[:2], "forced"], tools=[ping(r)], max_iter=2)),
    Case("native, step callback", lambda r: native(r, ONE, tools=[ping(r)], step_callback=r.callback("step"))),
    Case("native, tool raises", lambda r: native(r, ONE, tools=[ping(r, fail)])),
    Case("native, tool returns a dict", lambda r: native(r, ONE, tools=[ping(r, lambda x: {"pong": x})])),
    Case("native, unknown tool", lambda r: native(r, [[call("nothing", x=1)], "done"], tools=[ping(r)])),
    Case("native, wrong argument name", lambda r: native(r, [[call("ping", y=1)], "done"], tools=[ping(r)])),
    Case(
        "native, arguments are no JSON",
        lambda r: native(
            r,
            [[{"id": "call_1", "type": "function", "function": {"name": "ping", "arguments": "x is 1"}}], "done"],
            tools=[ping(r)],
        ),
    ),
    Case("native, failure ignored", lambda r: refused(r, ToolFailurePolicy.IGNORE)),
    Case("native, failure warned of", lambda r: refused(r, ToolFailurePolicy.WARN)),
    Case(
        "native, result from the cache",
        lambda r: native(r, [*TWO[:2], TWO[0], "done"], tools=[ping(r)], crew_options={"cache": True}),
    ),
    Case(
        "native, downgraded to text",
        lambda r: native(
            r,
            [
                ValueError("this model does not support tools"),
                'Thought: so\nAction: ping\nAction Input: {"x": 1}',
                "Thought: I now know\nFinal Answer: done",
            ],
            tools=[ping(r)],
        ),
    ),
    Case(
        "native, large result kept aside",
        lambda r: native(
            r,
            ONE,
            tools=[ping(r, lambda x: "pong line\n" * 60)],
            model_options={"window": 400},
            respect_context_window=False,
        ),
    ),
    Case("native, empty answer after a tool", lambda r: native(r, [ONE[0], ""], tools=[ping(r)], max_retry_limit=0)),
    Case("native, verbose", lambda r: native(r, ONE, tools=[ping(r)], verbose=True)),
    Case("native, model without events", lambda r: native(r, ONE, tools=[ping(r)], model_options={"emits": False})),
    Case(
        "native, two kickoffs of one crew",
        lambda r: native(r, [*ONE, *ONE], tools=[ping(r)]),
        rounds=({"topic": "tea"}, {"topic": "coffee"}),
    ),
]
