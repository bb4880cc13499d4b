"""Agents that delegate, managers, agents without a crew, copies for each input."""

from __future__ import annotations

from typing import Any

from crewai import Crew, Process

from ..case import Case
from ..memory import Remembering
from ..models import CallOnlyModel, ScriptedModel, action, call, final
from ..recorder import Recorder
from ..tools import ping
from .building import agent, solo, task
from .failures import DOWN
from .tasks import REPORT, Report

ONE = [action("ping", x=1), final("done")]
DELEGATE = {"task": "look it up", "context": "all of it", "coworker": "Helper"}
ASK = {"question": "what is it", "context": "all of it", "coworker": "Helper"}


def pair(recorder: Recorder, script: list[Any], helper: list[Any], **options: Any) -> Crew:
    """An agent that may delegate to a helper."""
    lead = agent(recorder, script, role="Lead", allow_delegation=True, **options)
    other = agent(recorder, helper, role="Helper")
    return Crew(name="pair", agents=[lead, other], tasks=[task(lead)])


def managed(recorder: Recorder, script: list[Any], *, by_agent: bool) -> Crew:
    """A hierarchical crew of one worker."""
    worker = agent(recorder, [final("found")], role="Helper")
    if by_agent:
        manager = {"manager_agent": agent(recorder, script, role="Manager")}
    else:
        manager = {"manager_llm": ScriptedModel.of(recorder, script, "manager")}
    return Crew(name="managed", agents=[worker], tasks=[task(None)], process=Process.hierarchical, **manager)


def kick(text: Any, **more: Any) -> dict[str, Any]:
    """What an agent without a crew is asked."""
    return {"messages": text, **more}


def refuse_once(recorder: Recorder) -> Any:
    left = [(False, "no"), (True, "better")]

    def guardrail(output: Any):  # type: ignore[no-untyped-def]  # CrewAI reads the annotation
        recorder.note("callback", "guardrail", value=output)
        return left.pop(0)

    return guardrail


def for_each(recorder: Recorder) -> Crew:
    """A crew whose answer names its input, so that copies may run beside each other."""

    def answer(messages: list[dict[str, Any]]) -> str:
        text = str(messages)
        return final("about " + next(topic for topic in ("tea", "coffee", "juice") if topic in text))

    # Copies of a crew share their counters in stock CrewAI, so what each sees is a race.
    return solo(recorder, answer, model_options={"counts": False})


EACH = ([{"topic": "tea"}, {"topic": "coffee"}, {"topic": "juice"}],)
CONVERSATION = [
    {"role": "user", "content": "first"},
    {"role": "assistant", "content": "answer"},
    {"role": "user", "content": "then"},
]

AFTERWARDS = [
    {"role": "user", "content": "what is it"},
    {"role": "assistant", "content": "", "tool_calls": [call("ping", x=1)]},
    {"role": "tool", "content": "pong", "tool_call_id": "call_1", "name": "ping"},
    {"role": "user", "content": ""},
]

