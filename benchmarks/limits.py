"""How much of a provider's allowance is used, how often it refuses, and what a batch costs an interactive run.

    python benchmarks/limits.py

Four crews share one model behind a server on loopback that allows so many requests and tokens in any window (6 s here
instead of a minute) and answers 429 beyond that. Then 1,000 kickoffs of priority -1 wait for a model in the process.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import threading
import time
from collections import Counter, deque
from typing import Any

os.environ.update(CREWAI_DISABLE_TELEMETRY="true", OTEL_SDK_DISABLED="true", CREWAI_TRACING_ENABLED="false")

from crewai import LLM, Agent, Crew, Task

from fastcrew_async import AsyncCrew, Limit, Limits, configure, stats
from fastcrew_async.testing import ModelServer, Reply, Request, ScriptedLLM

WINDOW = 6.0
RUNS = 250  # of each of the four crews
USAGE = (100, 100)  # tokens of a prompt and an answer: less than a call reserves, as is usual


class Provider:
    """A script that counts as a provider does."""

    def __init__(self, requests: int, tokens: int) -> None:
        self.requests = requests
        self.tokens = tokens
        self.log: deque[float] = deque()
        self.arrivals: list[tuple[float, str]] = []
        self.refused = 0
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Reply:
        with self._lock:
            now = time.monotonic()
            while self.log and self.log[0] + WINDOW <= now:
                self.log.popleft()
            if len(self.log) + 1 > self.requests or (len(self.log) + 1) * sum(USAGE) > self.tokens:
                self.refused += 1
                return Reply("slow down", status=429, headers={"retry-after": f"{self.log[0] + WINDOW - now:.3f}"})
            self.log.append(now)
            crew = request.text.split("Job of crew ")[1][0]
            self.arrivals.append((now, crew))
            return Reply(f"Final Answer: {crew}", prompt_tokens=USAGE[0], completion_tokens=USAGE[1])


def serve(requests: int, tokens: int, pipe: Any) -> None:
    """A provider is a process of its own: it shares neither interpreter nor lock with who asks."""
    provider = Provider(requests, tokens)
    with ModelServer(provider, latency=0.1) as server:
        pipe.send(server.base_url)
        pipe.recv()
    pipe.send((provider.arrivals, provider.refused))


def crew(name: str, llm: object) -> AsyncCrew:
    agent = Agent(role="Worker", goal="Work", backstory="Able.", llm=llm)
    task = Task(description=f"Job of crew {name}, number {{n}}", expected_output="A word", agent=agent)
    return AsyncCrew(Crew(agents=[agent], tasks=[task]))


async def allowance(name: str, requests: int, tokens: int) -> None:
    configure(limits=None)
    pipe, end = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(requests, tokens, end), daemon=True)
    server.start()
    llm: Any = LLM(model="openai/gpt-4o-mini", base_url=pipe.recv(), api_key="unused", max_tokens=150)
    crews = [crew(letter, llm) for letter in "abcd"]
    configure(limits=Limits(model=Limit(requests=requests, tokens=tokens, window=WINDOW)))
    await asyncio.gather(
        *(crews[n % 4].kickoff({"n": n}) for n in range(4 * RUNS)),
    )
    await llm._async_client.close()
    pipe.send(None)
    arrivals, refused = pipe.recv()
    times = [when for when, _ in arrivals]
    each = min(requests, tokens // sum(USAGE))
    full = math.ceil(len(times) / each) - 1  # windows until the last burst may begin
    took = times[full * each] - times[0]
    half = Counter(letter for _, letter in arrivals[: len(times) // 2])
    shares = ", ".join(f"{half[letter] / half.total():.0%}" for letter in "abcd")
    print(
        f"{name}: {len(times)} calls, {each} allowed in {WINDOW:g} s; "
        f"{full * WINDOW / took:.1%} of the allowance used, {refused} answers with 429 ({refused / len(times):.2%}); "
        f"at half time the crews had {shares} of the calls"
    )


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
    await allowance("requests", 250, 1_000_000)
    await allowance("tokens", 1_000, 50_000)
    await interactive()


if __name__ == "__main__":
    asyncio.run(main())
