"""A crew behind HTTP: one crew object, any number of requests at once, and a run ends when its client goes away.

    pip install 'fastcrew-async[serve]'
    OPENAI_API_KEY=... uvicorn --app-dir examples/fastapi_service app:app
    curl -X POST localhost:8000/kickoff -H 'content-type: application/json' -d '{"topic": "tea"}'

MODEL, OPENAI_API_KEY and OPENAI_BASE_URL choose the model; scripted_model.py beside this file serves one without a key.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel

from fastcrew_async import AsyncCrew
from fastcrew_async.llm import few_idle_connections

T = TypeVar("T")

# It warns at every model call that it estimates the number of tokens.
logging.getLogger("crewai.llms.base_llm").setLevel(logging.ERROR)


@tool("shelf")
def shelf(topic: str) -> str:
    """Which books on a topic are on the shelf."""
    return f"One book on {topic}."


librarian = Agent(
    role="Librarian",
    goal="Answer in one sentence",
    backstory="Has read everything.",
    llm=few_idle_connections(LLM(model=os.environ.get("MODEL", "openai/gpt-4o-mini"))),
    tools=[shelf],
)
task = Task(description="Say something true about {topic}.", expected_output="One sentence", agent=librarian)
crew = AsyncCrew(Crew(agents=[librarian], tasks=[task]))

app = FastAPI(title="Librarian")
running: set[asyncio.Task[Any]] = set()


class Question(BaseModel):
    topic: str


class Answer(BaseModel):
    text: str
    tokens: int


@app.post("/kickoff")
async def kickoff(question: Question, request: Request) -> Answer:
    result = await unless_gone(request, crew.kickoff(inputs={"topic": question.topic}))
    return Answer(text=result.raw, tokens=result.token_usage.total_tokens)


@app.get("/health")
async def health() -> dict[str, Any]:
    return {"status": "ok", "running": len(running)}


async def unless_gone(request: Request, run: Coroutine[Any, Any, T]) -> T:
    """The result of ``run``, which is cancelled when the client closes its connection or the server stops."""
    task = asyncio.create_task(run)
    gone = asyncio.create_task(disconnected(request))
    running.add(task)
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HTTPException(499, "the client went away")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.wait({task, gone})
        running.discard(task)


async def disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
