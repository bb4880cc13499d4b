from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from fastcrew_async.testing import ModelServer, Reply, Request, ToolCall

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi_service"


def script(request: Request) -> Reply | str:
    """Answers with the topic; for the topic "endless" it wants its tool again and again."""
    topic = re.search(r"something true about (\S+?)\.", request.text)
    assert topic is not None
    if topic.group(1) == "endless":
        return Reply(tool_calls=[ToolCall("shelf", {"topic": f"volume {len(request.messages)}"})])
    return f"All about {topic.group(1)}."


@contextmanager
def uvicorn(model: ModelServer, storage: Path) -> Iterator[str]:
    """The service in a process of its own; gives its address."""
    environment = os.environ | {
        "OPENAI_API_KEY": "unused",
        "OPENAI_BASE_URL": model.base_url,
        "CREWAI_STORAGE_DIR": str(storage),
        "CREWAI_DISABLE_TELEMETRY": "true",
        "OTEL_SDK_DISABLED": "true",
        "CREWAI_TRACING_ENABLED": "false",
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": str(EXAMPLE.parents[1]),
    }
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLE), "--port", "0", "app:app"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        log: list[str] = []
        for line in process.stderr:
            log.append(line)
            if match := re.search(r"running on (http://\S+)", line):
                break
        else:
            pytest.fail("the service did not start:\n" + "".join(log))
        # The pipe is read on, so that a full one never stops the service.
        reader = threading.Thread(target=log.extend, args=(process.stderr,), daemon=True)
        reader.start()
        yield match.group(1)
    finally:
        process.terminate()
        process.wait(timeout=20)
        reader.join(timeout=5)
        process.stderr.close()


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer(script, latency=0.5) as server:
        yield server


@pytest.fixture(scope="module")
def service(model: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with uvicorn(model, tmp_path_factory.mktemp("crewai")) as address:
        yield address


@pytest.fixture
def client(service: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=service, timeout=60, limits=limits, trust_env=False)


async def test_200_requests_at_once_are_answered_right_and_health_answers_meanwhile(client: httpx.AsyncClient) -> None:
    async def ask(number: int) -> str:
        response = await client.post("/kickoff", json={"topic": f"t{number}"})
        assert response.status_code == 200, response.text
        return str(response.json()["text"])

    async with client:
        asking = asyncio.gather(*(ask(number) for number in range(200)))
        while (await client.get("/health")).json()["running"] == 0:
            assert not asking.done()
        running = [(await client.get("/health")).json()["running"]]
        while not asking.done():
            running.append((await client.get("/health")).json()["running"])
        answers = await asking
        after = (await client.get("/health")).json()["running"]
    assert answers == [f"All about t{number}." for number in range(200)]
    assert max(running) > 1
    assert after == 0


async def test_a_client_that_goes_away_ends_its_run(client: httpx.AsyncClient, model: ModelServer) -> None:
    async with client:
        before = len(model.requests)
        asking = asyncio.create_task(client.post("/kickoff", json={"topic": "endless"}))
        while len(model.requests) == before:
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        while (await client.get("/health")).json()["running"]:
            await asyncio.sleep(0.01)
        calls = len(model.requests)
        # The crew goes on serving, and by the time it has answered, the run that was left would have asked again.
        answer = await client.post("/kickoff", json={"topic": "next"})
    assert answer.json()["text"] == "All about next."
    assert len(model.requests) == calls + 1


async def test_a_bad_question_is_refused_before_anything_runs(client: httpx.AsyncClient, model: ModelServer) -> None:
    before = len(model.requests)
    async with client:
        response = await client.post("/kickoff", json={"subject": "tea"})
    assert response.status_code == 422
    assert len(model.requests) == before
