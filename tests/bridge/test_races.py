"""The bridge where threads, loops and closings meet."""

from __future__ import annotations

import asyncio
import random
import threading
import time

import pytest

from fastcrew_async.errors import RuntimeClosedError


async def test_cancel_against_completion_a_thousand_times(core, until):
    dice = random.Random(1)
    ended = {"answered": 0, "cancelled": 0}

    async def one() -> None:
        delay = dice.choice([0, 0.0005, 0.001])
        task = asyncio.create_task(core.echo(7) if delay == 0 else core.sleep(delay))
        await asyncio.sleep(dice.choice([0, 0.0005, 0.001]))
        task.cancel()
        try:
            assert await task in (7, None)
            ended["answered"] += 1
        except asyncio.CancelledError:
            ended["cancelled"] += 1

    for _ in range(20):
        await asyncio.wait_for(asyncio.gather(*(one() for _ in range(50))), 20)
    assert sum(ended.values()) == 1000
    assert ended["cancelled"] > 0
    await until(lambda: core.in_flight == 0)
    assert await core.echo("still well") == "still well"


def run_in(loop: asyncio.AbstractEventLoop, main):
    try:
        return loop.run_until_complete(asyncio.wait_for(main, 20))
    finally:
        loop.close()


def test_completions_after_the_loop_has_closed_are_silent(core, new_loop, capfd):
    for _ in range(20):
        loop = new_loop()
        waiting = []

        async def begin(waiting=waiting) -> None:
            for _ in range(50):
                waiting.append(core.sleep(0.005))
                waiting[-1].send(None)

        run_in(loop, begin())
    pause = new_loop()
    run_in(pause, asyncio.sleep(0.05))
    del waiting
    assert capfd.readouterr() == ("", "")


def test_many_loops_in_many_threads(core, new_loop):
    failures = []

    async def main(mark: int) -> None:
        answers = await asyncio.gather(*(core.echo(mark * 1000 + i) for i in range(50)))
        assert answers == [mark * 1000 + i for i in range(50)]
        await core.sleep(0.001)

    def thread(mark: int) -> None:
        try:
            for _ in range(10):
                run_in(new_loop(), main(mark))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=thread, args=(mark,)) for mark in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert not any(each.is_alive() for each in threads)
    assert failures == []
    for _ in range(500):  # an answer may reach its loop just before the core has counted it as done
        if core.in_flight == 0:
            break
        time.sleep(0.01)
    assert core.in_flight == 0


def test_two_loops_that_take_turns_in_one_thread(core, new_loop):
    first, second = new_loop(), new_loop()
    for turn in range(50):
        assert first.run_until_complete(core.echo(turn)) == turn
        assert second.run_until_complete(core.echo(-turn)) == -turn
    first.close()
    assert second.run_until_complete(core.echo("alone")) == "alone"
    second.close()


class NoReader(asyncio.SelectorEventLoop):
    """A loop like Windows' proactor: it watches no descriptors for others."""

    def add_reader(self, fd, callback, *args):
        raise NotImplementedError


def test_a_loop_that_cannot_watch_descriptors(core, until):
    async def main() -> None:
        assert await asyncio.gather(*(core.echo(i) for i in range(500))) == list(range(500))
        await core.sleep(0.001)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(core.sleep(60), 0.01)
        await until(lambda: core.in_flight == 0)

    for _ in range(3):
        run_in(NoReader(), main())


async def test_closing_the_runtime_fails_what_is_in_flight(core):
    tasks = [asyncio.create_task(core.sleep(60)) for _ in range(100)]
    await asyncio.sleep(0)
    assert core.in_flight == 100
    assert await asyncio.to_thread(core.close, 0.01) is False
    for task in tasks:
        with pytest.raises(RuntimeClosedError):
            await asyncio.wait_for(task, 10)
    assert core.closed
    assert core.in_flight == 0


async def test_closing_the_runtime_lets_what_is_quick_end(core):
    tasks = [asyncio.create_task(core.sleep(0.02)) for _ in range(100)]
    await asyncio.sleep(0)
    assert await asyncio.to_thread(core.close, 20) is True
    assert await asyncio.wait_for(asyncio.gather(*tasks), 10) == [None] * 100


async def test_closing_twice_is_harmless(core):
    assert core.close(0) is True
    assert core.close(0) is True


def test_closing_while_other_threads_use_it(core, new_loop):
    """Every operation either answers or fails by name; nothing hangs."""
    begun = threading.Barrier(5)
    endings: list[object] = []

    async def main() -> None:
        await core.sleep(0)
        begun.wait(10)
        while True:
            endings.extend(await asyncio.gather(*(core.echo(1) for _ in range(20))))

    def thread() -> None:
        try:
            run_in(new_loop(), main())
        except BaseException as error:
            endings.append(error)

    threads = [threading.Thread(target=thread) for _ in range(4)]
    for each in threads:
        each.start()
    begun.wait(10)
    core.close(5)
    for each in threads:
        each.join(30)
    assert not any(each.is_alive() for each in threads)
    errors = [ending for ending in endings if ending != 1]
    assert len(errors) == 4
    assert all(isinstance(error, RuntimeClosedError) for error in errors)
