"""The limits of the process, seen from crews."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import certifi
import openai
import pytest
from crewai import LLM, Agent, Crew
from crewai.tools import tool
from pydantic import BaseModel

import fastcrew_async
from fastcrew_async import AsyncCrew, Limit, Limits, ToolPolicy, limits, tools
from fastcrew_async.engine import calling, limited
from fastcrew_async.engine.kickoff import kickoff_in_place
from fastcrew_async.errors import RunTimeoutError
from fastcrew_async.testing import ModelServer, Reply, ScriptedLLM, ToolCall
from tests import crews
from tests.crews import storage  # noqa: F401


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(limits, "_permits", None)
    monkeypatch.setattr(limits, "active", None)
    monkeypatch.setattr(tools, "_tallies", {})
    before = fastcrew_async.settings()
    yield
    fastcrew_async.configure(limits=before.limits, tools=before.tools)


@pytest.fixture(scope="module", autouse=True)
def known() -> None:
    """What the openai package finds out of the platform, and where the certificates are: once, from files."""
    openai.OpenAI(api_key="unused").platform_headers()
    certifi.where()


def limit(**fields: Any) -> None:
    fastcrew_async.configure(limits=Limits(**{"learn": False, **fields}))


class Counting(ScriptedLLM):
    """Knows how many of its calls were under way at once, and in which order they came."""

    async def acall(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        global now, most
        now, most = now + 1, max(most, now + 1)
        try:
            return await super().acall(messages, *args, **kwargs)
        finally:
            now -= 1


now = most = 0


@pytest.fixture(autouse=True)
def count_anew() -> None:
    global now, most
    now = most = 0


def counting(script: Any = "done", **fields: Any) -> Crew:
    return crews.crew(llm=Counting(script, latency=0.05, **fields))


async def run(crew: Crew, times: int, **terms: Any) -> None:
    one = AsyncCrew(crew)
    await asyncio.wait_for(asyncio.gather(*(one.kickoff({"topic": "tea"}, **terms) for _ in range(times))), 30)


def free() -> bool:
    return all((found.used, found.waiting) == (0, 0) for found in fastcrew_async.stats().limits.values())


async def test_calls_of_a_model_at_once() -> None:
    limit(model=Limit(concurrent=2))
    await run(counting(), 10)
    found = fastcrew_async.stats().limits["model:scripted"]
    assert (most, found.granted, found.used) == (2, 10, 0)
    assert found.waited_seconds > 0


async def test_a_single_model_may_have_a_limit_of_its_own() -> None:
    limit(model=Limit(concurrent=1), keys={"model:openai/scripted": Limit(concurrent=4)})
    await run(counting(), 10)
    assert most == 4


async def test_kickoffs_at_once() -> None:
    limit(kickoffs=3)
    await run(counting(), 10)
    assert most == 3
    assert set(fastcrew_async.stats().limits) == {"kickoffs"}


async def test_a_kickoff_that_is_cancelled_at_the_gate_gives_its_permit_back() -> None:
    """It has the permit, and waits for its turn on the loop to go on."""
    limit(kickoffs=1)
    permits = limits.active
    assert permits is not None

    async def begin() -> None:
        raise AssertionError("it must not begin")

    work = limited.kickoff(begin)
    await work.send(None).aperform()
    assert not free()
    with pytest.raises(asyncio.CancelledError):
        work.throw(asyncio.CancelledError())
    assert free()


async def test_tenants() -> None:
    limit(tenant=Limit(concurrent=1), keys={"tenant:big": Limit(concurrent=3), "kickoffs:small": Limit(concurrent=1)})
    crew = counting()
    await asyncio.gather(run(crew, 5, tenant="small"), run(crew, 10, tenant="big"), run(crew, 5))
    found = fastcrew_async.stats().limits
    assert {key: one.granted for key, one in found.items()} == {
        "tenant:big": 10,
        "tenant:small": 5,
        "kickoffs:small": 5,
    }
    with pytest.raises(TypeError, match="tenant=5 must be a str"):
        await AsyncCrew(crew).kickoff({"topic": "tea"}, tenant=5)  # type: ignore[arg-type]
    assert limits.tenant.get() is None


async def test_a_host() -> None:
    limit(host=Limit(concurrent=1))
    await run(counting(base_url="http://one.example:8000/v1"), 3)
    assert (most, set(fastcrew_async.stats().limits)) == (1, {"host:one.example:8000"})


async def test_an_interactive_kickoff_overtakes_a_batch_by_its_model_calls() -> None:
    limit(model=Limit(concurrent=1))
    answered: list[str] = []

    def script(request: Any) -> str:
        answered.append(crews.echo(request))
        return "done"

    crew = AsyncCrew(crews.crew(llm=ScriptedLLM(script, latency=0.002)))
    batch = asyncio.create_task(crew.kickoff_for_each([{"topic": "batch"}] * 30, priority=-1))
    while len(answered) < 3:
        await asyncio.sleep(0.001)
    before = len(answered)
    await asyncio.wait_for(crew.kickoff({"topic": "me"}), 10)
    assert answered.index("me") - before <= 2  # the call under way, and one that began while ours was prepared
    await asyncio.wait_for(batch, 30)


async def test_tokens_are_settled_with_what_the_model_used() -> None:
    limit(model=Limit(tokens=100_000))
    crew = crews.crew(llm=ScriptedLLM(Reply("done", prompt_tokens=300, completion_tokens=33), max_tokens=5000))
    await run(crew, 3)
    found = fastcrew_async.stats().limits["model:scripted"]
    assert (found.tokens, found.reserved) == (999, 0)


async def test_a_tool_at_once_and_one_inside_itself() -> None:
    inside = most_inside = 0

    @tool("slow")
    async def slow(text: str) -> str:
        """Takes a while."""
        nonlocal inside, most_inside
        inside, most_inside = inside + 1, max(most_inside, inside + 1)
        await asyncio.sleep(0.05)
        if text == "outer":
            await inner.kickoff({"topic": "inner"})
        inside -= 1
        return "pong"

    def script(request: Any) -> Any:
        if "pong" in request.text:
            return "done"
        return Reply(tool_calls=[ToolCall("slow", {"text": "outer" if "outer" in request.text else "inner"})])

    limit(tool=Limit(concurrent=2), kickoffs=4)
    crew = crews.crew(script, tools=[slow])
    inner = AsyncCrew(crews.crew(script, tools=[slow]))
    await run(crew, 8)
    assert most_inside == 2
    limit(tool=Limit(concurrent=1), kickoffs=1)
    outer = AsyncCrew(crews.crew(script, tools=[slow]))
    await asyncio.wait_for(outer.kickoff({"topic": "outer"}), 20)
    assert free()


def caller(times: int = 1) -> Any:
    """A script that calls the tool ``slow`` so often with the run's topic."""

    def script(request: Any) -> Any:
        done = request.text.count("Observation: pong")
        return "done" if done >= times else Reply(tool_calls=[ToolCall("slow", {"text": crews.echo(request)})])

    return script


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_tools_own_limit(asynchronous: bool) -> None:
    inside: list[int] = [0]
    most: list[int] = []

    @tool("Slow!")
    async def slow(text: str) -> str:
        """Takes a while."""
        inside[0] += 1
        most.append(inside[0])
        await asyncio.sleep(0.005)
        inside[0] -= 1
        return "pong"

    @tool("Slow!")
    def slow_in_thread(text: str) -> str:
        """Takes a while."""
        with lock:
            inside[0] += 1
            most.append(inside[0])
        time.sleep(0.005)
        with lock:
            inside[0] -= 1
        return "pong"

    lock = threading.Lock()
    crew = crews.crew(caller(), tools=[slow if asynchronous else slow_in_thread])
    for limits_set in (None, Limits(tool=Limit(concurrent=5), learn=False)):
        fastcrew_async.configure(limits=limits_set, tools={"slow": ToolPolicy(concurrency=2)})
        await run(crew, 8)
    assert (max(most), len(most), free()) == (2, 16, True)
    found = fastcrew_async.stats()
    assert (found.limits["tool:slow"].concurrent, found.limits["tool:slow"].granted) == (2, 16)
    assert found.tools["Slow!"].calls >= 16
    fastcrew_async.configure(tools={}, limits=None)
    assert limits.active is None


