"""Agents that ask remote agents, over the A2A protocol."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from crewai.a2a.config import A2AClientConfig
from crewai.a2a.utils import delegation
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fastcrew_async import AsyncCrew
from fastcrew_async.config import settings
from fastcrew_async.testing import Request
from tests.roads import crews
from tests.roads.at_once import FEW, RUNS, answers, at_once, of
from tests.roads.crews import LATENCY, topic_of

TURNS = 2  # of the local model: to ask the remote agent, and to answer with what it said


class RemoteAgent:
    """The protocol by hand: a card, and ``message/send``, answered with a finished task."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.holds = False  # its answers
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        routes = [
            Route("/.well-known/agent-card.json", self._card),
            Route("/", self._answer, methods=["POST"]),
        ]
        config = uvicorn.Config(Starlette(routes=routes), log_level="error", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()

    async def _card(self, request: HttpRequest) -> Response:
        skill = {"id": "echo", "name": "echo", "description": "Echoes.", "tags": ["echo"]}
        return JSONResponse(
            {
                "name": "echo",
                "description": "Echoes.",
                "url": self.url,
                "version": "1",
                "protocolVersion": "0.3.0",
                "capabilities": {"streaming": False},
                "defaultInputModes": ["text/plain"],
                "defaultOutputModes": ["text/plain"],
                "preferredTransport": "JSONRPC",
                "skills": [skill],
            }
        )

    async def _answer(self, request: HttpRequest) -> Response:
        asked = await request.json()
        message = asked["params"]["message"]
        text = "".join(part.get("text", "") for part in message["parts"])
        self.asked.append(text)
        await asyncio.sleep(5 if self.holds else LATENCY)
        told = {
            "role": "agent",
            "kind": "message",
            "messageId": "1",
            "parts": [{"kind": "text", "text": f"echo {text}"}],
        }
        ids = {"id": f"task of {text}", "contextId": f"context of {text}"}
        task = ids | {"kind": "task", "status": {"state": "completed", "message": told}, "history": [message, told]}
        return JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "result": task})

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()


@pytest.fixture
def remote() -> Iterator[RemoteAgent]:
    found = RemoteAgent()
    yield found
    found.close()


def asking(remote: RemoteAgent) -> Any:
    def script(request: Request) -> str:
        topic = topic_of(request.text)
        heard = f"echo <{topic}>" in request.text
        said = {"a2a_ids": [] if heard else [f"{remote.url}/"], "is_a2a": not heard}
        return json.dumps(said | {"message": f"done <{topic}>" if heard else f"<{topic}>"})

    return script


def asking_crew(remote: RemoteAgent) -> Any:
    return crews.crew(asking(remote), a2a=A2AClientConfig(endpoint=remote.url, trust_remote_completion_status=False))


async def test_the_remote_agent_is_asked(remote: RemoteAgent) -> None:
    seen = await at_once(of(asking_crew(remote)))
    assert seen.texts == answers()
    assert seen.threads == []
    assert len(remote.asked) >= RUNS


async def test_its_client_takes_turns(remote: RemoteAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = delegation._create_a2a_client, []
    beside: list[str] = []

    def making(*arguments: Any, **options: Any) -> Any:
        """Longer than an iteration's slice, as the making of CrewAI's client mostly is."""
        if made and not made[-1].done():
            beside.append("two in one iteration of the loop")
        made.append(passing())
        since = time.perf_counter()
        while time.perf_counter() - since < 2 * settings().slice_seconds:
            pass
        return make(*arguments, **options)

    monkeypatch.setattr(delegation, "_create_a2a_client", making)
    seen = await at_once(of(asking_crew(remote)), runs=FEW)
    assert seen.texts == answers(FEW)
    assert len(made) == 2 * FEW
    assert beside == []


def passing() -> asyncio.Future[None]:
    """Done when this iteration of the loop has passed."""
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, None)
    return future


async def test_as_crewai_asks_it(remote: RemoteAgent) -> None:
    ours, stock = asking_crew(remote), asking_crew(remote)
    result = await AsyncCrew(ours).kickoff(inputs={"topic": "topic 01"})
    asked = remote.asked[:]
    on_its_own = asyncio.to_thread(lambda: asyncio.run(stock.akickoff(inputs={"topic": "topic 01"})))
    expected = await on_its_own  # a loop of its own, which CrewAI blocks
    assert result.raw == expected.raw == "done <topic 01>"
    assert remote.asked == 2 * asked
    assert texts(ours) == texts(stock)
    assert len(texts(ours)) == TURNS


async def test_in_place(remote: RemoteAgent, installed: None) -> None:
    result = await asyncio.to_thread(asking_crew(remote).kickoff, inputs={"topic": "topic 01"})
    assert result.raw == "done <topic 01>"
    assert remote.asked == ["<topic 01>"]


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="CrewAI's client swallows a cancellation, and Python 3.10 keeps no count of them"
)
async def test_cancelling_ends_it(remote: RemoteAgent) -> None:
    remote.holds = True
    crew = asking_crew(remote)
    run = asyncio.ensure_future(AsyncCrew(crew).kickoff(inputs={"topic": "topic 01"}))
    while not remote.asked:  # the test's own time is limited
        await asyncio.sleep(LATENCY)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert len(texts(crew)) == 1  # the model was not asked what to do about it
    remote.holds = False
    assert (await AsyncCrew(crew).kickoff(inputs={"topic": "topic 02"})).raw == "done <topic 02>"


def texts(crew: Any) -> list[str]:
    """What the model was asked."""
    return [request.text for request in crew.agents[0].llm.requests]
