"""Models with odd answers, and callbacks that misbehave."""

from __future__ import annotations

from functools import partial
from typing import Any

from crewai import Agent, Crew
from crewai.tasks.conditional_task import ConditionalTask

from ..case import Case
from ..models import ScriptedModel, action, call, final
from ..recorder import Recorder
from ..tools import ping
from .building import solo, task
from .native import native
from .odd_tools import Unprintable, raising
from .tasks import ANSWERS, Report, chain

TEXT = [action("ping", x=1), final("done")]
NATIVE = [[call("ping", x=1)], "done"]


class AsyncCallable:
    def __init__(self, r: Recorder, name: str) -> None:
        self.r, self.name = r, name

    async def __call__(self, value: Any) -> Any:
        self.r.note("callback", self.name, value=value)
        return value


class Doubling(Agent):
    """An agent whose `execute_task` is the user's own."""

    def execute_task(self, task: Any, context: Any = None, tools: Any = None) -> Any:
        return f"{super().execute_task(task, context, tools)} twice"


MODELS = [
    Case("model answers spaces", lambda r: solo(r, ["   ", final("done")])),
    Case("model answers a number", lambda r: solo(r, [7, final("done")], max_retry_limit=1)),
    Case("model answers a dict", lambda r: solo(r, [{"a": 1}, final("done")], max_retry_limit=1)),
    Case("model answers a model unasked", lambda r: solo(r, [Report(title="t", pages=1)])),
    Case("native, model answers a model unasked", lambda r: native(r, [Report(title="t", pages=1)], tools=[ping(r)])),
    Case("native, model answers a number", lambda r: native(r, [7], tools=[ping(r)], max_retry_limit=0)),
    Case("native, model answers a dict", lambda r: native(r, [{"a": 1}], tools=[ping(r)], max_retry_limit=0)),
    Case(
        "text model answers tool calls",
        lambda r: solo(r, [[call("ping", x=1)], final("done")], tools=[ping(r)], max_retry_limit=1),
    ),
    Case("model raises TimeoutError", lambda r: solo(r, [TimeoutError("s"), final("done")], max_retry_limit=1)),
    Case("model raises an error without a text", lambda r: solo(r, [Unprintable(), final("done")], max_retry_limit=1)),
    Case("model raises KeyError", lambda r: solo(r, [KeyError("x"), final("done")], max_retry_limit=1, verbose=True)),
    Case(
        "answer with two finals",
        lambda r: solo(r, ["Thought: a\nFinal Answer: one\nFinal Answer: two"], tools=[ping(r)]),
    ),
    Case(
        "answer with an observation made up",
        lambda r: solo(
            r, [TEXT[0] + "\nObservation: pong 9\nThought: x\nFinal Answer: made up", final("done")], tools=[ping(r)]
        ),
    ),
    Case("answer in a code fence", lambda r: solo(r, ["```\nThought: a\nFinal Answer: one\n```"])),
    Case(
        "answer starts with the observation",
        lambda r: solo(r, ["Observation: x\nThought: a\nFinal Answer: one"], tools=[ping(r)]),
    ),
    Case("empty final answer", lambda r: solo(r, ["Thought: a\nFinal Answer:"], max_retry_limit=0)),
]


CALLBACKS = [
    Case(
        "step callback raises, react",
        lambda r: solo(r, TEXT * 3, tools=[ping(r)], step_callback=raising(ValueError("no"))),
    ),
    Case(
        "step callback raises, native",
        lambda r: native(r, NATIVE * 3, tools=[ping(r)], step_callback=raising(ValueError("no"))),
    ),
    Case("before_kickoff gives None", lambda r: chain(r, {}, before_kickoff_callbacks=[lambda inputs: None])),
    Case("before_kickoff gives a list", lambda r: chain(r, {}, before_kickoff_callbacks=[lambda inputs: [1]])),
    Case("after_kickoff gives a text", lambda r: chain(r, {}, after_kickoff_callbacks=[lambda result: "text"])),
    Case("after_kickoff gives None", lambda r: chain(r, {}, after_kickoff_callbacks=[lambda result: None])),
    Case("one callback for task and crew", lambda r: one_callback(r)),
    Case(
        "async callbacks of tasks",
        lambda r: solo(
            r,
            TEXT,
            tools=[ping(r)],
            task_options={"callback": async_callback(r, "task")},
            crew_options={"task_callback": async_callback(r, "crew's")},
        ),
    ),
    Case(
        "async callable as callback of a task",
        lambda r: solo(r, TEXT, tools=[ping(r)], task_options={"callback": AsyncCallable(r, "task")}),
    ),
    Case(
        "partial of an async callback",
        lambda r: solo(r, TEXT, tools=[ping(r)], task_options={"callback": partial(async_callback(r, "task"))}),
    ),
    Case("async callback of a task raises", lambda r: chain(r, {"callback": async_raising})),
    Case(
        "condition gives an odd value",
        lambda r: chain(r, {}, {"kind": ConditionalTask, "condition": lambda output: "yes"}),
    ),
    Case(
        "agent with execute_task of its own",
        lambda r: own_execute_task(r),
        not_for=(("akickoff", "CrewAI calls aexecute_task there"),),
    ),
    Case(
        "two callbacks lists on three tasks",
        lambda r: chain(r, {"callback": r.callback("one")}, {}, {}, task_callback=r.callback("all")),
    ),
]


def one_callback(r: Recorder) -> Crew:
    callback = r.callback("both")
    return chain(r, {"callback": callback}, task_callback=callback)


def async_callback(r: Recorder, name: str) -> Any:
    async def recorded(value: Any) -> None:
        r.note("callback", name, value=value)

    return recorded


async def async_raising(output: Any) -> None:
    raise ZeroDivisionError("no")


def own_execute_task(r: Recorder) -> Crew:
    worker = Doubling(role="W", goal="g", backstory="b", llm=ScriptedModel.of(r, ANSWERS, "m"))
    return Crew(name="own", agents=[worker], tasks=[task(worker)])


CASES = [*MODELS, *CALLBACKS]