async def test_a_tool_that_is_limited_by_both_its_names_has_both_limits() -> None:
    inside: list[int] = [0]
    most: list[int] = []

    @tool("Slow!")
    async def slow(text: str) -> str:
        """Takes a while."""
        inside[0] += 1
        most.append(inside[0])
        await asyncio.sleep(0.005)
        inside[0] -= 1
        return "pong"

    crew = crews.crew(caller(), tools=[slow])
    for policy, rule in ((2, 3), (3, 2)):
        keys = {"tool:Slow!": Limit(concurrent=rule)}
        fastcrew_async.configure(limits=Limits(keys=keys, learn=False), tools={"slow": ToolPolicy(concurrency=policy)})
        await run(crew, 8)
    assert (max(most), len(most), free()) == (2, 16, True)


async def test_an_earlier_result_takes_no_permit() -> None:
    @tool("slow")
    async def slow(text: str) -> str:
        """Takes a while."""
        return "pong"

    limit(tool=Limit(concurrent=1))
    fastcrew_async.configure(tools={"slow": ToolPolicy(cache_ttl=60)})
    crew = crews.crew(caller(), tools=[slow])
    await run(crew, 1)
    permits = limits.active
    assert permits is not None
    busy = await permits.acquire(["tool:slow"], 0, (0, 0))
    await run(crew, 3)
    assert (fastcrew_async.stats().limits["tool:slow"].granted, fastcrew_async.stats().tools["slow"].cache_hits) == (
        2,
        3,
    )
    busy.end()


