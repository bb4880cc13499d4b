"""1,000 cancels at random moments: no leaked task, thread, scope or frame, and a green run right after."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from crewai.events.event_context import _event_id_stack

import fastcrew_async
from fastcrew_async import AsyncCrew, workers
from fastcrew_async.engine import collector
from fastcrew_async.engine.copies import _copies
from fastcrew_async.engine.turnstile import turnstile
from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.chaos.witness import Witness, suspended_coroutines, witnessed
from tests.roads.at_once import resets_a_rate

CANCELS = 100  # of each of the ten scenarios
AT_ONCE = 20
SEED = int(os.environ.get("FASTCREW_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)


@dataclass
class Ended:
    """How one run went: the calls it had started when it was asked to end, and when it had ended."""

    run: str
    cancelled: bool
    starts: int


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_a_thousand_cancels(scenario: Scenario, until):
    print(f"FASTCREW_CHAOS_SEED={SEED}")
    moments = random.Random(f"{SEED} {scenario.name}")
    async with witnessed() as witness:
        crew = scenario.make(witness)
        kickoff = AsyncCrew(crew).kickoff
        steps, seconds = await _length_of_a_run(witness, kickoff)
        await _burst(witness, kickoff, "warm-up", [(1, 0.0)] * AT_ONCE)
        threads_before = _other_threads()
        abandoned = workers.pool().stats()["abandoned"]
        ended: list[Ended] = []
        burst = 0
        while sum(run.cancelled for run in ended) < CANCELS:
            plan = [_moment(moments, steps, seconds) for _ in range(AT_ONCE)]
            ended += await _burst(witness, kickoff, f"burst {burst}", plan)
            # At once: nothing is waited for between the cancels and this.
            result = await witness.watch(f"green {burst}", kickoff)
            assert result.raw == f"done green {burst}"
            burst += 1
            assert burst < CANCELS, "the runs end before they are cancelled"

        await until(lambda: workers.pool().stats()["running"] == 0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert workers.pool().stats()["waiting"] == 0
        assert _other_threads() <= threads_before
        assert workers.pool().stats()["workers"] <= workers.pool().max_workers
        assert turnstile().stats().waiting == 0
        assert _copies.of(crew).running == 0
        assert collector._state.running == 0
        assert _event_id_stack.get() == ()
        assert suspended_coroutines() == []

    cancelled = [run for run in ended if run.cancelled]
    # A call that a worker had taken when its run was cancelled cannot be stopped; any other must not start.
    late = sum(witness.starts[run.run] - run.starts for run in cancelled)
    taken = workers.pool().stats()["abandoned"] - abandoned
    assert late <= (taken if scenario.threads else 0)
    green = witness.contexts["green 0"]
    for run in ended:
        # One that was cancelled before its first step has left nothing to look at.
        assert witness.scopes.get(run.run, ()) == (), run
        assert witness.contexts.get(run.run, set()) <= green, run
        assert witness.unclosed(run.run) == [], run
    assert witness.unclosed("green 0") == []


@pytest.fixture
def installed() -> Iterator[None]:
    fastcrew_async.install()
    yield
    fastcrew_async.uninstall()


@pytest.mark.usefixtures("installed")
async def test_cancels_of_an_installed_crew():
    async with witnessed() as witness:
        crew = SCENARIOS[0].make(witness)
        plan = [(step, 0.0) for step in range(0, 2 * AT_ONCE, 2)]
        ended = await _burst(witness, crew.akickoff, "installed", plan)
        result = await witness.watch("green", crew.akickoff)
    assert result.raw == "done green"
    assert any(run.cancelled for run in ended)
    for run in ended:
        assert witness.unclosed(run.run) == [], run
        assert witness.scopes.get(run.run, ()) == (), run


async def test_a_cancel_in_each_step_of_one_run():
    """Not at random: the same run, cancelled one loop iteration later each time, until it ends by itself."""
    async with witnessed() as witness:
        kickoff = AsyncCrew(SCENARIOS[0].make(witness)).kickoff
        step = 0
        while True:
            (run,) = await _burst(witness, kickoff, f"step {step}", [(step, 0.0)])
            assert witness.scopes.get(run.run, ()) == (), run
            if not run.cancelled:
                break
            assert witness.starts[run.run] == run.starts, run
            step += 1
    assert step > 10
    for run in list(witness.events):
        assert witness.unclosed(run) == [], run


async def _length_of_a_run(witness: Witness, kickoff) -> tuple[int, float]:
    """How many iterations of the loop, and how many seconds, a run takes when nothing else runs."""
    loop = asyncio.get_running_loop()
    await witness.watch("first", kickoff)
    task = asyncio.create_task(witness.watch("measured", kickoff))
    steps, since = 0, loop.time()
    while not task.done():
        await asyncio.sleep(0)
        steps += 1
    return steps, loop.time() - since


def _moment(moments: random.Random, steps: int, seconds: float) -> tuple[int, float]:
    """After some iterations of the loop, or after some time; in a burst everything takes longer."""
    if moments.random() < 0.5:
        return moments.randrange(steps // 4), 0.0
    return 0, moments.random() * seconds * AT_ONCE / 8


async def _burst(witness: Witness, kickoff, name: str, plan: list[tuple[int, float]]) -> list[Ended]:
    return await asyncio.gather(
        *(_start_and_cancel(witness, kickoff, f"{name}, run {i}", *moment) for i, moment in enumerate(plan))
    )


async def _start_and_cancel(witness: Witness, kickoff, run: str, steps: int, seconds: float) -> Ended:
    task = asyncio.create_task(witness.watch(run, kickoff))
    for _ in range(steps):
        await asyncio.sleep(0)
    if seconds:
        await asyncio.sleep(seconds)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        result = await asyncio.wait_for(asyncio.shield(task), 30)
        assert result.raw == f"done {run}"
    return Ended(run, task.cancelled(), witness.starts[run])


def _other_threads() -> set[str]:
    """Threads that belong to no pool; those of a pool are bounded, and the worker pool's end when idle. Timers that
    stock rate limiters of other tests leave running start a new thread each minute."""
    pools = ("fastcrew-worker", "fastcrew-log", "CrewAISyncHandler")
    others = [thread for thread in threading.enumerate() if not thread.name.startswith(pools)]
    return {thread.name for thread in others if not resets_a_rate(thread)}
