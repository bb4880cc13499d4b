"""Crews of several tasks: context, conditions, callbacks, guardrails, structured output, files."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from crewai import Crew
from crewai.core.providers.human_input import SyncHumanInputProvider, set_provider
from crewai.tasks.conditional_task import ConditionalTask
from crewai.tasks.task_output import TaskOutput
from pydantic import BaseModel

from ..case import Case
from ..models import ScriptedModel, action, final
from ..recorder import Recorder
from ..tools import ping
from .building import agent, solo, task
from .native import native


class Report(BaseModel):
    title: str
    pages: int


REPORT = '{"title": "Tea", "pages": 3}'
ANSWERS = [final("one"), final("two"), final("three")]


def chain(recorder: Recorder, *options: dict[str, Any], script: Any = ANSWERS, **crew_options: Any) -> Crew:
    """One agent, a task for each of `options`."""
    worker = agent(recorder, script)
    tasks = [task(worker, index, **option) for index, option in enumerate(options)]
    return Crew(name="chain", agents=[worker], tasks=tasks, **crew_options)


def team(recorder: Recorder, *options: dict[str, Any], **crew_options: Any) -> Crew:
    """An agent with a model of its own for each task, so that tasks may run beside each other."""
    agents = [agent(recorder, [final(f"answer {n}")] * 3, role=f"Worker {n}") for n in range(len(options))]
    tasks = [task(worker, n, **option) for n, (worker, option) in enumerate(zip(agents, options, strict=True))]
    return Crew(name="team", agents=agents, tasks=tasks, **crew_options)


def with_context(recorder: Recorder) -> Crew:
    """The third task sees the first one's answer only, the second sees none."""
    crew = chain(recorder, {}, {"context": []}, {})
    crew.tasks[2].context = [crew.tasks[0]]
    return crew


def guarded(recorder: Recorder, *verdicts: tuple[bool, Any], **options: Any) -> Crew:
    """A task whose guardrail gives these verdicts, one after another."""
    left = list(verdicts)

    def guardrail(output: TaskOutput):  # type: ignore[no-untyped-def]  # CrewAI reads the annotation
        recorder.note("callback", "guardrail", value=output)
        return left.pop(0)

    return solo(recorder, ANSWERS, task_options={"guardrail": guardrail} | options)


def two_guardrails(recorder: Recorder) -> Crew:
    def first(output: TaskOutput):  # type: ignore[no-untyped-def]
        recorder.note("callback", "first guardrail", value=output)
        return (output.raw != "one", "not one, please")

    def second(output: TaskOutput):  # type: ignore[no-untyped-def]
        recorder.note("callback", "second guardrail", value=output)
        return (True, f"{output.raw} and more")

    return solo(recorder, ANSWERS, task_options={"guardrails": [first, second]})


def called_back(recorder: Recorder) -> Crew:
    """Every callback a crew has."""
    return solo(
        recorder,
        [action("ping", x=1), final("done")],
        tools=[ping(recorder)],
        task_options={"callback": recorder.callback("task callback")},
        crew_options={
            "task_callback": recorder.callback("crew's task callback"),
            "step_callback": recorder.callback("step"),
            "before_kickoff_callbacks": [
                recorder.callback("before", lambda inputs: {**inputs, "topic": "changed"}),
                recorder.callback("before again"),
            ],
            "after_kickoff_callbacks": [
                recorder.callback("after", lambda result: result.model_copy(update={"raw": "changed"})),
                recorder.callback("after again"),
            ],
        },
    )


