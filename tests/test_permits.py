"""Waiting for permits: on one loop, on several in threads, in place, over cancellations, deadlines and forks."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from typing import Any

import pytest

from fastcrew_async import limits, permits
from fastcrew_async.limits import Limit, Limits
from fastcrew_async.permits import Permit, Permits

ANY = (0, 0)
KEY = ["model:a"]


@pytest.fixture
def give(backend: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(permits, "Limiter", backend.Limiter)

    def made(**fields: Any) -> Permits:
        given = Permits()
        given.configure(Limits(learn=False, model=Limit(**fields)))
        return given

    return made


def counts(given: Permits) -> tuple[int, int]:
    """In use, waiting."""
    rows = given.stats()
    return rows[0][2], rows[0][3]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_highest_rank_goes_first_and_equals_by_age(give: Any) -> None:
    given = give(concurrent=1)
    order: list[tuple[int, int]] = []

    async def call(rank: tuple[int, int]) -> None:
        permit = await given.acquire(KEY, 0, rank)
        order.append(rank)
        await asyncio.sleep(0)
        permit.end()

    first = await given.acquire(KEY, 0, ANY)
    ranks = [(1, 1), (0, 5), (-1, 7), (0, 2)]
    calls = [asyncio.create_task(call(rank)) for rank in ranks]
    await settle()
    assert counts(given) == (1, 4)
    first.end()
    await asyncio.wait_for(asyncio.gather(*calls), 5)
    assert order == sorted(ranks)
    assert counts(given) == (0, 0)


async def test_a_window_opens_again_by_itself(give: Any) -> None:
    given = give(requests=2, window=0.05)
    took = await asyncio.wait_for(asyncio.gather(*(given.acquire(KEY, 0, ANY) for _ in range(6))), 5)
    assert len(took) == 6
    assert given.stats()[0][5] > 0.2  # two waited once, two twice
    assert not given._loops


async def test_cancelled_while_waiting_leaves_nothing_behind(give: Any) -> None:
    given = give(concurrent=1)
    first = await given.acquire(KEY, 0, ANY)
    waiting = [asyncio.create_task(given.acquire(KEY, 0, ANY)) for _ in range(10)]
    await settle()
    for task in waiting[:5]:
        task.cancel()
    first.end()  # the first of them is granted and cancelled in one
    waiting[5].cancel()
    await asyncio.wait(waiting, timeout=0.01)
    for task in waiting[6:]:
        (await asyncio.wait_for(task, 5)).end()
    assert counts(given) == (0, 0)
    assert not given._waiters


async def test_a_deadline_while_waiting_leaves_nothing_behind(give: Any) -> None:
    given = give(concurrent=1)
    first = await given.acquire(KEY, 0, ANY)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(given.acquire(KEY, 0, ANY), 0.01)
    first.end()
    first.end()
    assert counts(given) == (0, 0)


async def test_a_coroutine_that_is_thrown_away_leaves_nothing_behind(give: Any) -> None:
    given = give(concurrent=1)
    first = await given.acquire(KEY, 0, ANY)
    thrown = given.acquire(KEY, 0, ANY)
    thrown.send(None)
    assert counts(given) == (1, 1)
    del thrown
    gc.collect()
    await settle()
    assert counts(given) == (1, 0)
    first.end()


async def test_new_limits_are_those_of_the_ones_who_wait(give: Any) -> None:
    given = give(concurrent=1)
    await given.acquire(KEY, 0, ANY)
    waiting = [asyncio.create_task(given.acquire(KEY, 0, ANY)) for _ in range(3)]
    await settle()
    given.configure(Limits(model=Limit(concurrent=3), learn=False))
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=5)
    await settle()
    assert counts(given) == (3, 1)
    given.configure(None)
    await asyncio.wait_for(asyncio.gather(*waiting), 5)


def test_loops_in_threads_share_one_limit(give: Any) -> None:
    given = give(concurrent=3, requests=60, window=0.2)
    inside = most = done = 0
    lock = threading.Lock()

    async def call() -> None:
        nonlocal inside, most, done
        permit = await given.acquire(KEY, 0, ANY)
        with lock:
            inside += 1
            most = max(most, inside)
        await asyncio.sleep(0.001)
        with lock:
            inside -= 1
            done += 1
        permit.end()

    async def many() -> None:
        await asyncio.wait_for(asyncio.gather(*(call() for _ in range(30))), 20)

    def in_place() -> None:
        nonlocal done
        for _ in range(10):
            permit = given.acquire_in_place(KEY, 0, ANY)
            with lock:
                done += 1
            permit.end()

    threads = [threading.Thread(target=lambda: asyncio.run(many())) for _ in range(3)]
    threads += [threading.Thread(target=in_place) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (done, counts(given)) == (110, (0, 0))
    assert most <= 3
    assert not given._loops


def test_a_loop_that_closed_gives_its_turn_to_others(give: Any) -> None:
    given = give(concurrent=1)
    first = given.acquire_in_place(KEY, 0, ANY)
    loop = asyncio.new_event_loop()
    left = given.acquire(KEY, 0, ANY)
    task = loop.create_task(left)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    got: list[Permit] = []
    thread = threading.Thread(target=lambda: got.append(given.acquire_in_place(KEY, 0, ANY)))
    thread.start()
    first.end()
    thread.join(10)
    assert len(got) == 1
    got[0].end()
    assert counts(given) == (0, 0)
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_in_place_it_ends_when_told_to(give: Any) -> None:
    given = give(concurrent=1)
    first = given.acquire_in_place(KEY, 0, ANY)
    answers = iter([False, True])
    with pytest.raises(TimeoutError, match="abandoned"):
        given.acquire_in_place(KEY, 0, ANY, lambda: next(answers))
    first.end()
    assert counts(given) == (0, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # threads of other tests
def test_a_forked_child_begins_with_nothing_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_permits", None)
    monkeypatch.setattr(limits, "active", None)
    limits.apply(Limits(model=Limit(concurrent=1), learn=False))
    assert limits.active is not None
    limits.active.acquire_in_place(KEY, 0, ANY)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            before = limits.active.stats()
            limits.active.acquire_in_place(KEY, 0, ANY, lambda: True).end()
            status = 0 if before == [] else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert counts(limits.active) == (1, 0)
