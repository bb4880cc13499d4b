from __future__ import annotations

import asyncio
import gc
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from crewai import Agent, Crew, Task
from crewai.tasks.llm_guardrail import LLMGuardrail

from fastcrew_async import AsyncCrew
from fastcrew_async.engine import copies
from fastcrew_async.engine.copies import copy_of, exclusive
from fastcrew_async.engine.drivers import drive_in_place
from fastcrew_async.engine.run import run_crew
from fastcrew_async.testing import ScriptedLLM
from tests import crews

VALID = '{"valid": true, "feedback": null}'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tasks write their files."""
    monkeypatch.chdir(tmp_path)


def run(crew: Crew, **inputs: str) -> Any:
    return drive_in_place(run_crew(crew, inputs or None, None))


def rich_crew() -> Crew:
    """Two agents on one model, a task with context, tools with and without a limit, a guardrail by a model."""
    llm = ScriptedLLM(lambda request: VALID if "It is short" in request.text else "done")
    limited = crews.ping.model_copy(update={"max_usage_count": 3})
    one = Agent(role="One for {topic}", goal="{topic}", backstory="{topic}", llm=llm, tools=[crews.ping, limited])
    two = Agent(role="Two", goal="Find out", backstory="Curious", llm=llm)
    first = Task(description="Job about {topic}.", expected_output="{topic}", agent=one, output_file="{topic}.txt")
    second = Task(description="Again", expected_output="A word", agent=two, context=[first], callback=print)
    second._guardrail = LLMGuardrail(description="It is short", llm=llm)
    return Crew(agents=[one, two], tasks=[first, second], cache=True, task_callback=repr, step_callback=repr)


def test_an_idle_crew_runs_itself_and_a_busy_one_gives_copies() -> None:
    crew = crews.crew()
    with exclusive(crew) as first:
        assert first is crew
        with exclusive(crew) as second, exclusive(crew) as third:
            assert len({id(first), id(second), id(third)}) == 3
            assert isinstance(second, Crew)
    with exclusive(crew) as again:
        assert again is crew


def test_while_a_copy_runs_the_crew_itself_is_not_taken() -> None:
    crew = crews.crew()
    own, beside = exclusive(crew), exclusive(crew)
    assert own.__enter__() is crew
    copied = beside.__enter__()
    own.__exit__()
    with exclusive(crew) as later:
        assert later is not crew
        assert later is not copied
    beside.__exit__()
    with exclusive(crew) as again:
        assert again is crew


def test_a_failed_run_gives_its_crew_back() -> None:
    crew = crews.crew()

    def fail() -> None:
        with exclusive(crew), exclusive(crew):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with exclusive(crew) as again:
        assert again is crew
    assert len(copies._copies.of(crew).idle) == 1


def test_copies_are_taken_again() -> None:
    crew = crews.crew()
    with exclusive(crew):
        with exclusive(crew) as copied:
            pass
        with exclusive(crew) as again, exclusive(crew) as other:
            assert again is copied
            assert other is not copied


def test_idle_copies_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "IDLE_COPIES", 2)
    crew = crews.crew()
    with ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(exclusive(crew))
    assert len(copies._copies.of(crew).idle) == 2


def test_the_table_forgets_a_crew_that_is_gone() -> None:
    gc.collect()
    before = len(copies._copies)
    crew = crews.crew()
    with exclusive(crew), exclusive(crew):
        pass
    assert len(copies._copies) == before + 1
    del crew
    gc.collect()
    assert len(copies._copies) == before


def test_a_copy_has_its_own_of_what_a_run_changes() -> None:
    crew = rich_crew()
    run(crew, topic="tea")
    copied = copy_of(crew)
    assert copied.id != crew.id
    assert copied._cache_handler is not crew._cache_handler
    assert copied._task_output_handler is not crew._task_output_handler
    assert (copied.usage_metrics, copied.token_usage, copied.execution_logs, copied._inputs) == (None, None, [], None)
    assert copied.security_config is not crew.security_config
    for agent, original in zip(copied.agents, crew.agents, strict=True):
        assert agent is not original
        assert agent.id != original.id
        assert agent.crew is copied
        assert agent.agent_executor is None
        assert agent.tools_handler is not original.tools_handler
        assert agent.tools_handler.cache is copied._cache_handler
        assert agent.tools_results is not original.tools_results
        assert agent._token_process is not original._token_process
        assert agent._last_messages == []
        assert original._last_messages != []
    for task, original_task in zip(copied.tasks, crew.tasks, strict=True):
        assert task is not original_task
        assert task.id != original_task.id
        assert original_task.output is not None
        assert (task.output, task.prompt_context, task.start_time, task.end_time) == (None, None, None, None)
        assert task.processed_by_agents == set()
        assert task._guardrail_retry_counts is not original_task._guardrail_retry_counts


def test_a_copy_holds_together_like_its_original() -> None:
    crew = rich_crew()
    copied = copy_of(crew)
    first, second = copied.tasks
    assert second.context == [first]
    assert second.context[0] is first
    assert [task.agent for task in copied.tasks] == copied.agents
    assert all(task.agent is agent for task, agent in zip(copied.tasks, copied.agents, strict=True))
    assert copied.agents[0].llm is copied.agents[1].llm  # one model there, one model here
    assert second._guardrail.llm is copied.agents[0].llm  # type: ignore[union-attr]
    assert second._guardrail is not crew.tasks[1]._guardrail


def test_a_copy_shares_what_is_configuration() -> None:
    crew = rich_crew()
    copied = copy_of(crew)
    assert copied.task_callback is crew.task_callback
    assert copied.step_callback is crew.step_callback
    assert copied.tasks[1].callback is crew.tasks[1].callback
    assert copied._rpm_controller is crew._rpm_controller
    plain, limited = copied.agents[0].tools
    assert plain is crew.agents[0].tools[0]
    assert limited is not crew.agents[0].tools[1]
    assert copied.agents[0].llm is not crew.agents[0].llm
    assert copied.agents[0].llm._prompter is crew.agents[0].llm._prompter


def test_texts_of_a_copy_are_the_templates() -> None:
    crew = rich_crew()
    run(crew, topic="tea")
    assert crew.tasks[0].description == "Job about tea."
    copied = copy_of(crew)
    assert copied.tasks[0].description == "Job about {topic}."
    assert copied.tasks[0].expected_output == "{topic}"
    assert copied.tasks[0].output_file == "{topic}.txt"
    agent = copied.agents[0]
    assert (agent.role, agent.goal, agent.backstory) == ("One for {topic}", "{topic}", "{topic}")
    run(copied, topic="milk")
    assert copied.tasks[0].description == "Job about milk."
    assert crew.tasks[0].description == "Job about tea."
    assert crew.agents[0].role == "One for tea"


def test_a_copy_that_is_taken_again_knows_nothing_of_its_last_run() -> None:
    crew = crews.crew(crews.use_ping, tools=[crews.ping.model_copy(update={"max_usage_count": 9})])
    crew.tasks[0].allow_crewai_trigger_context = True
    with exclusive(crew):
        with exclusive(crew) as copied:
            assert run(copied, topic="tea", crewai_trigger_payload="secret").token_usage.total_tokens == 30
            assert copied.agents[0].tools[0].current_usage_count > 0
        with exclusive(crew) as again:
            assert again is copied
            assert again._inputs is None
            assert again.tasks[0].description == "Job about {topic}."
            assert again.tasks[0].output is None
            assert again.agents[0].role == "Researcher"
            assert again.agents[0].tools[0].current_usage_count == 0
            assert again.agents[0]._last_messages == []
            output = run(again)
            assert "secret" not in str(output.tasks_output[0].messages)
            assert output.token_usage.total_tokens == 30


def test_the_usage_of_a_copy_is_that_of_its_run_and_the_originals_stays() -> None:
    crew = crews.crew()
    run(crew, topic="tea")
    with exclusive(crew), exclusive(crew) as copied:
        assert run(copied, topic="tea").token_usage.total_tokens == 15
    assert crew.agents[0].llm.get_token_usage_summary().total_tokens == 15


async def test_crews_that_share_an_agent_do_not_see_each_others_runs() -> None:
    shared = crews.agent("done", llm=ScriptedLLM("done", latency=0.02), role="One for {topic}")
    told: dict[str, list[Any]] = {"tea": [], "milk": []}

    def crew_for(topic: str) -> Crew:
        tasks = [crews.task(shared), crews.task(shared, description="Again about {topic}.")]
        return Crew(agents=[shared], tasks=tasks, task_callback=told[topic].append)

    made = {topic: crew_for(topic) for topic in told}
    outputs: list[Any] = await asyncio.gather(
        *(AsyncCrew(crew).kickoff({"topic": topic}) for topic, crew in made.items())
    )
    for (topic, crew), output in zip(made.items(), outputs, strict=True):
        assert [output.description for output in told[topic]] == [f"Job about {topic}.", f"Again about {topic}."]
        assert [task.agent for task in output.tasks_output] == [f"One for {topic}"] * 2
        assert output.token_usage.total_tokens == 30
        assert [task.output for task in crew.tasks] == output.tasks_output  # each is the crew that was given
        assert crew.agents == [shared]
        assert all(task.agent is shared for task in crew.tasks)
    for request in shared.llm.requests:
        assert ("One for tea" in request.text) is ("about tea" in request.text)
    assert not copies._at_work


async def test_crews_that_share_a_task_do_not_see_each_others_runs() -> None:
    shared = crews.agent(crews.echo, llm=ScriptedLLM(crews.echo, latency=0.02))
    tasks = [crews.task(shared), crews.task(shared)]
    crews_of_it = [AsyncCrew(Crew(agents=[shared], tasks=tasks)) for _ in range(2)]
    outputs: list[Any] = await asyncio.gather(
        *(crew.kickoff({"topic": topic}) for crew, topic in zip(crews_of_it, ("tea", "milk"), strict=True))
    )
    assert [[task.raw for task in output.tasks_output] for output in outputs] == [["tea"] * 2, ["milk"] * 2]


def test_what_a_run_works_with_is_free_at_its_end() -> None:
    crew = crews.crew()
    other = Crew(agents=crew.agents, tasks=[crews.task(crew.agents[0])])
    with exclusive(crew), exclusive(other) as taken:
        assert taken is other
        assert other.agents[0] is not crew.agents[0]
    with exclusive(other) as taken:
        assert taken is other
        assert other.agents[0] is crew.agents[0]
    assert not copies._at_work
