from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from crewai import Crew

from fastcrew_async.engine import kickoff as engine
from fastcrew_async.engine.for_each import for_each_input
from fastcrew_async.engine.turnstile import turnstile
from fastcrew_async.testing import Request, ScriptedLLM
from tests import crews


async def start(taken: Crew, inputs: Any) -> Any:
    return await engine.kickoff(taken, inputs)


def topics(count: int) -> list[dict[str, str]]:
    return [{"topic": str(n)} for n in range(count)]


async def test_outputs_in_the_order_of_the_inputs_and_the_crew_untouched() -> None:
    crew = crews.crew(crews.echo)
    results = await for_each_input(crew, iter(topics(30)), start)
    assert [result.raw for result in results] == [str(n) for n in range(30)]
    assert crew.tasks[0].output is None
    assert crew.usage_metrics is not None


async def test_each_run_has_a_crew_of_its_own() -> None:
    crew, taken = crews.crew(), []

    async def note(copy: Crew, inputs: Any) -> Any:
        taken.append(copy)
        return await start(copy, inputs)

    await for_each_input(crew, topics(3), note)
    assert len({copy.id for copy in (crew, *taken)}) == 4
    assert len({id(copy.agents[0]) for copy in (crew, *taken)}) == 4


async def test_copies_are_made_in_steps_that_pass_the_turnstile() -> None:
    gate = turnstile()
    before = gate.stats().steps
    await for_each_input(crews.crew(), topics(50), lambda taken, inputs: asyncio.sleep(0))
    assert gate.stats().steps - before >= 50


async def test_no_inputs_no_outputs() -> None:
    assert await for_each_input(crews.crew(), [], start) == []


async def test_the_first_error_cancels_the_others(until: Any) -> None:
    def script(request: Request) -> str:
        if "about 1." in request.text:
            raise ValueError("no")
        return "done"

    llm = ScriptedLLM(script)
    ended: list[str] = []

    async def wait(taken: Crew, inputs: Any) -> Any:
        if inputs["topic"] == "1":
            return await start(taken, inputs)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ended.append(inputs["topic"])
            raise

    with pytest.raises(ValueError, match="no"):
        await for_each_input(crews.crew(llm=llm), topics(3), wait)
    assert sorted(ended) == ["0", "2"]


async def test_a_cancel_ends_all_runs(until: Any) -> None:
    llm = ScriptedLLM("never", latency=30)
    running = asyncio.create_task(for_each_input(crews.crew(llm=llm), topics(3), start))
    await until(lambda: len(asyncio.all_tasks()) > 4)
    others = asyncio.all_tasks() - {asyncio.current_task(), running}
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert all(task.done() for task in others)


async def test_a_copy_of_the_users_own_is_made_off_the_loop() -> None:
    threads: list[int] = []

    class Noting(Crew):
        def copy(self) -> Crew:  # type: ignore[override]
            threads.append(threading.get_ident())
            return super().copy()

    worker = crews.agent("done")
    crew = Noting(agents=[worker], tasks=[crews.task(worker)])
    assert [result.raw for result in await for_each_input(crew, topics(2), start)] == ["done", "done"]
    assert len(threads) == 2
    assert threading.get_ident() not in threads
