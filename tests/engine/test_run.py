from __future__ import annotations

import asyncio
from typing import Any

import pytest
from crewai import Crew, Process
from crewai.tasks.conditional_task import ConditionalTask

from fastcrew_async.engine.drivers import drive, drive_in_place
from fastcrew_async.engine.run import run_crew
from fastcrew_async.testing import Reply, Request, ScriptedLLM
from tests import crews


def run(crew: Crew, inputs: Any = None) -> Any:
    return drive_in_place(run_crew(crew, inputs, None))


async def test_both_drivers_give_the_same() -> None:
    in_place, on_loop = (crews.crew(crews.echo, tasks=3) for _ in range(2))
    first = await asyncio.to_thread(run, in_place, {"topic": "tea"})
    second = await drive(run_crew(on_loop, {"topic": "tea"}, None))
    assert [output.raw for output in first.tasks_output] == [output.raw for output in second.tasks_output]
    assert first.token_usage == second.token_usage == on_loop.usage_metrics


async def test_async_tasks_run_beside_the_following_one(until: Any) -> None:
    def steps(request: Request) -> Reply:
        return Reply(crews.echo(request), latency=0.05 if "slow" in request.text else 0.0)

    agent = crews.agent(steps)
    slow = [crews.task(agent, description=f"Job about slow {n}.", async_execution=True) for n in range(2)]
    last = crews.task(agent, description="Job about the last.", context=slow)
    output = await drive(run_crew(Crew(agents=[agent], tasks=[*slow, last]), None, None))
    assert [task.raw for task in output.tasks_output] == ["slow 0", "slow 1", "the last"]
    assert "slow 1" in agent.llm.requests[-1].text


def test_a_conditional_task_runs_or_is_skipped() -> None:
    for verdict in (True, False):
        agent = crews.agent(["first", "second", "third"])
        maybe = ConditionalTask(
            description="Maybe",
            expected_output="A word",
            agent=agent,
            condition=lambda output, verdict=verdict: verdict,
        )
        crew = Crew(agents=[agent], tasks=[crews.task(agent), maybe, crews.task(agent, description="Last")])
        output = run(crew)
        assert output.raw == ("third" if verdict else "second")
        assert output.tasks_output[1].raw == ("second" if verdict else "")


def test_callbacks_around_a_kickoff_change_what_goes_through() -> None:
    crew = crews.crew(crews.echo)
    crew.before_kickoff_callbacks.append(lambda inputs: {**inputs, "topic": "milk"})
    crew.after_kickoff_callbacks.append(lambda output: f"{output.raw} and more")
    assert run(crew, {"topic": "tea"}) == "milk and more"


def test_a_manager_delegates() -> None:
    agent = crews.agent("by the worker")
    crew = Crew(
        agents=[agent],
        tasks=[crews.task(None, description="Job")],
        process=Process.hierarchical,
        manager_llm=ScriptedLLM("by the manager"),
    )
    assert run(crew).raw == "by the manager"


@pytest.mark.parametrize("wrong", ["topic=tea", 1, [("topic", "tea")]])
def test_inputs_of_a_wrong_type(wrong: Any) -> None:
    llm = ScriptedLLM("done")
    with pytest.raises(TypeError, match=f"inputs must be a dict or Mapping, got {type(wrong).__name__}"):
        run(crews.crew(llm=llm), wrong)
    assert llm.requests == []


def test_a_missing_input_is_named() -> None:
    with pytest.raises(ValueError, match="topic"):
        run(crews.crew(), {"other": "x"})


def test_a_body_of_the_users_own_is_run() -> None:
    class Own(Crew):
        def _run_sequential_process(self) -> Any:
            return self._create_crew_output([output])

    agent = crews.agent("by the engine")
    task = crews.task(agent, description="Job")
    output = run(Crew(agents=[agent], tasks=[task])).tasks_output[0]
    output.raw = "by the user"
    own = Own(agents=[agent], tasks=[task])
    assert run(own).raw == "by the user"


async def test_a_failing_task_ends_those_beside_it() -> None:
    def script(request: Request) -> Reply:
        return Reply("no", status=500) if "fails" in request.text else Reply("late", latency=600)

    agent, failing = crews.agent(script), crews.agent(script, role="Failing", max_retry_limit=0)
    first = crews.task(failing, description="It fails", async_execution=True)
    beside = crews.task(agent, description="Job", async_execution=True)
    crew = Crew(agents=[agent, failing], tasks=[first, beside, crews.task(agent, description="Last")])
    with pytest.raises(RuntimeError, match="status 500"):
        await asyncio.wait_for(drive(run_crew(crew, None, None)), 30)
    assert asyncio.all_tasks() == {asyncio.current_task()}
