"""Models that fail, contexts that overflow, hooks that stop things."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from crewai.hooks import (
    HookAborted,
    register_after_llm_call_hook,
    register_after_tool_call_hook,
    register_before_llm_call_hook,
    register_before_tool_call_hook,
)
from crewai.hooks.dispatch import InterceptionPoint, clear_all, register
from crewai.tools.tool_failure import ToolFailure, ToolFailurePolicy

from ..case import Case
from ..models import action, call, final
from ..recorder import Recorder
from ..tools import ping
from .building import agent, solo, task
from .native import native

ONE = [action("ping", x=1), final("done")]
DOWN = RuntimeError("the provider is down")
TOO_LONG = RuntimeError("this model's maximum context length is 100 tokens")


@contextlib.contextmanager
def cleared() -> Iterator[None]:
    """No hook outlives the block."""
    try:
        yield
    finally:
        clear_all()


def hooked(*registrations: tuple[Callable[[Any], Any], Callable[[Any], Any]]) -> Callable[[Recorder], Any]:
    """Register hooks, in CrewAI's older dialect, for as long as the case runs."""

    @contextlib.contextmanager
    def around(recorder: Recorder) -> Iterator[None]:
        with cleared():
            for register_hook, hook in registrations:
                register_hook(hook)
            yield

    return around


def at(point: InterceptionPoint, hook: Callable[[Any], Any]) -> Callable[[Recorder], Any]:
    """Register a hook at that point for as long as the case runs."""
    return hooked((lambda found: register(point, found), hook))


def abort(ctx: Any) -> None:
    raise HookAborted("not today", source="policy")


def broken(ctx: Any) -> None:
    raise ZeroDivisionError("a bug in a hook")


def refuse(x: int) -> ToolFailure:
    return ToolFailure(message="no ping today", code="down")


def append_message(ctx: Any) -> None:
    ctx.messages.append({"role": "user", "content": f"hook saw {ctx.iterations}"})


def use_nine(ctx: Any) -> None:
    ctx.tool_input["x"] = 9


def replace_payload(ctx: Any) -> Any:
    return {"topic": "juice"}


HOOK_CASES = [
    *(
        Case(f"{form}, a hook raises at {point.value}", build, around=at(point, broken))
        for point in InterceptionPoint
        for form, build in [("react", lambda r: solo(r, ONE, tools=[ping(r)]))]
    ),
    Case(
        "react, before-model hook edits messages",
        lambda r: solo(r, ONE, tools=[ping(r)]),
        around=hooked((register_before_llm_call_hook, append_message)),
    ),
    Case(
        "react, after-model hook edits messages and answer",
        lambda r: solo(r, ONE, tools=[ping(r)]),
        around=hooked(
            (register_after_llm_call_hook, append_message),
            (register_after_llm_call_hook, lambda ctx: ctx.response.replace("done", "changed")),
        ),
    ),
    Case(
        "native, model hooks edit messages and answer",
        lambda r: native(r, [[call("ping", x=1)], "done"], tools=[ping(r)]),
        around=hooked(
            (register_before_llm_call_hook, append_message),
            (register_after_llm_call_hook, lambda ctx: f"{ctx.response} and changed"),
        ),
    ),
    Case(
        "react, before-model hook says False",
        lambda r: solo(r, [final("never")], max_retry_limit=1),
        around=hooked((register_before_llm_call_hook, lambda ctx: False)),
    ),
    Case(
        "native, before-model hook says False",
        lambda r: native(r, ["never"], tools=[ping(r)], max_retry_limit=1),
        around=hooked((register_before_llm_call_hook, lambda ctx: False)),
    ),
    *(
        case
        for form, build in [
            ("react", lambda r: solo(r, ONE, tools=[ping(r)])),
            ("native", lambda r: native(r, [[call("ping", x=1)], "done"], tools=[ping(r)])),
        ]
        for case in [
            Case(
                f"{form}, before-tool hook says False",
                build,
                around=hooked((register_before_tool_call_hook, lambda ctx: False)),
            ),
            Case(
                f"{form}, before-tool hook changes the arguments",
                build,
                around=hooked((register_before_tool_call_hook, use_nine)),
            ),
            Case(
                f"{form}, after-tool hook changes the result",
                build,
                around=hooked((register_after_tool_call_hook, lambda ctx: f"hooked {ctx.tool_result}")),
            ),
        ]
    ),
    Case(
        "inputs replaced by a hook",
        lambda r: solo(r, [final("done")]),
        around=at(InterceptionPoint.INPUT, replace_payload),
    ),
    Case(
        "inputs replaced at the start",
        lambda r: solo(r, [final("done")]),
        around=at(InterceptionPoint.EXECUTION_START, replace_payload),
    ),
    Case(
        "context replaced by a hook",
        lambda r: solo(r, [final("done")]),
        around=at(InterceptionPoint.PRE_STEP, lambda ctx: "a context of the hook"),
    ),
    Case(
        "task output replaced by a hook",
        lambda r: solo(r, [final("done")]),
        around=at(InterceptionPoint.POST_STEP, lambda ctx: ctx.payload.model_copy(update={"raw": "hooked"})),
    ),
    Case(
        "crew output replaced by a hook",
        lambda r: solo(r, [final("done")]),
        around=at(InterceptionPoint.OUTPUT, lambda ctx: ctx.payload.model_copy(update={"raw": "hooked"})),
    ),
]

