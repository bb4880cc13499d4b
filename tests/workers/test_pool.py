"""The pool of worker threads, as its users see it."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from contextvars import ContextVar

import pytest

from fastcrew_async import runtime, workers
from fastcrew_async.errors import AbandonedCallsError, RuntimeClosedError

mark: ContextVar[str] = ContextVar("mark", default="none")


@pytest.fixture
def make(backend):
    made = []

    def start(max_workers=None, **options):
        made.append(workers.WorkerPool(max_workers, **options))
        return made[-1]

    yield start
    for each in made:
        each.close()


async def run(awaitable):
    return await asyncio.wait_for(awaitable, 20)


async def test_the_result_and_the_arguments_cross(make):
    def call(*args, **kwargs):
        return args, kwargs, threading.current_thread()

    args, kwargs, thread = await run(make().run(call, 1, [2], three=3))
    assert (args, kwargs) == ((1, [2]), {"three": 3})
    assert isinstance(thread, threading.Thread)
    assert thread.daemon
    assert thread.name.startswith("fastcrew-worker-")


@pytest.mark.parametrize("error", [LookupError("tea"), SystemExit(3), KeyboardInterrupt()], ids=repr)
async def test_what_the_call_raises_reaches_the_caller(make, error):
    pool = make(1)

    def call():
        raise error

    caught = None
    try:
        await pool.run(call)
    except BaseException as raised:
        caught = raised
    assert caught is error
    assert await run(pool.run(lambda: "still well")) == "still well"


async def test_stop_iteration_is_not_taken_for_a_result(make):
    with pytest.raises(RuntimeError, match="StopIteration"):
        await run(make().run(next, iter(())))


async def test_the_context_is_a_copy(make):
    def call():
        seen = mark.get()
        mark.set("worker's")
        return seen

    mark.set("caller's")
    assert await run(make().run(call)) == "caller's"
    assert mark.get() == "caller's"


async def test_nothing_begins_before_it_is_awaited(make):
    pool = make()
    unused = pool.run(time.sleep, 60)
    await asyncio.sleep(0.01)
    assert pool.stats()["workers"] == 0
    unused.close()


async def test_a_blocked_job_stops_no_other_while_threads_may_grow(make):
    pool = make(10)
    release = threading.Event()
    blocked = [asyncio.create_task(pool.run(release.wait, 20)) for _ in range(9)]
    for number in range(30):
        assert await run(pool.run(int, number)) == number
    release.set()
    assert await run(asyncio.gather(*blocked)) == [True] * 9


async def test_it_grows_to_its_limit_and_the_rest_waits_its_turn(make, until):
    pool = make(3)
    release = threading.Event()
    begun: list[int] = []

    def call(number):
        begun.append(number)
        release.wait(20)

    tasks = [asyncio.create_task(pool.run(call, number)) for number in range(10)]
    await until(lambda: pool.stats()["running"] == 3)
    assert pool.stats() == {"workers": 3, "running": 3, "waiting": 7, "done": 0, "abandoned": 0, "still_running": 0}
    await until(lambda: sorted(begun) == [0, 1, 2])
    release.set()
    await run(asyncio.gather(*tasks))
    assert sorted(begun) == list(range(10))
    assert pool.stats()["done"] == 10


async def test_it_shrinks_when_idle_and_grows_again(make, until):
    pool = make(8, idle_seconds=0.05)
    await run(asyncio.gather(*(pool.run(time.sleep, 0.01) for _ in range(8))))
    await until(lambda: pool.stats()["workers"] == 0)
    assert await run(pool.run(int, 5)) == 5


async def test_ending_workers_and_new_jobs_do_not_miss_each_other(make):
    """Workers that end at once: each job meets one that is just leaving."""
    pool = make(1, idle_seconds=0)
    for number in range(500):
        assert await run(pool.run(int, number)) == number


async def test_a_quick_worker_is_used_again(make):
    pool = make(8)
    for number in range(200):
        await run(pool.run(int, number))
    assert pool.stats()["workers"] <= 2


async def test_cancelled_while_it_waits_it_never_runs(make, until):
    pool = make(1)
    release, ran = threading.Event(), []
    first = asyncio.create_task(pool.run(release.wait, 20))
    await until(lambda: pool.stats()["running"] == 1)
    second = asyncio.create_task(pool.run(ran.append, 2))
    await until(lambda: pool.stats()["waiting"] == 1)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert pool.stats()["waiting"] == 0
    release.set()
    assert await run(first) is True
    await run(pool.run(int))
    assert ran == []
    assert pool.stats()["abandoned"] == 0


async def test_cancelled_while_it_runs_it_is_counted(make, until):
    pool = make(1)
    release = threading.Event()
    task = asyncio.create_task(pool.run(release.wait, 20))
    await until(lambda: pool.stats()["running"] == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pool.stats()["abandoned"] == 1
    release.set()
    assert await run(pool.run(int, 5)) == 5
    assert pool.stats()["abandoned"] == 1


async def abandoned(pool, until, release, count):
    """Calls that are cancelled while they wait for `release`."""
    begun = []

    def call():
        begun.append(None)
        release.wait(20)

    tasks = [asyncio.create_task(pool.run(call)) for _ in range(count)]
    await until(lambda: len(begun) == count)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)


async def test_abandoned_calls_leave_their_places_to_others_up_to_a_limit(make, until, caplog):
    pool = make(2, max_abandoned=3)
    release = threading.Event()
    for count in (2, 1):  # these are replaced
        await abandoned(pool, until, release, count)
        assert await run(pool.run(int, 5)) == 5
    await abandoned(pool, until, release, 1)  # and these hold a place each
    assert await run(pool.run(int, 5)) == 5
    await abandoned(pool, until, release, 1)
    assert pool.stats()["still_running"] == 5
    with pytest.raises(AbandonedCallsError, match=r"5 sync calls were abandoned .* \(max_workers=2, max_abandoned=3"):
        await pool.run(int, 5)
    with pytest.raises(AbandonedCallsError):
        pool.check()
    release.set()
    await until(lambda: pool.stats()["still_running"] == 0)
    assert await run(pool.run(int, 5)) == 5
    assert pool.stats()["abandoned"] == 5
    assert caplog.text.count("cannot be stopped") == 5
    await until(lambda: pool.stats()["workers"] <= 2)


async def test_an_idle_worker_takes_what_an_abandoned_call_kept_from_it(make, until):
    """A tool may hold one worker of two; the other one sleeps while its second call waits."""
    pool = make(2, max_abandoned=2)
    release = threading.Event()
    stuck = asyncio.ensure_future(pool.run_in("tool", lambda: release.wait(20)))
    await until(lambda: pool.stats()["running"] == 1)
    await run(pool.run_in("other", int))  # by a second worker, which stays
    waiting = asyncio.ensure_future(pool.run_in("tool", lambda: "done"))
    await until(lambda: pool.stats()["waiting"] == 1)
    stuck.cancel()
    assert await asyncio.wait_for(waiting, 2) == "done"
    release.set()
    await until(lambda: pool.stats()["still_running"] == 0)


async def test_a_job_that_waits_takes_the_place_of_one_that_is_abandoned(make, until):
    pool = make(1, max_abandoned=1)
    release = threading.Event()
    first = asyncio.create_task(pool.run(release.wait, 20))
    await until(lambda: pool.stats()["running"] == 1)
    second = asyncio.create_task(pool.run(int, 5))
    await until(lambda: pool.stats()["waiting"] == 1)
    first.cancel()
    assert await run(second) == 5
    release.set()


async def test_cancel_against_completion(make, until):
    pool = make(4)
    ended = []
    for number in range(300):
        task = asyncio.create_task(pool.run(int, number))
        await asyncio.sleep(0.0005 if number % 3 else 0)
        task.cancel()
        try:
            ended.append(await task == number)
        except asyncio.CancelledError:
            ended.append(True)
    assert ended == [True] * 300
    await until(lambda: pool.stats()["running"] == 0)
    await until(lambda: runtime.get().in_flight == 0)


async def test_a_job_may_run_a_loop_that_uses_the_pool(make):
    pool = make(2)

    def outer(depth: int) -> int:
        async def inner() -> int:
            return await pool.run(outer, depth - 1) + 1

        return asyncio.run(inner()) if depth else 0

    assert await run(asyncio.gather(*(pool.run(outer, 5) for _ in range(10)))) == [5] * 10
    assert pool.stats()["workers"] <= 2 + 1


async def test_a_job_may_wait_for_the_loop_that_uses_the_pool(make):
    """The deadlock of a full pool: each job waits for a job of its own, put by the first loop."""
    pool = make(1)
    loop = asyncio.get_running_loop()

    def outer() -> int:
        return asyncio.run_coroutine_threadsafe(pool.run(int, 5), loop).result(20)

    assert await run(asyncio.gather(*(pool.run(outer) for _ in range(5)))) == [5] * 5


def test_several_loops_share_a_pool(make):
    pool = make(4)
    failures = []

    def thread(number: int) -> None:
        async def main() -> None:
            assert await asyncio.gather(*(pool.run(int, number) for _ in range(50))) == [number] * 50

        try:
            asyncio.run(run(main()))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=thread, args=(number,)) for number in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert not any(each.is_alive() for each in threads)
    assert failures == []


async def test_closing_ends_idle_workers_and_fails_waiting_jobs(make, until):
    pool = make(1)
    release = threading.Event()
    running = asyncio.create_task(pool.run(release.wait, 20))
    await until(lambda: pool.stats()["running"] == 1)
    waiting = asyncio.create_task(pool.run(int))
    await until(lambda: pool.stats()["waiting"] == 1)
    pool.close()
    with pytest.raises(RuntimeClosedError):
        await run(waiting)
    release.set()
    assert await run(running) is True
    with pytest.raises(RuntimeClosedError):
        await run(pool.run(int))
    await until(lambda: pool.stats()["workers"] == 0)


async def test_a_loop_that_closes_while_jobs_run(make, until, capfd):
    pool = make(4)
    release = threading.Event()

    def loop_thread() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(pool.run(release.wait, 20))
        loop.run_until_complete(asyncio.sleep(0.01))
        task._log_destroy_pending = False
        loop.close()

    await asyncio.to_thread(loop_thread)
    release.set()
    await until(lambda: pool.stats()["running"] == 0)
    assert capfd.readouterr() == ("", "")


async def test_no_thread_to_be_had_is_an_error_and_leaves_nothing(make, monkeypatch):
    pool = make(4)

    def refuse(self) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await pool.run(int)
    assert pool.stats()["workers"] == pool.stats()["waiting"] == 0
    assert await run(pool.run(int, 5)) == 5


async def test_a_worker_keeps_nothing_of_its_last_job(make):
    class Thing:
        pass

    pool = make(1)
    thing = Thing()
    watch = weakref.ref(thing)
    await run(pool.run(lambda given: None, thing))
    with pytest.raises(LookupError):
        await run(pool.run(lambda given: {}[given], thing))
    del thing
    await run(pool.run(int))
    gc.collect()
    assert watch() is None


def test_the_limit_comes_from_the_environment(make, monkeypatch):
    monkeypatch.setenv("FASTCREW_ASYNC_MAX_WORKERS", "7")
    assert make().max_workers == 7
    monkeypatch.setenv("FASTCREW_ASYNC_MAX_WORKERS", "many")
    with pytest.raises(ValueError, match="FASTCREW_ASYNC_MAX_WORKERS='many' is not a whole number"):
        make()
    with pytest.raises(ValueError, match="max_workers must be at least 1, not 0"):
        make(0)
    with pytest.raises(ValueError, match="max_abandoned must be 0 or more, not -1"):
        make(1, max_abandoned=-1)
    with pytest.raises(ValueError, match="max_workers must be at least 1, not -5"):
        make(-5)


async def test_one_pool_serves_the_process(backend):
    first = workers.pool()
    assert workers.pool() is first
    assert await run(first.run(int, 5)) == 5
    runtime.close(0)
    assert workers.pool() is not first
    assert await run(workers.pool().run(int, 6)) == 6


async def test_a_slow_tool_leaves_room_for_the_others(make, until):
    pool = make(8)
    release = threading.Event()
    slow = [asyncio.create_task(pool.run_in("slow", lambda: release.wait(20))) for _ in range(40)]
    await until(lambda: pool.stats()["running"] == 6)
    await asyncio.sleep(0.02)
    assert pool.stats() == {"workers": 6, "running": 6, "waiting": 34, "done": 0, "abandoned": 0, "still_running": 0}
    for number in range(20):
        assert await run(pool.run_in("quick", lambda number=number: number)) == number
        assert await run(pool.run(int, number)) == number
    release.set()
    assert await run(asyncio.gather(*slow)) == [True] * 40
    await until(lambda: pool.stats()["running"] == 0)


async def test_the_group_with_the_fewest_running_is_served_next(make, until):
    pool = make(4)
    held, free, begun = threading.Event(), threading.Event(), []

    def call(name):
        begun.append(name)
        (held if name == "held" else free).wait(20)

    tasks = [asyncio.create_task(pool.run(call, "held")) for _ in range(4)]
    await until(lambda: pool.stats()["running"] == 4)
    tasks += [asyncio.create_task(pool.run_in("a", lambda: call("a"))) for _ in range(20)]
    await until(lambda: pool.stats()["waiting"] == 20)
    tasks.append(asyncio.create_task(pool.run_in("b", lambda: call("b"))))
    await until(lambda: pool.stats()["waiting"] == 21)
    held.set()
    await until(lambda: pool.stats()["running"] == 4 and len(begun) == 8)
    assert sorted(begun[4:]) == ["a", "a", "a", "b"]
    free.set()
    await run(asyncio.gather(*tasks))


async def test_a_pool_of_one_serves_every_group(make):
    pool = make(1)
    assert await run(asyncio.gather(*(pool.run_in(f"tool {n % 3}", lambda n=n: n) for n in range(30)))) == list(
        range(30)
    )


async def test_a_waiting_job_of_a_group_can_be_cancelled(make, until):
    pool = make(4)
    release = threading.Event()
    slow = [asyncio.create_task(pool.run_in("slow", lambda: release.wait(20))) for _ in range(5)]
    await until(lambda: pool.stats()["running"] == 3 and pool.stats()["waiting"] == 2)
    slow[4].cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow[4]
    assert pool.stats()["waiting"] == 1
    slow[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow[0]
    assert pool.stats()["abandoned"] == 1
    release.set()
    assert await run(asyncio.gather(*slow[1:4])) == [True] * 3
    await until(lambda: pool.stats()["running"] == 0)
