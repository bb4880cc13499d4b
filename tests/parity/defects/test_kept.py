"""Defects that change results, which programs may rely on: ours are as CrewAI's. 9 to 15, 18, 24 to 26, 28."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from crewai import Crew
from crewai.events.types.agent_events import AgentExecutionErrorEvent
from crewai.hooks import register_before_llm_call_hook
from pydantic import PrivateAttr

from ..cases.building import agent, solo, task
from ..cases.failures import DOWN, cleared
from ..models import ScriptedModel, action, call, final
from ..recorder import Recorder
from ..tools import ping
from ..ways import OURS, Way, stock_way
from .roads import INPUTS, Kickoff, Work, handling, ours, run, ways


def same(way: Way, work: Work[Any], kind: str = "crew") -> Any:
    """What `work` gives in CrewAI and here, which must be one thing."""
    expected = run(stock_way(kind, way.reference), work)
    assert run(way, work) == expected
    return expected


def _ping_that_fails(seen: list[int]) -> Callable[[int], Any]:
    def fail(x: int) -> Any:
        seen.append(x)
        raise ValueError("no ping")

    return fail


# 9
@ours()
@pytest.mark.parametrize("native", [False, True], ids=["react", "native"])
def test_a_failing_react_tool_is_run_six_times_an_action(way: Way, native: bool) -> None:
    async def runs(kickoff: Kickoff) -> int:
        seen: list[int] = []
        acts = [[call("ping", x=n)] if native else action("ping", x=n) for n in range(2)]
        recorder = Recorder()
        tools = [ping(recorder, _ping_that_fails(seen))]
        end = "done" if native else final("done")
        await kickoff(solo(recorder, [*acts, end], tools=tools, max_iter=2, model_options={"native": native}), INPUTS)
        return len(seen)

    assert same(way, runs) == (2 if native else 12)


# 10
@ours()
@pytest.mark.parametrize("native", [False, True], ids=["react", "native"])
def test_a_react_use_counts_twice(way: Way, native: bool) -> None:
    async def runs(kickoff: Kickoff) -> int:
        recorder = Recorder()
        acts = [[call("ping", x=n)] if native else action("ping", x=n) for n in range(3)]
        end = "done" if native else final("done")
        tools = [ping(recorder, max_usage_count=2)]
        await kickoff(solo(recorder, [*acts, end], tools=tools, model_options={"native": native}), INPUTS)
        return sum(entry.kind == "tool" for entry in recorder.entries)

    assert same(way, runs) == (2 if native else 1)


# 11
@ours()
def test_a_result_as_answer_also_answers_a_later_task(way: Way) -> None:
    async def raws(kickoff: Kickoff) -> list[str]:
        recorder = Recorder()
        worker = agent(recorder, [action("ping", x=1), final("second")])
        tasks = [task(worker, 0, tools=[ping(recorder, result_as_answer=True)]), task(worker, 1)]
        return [output.raw for output in (await kickoff(Crew(agents=[worker], tasks=tasks), INPUTS)).tasks_output]

    assert same(way, raws) == ["pong 1", "pong 1"]


# 12
@ours()
def test_retries_are_counted_over_an_agents_life(way: Way) -> None:
    async def ends(kickoff: Kickoff) -> list[str]:
        crew = solo(Recorder(), [DOWN, final("one"), DOWN, final("two"), DOWN], max_retry_limit=2)
        ended = []
        for _ in range(3):
            try:
                ended.append((await kickoff(crew, INPUTS)).raw)
            except RuntimeError as error:
                ended.append(str(error))
        return ended

    assert same(way, ends) == ["one", "two", "the provider is down"]


# 13
@ours()
@pytest.mark.parametrize("native", [False, True], ids=["react", "native"])
def test_a_react_tool_call_changes_the_agents_fingerprint(way: Way, native: bool) -> None:
    async def changed(kickoff: Kickoff) -> bool:
        recorder = Recorder()
        script: list[Any] = [[call("ping", x=1)], "done"] if native else [action("ping", x=1), final("done")]
        crew = solo(recorder, script, tools=[ping(recorder)], model_options={"native": native})
        before = crew.agents[0].fingerprint.uuid_str
        await kickoff(crew, INPUTS)
        return crew.agents[0].fingerprint.uuid_str != before

    assert same(way, changed) is not native


# 14
@ours()
def test_a_hook_registered_late_is_not_called_for_an_agent_that_ran(way: Way) -> None:
    async def calls(kickoff: Kickoff) -> list[str]:
        seen: list[str] = []
        worker = agent(Recorder(), lambda messages: final("done"))
        old = Crew(agents=[worker], tasks=[task(worker)])
        with cleared():
            await kickoff(old, {"topic": "before"})
            register_before_llm_call_hook(lambda ctx: seen.append(str(ctx.messages[-1]["content"]).split()[-1]))
            await kickoff(old, {"topic": "after"})
            await kickoff(solo(Recorder(), lambda messages: final("done")), {"topic": "new"})
        return [str(len(seen))]

    assert same(way, calls) == ["1"]


# 15
def _two_agents_on_one_model() -> Crew:
    recorder = Recorder()
    model = ScriptedModel.of(recorder, lambda messages: final("done"))
    first, second = agent(recorder, role="First", llm=model), agent(recorder, role="Second", llm=model)
    return Crew(agents=[first, second], tasks=[task(first)])


@ours()
def test_agents_that_share_a_model_share_its_counters(way: Way) -> None:
    async def tokens(kickoff: Kickoff) -> list[int]:
        crew = _two_agents_on_one_model()
        return [(await kickoff(crew, INPUTS)).token_usage.total_tokens for _ in range(2)]

    assert same(way, tokens) == [30, 60]  # 15 were used, and 15 more


class MeetingModel(ScriptedModel):
    """Its calls end when `number` have counted their tokens, so that no run reads its counters before."""

    number: int = 1
    _counted: list[int] = PrivateAttr(default_factory=list)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        answer = super().call(*args, **kwargs)
        self._counted.append(1)
        while len(self._counted) < self.number:
            time.sleep(0.001)
        return answer

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        answer = await super().acall(*args, **kwargs)
        self._counted.append(1)
        while len(self._counted) < self.number:
            await asyncio.sleep(0.001)
        return answer


def _tokens_of_each(way: Way, at_once: int) -> int:
    recorder = Recorder()
    model = MeetingModel.of(recorder, lambda messages: final("done"), number=at_once)
    crew = solo(recorder, [], llm=model)

    async def tokens(kickoff: Kickoff) -> int:
        await kickoff(crew, [INPUTS] * 3)
        return int(crew.usage_metrics.total_tokens)

    return run(way, tokens)


@ways(OURS["each"], "installed kickoff_for_each")
def test_for_each_adds_up_lifetime_counters(way: Way) -> None:
    assert _tokens_of_each(stock_way("each", way.reference), 1) == 90  # 45 were used
    assert _tokens_of_each(way, 1) == 90


@ways(OURS["each"], "installed akickoff_for_each")
def test_for_each_at_once_adds_up_lifetime_counters(way: Way) -> None:
    assert _tokens_of_each(stock_way("each", way.reference), 3) == 135
    assert _tokens_of_each(way, 3) == 135


# 18
@ours()
def test_an_async_task_does_not_see_the_task_before_it(way: Way) -> None:
    async def contexts(kickoff: Kickoff) -> list[str]:
        worker, other = agent(Recorder(), [final("one"), final("three")]), agent(Recorder(), [final("two")], role="O")
        tasks = [task(worker, 0), task(other, 1, async_execution=True), task(worker, 2)]
        crew = Crew(agents=[worker, other], tasks=tasks)
        await kickoff(crew, INPUTS)
        return [str(one.prompt_context) for one in crew.tasks]

    empty, beside, after = same(way, contexts)
    assert (empty, beside) == ("", "")
    assert "one" in after
    assert "two" in after


# 24
@ours("AsyncCrew.kickoff", "installed akickoff", "installed kickoff_async")
def test_chunks_have_no_task_and_the_model_streams_on(way: Way) -> None:
    async def chunks(kickoff: Kickoff) -> Any:
        crew = solo(Recorder(), [final("done")], model_options={"chunked": True}, crew_options={"stream": True})
        stream = await kickoff(crew, INPUTS)
        seen = [(chunk.content, chunk.task_name, chunk.task_id, chunk.task_index) async for chunk in stream]
        return seen, crew.agents[0].llm.stream

    seen, streams = same(way, chunks)
    assert seen[0] == ("Thought:", "", "", 0)
    assert streams is True


# 25
@ours()
def test_no_inputs_after_inputs_are_the_ones_before(way: Way) -> None:
    async def descriptions(kickoff: Kickoff) -> list[Any]:
        crew = solo(Recorder(), lambda messages: final("done"))
        seen: list[Any] = []
        for inputs in ({"topic": "tea"}, None):
            await kickoff(crew, inputs)
            seen.append((crew.tasks[0].description, crew._inputs))
        return seen

    last = {} if way.reference == "kickoff_async" else {"topic": "tea"}
    assert same(way, descriptions) == [("Job 0 about tea", {"topic": "tea"}), ("Job 0 about tea", last)]


# 26
@ours("installed kickoff")
def test_a_sync_kickoff_in_a_running_loop_fails_after_three_attempts(way: Way) -> None:
    async def errors(_: Kickoff) -> tuple[str, int]:
        seen: list[str] = []
        failed = handling(lambda source, event: seen.append(event.error), AgentExecutionErrorEvent)
        with failed, pytest.raises(RuntimeError) as raised:
            solo(Recorder(), [final("never")]).kickoff(inputs=INPUTS)
        return str(raised.value).split(".")[0], len(seen)

    assert same(way, errors) == (
        "Agent execution was invoked synchronously from within a running event loop",
        3,
    )


# 28: the table that these wipe is everyone's in CrewAI; here nothing is wiped
def _replayed_after_for_each(way: Way) -> str:
    async def raw(kickoff: Kickoff) -> str:
        crew = solo(Recorder(), lambda messages: final("done"))
        await asyncio.to_thread(crew.kickoff, inputs=INPUTS)
        await kickoff(solo(Recorder(), lambda messages: final("other")), [INPUTS])
        try:
            return str((await asyncio.to_thread(crew.replay, str(crew.tasks[0].id))).raw)
        except ValueError as error:
            return str(error).split()[-1]

    return run(way, raw)


@ways(OURS["each"])
def test_for_each_leaves_the_rows_of_other_runs(way: Way) -> None:
    assert _replayed_after_for_each(stock_way("each", way.reference)) != "done"
    assert _replayed_after_for_each(way) == "done"
