"""One crew, three questions at once.

    python examples/quickstart.py

With OPENAI_API_KEY set it asks a real model (MODEL names it), otherwise a scripted one.
"""

from __future__ import annotations

import asyncio
import os

from crewai import LLM, Agent, Crew, Task

from fastcrew_async import AsyncCrew
from fastcrew_async.testing import Request, ScriptedLLM


def answer(request: Request) -> str:
    return next(f"Much can be said about {topic}." for topic in TOPICS if topic in request.text)


TOPICS = ["tea", "rain", "sleep"]
llm = LLM(os.environ.get("MODEL", "openai/gpt-4o-mini")) if "OPENAI_API_KEY" in os.environ else ScriptedLLM(answer)
writer = Agent(role="Writer", goal="Write one good sentence", backstory="Brief.", llm=llm)
task = Task(description="Write about {topic}.", expected_output="One sentence", agent=writer)
crew = AsyncCrew(Crew(agents=[writer], tasks=[task]))


async def main() -> None:
    results = await asyncio.gather(*(crew.kickoff(inputs={"topic": topic}) for topic in TOPICS))
    for topic, result in zip(TOPICS, results, strict=True):
        print(f"{topic}: {result.raw}")


if __name__ == "__main__":
    asyncio.run(main())
