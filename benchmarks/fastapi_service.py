"""Many requests at once to the FastAPI example, while /health is asked every few milliseconds; prints one JSON line.

    python benchmarks/fastapi_service.py [fastcrew-async|stock] [-n 200]

The model (examples/fastapi_service/scripted_model.py, 0.5 s an answer), the service and this client are processes of
their own. `stock` serves the same crew by `Crew.akickoff`, with a crew for each request, since there one crew cannot
run twice at once.

right           answers that belong to their question
wall_s          from the first request to the last answer
health_max_ms   the longest /health took meanwhile
health_n        how often it was asked
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "fastapi_service"


def stock() -> Any:
    """The example's service without fastcrew-async."""
    sys.path.insert(0, str(EXAMPLE))
    import app as example
    from fastapi import FastAPI

    service = FastAPI()

    @service.post("/kickoff")
    async def kickoff(question: dict[str, str]) -> dict[str, str]:
        result = await example.crew.crew.copy().akickoff(inputs={"topic": question["topic"]})
        return {"text": result.raw}

    @service.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return service


@contextlib.contextmanager
def started(command: list[str], pattern: str, stream: str, **environment: str) -> Iterator[str]:
    """Runs a process until the block ends; gives what `pattern` finds in its output."""
    process = subprocess.Popen(command, env=os.environ | environment, text=True, cwd=ROOT, **{stream: subprocess.PIPE})
    pipe: IO[str] = getattr(process, stream)
    try:
        for line in pipe:
            if match := re.search(pattern, line):
                # The pipe is read on: a full one would stop the process.
                threading.Thread(target=pipe.read, daemon=True).start()
                yield match.group(1)
                return
        sys.exit(f"{command} ended without {pattern!r}")
    finally:
        process.terminate()
        process.wait(20)


async def exchange(host: str, port: int, request: bytes) -> bytes:
    """One request on a connection of its own, as cheap as can be: the client shares the machine with the service."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


def post(topic: str) -> bytes:
    body = json.dumps({"topic": topic}).encode()
    head = f"POST /kickoff HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"content-type: application/json\r\n\r\n" + body


async def measure(address: str, n: int) -> dict[str, Any]:
    host, port = address.removeprefix("http://").split(":")
    longest, asked = 0.0, 0

    async def health() -> None:
        nonlocal longest, asked
        while True:
            before = time.perf_counter()
            answer = await exchange(host, int(port), b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200")
            longest, asked = max(longest, time.perf_counter() - before), asked + 1
            await asyncio.sleep(0.005)

    await exchange(host, int(port), post("warming"))
    probing = asyncio.create_task(health())
    await asyncio.sleep(0.2)
    longest, asked = 0.0, 0
    wall = time.perf_counter()
    answers = await asyncio.gather(*(exchange(host, int(port), post(f"t{number}")) for number in range(n)))
    wall = time.perf_counter() - wall
    await asyncio.sleep(0.05)  # the probe that was under way counts
    probing.cancel()
    right = sum(f"There is more to t{number} than".encode() in answer for number, answer in enumerate(answers))
    return {"right": right, "wall_s": round(wall, 2), "health_max_ms": round(longest * 1e3, 1), "health_n": asked}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", nargs="?", choices=["fastcrew-async", "stock"], default="fastcrew-async")
    parser.add_argument("-n", type=int, default=200)
    given = parser.parse_args()
    app = ["--app-dir", str(EXAMPLE), "app:app"]
    if given.engine == "stock":
        app = ["--app-dir", str(Path(__file__).parent), "--factory", "fastapi_service:stock"]
    service = [sys.executable, "-m", "uvicorn", "--port", "0", "--no-access-log", "--backlog", "4096", *app]
    model = [sys.executable, str(EXAMPLE / "scripted_model.py")]
    quiet = {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true", "CREWAI_TRACING_ENABLED": "false"}
    with (
        tempfile.TemporaryDirectory() as storage,
        started(model, r"OPENAI_BASE_URL=(\S+)", "stdout", PYTHONPATH=str(ROOT)) as url,
        started(
            service,
            r"running on (http://\S+)",
            "stderr",
            **quiet,
            PYTHONPATH=str(ROOT),
            OPENAI_BASE_URL=url,
            OPENAI_API_KEY="unused",
            CREWAI_STORAGE_DIR=storage,
            NO_PROXY="127.0.0.1",
        ) as address,
    ):
        print(json.dumps({"engine": given.engine, "n": given.n, **asyncio.run(measure(address, given.n))}))


if __name__ == "__main__":
    main()
