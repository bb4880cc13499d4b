"""Text-form (ReAct) agents: rounds, limits, odd answers."""

from __future__ import annotations

from ..case import Case
from ..models import AwaitingModel, CallOnlyModel, ScriptedModel, action, final
from ..recorder import Recorder
from ..tools import ping
from .building import solo

ONE = [action("ping", x=1), final("done")]
TWO = [action("ping", x=1), action("ping", x=2), final("done")]


def with_model(kind: type[ScriptedModel]) -> Case:
    def build(recorder: Recorder) -> object:
        return solo(recorder, [], llm=kind.of(recorder, list(ONE)), tools=[ping(recorder)])

    return Case(f"react, {kind.__name__}", build)


CASES = [
    Case("react 0 rounds", lambda r: solo(r, [final("done")])),
    Case("react 0 rounds, hooks", lambda r: solo(r, [final("done")]), hooks=True),
    Case("react 1 round", lambda r: solo(r, ONE, tools=[ping(r)])),
    Case("react 1 round, hooks", lambda r: solo(r, ONE, tools=[ping(r)]), hooks=True),
    Case("react 2 rounds", lambda r: solo(r, TWO, tools=[ping(r)])),
    Case(
        "react 4 rounds, reminded of its tools",
        lambda r: solo(r, [*(action("ping", x=n) for n in range(4)), final("done")], tools=[ping(r)]),
    ),
    Case("react, model without events", lambda r: solo(r, ONE, tools=[ping(r)], model_options={"emits": False})),
    with_model(CallOnlyModel),
    with_model(AwaitingModel),
    Case("react, two tools", lambda r: solo(r, TWO, tools=[ping(r), ping(r, name="second")])),
    Case("react, tool of the task", lambda r: solo(r, ONE, task_options={"tools": [ping(r)]})),
    Case("react, result as answer", lambda r: solo(r, [ONE[0]], tools=[ping(r, result_as_answer=True)])),
    Case("react, max_iter reached", lambda r: solo(r, [*TWO[:2], final("forced")], tools=[ping(r)], max_iter=2)),
    Case(
        "react, max_iter reached, forced answer is an action",
        lambda r: solo(r, TWO, tools=[ping(r)], max_iter=1),
    ),
    Case("react, same call twice", lambda r: solo(r, [ONE[0], ONE[0], final("done")], tools=[ping(r)])),
    Case(
        "react, tool result from the cache",
        lambda r: solo(r, [*TWO[:2], ONE[0], final("done")], tools=[ping(r)], crew_options={"cache": True}),
    ),
    Case(
        "react, cache_function refuses",
        lambda r: solo(
            r,
            [*TWO[:2], ONE[0], final("done")],
            tools=[ping(r, cache_function=lambda arguments, result: "2" in result)],
            crew_options={"cache": True},
        ),
    ),
    Case("react, max_usage_count", lambda r: solo(r, TWO, tools=[ping(r, max_usage_count=1)])),
    Case("react, tool returns a dict", lambda r: solo(r, ONE, tools=[ping(r, lambda x: {"pong": x})])),
    Case("react, tool returns nothing", lambda r: solo(r, ONE, tools=[ping(r, lambda x: None)])),
    Case("react, tool returns a number", lambda r: solo(r, ONE, tools=[ping(r, lambda x: x + 1)])),
    Case("react, unknown tool", lambda r: solo(r, [action("nothing", x=1), final("done")], tools=[ping(r)])),
    Case("react, almost the tool's name", lambda r: solo(r, [action("pings", x=1), final("done")], tools=[ping(r)])),
    Case("react, wrong argument name", lambda r: solo(r, [action("ping", y=1), final("done")], tools=[ping(r)])),
    Case("react, argument of wrong type", lambda r: solo(r, [action("ping", x="one"), final("done")], tools=[ping(r)])),
    Case("react, an argument too many", lambda r: solo(r, [action("ping", x=1, y=2), final("done")], tools=[ping(r)])),
    Case(
        "react, arguments are no JSON",
        lambda r: solo(r, ["Thought: so\nAction: ping\nAction Input: x is 1", final("done")], tools=[ping(r)]),
    ),
    Case(
        "react, arguments are nearly JSON",
        lambda r: solo(r, ["Thought: so\nAction: ping\nAction Input: {'x': 1,}", final("done")], tools=[ping(r)]),
    ),
    Case("react, answer without form", lambda r: solo(r, ["just text"], tools=[ping(r)])),
    Case("react, action without input", lambda r: solo(r, ["Thought: so\nAction: ping"], tools=[ping(r)])),
    Case(
        "react, action and answer in one",
        lambda r: solo(r, [ONE[0] + "\nFinal Answer: both"], tools=[ping(r)]),
    ),
    Case("react, verbose", lambda r: solo(r, ONE, tools=[ping(r)], verbose=True)),
    Case("react, no system prompt", lambda r: solo(r, ONE, tools=[ping(r)], use_system_prompt=False)),
    Case("react, max_rpm not reached", lambda r: solo(r, ONE, tools=[ping(r)], max_rpm=50)),
    Case("react, max_execution_time not reached", lambda r: solo(r, ONE, tools=[ping(r)], max_execution_time=30)),
    Case("react, dated", lambda r: solo(r, ONE, tools=[ping(r)], inject_date=True)),
    Case("react, markdown task", lambda r: solo(r, [final("# done")], task_options={"markdown": True})),
    Case(
        "react, step callback of the agent",
        lambda r: solo(r, TWO, tools=[ping(r)], step_callback=r.callback("step")),
        hooks=True,
    ),
    Case(
        "react, step callback of the crew",
        lambda r: solo(r, ONE, tools=[ping(r)], crew_options={"step_callback": r.callback("crew step")}),
    ),
    Case(
        "react, tool raises",
        lambda r: solo(r, ONE, tools=[ping(r, fail)]),
    ),
    Case("react, tool raises until max_iter", lambda r: solo(r, TWO, tools=[ping(r, fail)], max_iter=2)),
    Case(
        "react, same call and result five times",
        lambda r: solo(
            r,
            [action(name, x=1) for _ in range(6) for name in ("ping", "second")] + [final("done")],
            tools=[ping(r), ping(r, name="second")],
            max_retry_limit=0,
        ),
    ),
    Case(
        "react, arguments by a function calling model",
        lambda r: solo(
            r,
            ["Thought: so\nAction: ping\nAction Input: x is 1", final("done")],
            tools=[ping(r)],
            function_calling_llm=ScriptedModel.of(r, ['{"tool_name": "ping", "arguments": {"x": 1}}'], "functions"),
        ),
    ),
    Case(
        "react, two kickoffs of one crew",
        lambda r: solo(r, [*ONE, *ONE], tools=[ping(r)]),
        rounds=({"topic": "tea"}, {"topic": "coffee"}),
    ),
    Case(
        "inputs None after inputs",
        lambda r: solo(r, [final("one"), final("two")]),
        rounds=({"topic": "tea"}, None),
    ),
    Case("inputs None", lambda r: solo(r, [final("one")]), rounds=(None,)),
    Case(
        "inputs of a wrong type",
        lambda r: solo(r, [final("one")]),
        rounds=(["tea"],),
        not_for=(("AsyncCrew.kickoff", "it refuses them before anything starts"),),
    ),
    Case("inputs lack a name of the task", lambda r: solo(r, [final("one")]), rounds=({"other": "tea"},)),
]


def fail(x: int) -> str:
    raise ValueError(f"cannot ping {x}")
