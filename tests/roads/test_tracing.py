"""Traces sent to a server on this machine: CrewAI asks for leave as a run begins, and sends the spans at its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest import mock

import pytest
from crewai import Agent, Crew

from fastcrew_async import AsyncCrew, workers
from fastcrew_async.testing import Reply
from tests.roads.at_once import FEW, answers, at_once, of
from tests.roads.crews import Ping, agent, crew, ping_once, task

RUNS = 20


class Service:
    """CrewAI's tracing service: what it was asked for, and the spans that came, by run."""

    def __init__(self) -> None:
        self.granted: list[str] = []
        self.exports: Counter[str] = Counter()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                time.sleep(0.005)
                self.send_response(200)
                if self.path.endswith("/tracing/grants"):
                    uuid = json.loads(body)["execution_uuid"]
                    service.granted.append(uuid)
                    answer = json.dumps(service.grant(uuid)).encode()
                else:
                    service.exports[self.headers["authorization"].removeprefix("Bearer ")] += 1
                    answer = b""
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None: ...

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def grant(self, uuid: str) -> dict[str, str]:
        own = {"token": uuid, "execution_uuid": uuid, "collector_url": f"{self.url}/v1/traces"}
        return own | {"tier": "authenticated", "expires_at": "2999-01-01T00:00:00+00:00"}


@contextlib.contextmanager
def serving() -> Iterator[Service]:
    """Tracing is on, and goes to this service."""
    service = Service()
    thread = threading.Thread(target=service.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    variables = {"CREWAI_TRACING_ENABLED": "true", "CREWAI_USER_PAT": "none", "CREWAI_PLUS_URL": service.url}
    variables["CREWAI_TESTING"] = "true"  # no file about the last run in the working folder
    try:
        with mock.patch.dict("os.environ", variables):
            yield service
    finally:
        service.server.shutdown()
        service.server.server_close()
        thread.join(10)


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as service:
        yield service


async def test_every_run_has_a_trace_of_its_own(service: Service) -> None:
    seen = await at_once(of(crew(ping_once, tools=[Ping()])), runs=RUNS)
    assert seen.texts == answers(RUNS)
    assert len(set(service.granted)) == RUNS + FEW
    assert set(service.exports) == set(service.granted)
    own = [name for name in seen.threads if name.startswith("fastcrew-worker")]
    assert len(own) <= workers.pool().max_workers


async def test_an_agent_alone_is_traced(service: Service, installed: None) -> None:
    one: Any = agent()
    result = await Agent.kickoff_async(one, "about <tea>")
    assert result.raw == "done <tea>"
    assert set(service.exports) == set(service.granted)
    assert len(service.granted) == 1


async def test_a_failing_and_a_cancelled_run_send_theirs(service: Service) -> None:
    worker = agent(lambda request: Reply("no <tea>", status=500), max_retry_limit=0)
    with pytest.raises(RuntimeError, match="no <tea>"):
        await AsyncCrew(Crew(agents=[worker], tasks=[task(worker)])).kickoff(inputs={"topic": "tea"})
    assert set(service.exports) == set(service.granted)

    asked = asyncio.Event()

    def slow(request: Any) -> Reply:
        asked.set()
        return Reply("never", latency=30)

    running = asyncio.create_task(AsyncCrew(crew(slow)).kickoff(inputs={"topic": "tea"}))
    await asyncio.wait_for(asked.wait(), 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(service.granted) == 2
    assert set(service.exports) == set(service.granted)


def test_a_sync_kickoff_is_traced(service: Service, installed: None) -> None:
    result: Any = crew().kickoff(inputs={"topic": "tea"})
    assert result.raw == "done <tea>"
    assert set(service.exports) == set(service.granted)
    assert len(service.granted) == 1


async def test_a_run_cancelled_while_it_asks_for_leave_begins_nothing(service: Service) -> None:
    held, go_on = threading.Event(), threading.Event()
    grant = service.grant

    def late(uuid: str) -> dict[str, str]:
        held.set()
        go_on.wait(10)
        return grant(uuid)

    service.grant = late  # type: ignore[method-assign]
    running = asyncio.create_task(AsyncCrew(crew()).kickoff(inputs={"topic": "tea"}))
    assert await asyncio.to_thread(held.wait, 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    go_on.set()
    while workers.pool().stats()["still_running"]:
        await asyncio.sleep(0.01)
    assert not service.exports
