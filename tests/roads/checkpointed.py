"""A crew of two tasks that writes checkpoints; as a program, CrewAI alone writes them, or goes on from one.

    python -m tests.roads.checkpointed write FOLDER
    python -m tests.roads.checkpointed restore FILE

It prints a JSON object: the outputs of the tasks, and what the model was asked. A checkpoint names the class of its
model, and CrewAI makes only its own again: the crew has CrewAI's OpenAI provider, which :func:`answering` answers for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from crewai import Agent, Crew, Task
from crewai.events.event_bus import crewai_event_bus
from crewai.llms.providers.openai.completion import OpenAICompletion
from crewai.state.checkpoint_config import CheckpointConfig


def told(topic: str) -> list[str]:
    """The outputs of the two tasks."""
    return [f"a leaf of <{topic}>", f"a drink of <{topic}>"]


@contextlib.contextmanager
def answering(latency: float = 0.002) -> Iterator[list[str]]:
    """CrewAI's OpenAI provider answers by the task, and notes what it is asked."""
    asked: list[str] = []

    def answer(self: Any, messages: Any, *rest: Any, **named: Any) -> str:
        text = "\n".join(str(message["content"]) for message in messages)
        asked.append(text)
        topic = text.partition("about <")[2].partition(">")[0]
        return f"Thought: I now know the final answer\nFinal Answer: {told(topic)['Job 1' in text]}"

    async def aanswer(self: Any, messages: Any, *rest: Any, **named: Any) -> str:
        await asyncio.sleep(latency)
        return answer(self, messages)

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict("os.environ", {"OPENAI_API_KEY": "none"}))
        for name, double in {
            "call": answer,
            "acall": aanswer,
            # Not needed, and made anew for each crew that is restored, with all certificates of the machine read.
            "_build_sync_client": lambda self: None,
            "_build_async_client": lambda self: None,
        }.items():
            stack.enter_context(mock.patch.object(OpenAICompletion, name, double))
        yield asked


def two_tasks(folder: Path, **settings: Any) -> Crew:
    worker = Agent(role="Worker", goal="work", backstory="works", llm="gpt-4o-mini")
    tasks = [
        Task(name=f"job {n}", description=f"Job {n} about <{{topic}}>", expected_output="a report", agent=worker)
        for n in range(2)
    ]
    return Crew(name="two", agents=[worker], tasks=tasks, checkpoint=CheckpointConfig(location=str(folder), **settings))


def restoring(file: Path, later: Path) -> CheckpointConfig:
    """What to kick a crew off with, to go on from `file` and write further checkpoints to `later`."""
    return CheckpointConfig(restore_from=str(file), location=str(later))


def after_the_first_task(folder: Path) -> Path | None:
    """The checkpoint in which the first task has its output and the second none.

    There may be none: CrewAI writes in a handler beside the run, which may come late, or fail over a record of events
    that grows meanwhile.
    """
    for file in sorted(folder.rglob("*.json")):
        entities = json.loads(file.read_text())["entities"]
        crew = next(entity for entity in entities if entity.get("entity_type") == "crew")
        if [bool(task["output"]) for task in crew["tasks"]] == [True, False]:
            return file
    return None


def outputs(result: Any) -> list[str]:
    return [output.raw for output in result.tasks_output]


def main(what: str, place: Path) -> None:
    with answering() as asked:
        if what == "write":
            result = two_tasks(place).kickoff(inputs={"topic": "tea"})
        else:
            later = restoring(place, place.parent / "later")
            result = two_tasks(place.parent / "other").kickoff(from_checkpoint=later)
        crewai_event_bus.flush()
    print(json.dumps({"outputs": outputs(result), "asked": asked, "fastcrew": "fastcrew_async" in sys.modules}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
