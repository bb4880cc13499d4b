"""CrewAI's own memory: recalled before a task, and its answer kept after it."""

from __future__ import annotations

import json
from typing import Any

from crewai import Crew
from crewai.hooks.dispatch import HookAborted
from crewai.memory.memory_scope import MemoryScope, MemorySlice

from ..case import Case
from ..memory import shelved
from ..models import action, call, final
from ..recorder import Recorder
from .agents import kick
from .building import agent, solo, task
from .failures import DOWN

NOTHING = json.dumps({"memories": []})
ONE = json.dumps({"memories": ["tea was asked for"]})
TWO = json.dumps({"memories": ["tea was asked for", "and it came", "and it came"]})
PLACED = json.dumps({"suggested_scope": "/drinks", "categories": ["wish"], "importance": 0.7})
LONG = "Find out all about {topic}, and about everything else that anybody may ever want to know of it. " * 3


def analysis(**more: Any) -> str:
    """What a model says of a long query."""
    return json.dumps({"recall_queries": ["tea?"], "suggested_scopes": ["/drinks", "/broken", "/food"], **more})


def plan(*actions: str, insert: bool) -> Any:
    """What a model says of a text that is like one that is known: `actions` on the first that it is shown."""

    def answer(messages: list[dict[str, Any]]) -> str:
        known = messages[-1]["content"].split("id=")[1].split(" ")[0]
        new = {"record_id": known, "new_content": "tea is hot, and was asked for"}
        return json.dumps({"actions": [{"action": name, **new} for name in actions], "insert_new": insert})

    return answer


def asked(*answers: Any) -> Any:
    """A model that gives the first answer of a text that its question contains, whatever the order of questions."""
    left = list(answers)

    def answer(messages: list[dict[str, Any]]) -> Any:
        text = str(messages)
        found = next(given for about, given in left if about in text)
        return found(messages) if callable(found) else found

    return answer


def crew(recorder: Recorder, script: Any = (NOTHING,), *, long: bool = False, **fields: Any) -> Crew:
    """A crew of one agent whose memory's model follows `script`."""
    memory = shelved(recorder, list(script) if isinstance(script, tuple) else script, **fields)
    return solo(
        recorder,
        [final("hello"), final("again")],
        crew_options={"memory": memory},
        task_options={"description": LONG} if long else None,
    )


DRINKS = (("tea is hot", "/drinks"), ("juice is cold", "/drinks"))
ABORTED = HookAborted("not this one")