class Feedback(SyncHumanInputProvider):
    """A human who wants more once, then is happy."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._left = ["more, please", ""]

    def _prompt_input(self, crew: Any) -> str:  # type: ignore[override]
        self._recorder.note("callback", "human")
        return self._left.pop(0)

    async def _prompt_input_async(self, crew: Any) -> str:  # type: ignore[override]
        return self._prompt_input(crew)


def file_written(name: str) -> Callable[[Recorder], contextlib.AbstractContextManager[None]]:
    """The case runs in a folder of its own, and the file it has written there is noted at the end."""

    @contextlib.contextmanager
    def around(recorder: Recorder) -> Iterator[None]:
        before = Path.cwd()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                yield
                recorder.note("file", name, text=Path(name).read_text())
            finally:
                os.chdir(before)

    return around


def reviewed(recorder: Recorder) -> None:
    """Let that human review the run."""
    set_provider(Feedback(recorder))


SKIPPED = {"kind": ConditionalTask, "condition": lambda output: "never" in output.raw}
TAKEN = {"kind": ConditionalTask, "condition": lambda output: "one" in output.raw}
BESIDE = {"async_execution": True}
TASKS_BESIDE = ("task_started",)

CASES = [
    Case("two tasks", lambda r: chain(r, {}, {})),
    Case("two tasks, hooks", lambda r: chain(r, {}, {}), hooks=True),
    Case("three tasks with context", with_context),
    Case("two agents", lambda r: team(r, {}, {})),
    Case("conditional task skipped", lambda r: chain(r, {}, SKIPPED, {})),
    Case("conditional task taken", lambda r: chain(r, {}, TAKEN, {})),
    Case("condition raises", lambda r: chain(r, {}, {"kind": ConditionalTask, "condition": lambda output: 1 / 0})),
    Case("two tasks beside each other", lambda r: team(r, BESIDE, BESIDE, {}), concurrent=TASKS_BESIDE),
    Case("last task beside nothing", lambda r: team(r, {}, BESIDE)),
    Case(
        "conditional task after tasks beside", lambda r: team(r, BESIDE, BESIDE, {**TAKEN}, {}), concurrent=TASKS_BESIDE
    ),
    Case("all callbacks", called_back),
    Case("all callbacks, hooks", called_back, hooks=True),
    Case("task callback raises", lambda r: chain(r, {"callback": lambda output: 1 / 0})),
    Case("before_kickoff raises", lambda r: chain(r, {}, before_kickoff_callbacks=[lambda inputs: 1 / 0])),
    Case(
        "before_kickoff gets no inputs",
        lambda r: chain(r, {}, before_kickoff_callbacks=[r.callback("before", lambda inputs: {"topic": "made"})]),
        rounds=(None,),
    ),
    Case("guardrail passes", lambda r: guarded(r, (True, "better"))),
    Case("guardrail passes after a retry", lambda r: guarded(r, (False, "no"), (True, "better")), hooks=True),
    Case("guardrail never passes", lambda r: guarded(r, *([(False, "no")] * 3), guardrail_max_retries=1)),
    Case("guardrail says None", lambda r: guarded(r, (True, None))),
    Case("guardrail with structured output", lambda r: guarded(r, (True, REPORT), output_pydantic=Report)),
    Case("two guardrails", two_guardrails),
    Case(
        "guardrail in words passes",
        lambda r: solo(
            r,
            [final("done"), '{"valid": true, "feedback": null}'],
            task_options={"guardrail": "it must be short"},
        ),
    ),
    Case(
        "guardrail in words refuses once",
        lambda r: solo(
            r,
            [final("done"), '{"valid": false, "feedback": "too long"}', final("ok"), '{"valid": true}'],
            task_options={"guardrail": "it must be short"},
        ),
    ),
    Case("output_pydantic", lambda r: solo(r, [final(REPORT)], task_options={"output_pydantic": Report})),
    Case("output_json", lambda r: solo(r, [final(REPORT)], task_options={"output_json": Report})),
    Case(
        "output_pydantic among text",
        lambda r: solo(r, [final(f"Here: {REPORT} it is")], task_options={"output_pydantic": Report}),
    ),
    Case(
        "output_pydantic by the converter",
        lambda r: solo(r, [final("three pages on tea"), REPORT], task_options={"output_pydantic": Report}),
    ),
    Case(
        "output_json by the converter",
        lambda r: solo(r, [final("three pages on tea"), REPORT], task_options={"output_json": Report}),
    ),
    Case(
        "output_pydantic cannot be made",
        lambda r: solo(r, [final("none"), *["still none"] * 6], task_options={"output_pydantic": Report}),
    ),
    Case(
        "output_pydantic, native",
        lambda r: native(r, [REPORT], tools=[ping(r)], task_options={"output_pydantic": Report}),
    ),
    Case(
        "output_pydantic of a function calling model",
        lambda r: native(r, [Report(title="Tea", pages=3)], task_options={"output_pydantic": Report}),
    ),
    Case(
        "response_model", lambda r: native(r, [Report(title="Tea", pages=3)], task_options={"response_model": Report})
    ),
    Case("response_model in text", lambda r: solo(r, [REPORT], task_options={"response_model": Report})),
    Case(
        "response_model and output_pydantic",
        lambda r: native(
            r, [Report(title="Tea", pages=3)], task_options={"response_model": Report, "output_pydantic": Report}
        ),
    ),
    Case(
        "response_model with tools",
        lambda r: native(r, [REPORT], tools=[ping(r)], task_options={"response_model": Report}),
    ),
    Case(
        "output_file",
        lambda r: solo(r, [final("done")], task_options={"output_file": "written.md"}),
        around=file_written("written.md"),
    ),
    Case(
        "output_file of json in a new folder",
        lambda r: solo(r, [final(REPORT)], task_options={"output_file": "about/{topic}.json", "output_json": Report}),
        around=file_written("about/tea.json"),
    ),
    Case(
        "human input",
        lambda r: solo(r, [final("one"), final("two")], task_options={"human_input": True}),
        inside=reviewed,
    ),
    Case(
        "human input, native",
        lambda r: native(r, ["one", "two"], tools=[ping(r)], task_options={"human_input": True}),
        inside=reviewed,
    ),
    Case("streaming", lambda r: streaming(r)),
    Case("streaming, two tasks", lambda r: streaming(r, 2)),
    Case("streaming, provider fails", lambda r: streaming(r, 1, script=[RuntimeError("down")] * 3)),
    Case("crew planning", lambda r: planned(r), not_for=(("akickoff", "CrewAI's planner refuses a running loop"),)),
    Case(
        "answers by one result tool",
        lambda r: Crew(
            name="first",
            agents=[w := agent(r, [action("ping", x=1), final("second")])],
            tasks=[task(w, 0, tools=[ping(r, result_as_answer=True)]), task(w, 1)],
        ),
    ),
]


def streaming(recorder: Recorder, tasks: int = 1, script: Any = ANSWERS) -> Crew:
    worker = agent(recorder, script, model_options={"chunked": True})
    return Crew(name="stream", agents=[worker], tasks=[task(worker, n) for n in range(tasks)], stream=True)


def planned(recorder: Recorder) -> Crew:
    """A crew whose tasks get a plan from a planning model first."""
    plan = '{"list_of_plans_per_task": [{"task_number": 1, "task": "job 0", "plan": " By steps."}]}'
    planner = ScriptedModel.of(recorder, [plan], "planner")
    return chain(recorder, {}, planning=True, planning_llm=planner)
