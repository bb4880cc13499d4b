"""Agents that make a plan first and work through its steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from crewai import Agent, Crew
from crewai.agent.planning_config import PlanningConfig
from crewai.hooks import HookAborted
from crewai.hooks.dispatch import InterceptionPoint
from crewai.tools.tool_failure import ToolFailurePolicy

from ..case import Case
from ..models import CallOnlyModel, ScriptedModel, action, call, final
from ..recorder import Recorder
from ..tools import ping
from .building import agent, task
from .failures import DOWN, abort, at, refuse
from .tasks import REPORT, Report, reviewed

CONFIG = set(PlanningConfig.model_fields)
MODELS = ("llm_call_started", "tool_usage_started")
LONG = "This is the whole story of the tea that was asked for. " * 5
IMAGE = "VISION_IMAGE:image/png:abcd"
NO_FUNCTIONS = RuntimeError("this model does not support tools")


def plan(*steps: tuple[Any, ...], ready: bool = True) -> str:
    """What the planner answers; a step is its number, description, tool and the steps it depends on."""
    told = [
        {"step_number": number, "description": description, "tool_to_use": tool, "depends_on": after}
        for number, description, tool, *after in steps
    ]
    return json.dumps({"plan": "the plan", "steps": told, "ready": ready})


def seen(success: bool = True, **more: Any) -> str:
    """What the planner makes of a step."""
    return json.dumps({"step_completed_successfully": success, "key_information_learned": "pong"} | more)


def planner(recorder: Recorder, script: Any, *, native: bool = True, **fields: Any) -> Agent:
    """An agent that plans; those of `fields` that are its configuration of planning go there."""
    config = {name: fields.pop(name) for name in CONFIG & fields.keys()}
    if not {"planning", "reasoning"} & fields.keys():
        fields["planning_config"] = PlanningConfig(**{"reasoning_effort": "low", "max_attempts": 1} | config)
    model = fields.pop("model", None)
    if model is not None:
        fields["llm"] = model
    fields.setdefault("tools", [ping(recorder, fields.pop("answer", lambda x: f"pong {x}"))])
    return agent(recorder, script, model_options={"native": native}, **fields)


def planned(recorder: Recorder, script: Any, *, task_options: Any = None, **fields: Any) -> Crew:
    """A crew of one such agent with one task."""
    worker = planner(recorder, script, **fields)
    return Crew(name="solo", agents=[worker], tasks=[task(worker, **(task_options or {}))])


def in_text(recorder: Recorder, **fields: Any) -> Crew:
    """A model that only writes text does the steps; another one makes the plan and observes."""
    other = ScriptedModel.of(recorder, [plan(*STEPS), seen(), seen()], "planner", native=True)
    script = [action("ping", x=1), final("pinged"), final("told"), "the end"]
    return planned(recorder, script, native=False, llm=other, reasoning_effort="medium", **fields)


def beside(recorder: Recorder, first: Any = "one", second: Any = "two", **fields: Any) -> Crew:
    """Two steps that do not depend on each other. Each time a plan is asked for, the next of `plans` is given."""
    plans = iter(fields.pop("plans", [plan(*APART)]))
    observed = fields.pop("observed", seen())
    answers: list[tuple[str, Callable[[], Any]]] = [
        ("Current Step\nfirst", lambda: first),
        ("Current Step\nsecond", lambda: second),
        ("Current Step\nthird", lambda: "three"),
        ("observing execution progress", lambda: observed),
        ("Step 1 (", lambda: "the end"),
        ("## Planning Principles", lambda: next(plans)),
        ("", lambda: "alone"),
    ]

    def answer(messages: list[dict[str, Any]]) -> Any:
        text = "\n".join(str(message.get("content", "")) for message in messages)
        return next(reply for wanted, reply in answers if wanted in text)()

    return planned(recorder, answer, **fields)


def two_tasks(recorder: Recorder) -> Crew:
    worker = planner(recorder, [plan(TELL), "one", "end one", plan((1, "tell more", None)), "two", "end two"])
    return Crew(name="two", agents=[worker], tasks=[task(worker, 0), task(worker, 1)])


def circle(recorder: Recorder) -> Crew:
    """A new plan that gives a step the number of one that is done: CrewAI does the old one again and again."""

    def answer(messages: list[dict[str, Any]]) -> Any:
        text = str(messages)
        if "observing execution progress" in text:
            return seen(False)
        return "one" if "Current Step" in text else plan(TELL)

    return planned(recorder, answer, reasoning_effort="high", max_iter=1)


STEPS = ((1, "ping", "ping"), (2, "tell", None, 1))
TELL = (1, "tell", None)
APART = ((1, "first", None), (2, "second", None))
PING = [[call("ping", x=1)], "pinged"]
BAD = {"id": "c", "type": "function", "function": {"name": "ping", "arguments": "{x"}}
UNREADABLE = {"id": "c", "function": None, "name": "ping"}
TWO_STEPS = [plan(*STEPS), *PING, "told", "the end"]
OBSERVED = [plan(*STEPS), *PING, seen(), "told", seen(), "the end"]
REPLAN = seen(False, needs_full_replan=True, replan_reason="no tea", remaining_plan_still_valid=False)
REPLANNED = [plan(*STEPS), *PING, REPLAN, plan((3, "other way", None)), "other", seen(), "the end"]
REFINED = seen(
    suggested_refinements=[{"step_number": 2, "new_description": "sing"}, {"step_number": 9, "new_description": "no"}]
)
CHAIN = [(number, "tell", None, *([number - 1] if number > 1 else [])) for number in range(1, 13)]
READY = "READY: I am ready to execute the task."
PROMPTS = {
    "system_prompt": "Plan.",
    "plan_prompt": "{role} {goal} {backstory} {description} {expected_output} {tools} {max_steps}",
    "refine_prompt": "{role} {current_plan} {max_steps}",
}

# Name, script of the one model, and fields of the agent, its planning or its task.
ONE_MODEL: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("low", TWO_STEPS, {}),
    ("no tools", [plan(TELL), "one", "the end"], {"tools": []}),
    ("medium", OBSERVED, {"reasoning_effort": "medium"}),
    ("high", OBSERVED, {"reasoning_effort": "high"}),
    ("low but observed", OBSERVED, {"observe_steps": True}),
    ("high but not observed", TWO_STEPS, {"reasoning_effort": "high", "observe_steps": False}),
    ("by planning=True", TWO_STEPS, {"planning": True}),
    ("by reasoning=True", OBSERVED, {"reasoning": True, "max_reasoning_attempts": 2}),
    ("refined", [plan(*STEPS), *PING, REFINED, "told", seen(), "end"], {"reasoning_effort": "high"}),
    ("early", [plan(*STEPS), *PING, seen(goal_already_achieved=True), "end"], {"reasoning_effort": "high"}),
    ("replanned, low", REPLANNED, {"observe_steps": True}),
    ("replanned, medium", REPLANNED, {"reasoning_effort": "medium"}),
    ("replanned, high", REPLANNED, {"reasoning_effort": "high"}),
    ("failed step replanned", [*REPLANNED[:3], seen(False), *REPLANNED[4:]], {"reasoning_effort": "high"}),
    ("failed step left", [*OBSERVED[:3], seen(False), *OBSERVED[4:]], {"reasoning_effort": "medium"}),
    ("failing model", [plan(*STEPS), DOWN, "told", "end"], {}),
    ("tool not used", [plan(*STEPS), "no ping", "told", "end"], {}),
    ("every step fails", [plan(TELL), DOWN], {}),
    ("empty answer", [plan(TELL), ""], {}),
    ("no replans", [*REPLANNED[:4], "end"], {"reasoning_effort": "high", "max_replans": 0}),
    (
        "replans used up",
        [item for number in (1, 2, 3) for item in (plan((number, "try", None)), "tried", seen(False))] + ["end"],
        {"reasoning_effort": "high", "max_replans": 2},
    ),
    ("replan fails", [*REPLANNED[:4], DOWN, DOWN, "told", seen(), "end"], {"reasoning_effort": "high"}),
    ("replan not ready", [*REPLANNED[:4], plan(ready=False), "told", seen(), "end"], {"reasoning_effort": "high"}),
    ("deadlock", [plan((1, "a", None, 2), (2, "b", None, 1)), plan((3, "c", None)), "one", "end"], {}),
    ("deadlocks", [*[plan((1, "a", None, 2))] * 3, "alone"], {"max_replans": 2, "tools": []}),
    ("deadlock, then tools", [plan((1, "a", None, 2)), *PING], {"max_replans": 0}),
    ("long chain", [plan(*CHAIN), *["told"] * 12, "end"], {"max_iter": 1, "max_retry_limit": 0}),
    ("observation fails", [plan(TELL), "one", DOWN, "end"], {"reasoning_effort": "medium"}),
    ("observation unreadable", [plan(TELL), "one", "well", "end"], {"reasoning_effort": "medium"}),
    ("observation in a fence", [plan(TELL), "one", f"```json\n{seen()}\n```", "end"], {"reasoning_effort": "medium"}),
    ("synthesis fails", [plan(TELL), "one", DOWN], {}),
    ("synthesis is empty", [plan(TELL), "one", ""], {}),
    ("long last result", [plan(TELL), LONG], {}),
    ("structured", [plan(TELL), LONG, Report(title="Tea", pages=3)], {"task_options": {"output_pydantic": Report}}),
    ("structured as text", [plan(TELL), "one", REPORT], {"task_options": {"output_json": Report}}),
    ("not ready at first", [plan(ready=False), *TWO_STEPS], {"max_attempts": 3}),
    ("never ready", [plan(*STEPS, ready=False), plan(*STEPS, ready=False), *PING], {"max_attempts": 2}),
    ("ready in words", [READY, *PING], {}),
    ("no readiness", ['{"plan": "x"}', *PING], {}),
    ("unreadable step", ['{"plan": "x", "steps": [{"step_number": "x"}], "ready": true}', *PING], {}),
    ("plan as a call", [[call("create_reasoning_plan", plan="x")], READY, *PING], {}),
    ("planner fails", [DOWN, DOWN, *PING], {}),
    ("planner fails once", [DOWN, plan(*STEPS), *PING], {}),
    ("own prompts", [plan(ready=False), *TWO_STEPS], {"max_attempts": 2, "max_steps": 4, **PROMPTS}),
    ("text model", ["Ping, then tell.", action("ping", x=1), final("done")], {"native": False}),
    ("text model, ready", ["No.", READY, final("done")], {"native": False, "max_attempts": 3}),
    ("text model, empty", ["", final("done")], {"native": False}),
    ("tool fails", TWO_STEPS, {"answer": lambda x: 1 // 0}),
    ("tool refuses", TWO_STEPS, {"answer": refuse}),
    ("unknown tool", [plan(TELL), [call("pong", x=1)], "told", "end"], {}),
    ("bad arguments", [plan(TELL), [BAD], "told", "end"], {}),
    ("unreadable call", [plan(TELL), [call("ping", x=1), UNREADABLE], "told", "end"], {}),
    ("two calls", [plan(TELL), [call("ping", x=1), call("ping", "call_2", x=2)], "told", "end"], {}),
    ("cached", [plan(TELL), [call("ping", x=1)], [call("ping", "call_2", x=1)], "told", "end"], {}),
    ("image", [plan(TELL), [call("ping", x=1)], "told", "end"], {"answer": lambda x: IMAGE}),
    ("iterations used up", [plan(*STEPS), [call("ping", x=1)], "told", "end"], {"max_step_iterations": 1}),
    ("empty after a tool", [plan(*STEPS), [call("ping", x=1)], "", "told", "end"], {}),
    (
        "no functions after all",
        [plan(*STEPS), NO_FUNCTIONS, action("ping", x=1), final("pinged"), final("told"), "end"],
        {},
    ),
    ("no functions, then down", [plan(*STEPS), NO_FUNCTIONS, DOWN, final("told"), "end"], {}),
    ("rate", TWO_STEPS, {"max_rpm": 100}),
    ("verbose", [*REPLANNED[:3], REFINED, "told", *REPLANNED[3:]], {"reasoning_effort": "high", "verbose": True}),
    ("retried", [DOWN, DOWN, DOWN, *TWO_STEPS], {"tools": []}),
]

ALONE: list[tuple[str, list[Any], dict[str, Any], dict[str, Any]]] = [
    ("low", TWO_STEPS, {}, {}),
    ("replanned", REPLANNED, {"reasoning_effort": "high"}, {}),
    ("structured", [plan(TELL), "one", Report(title="Tea", pages=3)], {}, {"response_format": Report}),
    ("text model", ["A plan.", final("done")], {"native": False}, {}),
]

CASES = [
    *(
        Case(f"planning, {name}", lambda r, script=script, fields=fields: planned(r, script, **fields))  # type: ignore[misc]
        for name, script, fields in ONE_MODEL
    ),
    Case("planning, hooks", lambda r: planned(r, OBSERVED, reasoning_effort="high"), hooks=True),
    Case("planning, limited tool", lambda r: limited(r, max_usage_count=1)),
    Case("planning, result as answer", lambda r: limited(r, result_as_answer=True)),
    Case("planning, a number again", circle),
    Case("planning in text", in_text),
    Case("planning in text, hooks", in_text, hooks=True),
    Case("planning in text, tool fails", lambda r: in_text(r, answer=lambda x: 1 // 0)),
    Case("planning in text, image", lambda r: in_text(r, answer=lambda x: IMAGE)),
    Case("planning in text, iterations used up", lambda r: in_text(r, max_step_iterations=1)),
    Case("planning in text, a tool call is denied", in_text, around=at(InterceptionPoint.PRE_TOOL_CALL, abort)),
    Case("planning, a sync model", lambda r: planned(r, [], model=CallOnlyModel.of(r, TWO_STEPS, native=True))),
    Case("planning, two tasks", two_tasks),
    Case("planning, two kickoffs", lambda r: planned(r, TWO_STEPS * 2), rounds=({"topic": "tea"}, {"topic": "juice"})),
    Case(
        "planning, human input",
        lambda r: planned(r, [*TWO_STEPS, "better"], task_options={"human_input": True}),
        inside=reviewed,
    ),
    *(
        Case(f"planning beside, {name}", lambda r, fields=fields: beside(r, **fields), concurrent=MODELS)  # type: ignore[misc]
        for name, fields in {
            "low": {},
            "medium": {"reasoning_effort": "medium"},
            "high": {"reasoning_effort": "high"},
            "one fails": {"first": DOWN},
            "observed as failed": {"reasoning_effort": "medium", "observed": seen(False), "max_replans": 0},
            "replanned": {"first": DOWN, "second": DOWN, "plans": [plan(*APART), plan((3, "third", None))]},
            "not replanned": {"first": DOWN, "second": DOWN, "plans": [plan(*APART), plan(ready=False)]},
            "then one": {"plans": [plan(*APART, (3, "third", None, 1, 2))]},
            "one number": {"plans": [plan((1, "first", None), (1, "second", None))], "max_iter": 1}
            | {"max_retry_limit": 0},
        }.items()
    ),
    *(
        Case(
            f"planning alone, {name}",
            lambda r, script=script, fields=fields: planner(r, script, **fields),  # type: ignore[misc]
            kind="agent",
            rounds=({"messages": "hi", **asked},),
        )
        for name, script, fields, asked in ALONE
    ),
]

DENIED = HookAborted("not today", source="policy")

# What stops a run on purpose; see failures.STOPPED.
STOPPED = [
    *(
        Case(f"planning, denied at {where}", lambda r, script=script: planned(r, script, reasoning_effort="high"))  # type: ignore[misc]
        for where, script in {
            "the plan": [DENIED],
            "the fallback of the plan": [DOWN, DENIED],
            "a step": [plan(*STEPS), DENIED],
            "the text of a step": [plan(*STEPS), NO_FUNCTIONS, DENIED],
            "an observation": [plan(*STEPS), *PING, DENIED],
            "another plan": [*REPLANNED[:4], DENIED],
            "the synthesis": [plan(TELL), "one", seen(), DENIED],
        }.items()
    ),
    Case("planning, not ready, denied", lambda r: planned(r, [plan(ready=False), DENIED], max_attempts=2)),
    Case(
        "planning, failure raises",
        lambda r: planned(r, TWO_STEPS, answer=refuse, tool_failure_policy=ToolFailurePolicy.RAISE),
    ),
    Case(
        "planning in text, failure raises",
        lambda r: in_text(r, answer=refuse, tool_failure_policy=ToolFailurePolicy.RAISE),
    ),
    Case("planning, same call and result five times", lambda r: planned(r, [plan(TELL), *[PING[0]] * 6])),
]


def limited(recorder: Recorder, **fields: Any) -> Crew:
    """A tool with a limit, or whose result ends the step."""
    script = [plan(TELL), [call("ping", x=1)], *([] if "result_as_answer" in fields else [[call("ping", x=2)]])]
    return planned(recorder, [*script, "told", "end"], tools=[ping(recorder, **fields)])
