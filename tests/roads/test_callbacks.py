"""Callbacks, sync ones on worker threads and async ones on the loop of the run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import Any

import pytest
from crewai import Crew

from fastcrew_async import workers
from tests.roads.at_once import RUNS, answers, at_once, each, topics
from tests.roads.crews import LATENCY, Ping, agent, marks, ping_once, task

KINDS = ("before", "step", "task", "of the crew", "after")


class Calls:
    """Who called, about which topic, and on which thread."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str, int]] = []

    def note(self, kind: str, about: Any) -> None:
        named = marks(str(about))
        assert len(named) == 1, f"{kind} saw {named}"
        self.made.append((kind, *named, threading.get_ident()))

    def sync(self, kind: str) -> Any:
        def callback(about: Any) -> Any:
            time.sleep(LATENCY)
            self.note(kind, about)
            return about

        return callback

    def asynchronous(self, kind: str) -> Any:
        async def callback(about: Any) -> Any:
            await asyncio.sleep(LATENCY)
            self.note(kind, about)
            return about

        return callback


def called(form: Any) -> Crew:
    worker = agent(ping_once, tools=[Ping()], step_callback=form("step"))
    made = Crew(agents=[worker], tasks=[task(worker, callback=form("task"))], task_callback=form("of the crew"))
    made.before_kickoff_callbacks.append(form("before"))
    made.after_kickoff_callbacks.append(form("after"))
    return made


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
async def test_every_callback_is_of_its_own_run(asynchronous: bool) -> None:
    calls = Calls()
    form = calls.asynchronous if asynchronous else calls.sync
    seen = await at_once(each(lambda: called(form)))
    assert seen.texts == answers()
    told = Counter((kind, topic) for kind, topic, _ in calls.made if topic in set(topics()))
    assert told == {(kind, topic): 2 if kind == "step" else 1 for kind in KINDS for topic in topics()}
    on_the_loop = {thread == threading.get_ident() for _, _, thread in calls.made}
    assert on_the_loop == {asynchronous}
    assert len(seen.threads) <= (0 if asynchronous else workers.pool().max_workers)
    assert len(seen.results) == RUNS
