from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from crewai import Crew
from crewai.crews.crew_output import CrewOutput
from crewai.types.streaming import CrewStreamingOutput

from fastcrew_async import AsyncCrew
from fastcrew_async.engine.copies import _copies
from fastcrew_async.testing import Reply, Request, ScriptedLLM
from tests import crews
from tests.crews import storage

__all__ = ["storage"]

Until = Callable[..., Any]
TOPICS = [{"topic": f"topic {index}"} for index in range(6)]


class Held(ScriptedLLM):
    """Holds each answer until ``let_go``, or only those to messages with the text `at`; knows how many are inside and
    how many were cancelled."""

    def __init__(self, script: Any = crews.echo, at: str = "") -> None:
        super().__init__(script)
        self.__dict__.update(at=at, inside=0, most=0, cancelled=0, asked=[], open=asyncio.Event())

    async def acall(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        state = self.__dict__
        if state["at"] not in str(messages):
            return await super().acall(messages, *args, **kwargs)
        state["asked"].append(messages)
        state["inside"] += 1
        state["most"] = max(state["most"], state["inside"])
        try:
            await state["open"].wait()
        except asyncio.CancelledError:
            state["cancelled"] += 1
            raise
        finally:
            state["inside"] -= 1
        return await super().acall(messages, *args, **kwargs)

    def copy(self, *args: Any, **kwargs: Any) -> Any:
        return self

    __copy__ = copy  # copies of a crew count in one place


def held() -> tuple[Held, AsyncCrew]:
    llm = Held()
    return llm, AsyncCrew(crews.crew(llm=llm))


def failing_on(topic: str) -> Callable[[Request], Reply | str]:
    def script(request: Request) -> Reply | str:
        return Reply("no", status=500) if topic in request.text else crews.echo(request)

    return script


def raws(outputs: list[Any]) -> list[str]:
    return [output.raw for output in outputs]


@pytest.mark.parametrize("wrong", [None, Crew, "crew", 1, object()])
def test_what_is_not_a_crew_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"AsyncCrew needs a crewai\.Crew, got") as raised:
        AsyncCrew(wrong)
    assert repr(wrong) in str(raised.value)
    assert ("not the class" in str(raised.value)) is (wrong is Crew)


def test_it_knows_its_crew() -> None:
    crew = crews.crew()
    assert AsyncCrew(crew).crew is crew
    assert repr(AsyncCrew(crew)) == f"AsyncCrew({crew!r})"


async def test_kickoff_gives_the_crews_output() -> None:
    crew = crews.crew(crews.echo, tasks=2)
    output = await AsyncCrew(crew).kickoff({"topic": "tea"})
    assert isinstance(output, CrewOutput)
    assert output.raw == "tea"
    assert [task.raw for task in output.tasks_output] == ["tea", "tea"]
    assert output.token_usage.total_tokens == 30
    assert crew.tasks[1].output is output.tasks_output[1]


@pytest.mark.parametrize("name", ["inputs", "input_files"])
@pytest.mark.parametrize("wrong", ["topic=tea", [("topic", "tea")], 1, {"tea"}])
async def test_inputs_of_a_wrong_type_are_refused_before_anything_starts(name: str, wrong: Any) -> None:
    llm = ScriptedLLM("done")
    with pytest.raises(TypeError, match=f"{name} must be a dict or Mapping, got {type(wrong).__name__}"):
        await AsyncCrew(crews.crew(llm=llm)).kickoff(**{name: wrong})
    assert llm.requests == []


async def test_a_checkpoint_that_is_none_is_refused_before_anything_starts() -> None:
    llm = ScriptedLLM("done")
    with pytest.raises(TypeError, match=r"from_checkpoint='run.json' must be a CheckpointConfig, as"):
        await AsyncCrew(crews.crew(llm=llm)).kickoff(from_checkpoint="run.json")  # type: ignore[arg-type]
    assert llm.requests == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inputs": None}, "inputs must be a list of dicts, one a run, got NoneType"),
        ({"inputs": 5}, "inputs must be a list of dicts, one a run, got int"),
        ({"inputs": {"topic": "tea"}}, "inputs must be a list of dicts, one a run, got dict"),
        ({"on_result": 5}, "on_result=5 must be a function"),
        ({"progress": "yes"}, "progress='yes' must be True, False, or a function"),
        ({"progress": asyncio.sleep}, "must be True, False, or a function of two numbers that is not async"),
        ({"return_exceptions": "no"}, "return_exceptions='no' must be True or False"),
    ],
)
async def test_what_a_batch_cannot_use_is_refused_before_anything_starts(given: dict[str, Any], message: str) -> None:
    llm = ScriptedLLM("done")
    with pytest.raises(TypeError, match=message):
        await AsyncCrew(crews.crew(llm=llm)).kickoff_for_each(**{"inputs": TOPICS[:1], **given})
    assert llm.requests == []


