"""How much of a provider's allowance is used, how often it refuses, and what a batch costs an interactive run.

    python benchmarks/limits.py [--window 6] [--only requests|tokens|interactive]

Four crews share one model behind a server on loopback that allows so many requests and tokens in any window (6 s here
instead of a minute) and answers 429 beyond that, once through CrewAI's model and once through the core's. A call's fair
share of the waiting is the time at which it would be its turn if the allowance were given out evenly, to the four crews
by turns. Then 1,000 kickoffs of priority -1 wait for a model in the process.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import multiprocessing
import os
import threading
import time
from collections import Counter, deque
from typing import Any

os.environ.update(CREWAI_DISABLE_TELEMETRY="true", OTEL_SDK_DISABLED="true", CREWAI_TRACING_ENABLED="false")

import crewai
from crewai import Agent, Crew, Task

import fastcrew_async
from fastcrew_async import AsyncCrew, Limit, Limits, configure, stats
from fastcrew_async.testing import ModelServer, Reply, Request, ScriptedLLM

RUNS = 250  # of each of the four crews
USAGE = (100, 100)  # tokens of a prompt and an answer: less than a call reserves, as is usual


class Provider:
    """A script that counts as a provider does."""

    def __init__(self, requests: int, tokens: int, window: float) -> None:
        self.window = window
        self.requests = requests
        self.tokens = tokens
        self.log: deque[float] = deque()
        self.arrivals: list[tuple[float, str]] = []
        self.refused = 0
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Reply:
        with self._lock:
            now = time.monotonic()
            while self.log and self.log[0] + self.window <= now:
                self.log.popleft()
            if len(self.log) + 1 > self.requests or (len(self.log) + 1) * sum(USAGE) > self.tokens:
                self.refused += 1
                return Reply("slow down", status=429, headers={"retry-after": f"{self.log[0] + self.window - now:.3f}"})
            self.log.append(now)
            crew = request.text.split("Job of crew ")[1][0]
            self.arrivals.append((now, crew))
            return Reply(f"Final Answer: {crew}", prompt_tokens=USAGE[0], completion_tokens=USAGE[1])


def serve(requests: int, tokens: int, window: float, pipe: Any) -> None:
    """A provider is a process of its own: it shares neither interpreter nor lock with who asks."""
    provider = Provider(requests, tokens, window)
    with ModelServer(provider, latency=0.1) as server:
        pipe.send(server.base_url)
        pipe.recv()
    pipe.send((provider.arrivals, provider.refused))


def crew(name: str, llm: object) -> AsyncCrew:
    agent = Agent(role="Worker", goal="Work", backstory="Able.", llm=llm)
    task = Task(description=f"Job of crew {name}, number {{n}}", expected_output="A word", agent=agent)
    return AsyncCrew(Crew(agents=[agent], tasks=[task]))


async def allowance(kind: Any, name: str, requests: int, tokens: int, window: float) -> None:
    configure(limits=None)
    pipe, end = multiprocessing.Pipe()
    spawn = multiprocessing.get_context("spawn")
    server = spawn.Process(target=serve, args=(requests, tokens, window, end), daemon=True)
    server.start()
    llm: Any = kind(model="openai/gpt-4o-mini", base_url=pipe.recv(), api_key="unused", max_tokens=150)
    crews = [crew(letter, llm) for letter in "abcd"]
    configure(limits=Limits(model=Limit(requests=requests, tokens=tokens, window=window)))
    results = await asyncio.gather(*(crews[n % 4].kickoff({"n": n}) for n in range(4 * RUNS)), return_exceptions=True)
    await llm._async_client.close()
    pipe.send(None)
    arrivals, refused = pipe.recv()
    failed = sum(isinstance(result, BaseException) for result in results)
    times = [when for when, _ in arrivals]
    each = min(requests, tokens // sum(USAGE))
    full = math.ceil(len(times) / each) - 1  # windows until the last burst may begin
    took = times[full * each] - times[0]
    longest = shares_of_waiting(arrivals, each, window)
    print(
        f"{kind.__module__.partition('.')[0]}.LLM, by {name}: {len(times)} calls, {each} allowed in {window:g} s; "
        f"{full * window / took:.1%} of the allowance used, {refused} answers with 429 "
        f"({refused / (len(times) + refused):.2%}), {failed} kickoffs failed; "
        f"the longest wait was {longest:.2f} times its fair share",
        flush=True,
    )


def shares_of_waiting(arrivals: list[tuple[float, str]], each: int, window: float) -> float:
    """The longest wait by its fair share, of those whose share is a window or more."""
    seen: Counter[str] = Counter()
    shares = []
    for when, letter in arrivals:
        seen[letter] += 1
        fair = seen[letter] * 4 / each * window
        if fair >= window:
            shares.append((when - arrivals[0][0]) / fair)
    return max(shares)


async def interactive() -> None:
    latency = 0.2
    configure(limits=None)
    configure(limits=Limits(model=Limit(concurrent=20)))
    worker = crew("a", ScriptedLLM("Final Answer: done", latency=latency))
    began = time.monotonic()
    await worker.kickoff({"n": 0})
    alone = time.monotonic() - began
    batch = asyncio.create_task(worker.kickoff_for_each([{"n": n} for n in range(1000)], priority=-1))
    delays = []
    for _ in range(5):
        await asyncio.sleep(1.0)
        began = time.monotonic()
        await worker.kickoff({"n": 0})
        delays.append(time.monotonic() - began - alone)
    waiting = stats().limits["model:scripted"].waiting
    await batch
    print(
        f"1,000 kickoffs of priority -1, {waiting} of them still waiting: an interactive one took longer by "
        f"{min(delays):.2f} to {max(delays):.2f} s than alone ({alone:.2f} s); one model call takes {latency:g} s"
    )


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--window", type=float, default=6.0)
    parser.add_argument("--only", choices=("requests", "tokens", "interactive"))
    given = parser.parse_args()
    for kind in (crewai.LLM, fastcrew_async.LLM):
        if given.only in (None, "requests"):
            await allowance(kind, "requests", 250, 1_000_000, given.window)
        if given.only in (None, "tokens"):
            await allowance(kind, "tokens", 1_000, 50_000, given.window)
    if given.only in (None, "interactive"):
        await interactive()


if __name__ == "__main__":
    asyncio.run(main())
