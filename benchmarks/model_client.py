"""Measures model calls over HTTP: ours beside the openai package, CrewAI's provider and aiohttp, on one server.

    python benchmarks/model_client.py [--quick] [--rounds 3] [--only NAME ...]

The server, a scripted model, has a process of its own for the whole run; so has each measurement, one after another.
Every measurement prints a JSON line; a table of medians and the ratios follow. All answers are checked.

client      fastcrew_async's client: a parsed completion
LLM.acall   fastcrew_async.LLM, with its events, hooks and token counts
openai      the openai package: a parsed completion
CrewAI      crewai.LLM(...).acall
aiohttp     a POST and json()

cpu_us      process CPU, all threads, of one completion, kickoff or chunk
first_ms    from the server's first chunk on the wire to the caller: median, of streams one after another
rss_kib     growth of resident memory while 16 MB of a stream are read slowly
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from _own_process import figures

ANSWER = "Thought: I now know the final answer\nFinal Answer: It is green."
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What colour is tea?"}]
MODEL = "gpt-4o-mini"
CHUNKS = 2000

CALLS = ("client", "LLM.acall", "openai", "CrewAI", "aiohttp")
STREAMS = ("client", "LLM.acall", "openai", "CrewAI")
KICKOFFS = ("in process", "over HTTP", "over HTTP, install()")


def serve(latency: float, streaming: bool) -> None:
    """The server's process: prints its address, and ends with its standard input."""
    from fastcrew_async.testing import ModelServer, Reply

    script: Any = Reply("word " * (CHUNKS - 1) + "end") if streaming else ANSWER
    with ModelServer(script, latency=latency) as server:
        print(server.base_url, flush=True)
        sys.stdin.read()


class Server:
    """A server in a process of its own."""

    def __init__(self, latency: float = 0.0, streaming: bool = False) -> None:
        self._command = [sys.executable, __file__, "--serve", json.dumps([latency, streaming])]

    def __enter__(self) -> str:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __exit__(self, *exc: object) -> None:
        self._process.communicate()


@asynccontextmanager
async def caller(engine: str, url: str) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """One completion of `engine`, as a function that gives its text."""
    asked: dict[str, Any] = {"model": MODEL, "messages": MESSAGES}
    if engine == "aiohttp":
        import aiohttp

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def post() -> str:
                headers = {"authorization": "Bearer unused"}
                async with session.post(f"{url}/chat/completions", json=asked, headers=headers) as answer:
                    return str((await answer.json())["choices"][0]["message"]["content"])

            yield post
        return
    client = client_of(engine, url)

    async def call() -> str:
        if hasattr(client, "acall"):
            return str(await client.acall(MESSAGES))
        return str((await client.chat.completions.create(**asked)).choices[0].message.content)

    yield call


def client_of(engine: str, url: str, **options: Any) -> Any:
    if engine == "openai":
        from openai import AsyncOpenAI

        return AsyncOpenAI(base_url=url, api_key="unused")
    if engine == "CrewAI":
        from crewai import LLM as StockLLM

        return StockLLM(model=f"openai/{MODEL}", base_url=url, api_key="unused", **options)
    from fastcrew_async import LLM

    llm = LLM(model=f"openai/{MODEL}", base_url=url, api_key="unused", **options)
    return llm._get_async_client() if engine == "client" else llm


async def many(call: Callable[[], Awaitable[str]], n: int, concurrency: int) -> None:
    """`n` calls, `concurrency` of them at any time."""
    left = iter(range(n))

    async def caller() -> None:
        for _ in left:
            answer = await call()
            if answer != ANSWER:
                raise AssertionError(f"the answer was {answer!r}")

    await asyncio.gather(*(caller() for _ in range(concurrency)))


