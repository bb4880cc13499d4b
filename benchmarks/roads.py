"""Measures how long each road of CrewAI holds the event loop while fifty runs, or more, are under way at once.

    python benchmarks/roads.py [--only NAME ...]

The crews are those of ``tests/roads``: a scripted model, no network, nothing of the user's that blocks the loop. Each
road runs in a process of its own, after a few runs that start what a process starts once; all answers are checked.

stall_ms    the longest time the event loop did not run a 1 ms ticker
cpu_ms      the most CPU that all threads of the process used between two ticks; the rest of a stall is the machine's
            load
wall_s      from the first start to the last end
threads     threads that the runs started, those of CrewAI's event bus aside
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import contextlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from _own_process import figures

ROOT = Path(__file__).resolve().parent.parent
MORE = {"flows": 100, "MemoryStore": 200}
"""Runs at once of these roads."""
_TO_THE_END = contextlib.ExitStack()  # doubles that the process needs as long as it runs: a trace is sent at its exit
atexit.register(_TO_THE_END.close)


def roads(folder: Path) -> dict[str, Callable[[], Callable[[str], Awaitable[Any]]]]:
    """What starts a run about a topic, by the name of the road; made before the loop runs."""
    from crewai import Crew
    from crewai.knowledge.source.string_knowledge_source import StringKnowledgeSource
    from crewai.tasks.conditional_task import ConditionalTask

    from fastcrew_async import AsyncCrew, MemoryStore
    from tests.roads import (
        checkpointed,
        test_a2a,
        test_callbacks,
        test_checkpoints,
        test_files,
        test_flows,
        test_guardrails,
        test_hierarchical,
        test_human_feedback,
        test_knowledge,
        test_listeners,
        test_mcp,
        test_memory,
        test_plan_and_execute,
        test_planning,
        test_skills,
        test_streaming,
        test_string_guardrails,
        test_tracing,
    )
    from tests.roads.at_once import FEW, RUNS, of, topics
    from tests.roads.crews import Ping, agent, crew, model, ping_once, task

    def beside() -> Any:
        worker = agent(ping_once, tools=[Ping()])
        tasks = [task(worker, number, async_execution=True) for number in range(3)]
        return of(Crew(agents=[worker], tasks=[*tasks, task(worker, 3, context=tasks)]))

    def conditional() -> Any:
        worker = agent()
        middle = task(worker, 1, ConditionalTask, condition=lambda output: "1" in output.raw)
        return of(Crew(agents=[worker], tasks=[task(worker), middle, task(worker, 2)]))

    def guarded(script: Any, guardrail: Any) -> Any:
        worker = agent(script)
        return of(Crew(agents=[worker], tasks=[task(worker, guardrail=guardrail)]))

    def knowledge() -> Any:
        sources: Any = {"knowledge_sources": [StringKnowledgeSource(content=test_knowledge.FACT)]}
        return of(crew(test_knowledge.told, options=sources | {"embedder": test_knowledge.EMBEDDER}))

    def memory(script: Any, storage: Any = folder / "memory", *embedder: Any) -> Any:
        worker = agent(script)
        return of(Crew(agents=[worker], tasks=[task(worker)], memory=test_memory.knowing(storage, *embedder)))

    def saved(storage: Any = folder / "memory", *embedder: Any) -> Any:
        return of(crew(options={"memory": test_memory.memory(storage, *embedder)}))

    store = MemoryStore(folder / "store")

    def input_files() -> Any:
        _TO_THE_END.enter_context(test_files.stored())
        return test_files.with_notes(native=True)

    def skills() -> Any:
        made = folder / "skills" / "tea-making"
        made.mkdir(parents=True)
        (made / "SKILL.md").write_text(test_skills.TEXT)
        return of(crew(test_skills.reading, skills=[made.parent]))

    def streaming() -> Any:
        shared = test_streaming.streaming(ping_once, tools=[Ping()])
        return lambda topic: test_streaming.streamed(shared, topic)

    def callbacks(form: str) -> Any:
        calls = test_callbacks.Calls()
        return of(test_callbacks.called(getattr(calls, form)))

    def feedback() -> Any:
        from crewai.core.providers.human_input import set_provider

        start = of(test_human_feedback.asking())

        async def asked(topic: str) -> Any:
            set_provider(test_human_feedback.Person())
            return await start(topic)

        return asked

    def mcp() -> Any:
        test_mcp.Client.threads = set()
        return of(crew(test_mcp.pinging, native=True, tools=[test_mcp.tool()]))

    def remote_agent() -> Any:
        remote = test_a2a.RemoteAgent()
        _TO_THE_END.callback(remote.close)
        return of(test_a2a.asking_crew(remote))

    def planned() -> Any:
        def make() -> Any:
            worker = agent(test_planning.with_plan)
            planner = model(test_planning.planned)
            return Crew(agents=[worker], tasks=[task(worker), task(worker, 1)], planning=True, planning_llm=planner)

        # Making a crew is its owner's work, and no road: they are there before the loop runs.
        crews = [AsyncCrew(make()) for _ in range(FEW + RUNS + FEW)]
        return lambda topic: crews.pop().kickoff(inputs={"topic": topic})

    def traced() -> Any:
        _TO_THE_END.enter_context(test_tracing.serving())
        return of(crew(ping_once, tools=[Ping()]))

    def checkpoints(*, restored: bool) -> Any:
        _TO_THE_END.enter_context(checkpointed.answering())
        return (test_checkpoints.going_on if restored else test_checkpoints.writing)(folder / "checkpoints")

    def alone() -> Any:
        import fastcrew_async

        fastcrew_async.install()
        return test_plan_and_execute.alone([])

    def heard() -> Any:
        _TO_THE_END.enter_context(test_listeners.listening())
        return of(crew(ping_once, tools=[Ping()]))

    def flows(kind: Any) -> Any:
        import fastcrew_async

        fastcrew_async.install()
        common = test_flows.three()
        names = [*topics(MORE["flows"]), *(f"warm-up {number}" for number in range(FEW))]
        made = {name: [test_flows.flow(kind, common) for _ in range(2)] for name in names}  # making one is the host's
        return lambda topic: made[topic].pop().kickoff_async(inputs={"topic": topic})

    return {
        "sequential, ReAct": lambda: of(crew(ping_once, tasks=2, tools=[Ping()])),
        "sequential, native": lambda: of(crew(ping_once, tasks=2, native=True, tools=[Ping()])),
        "hierarchical, manager agent": lambda: of(test_hierarchical.managed("agent", native=True)),
        "hierarchical, manager model": lambda: of(test_hierarchical.managed("model", native=False)),
        "conditional task": conditional,
        "async tasks": beside,
        "function guardrail": lambda: guarded(test_guardrails.better, test_guardrails.good),
        "string guardrail": lambda: guarded(test_string_guardrails.judged, "It must be good"),
        "knowledge": knowledge,
        "memory, recall": lambda: memory(test_memory.told),
        "memory, search tool": lambda: memory(test_memory.searching),
        "memory, saved": saved,
        "MemoryStore, recall": lambda: memory(test_memory.told, store),
        "MemoryStore, search tool": lambda: memory(test_memory.searching, store),
        "MemoryStore, saved": lambda: saved(store),
        "MemoryStore, words, recall": lambda: memory(test_memory.told, store, store.embedder()),
        "MemoryStore, words, saved": lambda: saved(store, store.embedder()),
        "input files": input_files,
        "streaming": streaming,
        "sync callbacks": lambda: callbacks("sync"),
        "async callbacks": lambda: callbacks("asynchronous"),
        "human feedback": feedback,
        "MCP tool": mcp,
        "A2A agent": remote_agent,
        "skills": skills,
        "crew planning": planned,
        "plan and execute, in turn": lambda: test_plan_and_execute.in_a_crew([1]),
        "plan and execute, beside": lambda: test_plan_and_execute.in_a_crew([]),
        "agent alone, planning": alone,
        "event listeners": heard,
        "tracing": traced,
        "checkpoints, written": lambda: checkpoints(restored=False),
        "checkpoints, restored": lambda: checkpoints(restored=True),
        "flows, awaited crews": lambda: flows(test_flows.Awaiting),
        "flows, sync crews": lambda: flows(test_flows.Blocking),
    }


async def measured(start: Callable[[str], Awaitable[Any]], runs: int) -> dict[str, Any]:
    from tests.roads.at_once import at_once
    from tests.roads.crews import marks

    stall = used = 0.0

    async def watch() -> None:
        nonlocal stall, used
        while True:
            before, cpu = time.perf_counter(), time.process_time()
            await asyncio.sleep(0.001)
            stall = max(stall, time.perf_counter() - before - 0.001)
            used = max(used, time.process_time() - cpu)

    await asyncio.gather(*(start(f"warm-up {number}") for number in range(5)))
    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    stall, used, begun = 0.0, 0.0, time.perf_counter()
    seen = await at_once(start, runs=runs, beside={watching})
    took = {"stall_ms": round(stall * 1e3, 1), "cpu_ms": round(used * 1e3, 1)}
    figures = took | {"wall_s": round(time.perf_counter() - begun, 2)}
    watching.cancel()
    texts = [str(getattr(result, "raw", result)) for result in seen.results]
    wrong = [text for number, text in enumerate(texts) if marks(text) != {f"topic {number:02}"}]
    if wrong:
        raise AssertionError(f"{len(wrong)} wrong answers, the first of them {wrong[0]!r}")
    return figures | {"threads": len(seen.threads), "right": len(texts)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="roads whose name contains one of these")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    folder = Path(os.environ.get("CREWAI_STORAGE_DIR", tempfile.gettempdir()))
    if arguments.measure:
        logging.disable(logging.WARNING)
        start = roads(folder)[arguments.measure]()
        runs = next((count for name, count in MORE.items() if arguments.measure.startswith(name)), 50)
        print(json.dumps(asyncio.run(measured(start, runs))), flush=True)
        return
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    columns = ("road", "stall_ms", "cpu_ms", "wall_s", "threads", "right")
    print("".join(column.ljust(30 if column == "road" else 10) for column in columns))
    for road in roads(folder):
        if not arguments.only or any(name in road for name in arguments.only):
            row = {"road": road} | figures(__file__, road)
            print("".join(str(row[c]).ljust(30 if c == "road" else 10) for c in columns), flush=True)


if __name__ == "__main__":
    main()