CASES = [
    Case("memory, nothing to keep", crew),
    Case("memory, nothing known", lambda r: crew(r, known=())),
    Case(
        "memory, one to keep, and recalled",
        lambda r: crew(r, (ONE, PLACED, NOTHING)),
        rounds=({"topic": "tea"}, {"topic": "tea"}),
        hooks=True,
    ),
    Case("memory, function calling", lambda r: crew(r, (analysis(), NOTHING), long=True, known=DRINKS, native=True)),
    Case("memory, long query", lambda r: crew(r, (analysis(), NOTHING), long=True, known=DRINKS), hooks=True),
    Case("memory, long query, root", lambda r: crew(r, (analysis(), NOTHING), long=True, root_scope="/drinks")),
    Case(
        "memory, long query of a time",
        lambda r: crew(r, (analysis(time_filter="2999-01-01"), NOTHING), long=True, known=DRINKS),
    ),
    Case("memory, odd time", lambda r: crew(r, (analysis(time_filter="soon"), NOTHING), long=True, known=DRINKS)),
    Case("memory, query without answer", lambda r: crew(r, ("what?", NOTHING), long=True)),
    Case("memory, query's model fails", lambda r: crew(r, (DOWN, NOTHING), long=True)),
    Case("memory, query aborted", lambda r: crew(r, (ABORTED,), long=True)),
    Case(
        "memory, complex query",
        lambda r: crew(r, (analysis(complexity="complex"), "sugar is missing", NOTHING), long=True, known=DRINKS),
    ),
    Case(
        "memory, two rounds of exploring",
        lambda r: crew(
            r,
            (analysis(complexity="complex"), "sugar is missing", DOWN, NOTHING),
            long=True,
            known=DRINKS,
            exploration_budget=2,
        ),
    ),
    Case("memory, explores", lambda r: crew(r, ("more", NOTHING), scores=(0.1, 0.1))),
    Case("memory, exploring aborted", lambda r: crew(r, (ABORTED,), scores=(0.1, 0.1))),
    Case("memory, embedder away", lambda r: crew(r, breaks="Job")),
    Case("memory, store broken", lambda r: crew(r, known=(("tea is hot", "/broken"),))),
    Case("memory, read only", lambda r: crew(r, (), read_only=True)),
    Case("memory, nothing extracted", lambda r: crew(r, ("what?", PLACED))),
    Case("memory, extraction fails", lambda r: crew(r, (DOWN, PLACED))),
    Case("memory, placing fails", lambda r: crew(r, (ONE, DOWN))),
    Case("memory, placing aborted", lambda r: crew(r, (ONE, ABORTED))),
    Case("memory, embedder away for what is kept", lambda r: crew(r, (ONE,), breaks="asked for")),
    Case("memory, root", lambda r: crew(r, (ONE, PLACED), root_scope="/crew/solo")),
    *[
        Case(
            f"memory, {name}",
            lambda r, answer=answer: crew(
                r,
                asked(("memory statements", ONE), ("id=", answer), ("", PLACED)),
                scores=(0.99,),
            ),
            concurrent=("llm_call_started",),
        )
        for name, answer in {
            "merged": plan("update", insert=False),
            "replaced": plan("delete", insert=True),
            "dropped": plan("keep", insert=False),
            "merging without answer": lambda messages: "what?",
        }.items()
    ],
    Case(
        "memory, two to keep",
        lambda r: crew(r, asked(("memory statements", TWO), ("", PLACED))),
        concurrent=("llm_call_started",),
    ),
    Case(
        "memory of an agent, a scope",
        lambda r: solo(
            r,
            [final("hello")],
            memory=MemoryScope(memory=shelved(r, [ONE, PLACED], known=DRINKS), root_path="/drinks"),  # type: ignore[call-arg]
        ),
    ),
    Case(
        "memory of an agent, a slice",
        lambda r: solo(
            r,
            [final("hello")],
            memory=MemorySlice(  # type: ignore[call-arg]
                memory=shelved(r, known=(*DRINKS, ("bread is soft", "/food"))), scopes=["/food", "/drinks"]
            ),
        ),
    ),
    Case(
        "memory of an agent, a slice to write to",
        lambda r: solo(
            r,
            [final("hello")],
            memory=MemorySlice(memory=shelved(r, [ONE]), scopes=["/"], read_only=False),  # type: ignore[call-arg]
        ),
    ),
    Case(
        "agent alone, its own memory",
        lambda r: agent(r, [final("hello"), final("again")], memory=shelved(r, [ONE, PLACED, NOTHING])),
        kind="agent",
        rounds=(kick("hi"), kick([{"role": "user", "content": "hi"}, {"role": "user", "content": "tea"}])),
    ),
    Case(
        "agent alone, its own memory fails",
        lambda r: agent(r, [final("hello")], memory=shelved(r, [DOWN, PLACED], breaks="hi")),
        kind="agent",
        rounds=(kick("hi"),),
    ),
    Case(
        "memory, tools",
        lambda r: Crew(
            name="tools",
            agents=[
                worker := agent(
                    r,
                    [
                        action("search_memory", queries=["tea", "juice"]),
                        action("save_to_memory", contents=["one"]),
                        action("save_to_memory", contents=["two", "three"]),
                        final("hello"),
                    ],
                )
            ],
            tasks=[task(worker)],
            memory=shelved(r, asked(("memory statements", NOTHING), ("", PLACED)), known=DRINKS),
        ),
        concurrent=("llm_call_started",),
    ),
    Case(
        "memory, tools by function calls",
        lambda r: Crew(
            name="tools",
            agents=[
                worker := agent(
                    r,
                    [
                        [call("search_memory", queries=["tea"])],
                        [call("save_to_memory", contents=["one"])],
                        "hello",
                    ],
                    model_options={"native": True},
                )
            ],
            tasks=[task(worker)],
            memory=shelved(r, [PLACED, NOTHING], known=DRINKS),
        ),
    ),
]