async def calls(engine: str, url: str, concurrency: int, n: int) -> dict[str, Any]:
    async with caller(engine, url) as call:
        await many(call, 3 * concurrency, concurrency)
        gc.collect()
        cpu, wall = time.process_time(), time.perf_counter()
        await many(call, n, concurrency)
        return {
            "cpu_us": (time.process_time() - cpu) / n * 1e6,
            "wall_s": time.perf_counter() - wall,
        }


async def streams(engine: str, url: str, n: int) -> dict[str, Any]:
    """`n` streams of CHUNKS words, one after another."""
    client = client_of(engine, url, stream=True) if engine != "client" else client_of("client", url)
    expected = "word " * (CHUNKS - 1) + "end"
    if hasattr(client, "acall"):
        from crewai.events.event_listener import event_listener

        event_listener.formatter.verbose = False  # as in a crew that is not verbose: nothing is drawn

    async def read() -> str:
        if hasattr(client, "acall"):
            return str(await client.acall(MESSAGES))
        texts = []
        async for chunk in await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True):
            if chunk.choices and (text := chunk.choices[0].delta.content):
                texts.append(text)
        return "".join(texts)

    await read()
    gc.collect()
    cpu = time.process_time()
    for _ in range(n):
        if await read() != expected:
            raise AssertionError("the stream's text is another one")
    return {"cpu_us": (time.process_time() - cpu) / n / CHUNKS * 1e6}


