"""What every test gets: a detector of blocking calls on the loop; and, on request, both backends."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace

import pytest
from blockbuster import BlockBuster

from fastcrew_async import runtime, store, workers

_TWINS = {
    "Awaitable": "fastcrew_async._fallback.bridge",
    "Codec": "fastcrew_async._fallback.codec",
    "FrameSplitter": "fastcrew_async._fallback.codec",
    "HttpClient": "fastcrew_async._fallback.http",
    "Limiter": "fastcrew_async._fallback.limiter",
    "ResultCache": "fastcrew_async._fallback.result_cache",
    "canonical": "fastcrew_async._fallback.result_cache",
    "CallFrame": "fastcrew_async._fallback.call_stack",
    "Memories": "fastcrew_async._fallback.memory",
    "Runtime": "fastcrew_async._fallback.runtime",
    "Store": "fastcrew_async._fallback.store",
    "Job": "fastcrew_async._fallback.work_queue",
    "Retries": "fastcrew_async._fallback.retries",
    "TaskGraph": "fastcrew_async._fallback.task_graph",
    "WorkQueue": "fastcrew_async._fallback.work_queue",
}
_USERS = [runtime, store, workers]


if os.environ.get("FASTCREW_ASYNC_TEST_LOOP") == "uvloop":  # `make matrix` runs everything on both

    def pytest_asyncio_loop_factories(config: object, item: object) -> dict[str, Callable[[], object]]:
        return {"uvloop": importlib.import_module("uvloop").new_event_loop}


@pytest.fixture(autouse=True)
def no_blocking(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails an async test whose loop is blocked by this package; stock CrewAI, beside it, may."""
    if not inspect.iscoroutinefunction(getattr(request, "function", None)):
        yield
        return
    detector = BlockBuster("fastcrew_async")
    for function in detector.functions.values():
        # The interpreter reads files for an import wherever the import stands.
        function.can_block_in("<frozen importlib._bootstrap>", {"_find_and_load"})
        # A log record goes to the handlers that the host has chosen, here to one of pytest's.
        function.can_block_in("logging/__init__.py", {"emit"})
        # CrewAI's event bus holds it for as long as an entry of a list takes.
        function.can_block_in("crewai/utilities/rw_lock.py", {"r_acquire", "w_acquire"})
        # /proc is memory, not a disk.
        function.can_block_in("engine/collector.py", {"_resident_bytes"})
        function.can_block_in("engine/terminal.py", {"read"})  # a byte that is there
        function.can_block_in("engine/flow_scope.py", {"follow_traces"})  # once a process: whether CrewAI is to trace
    # Whether there is a file of trained data is looked up for each task; reading one would still be seen.
    detector.functions["os.stat"].can_block_in("engine/training.py", {"_trained"})
    detector.activate()
    yield
    detector.deactivate()


@pytest.fixture(params=["rust", "python"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The core's classes by name, once compiled and once in Python; ``runtime`` and ``workers`` use the same."""
    if request.param == "rust":
        core = pytest.importorskip("fastcrew_async._core", reason="the compiled core is not built here")
        classes = {name: getattr(core, name) for name in _TWINS}
    else:
        classes = {name: getattr(importlib.import_module(module), name) for name, module in _TWINS.items()}
    users = [*_USERS, *filter(None, [sys.modules.get("fastcrew_async.memory.store")])]
    for user in users:
        for name, cls in classes.items():
            if hasattr(user, name):
                monkeypatch.setattr(user, name, cls)
    monkeypatch.setattr(runtime, "_runtime", None)
    monkeypatch.setattr(workers, "_pool", None)
    yield SimpleNamespace(name=request.param, **classes)
    if workers._pool is not None:
        workers._pool.close()
    runtime.close(0)


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """``await until(condition)``: waits for what another thread does soon, about ten seconds at most."""

    async def wait(condition: Callable[[], bool]) -> None:
        for _ in range(10_000):
            if condition():
                return
            await asyncio.sleep(0.001)
        pytest.fail("the condition never came true")

    return wait
