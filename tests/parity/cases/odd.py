"""Odd crews: limits of nothing, shared objects, crews inside tools inside crews."""

from __future__ import annotations

from crewai import Crew, Process, Task
from crewai.tasks.conditional_task import ConditionalTask
from crewai.tools import tool

from ..case import Case
from ..models import ScriptedModel, action, call, final
from ..recorder import Recorder
from ..tools import ping
from .agents import DELEGATE, kick
from .building import agent, solo, task
from .native import native
from .tasks import ANSWERS, chain, guarded

TEXT = [action("ping", x=1), final("done")]
NATIVE = [[call("ping", x=1)], "done"]


def one_agent_many_tasks(r: Recorder) -> Crew:
    worker = agent(r, [action("ping", x=1), final("one"), action("other", x=2), final("two"), final("three")])
    return Crew(
        name="many",
        agents=[worker],
        tasks=[task(worker, 0, tools=[ping(r)]), task(worker, 1, tools=[ping(r, name="other")]), task(worker, 2)],
    )


def agent_outside_the_crew(r: Recorder) -> Crew:
    inside, outside = agent(r, [final("in")], role="Inside"), agent(r, [final("out")], role="Outside")
    return Crew(name="outside", agents=[inside], tasks=[task(outside)])


def nested(r: Recorder, depth: int, *, by: str = "react") -> Crew:
    """A crew whose tool asks a crew whose tool asks a crew."""

    def answer(x: int) -> str:
        if depth == 0:
            return "bottom"
        inner = nested(r, depth - 1, by=by)
        return str(inner.kickoff(inputs={"topic": f"level {depth}"}))

    script = NATIVE if by == "native" else TEXT
    model = {"native": by == "native"}
    return solo(r, list(script), tools=[ping(r, answer)], role=f"Level {depth}", model_options=model)


def async_nested(r: Recorder, depth: int) -> Crew:
    """The same with an async tool."""

    @tool("ping")
    async def found(x: int) -> str:
        """Answers pong with the number."""
        if depth == 0:
            return "bottom"
        return str(await async_nested(r, depth - 1).akickoff(inputs={"topic": f"level {depth}"}))

    return solo(r, TEXT, tools=[found], role=f"Level {depth}")


def shared_model(r: Recorder) -> Crew:
    model = ScriptedModel.of(r, ANSWERS, "shared")
    first, second = agent(r, role="First", llm=model), agent(r, role="Second", llm=model)
    return Crew(name="shared", agents=[first, second], tasks=[task(first, 0), task(second, 1)])


def manager_with_tools(r: Recorder) -> Crew:
    return Crew(
        agents=[worker := agent(r, role="Helper")],
        tasks=[task(worker)],
        process=Process.hierarchical,
        manager_agent=agent(r, role="Manager", tools=[ping(r)]),
    )


def managed_task_of_an_agent(r: Recorder) -> Crew:
    worker = agent(r, [final("found")], role="Helper")
    other = agent(r, [], role="Other")
    manager = agent(r, [action("Delegate work to coworker", **DELEGATE), final("done")], role="Manager")
    return Crew(
        name="managed",
        agents=[worker, other],
        tasks=[task(worker)],
        process=Process.hierarchical,
        manager_agent=manager,
    )


SENSES = [
    Case("one agent, many tasks, tools of each", one_agent_many_tasks),
    Case("agent outside the crew", agent_outside_the_crew),
    Case("nested 3, react", lambda r: nested(r, 3)),
    Case("nested 3, native", lambda r: nested(r, 3, by="native")),
    Case("nested 2, hooks", lambda r: nested(r, 2), hooks=True),
    Case("async nested 2", lambda r: async_nested(r, 2)),
    Case("shared model, two runs", shared_model, rounds=({"topic": "a"},)),
    Case(
        "function calling model without tools",
        lambda r: solo(r, [final("done")], function_calling_llm=ScriptedModel.of(r, [], "functions")),
    ),
    Case("max_iter 1, no tools", lambda r: solo(r, [final("done")], max_iter=1)),
    Case("max_iter 1, native", lambda r: native(r, [NATIVE[0], "forced"], tools=[ping(r)], max_iter=1)),
    Case(
        "max_iter 1, forced answer is empty", lambda r: solo(r, [TEXT[0], "", *TEXT, ""], tools=[ping(r)], max_iter=1)
    ),
    Case(
        "max_iter 1, forced answer is no text",
        lambda r: solo(r, [TEXT[0], {"a": 1}, *TEXT[:1], 7], tools=[ping(r)], max_iter=1, max_retry_limit=0),
    ),
    Case("max_retry_limit 0, fails", lambda r: solo(r, [RuntimeError("down")], max_retry_limit=0)),
    Case("max_retry_limit 0, empty answer", lambda r: solo(r, [""], max_retry_limit=0)),
    Case("guardrail_max_retries 0", lambda r: guarded(r, (False, "no"), guardrail_max_retries=0)),
]


CREWS = [
    Case("manager with tools", manager_with_tools),
    Case("managed task of an agent", managed_task_of_an_agent),
    Case("log file", lambda r: chain(r, {}, {}, output_log_file=r.path("log.json"))),
    Case("log file of text, verbose", lambda r: chain(r, {}, output_log_file=r.path("log.txt"), verbose=True)),
    Case("log file cannot be written", lambda r: chain(r, {}, output_log_file=r.path("no/such/log.txt"))),
    Case(
        "templates",
        lambda r: solo(
            r,
            [final("done")],
            system_template="<s>{{ .System }}</s>",
            prompt_template="<p>{{ .Prompt }}</p>",
            response_template="<r>{{ .Response }}</r>",
        ),
    ),
    Case("delegation allowed to nobody", lambda r: solo(r, [final("done")], allow_delegation=True)),
    Case("max_rpm of the crew", lambda r: chain(r, {}, {}, max_rpm=20)),
    Case("all tasks skipped", lambda r: chain(r, {}, {"kind": ConditionalTask, "condition": lambda output: False})),
    Case("agent's guardrail inside a crew", lambda r: solo(r, ANSWERS, guardrail=lambda output: (True, "better"))),
    Case("agent alone, empty messages", lambda r: agent(r, [final("hello")]), kind="agent", rounds=(kick(""),)),
    Case(
        "agent alone, unicode with braces",
        lambda r: agent(r, [final("{x}")], role="{r}"),
        kind="agent",
        rounds=(kick("{茶}"),),
    ),
    Case(
        "task without name or agent's crew",
        lambda r: Crew(
            agents=[w := agent(r, ANSWERS)], tasks=[Task(description="d {topic}", expected_output="e", agent=w)]
        ),
    ),
]

CASES = [*SENSES, *CREWS]