async def test_one_crew_takes_many_kickoffs_at_once(until: Until) -> None:
    llm, kickoffs = held()
    running = [asyncio.create_task(kickoffs.kickoff(inputs)) for inputs in TOPICS]
    await until(lambda: llm.inside == len(TOPICS))
    llm.open.set()
    assert raws(await asyncio.gather(*running)) == [entry["topic"] for entry in TOPICS]
    assert kickoffs.crew.tasks[0].output is not None
    assert kickoffs.crew.tasks[0].output.raw == "topic 0"


async def test_a_cancelled_kickoff_ends_and_its_crew_is_usable_at_once(until: Until) -> None:
    llm, kickoffs = held()
    running = asyncio.create_task(kickoffs.kickoff({"topic": "tea"}))
    await until(lambda: llm.inside == 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (llm.cancelled, len(llm.asked)) == (1, 1)
    assert _copies.of(kickoffs.crew).running == 0
    llm.open.set()
    assert (await kickoffs.kickoff({"topic": "milk"})).raw == "milk"
    assert len(llm.asked) == 2


async def test_wait_for_cancels_the_run() -> None:
    llm, kickoffs = held()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(kickoffs.kickoff({"topic": "tea"}), 0.05)
    assert llm.inside == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_for_each_gives_the_outputs_in_the_order_of_the_inputs() -> None:
    def last_first(request: Request) -> Reply:
        answer = crews.echo(request)
        return Reply(answer, latency=0.01 * (len(TOPICS) - int(answer.split()[1])))

    ended: list[int] = []
    outputs = await AsyncCrew(crews.crew(last_first)).kickoff_for_each(
        TOPICS, on_result=lambda index, output: ended.append(index)
    )
    assert raws(outputs) == [entry["topic"] for entry in TOPICS]
    assert sorted(ended) == list(range(len(TOPICS)))


async def test_for_each_of_nothing_and_of_a_generator() -> None:
    kickoffs = AsyncCrew(crews.crew(crews.echo))
    assert await kickoffs.kickoff_for_each([]) == []
    assert raws(await kickoffs.kickoff_for_each(entry for entry in TOPICS[:2])) == ["topic 0", "topic 1"]


async def test_no_more_run_at_once_than_asked_for(until: Until) -> None:
    llm, kickoffs = held()
    running = asyncio.create_task(kickoffs.kickoff_for_each(TOPICS, concurrency=2))
    await until(lambda: llm.inside == 2)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(llm.asked) == 2
    llm.open.set()
    assert raws(await running) == [entry["topic"] for entry in TOPICS]
    assert llm.most == 2


async def test_all_run_at_once_by_default(until: Until) -> None:
    llm, kickoffs = held()
    running = asyncio.create_task(kickoffs.kickoff_for_each(TOPICS))
    await until(lambda: llm.inside == len(TOPICS))
    llm.open.set()
    assert len(await running) == len(TOPICS)


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "2"])
async def test_a_concurrency_that_cannot_be_is_refused(wrong: Any) -> None:
    llm = ScriptedLLM("done")
    with pytest.raises(ValueError, match=f"concurrency={wrong!r} must be"):
        await AsyncCrew(crews.crew(llm=llm)).kickoff_for_each(TOPICS, concurrency=wrong)
    assert llm.requests == []


async def test_one_wrong_entry_is_refused_before_anything_starts() -> None:
    llm = ScriptedLLM("done")
    kickoffs = AsyncCrew(crews.crew(llm=llm))
    entries: Any = [{"topic": "tea"}, "milk"]
    with pytest.raises(TypeError, match=r"inputs\[1\] must be a dict or Mapping, got str"):
        await kickoffs.kickoff_for_each(entries)
    with pytest.raises(TypeError, match=r"inputs must be a list of dicts, one a run, got dict"):
        await kickoffs.kickoff_for_each({"topic": "tea"})  # type: ignore[arg-type]
    assert llm.requests == []


async def test_on_result_is_awaited_when_it_is_async() -> None:
    got: dict[int, str] = {}

    async def on_result(index: int, output: Any) -> None:
        await asyncio.sleep(0)
        got[index] = output.raw

    await AsyncCrew(crews.crew(crews.echo)).kickoff_for_each(TOPICS, on_result=on_result)
    assert got == dict(enumerate(entry["topic"] for entry in TOPICS))


async def test_an_error_of_on_result_ends_the_others(until: Until) -> None:
    def on_result(index: int, output: Any) -> None:
        raise KeyError(index)

    llm = Held(crews.echo)
    quick = AsyncCrew(crews.crew(llm=llm))
    running = asyncio.create_task(quick.kickoff_for_each(TOPICS, concurrency=2, on_result=on_result))
    await until(lambda: llm.inside == 2)
    llm.open.set()
    with pytest.raises(KeyError):
        await running
    assert len(llm.asked) <= 4
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_errors_in_the_place_of_their_runs() -> None:
    got: dict[int, Any] = {}
    outputs = await AsyncCrew(crews.crew(failing_on("topic 2"), max_retry_limit=0)).kickoff_for_each(
        TOPICS, return_exceptions=True, on_result=got.__setitem__
    )
    assert isinstance(outputs[2], RuntimeError)
    assert "status 500" in str(outputs[2])
    assert got[2] is outputs[2]
    assert raws([output for index, output in enumerate(outputs) if index != 2]) == [
        entry["topic"] for index, entry in enumerate(TOPICS) if index != 2
    ]


