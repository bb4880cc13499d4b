"""What a finished operation leaves behind: nothing."""

from __future__ import annotations

import asyncio
import gc
import weakref


def futures() -> int:
    gc.collect()
    return sum(isinstance(thing, asyncio.Future) for thing in gc.get_objects())


async def test_ten_thousand_operations_leave_no_objects(core):
    await core.echo(0)
    before = futures()
    watched: list[weakref.ref] = []

    async def batch() -> None:
        operations = [core.echo(i) if i % 2 else core.sleep(0) for i in range(1000)]
        watched.extend(weakref.ref(operation) for operation in operations)
        await asyncio.wait_for(asyncio.gather(*operations), 20)

    for _ in range(10):
        await asyncio.create_task(batch())
    await asyncio.sleep(0)
    assert len(watched) == 10_000
    gc.collect()
    assert not any(ref() for ref in watched)
    assert core.in_flight == 0
    assert futures() <= before


async def test_cancelled_operations_leave_no_objects(core, until):
    await core.echo(0)
    before = futures()

    async def cancelled() -> None:
        tasks = [asyncio.create_task(core.sleep(60)) for _ in range(1000)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    await asyncio.create_task(cancelled())
    await asyncio.sleep(0)
    await until(lambda: core.in_flight == 0)
    assert futures() <= before


async def test_a_finished_operation_is_freed_without_the_collector(core):
    gc.collect()
    gc.disable()
    try:
        operation = core.echo(1)
        watch = weakref.ref(operation)
        await operation
        del operation
        assert watch() is None
    finally:
        gc.enable()


def test_a_closed_loop_is_freed_with_its_waiting_tasks(core, new_loop):
    """The task, its operation, its future and the loop hold each other; the collector must see through the core."""
    loop = new_loop()
    loop.set_exception_handler(lambda loop, context: None)

    async def begin() -> weakref.ref:
        task = asyncio.create_task(core.sleep(60))
        await asyncio.sleep(0)
        return weakref.ref(task)

    task = loop.run_until_complete(begin())
    loop.close()
    watch = weakref.ref(loop)
    del loop
    gc.collect()
    assert task() is None
    assert watch() is None