CASES = [
    Case(
        "delegation",
        lambda r: pair(r, [action("Delegate work to coworker", **DELEGATE), final("done")], [final("found")]),
    ),
    Case(
        "delegation, hooks",
        lambda r: pair(r, [action("Delegate work to coworker", **DELEGATE), final("done")], [final("found")]),
        hooks=True,
    ),
    Case(
        "delegation, native",
        lambda r: pair(
            r,
            [[call("delegate_work_to_coworker", **DELEGATE)], "done"],
            [final("found")],
            model_options={"native": True},
        ),
    ),
    Case(
        "question to a coworker",
        lambda r: pair(r, [action("Ask question to coworker", **ASK), final("done")], [final("found")]),
    ),
    Case(
        "delegation to nobody",
        lambda r: pair(
            r, [action("Delegate work to coworker", **(DELEGATE | {"coworker": "Nobody"})), final("done")], []
        ),
    ),
    Case(
        "delegation fails",
        lambda r: pair(r, [action("Delegate work to coworker", **DELEGATE), final("done")], [DOWN] * 3),
    ),
    Case(
        "manager by model",
        lambda r: managed(r, [action("Delegate work to coworker", **DELEGATE), final("done")], by_agent=False),
    ),
    Case(
        "manager by agent",
        lambda r: managed(r, [action("Delegate work to coworker", **DELEGATE), final("done")], by_agent=True),
    ),
    Case("agent alone", lambda r: agent(r, [final("hello")]), kind="agent", rounds=(kick("hi"),)),
    Case("agent alone, hooks", lambda r: agent(r, [final("hello")]), kind="agent", rounds=(kick("hi"),), hooks=True),
    Case(
        "agent alone, two kickoffs",
        lambda r: agent(r, [final("hello"), final("again")]),
        kind="agent",
        rounds=(kick("hi"), kick("hi again")),
    ),
    Case("agent alone, conversation", lambda r: agent(r, [final("hello")]), kind="agent", rounds=(kick(CONVERSATION),)),
    Case("agent alone, tool", lambda r: agent(r, ONE, tools=[ping(r)]), kind="agent", rounds=(kick("hi"),)),
    Case(
        "agent alone, native tool",
        lambda r: agent(r, [[call("ping", x=1)], "done"], tools=[ping(r)], model_options={"native": True}),
        kind="agent",
        rounds=(kick("hi"),),
    ),
    Case(
        "agent alone, step callback",
        lambda r: agent(r, ONE, tools=[ping(r)], step_callback=r.callback("step")),
        kind="agent",
        rounds=(kick("hi"),),
    ),
    Case(
        "agent alone, structured",
        lambda r: agent(r, [REPORT]),
        kind="agent",
        rounds=(kick("hi", response_format=Report),),
    ),
    Case(
        "agent alone, structured by the model",
        lambda r: agent(r, [Report(title="Tea", pages=3)], model_options={"native": True}),
        kind="agent",
        rounds=(kick("hi", response_format=Report),),
    ),
    Case(
        "agent alone, structured by the converter",
        lambda r: agent(r, [final("three pages"), REPORT]),
        kind="agent",
        rounds=(kick("hi", response_format=Report),),
    ),
    Case(
        "agent alone, guardrail passes",
        lambda r: agent(r, [final("one")], guardrail=lambda output: (True, "better")),
        kind="agent",
        rounds=(kick("hi"),),
    ),
    Case(
        "agent alone, guardrail refuses once",
        lambda r: agent(r, [final("one"), final("two")], guardrail=refuse_once(r)),
        kind="agent",
        rounds=(kick("hi"),),
        not_for=(("kickoff_async", "CrewAI's retry needs a loop of its own and fails in one"),),
    ),
    Case(
        "agent alone, guardrail never passes",
        lambda r: agent(
            r, [final("one"), final("two")], guardrail=lambda output: (False, "no"), guardrail_max_retries=1
        ),
        kind="agent",
        rounds=(kick("hi"),),
        not_for=(("kickoff_async", "CrewAI's retry needs a loop of its own and fails in one"),),
    ),
    Case(
        "agent alone, guardrail raises",
        lambda r: agent(r, [final("one")], guardrail=lambda output: 1 // 0),
        kind="agent",
        rounds=(kick("hi"),),
    ),
    Case(
        "agent alone, guardrail in words passes, hooks",
        lambda r: agent(r, [final("one"), '{"valid": true, "feedback": null}'], guardrail="it must be short"),
        kind="agent",
        rounds=(kick("hi"),),
        hooks=True,
    ),
    Case(
        "agent alone, guardrail in words refuses once",
        lambda r: agent(
            r,
            [final("one"), '{"valid": false, "feedback": "long"}', final("two"), '{"valid": true}'],
            guardrail="it must be short",
        ),
        kind="agent",
        rounds=(kick("hi"),),
        not_for=(("kickoff_async", "CrewAI's retry needs a loop of its own and fails in one"),),
    ),
    Case(
        "agent alone, guardrail gives a model",
        lambda r: agent(r, [final("one")], guardrail=lambda output: (True, Report(title="Tea", pages=3))),
        kind="agent",
        rounds=(kick("hi"),),
    ),
    Case(
        "agent alone, guardrail after a failing tool",
        lambda r: agent(
            r, [*ONE, *ONE], tools=[ping(r, lambda x: 1 // 0)], guardrail=refuse_once(r), tool_failure_policy="warn"
        ),
        kind="agent",
        rounds=(kick("hi"),),
        not_for=(("kickoff_async", "CrewAI's retry needs a loop of its own and fails in one"),),
    ),
    Case(
        "agent alone, structured, cannot be made",
        lambda r: agent(r, [final("none"), *["still none"] * 6]),
        kind="agent",
        rounds=(kick("hi", response_format=Report),),
    ),
    Case(
        "agent alone, structured, by a model that has only call",
        lambda r: agent(r, llm=CallOnlyModel.of(r, [final("three pages"), REPORT])),
        kind="agent",
        rounds=(kick("hi", response_format=Report),),
    ),
    Case(
        "agent alone, streaming chunks",
        lambda r: agent(r, [final("one")], model_options={"chunked": True, "stream": True}),
        kind="agent",
        rounds=(kick("hi"),),
    ),
    Case(
        "agent alone, conversation around tools",
        lambda r: agent(r, [final("hello")]),
        kind="agent",
        rounds=(kick(AFTERWARDS), kick([{"role": "assistant", "content": "only me"}]), kick([])),
    ),
    Case(
        "agent alone, files",
        lambda r: agent(r, [final("hello")]),
        kind="agent",
        rounds=(kick("hi", input_files={"notes": "a file, to the models of the cases"}),),
    ),
    Case(
        "agent alone, memory",
        lambda r: agent(r, [final("hello"), final("again")], memory=Remembering.of(r)),
        kind="agent",
        rounds=(kick("hi"), kick(CONVERSATION)),
    ),
    Case(
        "agent alone, memory fails",
        lambda r: agent(r, [final("hello")], memory=Remembering.of(r, fails=True)),
        kind="agent",
        rounds=(kick("hi"),),
    ),
    Case(
        "agent of a crew, memory",
        lambda r: solo(r, [final("hello")], memory=Remembering.of(r)),
    ),
    Case("agent alone, provider fails", lambda r: agent(r, [DOWN]), kind="agent", rounds=(kick("hi"),)),
    Case(
        "agent alone, tool raises",
        lambda r: agent(r, ONE, tools=[ping(r, lambda x: 1 // 0)]),
        kind="agent",
        rounds=(kick("hi"),),
    ),
    Case(
        "agent alone, max_iter reached",
        lambda r: agent(r, [ONE[0], final("forced")], tools=[ping(r)], max_iter=1),
        kind="agent",
        rounds=(kick("hi"),),
    ),
    Case("each input", for_each, kind="each", rounds=EACH, concurrent=("crew_kickoff_started", "default_env")),
    Case("each input, none", for_each, kind="each", rounds=([],)),
]