# What stops a run on purpose: these are compared in test_stopped.py, since CrewAI leaves scopes open behind them.
STOPPED = [
    *(
        Case(f"{form}, aborted at {point.value}", build, around=at(point, abort))
        for point in InterceptionPoint
        for form, build in [
            ("react", lambda r: solo(r, ONE, tools=[ping(r)])),
            ("native", lambda r: native(r, [[call("ping", x=1)], "done"], tools=[ping(r)])),
        ]
    ),
    Case(
        "react, failure raises",
        lambda r: solo(r, ONE, tools=[ping(r, refuse)], tool_failure_policy=ToolFailurePolicy.RAISE),
    ),
    Case(
        "native, failure raises",
        lambda r: native(
            r, [[call("ping", x=1)], "done"], tools=[ping(r, refuse)], tool_failure_policy=ToolFailurePolicy.RAISE
        ),
    ),
    Case(
        "native, same call and result five times",
        lambda r: native(r, [*([[call("ping", x=1)]] * 6), "done"], tools=[ping(r)], max_retry_limit=0),
    ),
]

CASES = [
    Case("provider fails once", lambda r: solo(r, [DOWN, final("done")])),
    Case("provider fails once, hooks", lambda r: solo(r, [DOWN, final("done")]), hooks=True),
    Case("provider fails in the second round", lambda r: solo(r, [ONE[0], DOWN, *ONE], tools=[ping(r)])),
    Case("provider fails past the limit", lambda r: solo(r, [DOWN] * 2, max_retry_limit=1)),
    Case("provider fails past the limit, hooks", lambda r: solo(r, [DOWN] * 2, max_retry_limit=1), hooks=True),
    Case("provider fails, native", lambda r: native(r, [DOWN, "done"], tools=[ping(r)])),
    Case(
        "provider fails, model without events", lambda r: solo(r, [DOWN, final("done")], model_options={"emits": False})
    ),
    Case("empty answer", lambda r: solo(r, ["", final("done")])),
    Case("answer None", lambda r: solo(r, [None, final("done")])),
    Case(
        "failures count for the agent's lifetime",
        lambda r: solo(r, [DOWN, final("one"), DOWN, final("two"), DOWN], max_retry_limit=2),
        rounds=({"topic": "a"}, {"topic": "b"}, {"topic": "c"}),
    ),
    Case(
        "crew usable after a failure",
        lambda r: solo(r, [DOWN, final("done")], max_retry_limit=0),
        rounds=({"topic": "a"}, {"topic": "b"}),
    ),
    Case("second task fails", lambda r: two_tasks(r, [final("one"), DOWN])),
    Case(
        "tool says it failed, react", lambda r: solo(r, ONE, tools=[ping(r, lambda x: ToolFailure(message="no ping"))])
    ),
    Case(
        "context overflows, native",
        lambda r: native(r, [[call("ping", x=1)], TOO_LONG, "the summary", "done"], tools=[ping(r)]),
    ),
    Case(
        "context near the window, summarised before the call",
        lambda r: solo(r, ["the summary", final("done")], model_options={"window": 60}),
    ),
    Case("trained data cannot be read", lambda r: trained_on_rubbish(r)),
    *HOOK_CASES,
]


def two_tasks(recorder: Recorder, script: list[Any]) -> Any:
    from crewai import Crew

    worker = agent(recorder, script, max_retry_limit=0)
    return Crew(name="two", agents=[worker], tasks=[task(worker, 0), task(worker, 1)])


def trained_on_rubbish(recorder: Recorder) -> Any:
    """Its agent fails before its execution has started, so nothing is to be retried."""
    path = recorder.path("rubbish.pkl")
    Path(path).write_text("no pickle")
    return solo(recorder, [final("never")], crew_options={"trained_agents_file": path})
