"""Steps that run beside each other begin in their order, as CrewAI's do on threads that are made for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from crewai.events.event_bus import crewai_event_bus
from crewai.events.types.flow_events import MethodExecutionStartedEvent
from crewai.flow.flow import Flow, start

import fastcrew_async
from fastcrew_async import workers
from fastcrew_async.engine import in_order


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    fastcrew_async.install()
    yield
    fastcrew_async.uninstall()


class Two(Flow[dict[str, Any]]):
    @start()
    def first(self) -> None:
        self.state["flower"] = "roses"

    @start()
    def second(self) -> None:
        self.state["color"] = "red"


def told(flow: Flow[Any], run: Callable[[], Any]) -> dict[str, set[str]]:
    """What each step's event says is in the state."""
    states: dict[str, set[str]] = {}
    with crewai_event_bus.scoped_handlers():

        @crewai_event_bus.on(MethodExecutionStartedEvent)
        def note(source: Any, event: MethodExecutionStartedEvent) -> None:
            if source is flow:
                states[event.method_name] = set(event.state) - {"id"}

        run()
        crewai_event_bus.flush()
    return states


@pytest.mark.parametrize("repeat", range(10))
def test_the_event_of_a_step_shows_what_the_one_before_it_wrote(repeat: int) -> None:
    flow = Two()
    assert told(flow, flow.kickoff) == {"first": set(), "second": {"flower"}}


def test_so_it_does_on_the_callers_loop() -> None:
    flow = Two()
    assert told(flow, lambda: asyncio.run(flow.kickoff_async())) == {"first": set(), "second": {"flower"}}  # type: ignore[arg-type]


async def test_they_run_beside_each_other() -> None:
    both = threading.Barrier(3)

    class Waiting(Flow[dict[str, Any]]):
        @start()
        def first(self) -> None:
            both.wait(10)

        @start()
        def second(self) -> None:
            both.wait(10)

        @start()
        async def third(self) -> None:
            await workers.pool().run(both.wait, 10)

    await asyncio.wait_for(Waiting().kickoff_async(), 10)


async def test_a_step_that_gets_no_worker_does_not_hold_up_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, taken, free = asyncio.Event(), threading.Event(), threading.Event()

    class Behind(Flow[dict[str, Any]]):
        @start()
        def first(self) -> None:
            pass

        @start()
        async def second(self) -> None:
            begun.set()

    full = workers.WorkerPool(1)
    monkeypatch.setattr(in_order.workers, "pool", lambda: full)
    keeping = asyncio.create_task(full.run(lambda: (taken.set(), free.wait(10))))
    assert await asyncio.to_thread(taken.wait, 10)
    running = asyncio.create_task(Behind().kickoff_async())
    await asyncio.wait_for(begun.wait(), 10)
    assert not running.done()
    free.set()
    await asyncio.wait_for(asyncio.gather(running, keeping), 10)
    full.close()


async def test_the_error_of_one_is_the_error_of_all() -> None:
    class Failing(Flow[dict[str, Any]]):
        @start()
        def first(self) -> None:
            raise LookupError("no roses")

        @start()
        async def second(self) -> None:
            await asyncio.sleep(0)

    with pytest.raises(LookupError, match="no roses"):
        await Failing().kickoff_async()


async def test_a_cancellation_ends_those_that_have_not_begun() -> None:
    entered, free = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    class Stopped(Flow[dict[str, Any]]):
        @start()
        def first(self) -> None:
            loop.call_soon_threadsafe(entered.set)
            free.wait(10)

        @start()
        async def second(self) -> None:
            await asyncio.Event().wait()

        @start()
        async def third(self) -> None:
            await asyncio.Event().wait()

    running = asyncio.create_task(Stopped().kickoff_async())
    await asyncio.wait_for(entered.wait(), 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    free.set()
    assert asyncio.all_tasks() == {asyncio.current_task()}