async def test_a_timeout_while_waiting_is_the_runs() -> None:
    for given in ({"kickoffs": 1}, {"model": Limit(concurrent=1)}):
        limit(**given)
        crew = AsyncCrew(crews.crew(llm=ScriptedLLM("done", latency=0.3)))
        first = asyncio.create_task(crew.kickoff({"topic": "tea"}))
        await asyncio.sleep(0.05)
        with pytest.raises(RunTimeoutError):
            await crew.kickoff({"topic": "tea"}, timeout=0.05)
        second = asyncio.create_task(crew.kickoff({"topic": "tea"}))
        await asyncio.sleep(0.02)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await first
        assert free()


def test_in_place_too() -> None:
    limit(kickoffs=1, model=Limit(concurrent=1, requests=100))
    crew = crews.crew(llm=ScriptedLLM("done", latency=0.05))
    threads = [threading.Thread(target=kickoff_in_place, args=(crew, {"topic": "tea"})) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {key: one.granted for key, one in fastcrew_async.stats().limits.items()} == {
        "kickoffs": 4,
        "model:scripted": 4,
    }
    assert free()


async def test_a_model_without_an_async_side_waits_off_the_worker_threads() -> None:
    class Sync(ScriptedLLM):
        def call(self, *args: Any, **kwargs: Any) -> Any:
            return super().call(*args, **kwargs)

    limit(model=Limit(concurrent=1))
    await run(crews.crew(llm=Sync("done")), 4)
    assert fastcrew_async.stats().limits["model:scripted"].granted == 4


async def test_agents_alone_are_kickoffs_too() -> None:
    limit(kickoffs=1)
    agent: Agent = crews.agent(llm=Counting("done", latency=0.05))
    from fastcrew_async.engine.agent_kickoff import kickoff_async

    await asyncio.gather(*(kickoff_async(agent, "hello") for _ in range(3)))
    assert (most, free()) == (1, True)


@pytest.fixture
def serve() -> Iterator[Any]:
    """Model servers, closed off the loop."""
    servers: list[ModelServer] = []

    def start(script: Any) -> ModelServer:
        servers.append(ModelServer(script).start())
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def remote(server: ModelServer, kind: Any = LLM, **fields: Any) -> Any:
    fields = {"max_retries": 0, **fields}
    return kind(model="openai/gpt-4o-mini", base_url=server.base_url, api_key="unused", **fields)


async def closed(crew: Crew) -> None:
    """The crew's client, which would otherwise outlive its loop."""
    llm: Any = crew.agents[0].llm
    await llm._async_client.close()
    llm._client.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_providers_headers_are_heard(stream: bool, serve: Any) -> None:
    headers = {
        "x-ratelimit-limit-requests": "50",
        "x-ratelimit-remaining-requests": "49",
        "x-ratelimit-reset-requests": "1s",
    }
    fastcrew_async.configure(limits=Limits())
    crew = crews.crew(llm=remote(serve(Reply("Final Answer: done", headers=headers)), stream=stream))
    await run(crew, 2)
    await asyncio.to_thread(kickoff_in_place, crew, {"topic": "tea"})
    found = fastcrew_async.stats().limits["model:gpt-4o-mini"]
    assert (found.requests_limit, found.granted) == (50, 3)
    assert free()
    await closed(crew)


@pytest.mark.parametrize("kind", [LLM, fastcrew_async.LLM])
async def test_after_a_refusal_what_is_sent_again_waits_and_is_counted(kind: Any, serve: Any) -> None:
    refusal = Reply("slow down", status=429, headers={"retry-after": "0.3"})
    limit(model=Limit(concurrent=1, requests=10, tokens=1000))
    server = serve([refusal, Reply("Final Answer: done", prompt_tokens=30, completion_tokens=3)])
    crew = crews.crew(llm=remote(server, kind, max_retries=2))
    began = time.monotonic()
    await run(crew, 1)
    found = fastcrew_async.stats().limits["model:gpt-4o-mini"]
    assert (found.granted, found.refused, found.requests, found.tokens) == (2, 1, 2, 33)
    assert time.monotonic() - began >= 0.3
    limits.observe("model:gpt-4o-mini", {"retry-after": "50"}, 429)
    assert fastcrew_async.stats().limits["model:gpt-4o-mini"].paused_seconds > 40
    with pytest.raises(RunTimeoutError):
        await AsyncCrew(crew).kickoff({"topic": "tea"}, timeout=0.1)
    assert (free(), len(server.requests)) == (True, 2)
    await closed(crew)


@pytest.mark.parametrize("kind", [LLM, fastcrew_async.LLM])
@pytest.mark.parametrize("stream", [False, True])
async def test_calls_at_once_are_settled_each_with_its_own_tokens(kind: Any, stream: bool, serve: Any) -> None:
    """Also those of a copy of the crew, whose counters begin anew with each run."""
    limit(model=Limit(tokens=1_000_000))
    reply = Reply("Final Answer: done", prompt_tokens=70, completion_tokens=7)
    crew = crews.crew(llm=remote(serve(reply), kind, stream=stream))
    await run(crew, 5)
    await run(crew, 5)
    await asyncio.gather(*(asyncio.to_thread(kickoff_in_place, crew, {"topic": "tea"}) for _ in range(3)))
    found = fastcrew_async.stats().limits["model:gpt-4o-mini"]
    assert (found.granted, found.tokens, free()) == (13, 13 * 77, True)
    await closed(crew)


@pytest.mark.parametrize("kind", [LLM, fastcrew_async.LLM])
@pytest.mark.parametrize("mode", ["async", "sync"])
async def test_calls_beside_the_agents_are_counted_too(kind: Any, mode: str, serve: Any) -> None:
    limit(model=Limit(concurrent=2, tokens=1_000_000))
    server = serve(Reply("Final Answer: done", prompt_tokens=70, completion_tokens=7))
    llm = remote(server, kind)

    @tool("ask")
    def ask(text: str) -> str:
        """Asks the model."""
        return str(llm.call([{"role": "user", "content": text}]))

    @tool("ask")
    async def ask_later(text: str) -> str:
        """Asks the model."""
        return str(await llm.acall([{"role": "user", "content": text}]))

    def script(request: Any) -> Any:
        return "done" if "Final Answer: done" in request.text else Reply(tool_calls=[ToolCall("ask", {"text": "x"})])

    crew = crews.crew(script, tools=[ask if mode == "sync" else ask_later])
    calling.listen(llm)
    await run(crew, 3)
    found = fastcrew_async.stats().limits["model:gpt-4o-mini"]
    assert (found.granted, found.tokens, free()) == (3, 3 * 77, True)
    await closed(crews.crew(llm=llm))


async def test_a_conversion_in_crewais_code_is_counted(serve: Any) -> None:
    class Tea(BaseModel):
        colour: str

    limit(model=Limit(requests=100))
    server = serve(['{"colour": "green"}'])
    llm = remote(server)
    agent = crews.agent("It is green.", function_calling_llm=llm)
    crew = Crew(agents=[agent], tasks=[crews.task(agent, output_pydantic=Tea)])
    result = await AsyncCrew(crew).kickoff({"topic": "tea"})
    assert result.pydantic == Tea(colour="green")
    assert (fastcrew_async.stats().limits["model:gpt-4o-mini"].granted, len(server.requests), free()) == (1, 1, True)
    await closed(crews.crew(llm=llm))


async def test_an_error_that_is_its_own_cause_ends_the_call() -> None:
    class Odd(ScriptedLLM):
        async def acall(self, *args: Any, **kwargs: Any) -> Any:
            error, other = ValueError("odd"), ValueError("other")
            error.__cause__, other.__cause__ = other, error
            raise error

    limit(model=Limit(concurrent=1))
    with pytest.raises(ValueError, match="odd"):
        await AsyncCrew(crews.crew(llm=Odd("done"), max_retry_limit=0)).kickoff({"topic": "tea"})
    assert free()


async def test_without_limits_nothing_is_asked_for() -> None:
    await run(counting(), 3)
    assert (most, limits.active, fastcrew_async.stats().limits) == (3, None, {})


LATER = {
    "x-ratelimit-limit-requests": "10",
    "x-ratelimit-remaining-requests": "0",
    "x-ratelimit-reset-requests": "50s",
}


@pytest.mark.parametrize(("status", "headers"), [(429, {"Retry-After": "50"}), (200, LATER)])
async def test_without_limits_nobody_waits_for_what_the_provider_said(status: int, headers: dict[str, str]) -> None:
    fastcrew_async.configure(limits=Limits())
    limits.observe("model:scripted", headers, status)
    run = AsyncCrew(crews.crew()).start({"topic": "tea"})
    while not fastcrew_async.stats().limits["model:scripted"].waiting:
        await asyncio.sleep(0.01)
    fastcrew_async.configure(limits=None)
    await asyncio.wait_for(run, 20)
