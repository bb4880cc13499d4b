"""The work queue beside a plain model, on the compiled core and on its Python twin."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastcrew_async import runtime
from fastcrew_async.errors import AbandonedCallsError

WORKERS, ABANDONED = 3, 2
SHARE = 2  # of one tool

steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "take", "take", "abandon", "finish", "grow"]),
        st.sampled_from(["", "search", "read", None]),  # a tool, none, or a job of a job
        st.integers(0, 50),
    ),
    max_size=60,
)


@dataclass
class Model:
    """Every job there was, in the order of their coming: its group, and what has become of it."""

    jobs: list[list[Any]] = field(default_factory=list)
    workers: int = 0
    abandoned: int = 0
    done: int = 0

    def those(self, *stages: str) -> list[int]:
        return [number for number, (_, stage) in enumerate(self.jobs) if stage in stages]

    def of(self, group: str | None, stage: str) -> list[int]:
        return [number for number in self.those(stage) if self.jobs[number][0] == group]

    def most(self) -> int:
        return WORKERS + min(len(self.those("abandoned")), ABANDONED)

    def room(self, group: str) -> int:
        return SHARE - len(self.of(group, "running")) if group else len(self.jobs)

    def grow(self, nested: bool) -> bool:
        free = self.workers - len(self.those("running", "abandoned"))
        if nested:
            wanted = len(self.of(None, "waiting")) > free
        else:
            runnable = sum(min(len(self.of(g, "waiting")), self.room(g)) for g in ("", "search", "read"))
            wanted = self.workers < self.most() and runnable + len(self.of(None, "waiting")) > free
        self.workers += wanted
        return wanted

    def next(self) -> int | None:
        if nested := self.of(None, "waiting"):
            return nested[0]
        if self.workers > self.most():
            return None
        ready = [g for g in ("", "search", "read") if self.of(g, "waiting") and self.room(g) > 0]
        first = [(len(self.of(g, "running")), self.of(g, "waiting")[0]) for g in ready]
        return min(first)[1] if first else None

    def stats(self) -> dict[str, int]:
        return {
            "workers": self.workers,
            "running": len(self.those("running", "abandoned")),
            "waiting": len(self.those("waiting")),
            "done": self.done,
            "abandoned": self.abandoned,
            "still_running": len(self.those("abandoned")),
        }


async def play(queue: Any, given_steps: list[tuple[str, str | None, int]]) -> None:
    model = Model()
    awaitables: list[Any] = []
    taken: dict[int, Any] = {}
    for step, group, pick in given_steps:
        number = len(model.jobs)
        if step == "put":
            if len(model.those("abandoned")) >= WORKERS + ABANDONED:
                with pytest.raises(AbandonedCallsError):
                    queue.put(lambda: None, group is None, group or "")
                continue
            awaitable, grow = queue.put(lambda number=number: number, group is None, group or "")
            awaitables.append(awaitable)
            model.jobs.append([group, "waiting"])
            assert grow == model.grow(group is None)
        elif step == "grow":
            assert queue.grow() == (model.grow(True) or model.grow(False))
        elif step == "take" and model.workers > len(model.those("running", "abandoned")):
            job, expected = queue.take(0.0), model.next()
            if expected is None:
                assert job is None
                model.workers -= 1
            else:
                assert job.call()() == expected
                taken[expected] = job
                model.jobs[expected][1] = "running"
        elif step == "abandon" and (wanted := model.those("waiting", "running")):
            number = wanted[pick % len(wanted)]
            awaitables[number].close()
            if model.jobs[number][1] == "running":
                model.jobs[number][1] = "abandoned"
                model.abandoned += 1
            else:
                model.jobs[number][1] = "gone"
        elif step == "finish" and (running := model.those("running", "abandoned")):
            number = running[pick % len(running)]
            taken.pop(number).set_result(None)
            model.jobs[number][1] = "gone"
            model.done += 1
        assert queue.stats() == model.stats()
    for job in taken.values():
        job.set_result(None)
    for awaitable in awaitables:
        awaitable.close()
    queue.close()
    assert (queue.stats()["running"], queue.stats()["waiting"], queue.stats()["still_running"]) == (0, 0, 0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_steps=steps)
def test_it_does_what_the_model_does(backend: Any, given_steps: list[tuple[str, str | None, int]]) -> None:
    queue = backend.WorkQueue(runtime.get(), WORKERS, ABANDONED)
    asyncio.run(play(queue, given_steps))


async def test_an_answer_is_told_at_the_latest_with_the_next_take(backend: Any) -> None:
    queue = backend.WorkQueue(runtime.get(), WORKERS, ABANDONED)
    awaitable, grow = queue.put(lambda: "answer")
    assert grow
    job = queue.take(0.0)
    job.set_result(job.call()())
    job.set_result("another answer")
    assert queue.take(0.0) is None
    assert await asyncio.wait_for(awaitable, 10) == "answer"
    queue.close()