async def first_token(n: int) -> dict[str, Any]:
    """How long after it was written to the socket, in this process and by this loop, the first chunk is here."""
    written = [0.0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        await asyncio.sleep(0.05)
        written[0] = time.perf_counter()
        writer.write(b'data: {"choices": [{"index": 0, "delta": {"content": "tea"}}]}\n\n')
        await asyncio.sleep(0.02)
        writer.write(b"data: [DONE]\n\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    client = client_of("client", url)
    took = []
    for _ in range(n):
        stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                took.append(time.perf_counter() - written[0])
    server.close()
    return {"first_ms": statistics.median(took) * 1e3, "worst_first_ms": max(took) * 1e3}


async def slow_reader(megabytes: int) -> dict[str, Any]:
    """Memory while a stream that the server could send at once is read at 64 events a second and more."""
    event = b'data: {"choices": [{"index": 0, "delta": {"content": "' + b"x" * 65_000 + b'"}}]}\n\n'
    sent = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        for _ in range(megabytes * 16):
            writer.write(event)
            sent[0] += 1
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    client = client_of("client", url)
    stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    read, ahead, before, peak = 0, 0, 0, 0
    async for _ in stream:
        read += 1
        ahead = max(ahead, sent[0] - read)
        if read == 64:
            before = rss()
        peak = max(peak, rss())
        await asyncio.sleep(0.002)
    server.close()
    if read != megabytes * 16:
        raise AssertionError(f"{read} events were read")
    return {"rss_kib": (peak - before) // 1024, "events_ahead": ahead}


def rss() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


async def kickoffs(engine: str, url: str, n: int) -> dict[str, Any]:
    """`n` crews of one task at once, each with a model that takes a second."""
    from _scripted import ScriptedLLM as _InProcess
    from crewai import LLM as StockLLM
    from crewai import Agent, Crew, Task

    import fastcrew_async

    class InProcess(_InProcess):
        def _reply(self, messages: Any, tools: Any) -> str:
            return ANSWER

    options = {"model": f"openai/{MODEL}", "base_url": url, "api_key": "unused"}
    if engine == "in process":
        llm: Any = InProcess(model="scripted", latency=1.0)
    elif engine == "over HTTP":
        llm = fastcrew_async.LLM(**options)
    else:
        fastcrew_async.install()
        llm = StockLLM(**options)

    def crew() -> Crew:
        agent = Agent(role="Taster", goal="Taste", backstory="Old.", llm=llm)
        return Crew(agents=[agent], tasks=[Task(description="Say {x}", expected_output="A word", agent=agent)])

    one = crew()
    await asyncio.gather(*(fastcrew_async.AsyncCrew(one).kickoff(inputs={"x": "warm-up"}) for _ in range(3)))
    crews = [crew() for _ in range(n)]
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    results = await asyncio.gather(*(fastcrew_async.AsyncCrew(of).kickoff(inputs={"x": "tea"}) for of in crews))
    took = {
        "cpu_us": (time.process_time() - cpu) / n * 1e6,
        "wall_s": time.perf_counter() - wall,
    }
    if any(result.raw != "It is green." for result in results):
        raise AssertionError("a kickoff has another answer")
    return took


MEASURED = {
    "calls": calls,
    "streams": streams,
    "first token": first_token,
    "slow reader": slow_reader,
    "kickoffs": kickoffs,
}


def measure(name: str, arguments: list[Any]) -> dict[str, Any]:
    os.environ["CREWAI_TESTING"] = "true"  # a user past the first run, which CrewAI would trace
    logging.disable(logging.WARNING)
    row = asyncio.run(MEASURED[name](*arguments))  # type: ignore[operator]
    return {key: round(value, 3) for key, value in row.items()}


def rows(name: str, engines: tuple[str, ...], rounds: int, *arguments: Any) -> dict[str, dict[str, float]]:
    """Medians of each engine's figures, over `rounds` in which the engines take turns."""
    runs: dict[str, list[dict[str, float]]] = {engine: [] for engine in engines}
    for _ in range(rounds):
        for engine in engines:
            given = [engine, *arguments] if len(engines) > 1 else list(arguments)
            row = figures(__file__, json.dumps([name, given]))
            print(json.dumps({"measured": name, "engine": engine, **row}), flush=True)
            runs[engine].append(row)
    return {
        engine: {key: statistics.median(row[key] for row in found) for key in found[0]}
        for engine, found in runs.items()
    }


def ratio(found: dict[str, dict[str, float]], of: str, to: str, key: str = "cpu_us") -> str:
    return f"{of} / {to} = {found[of][key] / found[to][key]:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller numbers and one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=["calls", "streams", "kickoffs"], default=[])
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*json.loads(arguments.serve))
        return
    if arguments.measure:
        print(json.dumps(measure(*json.loads(arguments.measure))))
        return

    wanted = arguments.only or ["calls", "streams", "kickoffs"]
    rounds = 1 if arguments.quick else arguments.rounds
    lines = []
    if "calls" in wanted:
        with Server() as url:
            for concurrency in (20, 200):
                found = rows("calls", CALLS, rounds, url, concurrency, 400 if arguments.quick else 1000)
                lines += [f"{concurrency} at once, CPU: {ratio(found, 'openai', 'client')}"]
                lines += [f"{concurrency} at once, CPU: {ratio(found, 'CrewAI', 'LLM.acall')}"]
                lines += [f"{concurrency} at once, CPU: {ratio(found, 'CrewAI', 'client')}"]
                lines += [f"{concurrency} at once, CPU: {ratio(found, 'aiohttp', 'client')}"]
    if "streams" in wanted:
        with Server(streaming=True) as url:
            found = rows("streams", STREAMS, rounds, url, 3)
        lines += [f"streams, CPU: {ratio(found, 'openai', 'client')}; {ratio(found, 'CrewAI', 'LLM.acall')}"]
        lines += [f"first token: {rows('first token', ('client',), rounds, 20)['client']}"]
        lines += [f"slow reader: {rows('slow reader', ('client',), 1, 16)['client']}"]
    if "kickoffs" in wanted:
        with Server(latency=1.0) as url:
            found = rows("kickoffs", KICKOFFS, rounds, url, 200 if arguments.quick else 1000)
        lines += [f"kickoffs, CPU: {ratio(found, other, 'in process')}" for other in KICKOFFS[1:]]
        lines += [f"kickoffs, wall: {engine} {row['wall_s']} s" for engine, row in found.items()]
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
