from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from fastcrew_async.engine import drivers, turnstile
from fastcrew_async.engine.drivers import drive
from fastcrew_async.engine.effects import Effect
from fastcrew_async.engine.turnstile import Turnstile

SLICE = 1.0  # in the seconds of the tests' own clock: a step takes as long as is said here


class Nothing(Effect):
    async def aperform(self) -> None:
        return None


@pytest.fixture
def gate() -> Any:
    """A turnstile for the loop of the test; call it inside."""
    return lambda: Turnstile(asyncio.get_running_loop(), SLICE)


async def _iterations(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_it_closes_when_the_slice_is_used_and_opens_in_the_next_iteration(gate: Any) -> None:
    stile = gate()
    assert not stile.closed
    stile.spend(SLICE / 2)
    assert not stile.closed
    stile.spend(SLICE / 2)
    assert stile.closed
    await _iterations(2)
    assert not stile.closed


async def test_a_slice_of_0_switches_it_off() -> None:
    stile = Turnstile(asyncio.get_running_loop(), 0.0)
    stile.spend(1e9)
    assert not stile.closed
    await _iterations(2)


async def test_who_comes_first_goes_first_and_a_full_slice_waits_for_a_later_iteration(gate: Any) -> None:
    stile = gate()
    went: list[tuple[int, int]] = []
    iteration = itertools.count()
    now = 0

    async def count() -> None:
        nonlocal now
        while len(went) < 6:
            now = next(iteration)
            await asyncio.sleep(0)

    async def step(number: int) -> None:
        await stile.turn()
        went.append((number, now))
        stile.spend(SLICE)

    stile.spend(SLICE)
    counting = asyncio.create_task(count())
    await asyncio.wait_for(asyncio.gather(*(step(number) for number in range(6)), counting), 10)
    assert [number for number, _ in went] == list(range(6))
    iterations = [at for _, at in went]
    assert iterations == sorted(set(iterations))  # one full step an iteration: the host's callback ran between any two


async def test_the_oldest_run_goes_first_whenever_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten runs of three steps each, every step a whole slice: each run is through before the next one's second step."""
    stile = Turnstile(asyncio.get_running_loop(), SLICE)
    clock = itertools.count(0.0, SLICE)
    monkeypatch.setattr(drivers, "turnstile", lambda: stile)
    monkeypatch.setattr(drivers, "perf_counter", lambda: next(clock))
    steps: list[tuple[int, int]] = []

    async def work(run: int) -> None:
        for step in range(3):
            steps.append((run, step))
            await Nothing()

    await asyncio.wait_for(asyncio.gather(*(drive(work(run)) for run in range(10))), 10)
    ended = [run for run, step in steps if step == 2]
    assert ended == sorted(ended)
    before_the_first_end = {run for run, _ in steps[: steps.index((0, 2))]}
    assert len(before_the_first_end) <= 3  # first come, first served, would have begun them all


async def test_a_higher_priority_goes_before_older_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    stile = Turnstile(asyncio.get_running_loop(), SLICE)
    clock = itertools.count(0.0, SLICE)
    monkeypatch.setattr(drivers, "turnstile", lambda: stile)
    monkeypatch.setattr(drivers, "perf_counter", lambda: next(clock))
    ended: list[str] = []

    async def work(name: str) -> None:
        for _ in range(3):
            await Nothing()
        ended.append(name)

    batch = [asyncio.create_task(drive(work(f"batch {number}"), -1)) for number in range(5)]
    interactive = asyncio.create_task(drive(work("interactive")))
    await asyncio.wait_for(asyncio.gather(*batch, interactive), 10)
    assert ended[0] == "interactive"
    assert ended[1:] == [f"batch {number}" for number in range(5)]


async def test_what_runs_inside_a_run_is_as_old_as_the_run() -> None:
    ages: list[turnstile.Rank | None] = []

    async def inner() -> None:
        ages.append(turnstile.rank.get())

    class Nested(Effect):
        async def aperform(self) -> None:
            await asyncio.gather(drive(inner()), drive(inner()))

    async def outer() -> None:
        ages.append(turnstile.rank.get())
        await Nested()

    await asyncio.wait_for(drive(outer()), 10)
    assert len(set(ages)) == 1
    assert ages[0] is not None
    assert turnstile.rank.get() is None  # and the next run is a younger one


async def test_while_somebody_waits_nobody_goes_past(gate: Any) -> None:
    stile = gate()
    stile.spend(SLICE)
    waiting = asyncio.create_task(stile.turn())
    await asyncio.sleep(0)
    stile._spent = 0.0
    assert stile.closed
    await waiting
    assert not stile.closed or stile._spent >= SLICE


async def test_a_cancelled_one_gives_its_place_away(gate: Any) -> None:
    stile = gate()
    stile._step = SLICE  # one place an iteration
    tasks = [asyncio.create_task(stile.turn()) for _ in range(3)]
    for _ in range(1):
        await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.wait_for(asyncio.gather(*tasks[1:]), 10)
    assert tasks[0].cancelled()
    assert stile.stats().waiting == 0


async def test_what_it_counts(gate: Any) -> None:
    stile = gate()
    stile.spend(0.25)
    stile.spend(0.5)
    waiting = asyncio.create_task(stile.turn())
    await asyncio.sleep(0)
    assert stile.stats().waiting == 1
    await waiting
    stats = stile.stats()
    assert (stats.steps, stats.used_seconds, stats.waiting) == (2, 0.75, 0)
    assert stats.waited_seconds > 0


async def test_each_loop_has_its_own() -> None:
    async def of_this_loop() -> Turnstile:
        assert turnstile.turnstile() is turnstile.turnstile()
        return turnstile.turnstile()

    other = await asyncio.to_thread(asyncio.run, of_this_loop())
    assert other is not await of_this_loop()


async def test_the_hosts_callbacks_run_between_the_steps_of_many_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's clock is the test's: each step takes one whole slice, so no iteration may see two."""
    stile = Turnstile(asyncio.get_running_loop(), SLICE)
    clock = itertools.count(0.0, SLICE)
    monkeypatch.setattr(drivers, "turnstile", lambda: stile)
    monkeypatch.setattr(drivers, "perf_counter", lambda: next(clock))
    steps_of_iteration = [0]
    ended = False

    async def work() -> None:
        for _ in range(5):
            steps_of_iteration[-1] += 1
            await Nothing()

    async def host() -> None:
        while not ended:
            steps_of_iteration.append(0)
            await asyncio.sleep(0)

    hosting = asyncio.create_task(host())
    await asyncio.wait_for(asyncio.gather(*(drive(work()) for _ in range(20))), 10)
    ended = True
    await hosting
    assert sum(steps_of_iteration) == 100
    assert max(steps_of_iteration) <= 2  # one, and the one that the iteration before let through


async def test_a_run_cancelled_while_it_waits_for_its_turn_ends_there(monkeypatch: pytest.MonkeyPatch) -> None:
    stile = Turnstile(asyncio.get_running_loop(), SLICE)
    monkeypatch.setattr(drivers, "turnstile", lambda: stile)
    log: list[str] = []

    async def work() -> None:
        log.append("started")
        try:
            await Nothing()
        except asyncio.CancelledError:
            log.append("cancelled")
            raise
        log.append("went on")

    stile._armed = True  # no iteration comes
    stile.spend(SLICE)
    task = asyncio.create_task(drive(work()))
    await asyncio.sleep(0)
    assert log == []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    assert log == []


async def test_no_iteration_has_two_slices(gate: Any) -> None:
    """Some come while others wait, and some just after the last that waited was let through."""
    stile = gate()
    loop = asyncio.get_running_loop()
    iteration = 0
    steps: list[int] = []

    def count() -> None:  # the first of every iteration
        nonlocal iteration
        iteration += 1
        if len(steps) < 60:
            loop.call_soon(count)

    async def step(pause: int) -> None:
        for _ in range(5):
            if stile.closed:
                await stile.turn()
            steps.append(iteration)
            stile.spend(SLICE)
            await _iterations(pause)

    loop.call_soon(count)
    await asyncio.sleep(0)
    await asyncio.wait_for(asyncio.gather(*(step(pause) for pause in range(12))), 30)
    assert len(steps) == len(set(steps)) == 60
