"""A thousand inputs through one crew, fifty at a time, with a progress bar; failures stay with their input.

    python examples/batch.py [HOW_MANY]

The model is scripted and refuses now and then; any CrewAI model takes its place.
"""

from __future__ import annotations

import asyncio
import re
import sys

from crewai import Agent, Crew, Task

from fastcrew_async import AsyncCrew
from fastcrew_async.testing import Reply, Request, ScriptedLLM


def review(request: Request) -> Reply | str:
    found = re.search(r"parcel (\d+)", request.text)
    number = int(found.group(1)) if found else 0
    return Reply("this parcel is lost", status=400) if number % 100 == 99 else f"Parcel {number} has arrived."


clerk = Agent(
    role="Clerk",
    goal="Know where parcels are",
    backstory="Patient.",
    llm=ScriptedLLM(review, latency=0.1),
    max_retry_limit=0,
)
task = Task(description="Where is parcel {number}?", expected_output="One sentence", agent=clerk)
crew = AsyncCrew(Crew(agents=[clerk], tasks=[task]))


async def main(count: int) -> None:
    inputs = [{"number": number} for number in range(count)]
    results = await crew.kickoff_for_each(inputs, concurrency=50, return_exceptions=True, progress=True)
    lost = [each["number"] for each, result in zip(inputs, results, strict=True) if isinstance(result, Exception)]
    print(f"{count - len(lost)} parcels have arrived, {len(lost)} are lost: {lost}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
