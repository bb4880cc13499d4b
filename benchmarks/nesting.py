"""Crews inside tools inside crews, 10,000 deep on the loop and 200 deep in place, on default stack sizes.

Each level is a whole kickoff with a model call before and after its tool. Figures: seconds, peak memory of the process,
and how many Python frames the deepest tool stands on, beside those of a nest of ten.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import sys
import tempfile
import time
from typing import Any

QUIET = {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true", "CREWAI_TRACING_ENABLED": "false"}


def nest(levels: int, in_place: bool) -> dict[str, Any]:
    from crewai import Agent, Crew, Task
    from crewai.tools import tool

    from fastcrew_async import AsyncCrew, call_stack
    from fastcrew_async.engine.kickoff import kickoff_in_place
    from fastcrew_async.testing import Reply, Request, ScriptedLLM, ToolCall

    figures: dict[str, Any] = {"levels": levels, "in place": in_place}

    def at_bottom() -> str:
        frame, count = sys._getframe(), 0
        while frame.f_back is not None:
            frame, count = frame.f_back, count + 1
        figures.update(depth=len(call_stack()), python_frames=count)
        return "bottom"

    @tool("deeper")
    async def deeper(level: int) -> str:
        """Goes one level down."""
        return at_bottom() if level >= levels else str(await AsyncCrew(crew).kickoff({"level": level + 1}))

    @tool("deeper")
    def deeper_in_place(level: int) -> str:
        """Goes one level down."""
        return at_bottom() if level >= levels else str(kickoff_in_place(crew, {"level": level + 1}))

    def answer(request: Request) -> Reply | ToolCall | str:
        if request.tool_results:
            return "bottom"
        return ToolCall("deeper", {"level": int(request.text.split("at level ")[1].split(" ")[0])})

    agent = Agent(
        role="r",
        goal="g",
        backstory="b",
        llm=ScriptedLLM(answer, native=True),
        tools=[deeper_in_place if in_place else deeper],
    )
    task = Task(description="at level {level} end", expected_output="e", agent=agent)
    crew = Crew(name="nest", agents=[agent], tasks=[task])
    started = time.perf_counter()
    output: Any = asyncio.run(AsyncCrew(crew).kickoff({"level": 1}))
    figures["seconds"] = round(time.perf_counter() - started, 1)
    figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if output.raw != "bottom" or figures["depth"] != 2 * levels:
        raise AssertionError(figures)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,000 levels on the loop")
    arguments = parser.parse_args()
    os.environ.update(QUIET)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as storage:
        os.environ["CREWAI_STORAGE_DIR"] = storage
        import fastcrew_async

        fastcrew_async.configure(max_depth=100_000)
        for levels, in_place in ((10, False), (1_000 if arguments.quick else 10_000, False), (10, True), (200, True)):
            print(nest(levels, in_place), flush=True)


if __name__ == "__main__":
    main()