async def test_the_first_error_cancels_the_others() -> None:
    class HeldButOne(Held):
        async def acall(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            if "topic 3" in str(messages):
                raise RuntimeError("down")
            return await super().acall(messages, *args, **kwargs)

    llm = HeldButOne()
    crew = crews.crew(llm=llm, max_retry_limit=0)
    with pytest.raises(RuntimeError, match="down"):
        await asyncio.wait_for(AsyncCrew(crew).kickoff_for_each(TOPICS), 20)
    assert llm.cancelled == len(llm.asked)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    llm.open.set()
    assert (await AsyncCrew(crew).kickoff({"topic": "tea"})).raw == "tea"


async def test_cancelling_for_each_cancels_every_run(until: Until) -> None:
    llm, kickoffs = held()
    running = asyncio.create_task(kickoffs.kickoff_for_each(TOPICS, concurrency=3))
    await until(lambda: llm.inside == 3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (llm.cancelled, len(llm.asked)) == (3, 3)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_progress_tells_a_function_how_many_have_ended() -> None:
    told: list[tuple[int, int]] = []
    await AsyncCrew(crews.crew(crews.echo)).kickoff_for_each(
        TOPICS, concurrency=1, progress=lambda ended, total: told.append((ended, total))
    )
    assert told == [(number, len(TOPICS)) for number in range(1, len(TOPICS) + 1)]


async def test_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    await AsyncCrew(crews.crew(crews.echo)).kickoff_for_each(TOPICS, progress=True)
    assert "kickoffs" in (shown := capsys.readouterr().out)
    assert "6/6" in shown


async def test_as_completed_gives_each_as_it_ends() -> None:
    def first_last(request: Request) -> Reply:
        answer = crews.echo(request)
        return Reply(answer, latency=0.2 if answer == "topic 0" else 0.0)

    got = [(index, output.raw) async for index, output in AsyncCrew(crews.crew(first_last)).as_completed(TOPICS[:3])]
    assert sorted(got) == [(index, f"topic {index}") for index in range(3)]
    assert got[-1] == (0, "topic 0")


async def test_closing_as_completed_cancels_what_has_not_ended() -> None:
    class HeldButOne(Held):
        async def acall(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            if "topic 3" in str(messages):
                return await ScriptedLLM.acall(self, messages, *args, **kwargs)
            return await super().acall(messages, *args, **kwargs)

    llm = HeldButOne()
    results = AsyncCrew(crews.crew(llm=llm)).as_completed(TOPICS)
    assert (await asyncio.wait_for(anext(results), 20))[0] == 3
    await results.aclose()
    assert llm.inside == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_break_cancels_them_too(until: Until) -> None:
    llm = Held()
    llm.open.set()
    async for _ in AsyncCrew(crews.crew(llm=llm)).as_completed(TOPICS, concurrency=2):
        llm.open.clear()
        break
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    assert llm.inside == 0


async def test_cancelling_who_iterates_cancels_them_too(until: Until) -> None:
    llm, kickoffs = held()

    async def iterate() -> None:
        async for _ in kickoffs.as_completed(TOPICS):
            raise AssertionError("all of them are held")

    running = asyncio.create_task(iterate())
    await until(lambda: llm.inside == len(TOPICS))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert llm.cancelled == len(TOPICS)


async def test_a_streaming_crew_gives_a_stream_and_any_number_of_them() -> None:
    crew = crews.crew(crews.echo, crew_options={"stream": True})
    kickoffs = AsyncCrew(crew)

    async def through(topic: str) -> str:
        stream = await kickoffs.kickoff({"topic": topic})
        assert isinstance(stream, CrewStreamingOutput)
        async for _ in stream:
            pass
        return str(stream.result.raw)

    assert await asyncio.gather(*(through(f"topic {index}") for index in range(4))) == [
        f"topic {index}" for index in range(4)
    ]
    assert crew.stream is True
    assert raws(await kickoffs.kickoff_for_each(TOPICS)) == [entry["topic"] for entry in TOPICS]
    assert crew.stream is True


async def test_a_run_that_ends_cancelled_stays_in_its_place() -> None:
    def script(request: Request) -> str:
        if "topic 1" in request.text:
            raise asyncio.CancelledError
        return crews.echo(request)

    crew = AsyncCrew(crews.crew(script))
    results = await crew.kickoff_for_each(TOPICS[:3], return_exceptions=True)
    assert isinstance(results[1], asyncio.CancelledError)
    assert [type(result) for result in results[::2]] == [CrewOutput, CrewOutput]
