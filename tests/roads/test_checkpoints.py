"""Checkpoints of fifty crews at once; what is written here goes on in a process of CrewAI alone, and the other way."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crewai.events.event_bus import crewai_event_bus

from fastcrew_async import AsyncCrew, workers
from tests.roads.at_once import FEW, RUNS, at_once, topics
from tests.roads.checkpointed import after_the_first_task, answering, outputs, restoring, told, two_tasks
from tests.roads.crews import marks

ROOT = Path(__file__).parents[2]
ALL = [*topics(), *(f"warm-up {number}" for number in range(FEW))]


@pytest.fixture
def asked() -> Iterator[list[str]]:
    with answering() as asked:
        yield asked


def writing(folder: Path) -> Callable[[str], Awaitable[Any]]:
    """A kickoff of a crew with a folder of its own for each topic."""
    crews = {topic: [two_tasks(folder / topic) for _ in range(2)] for topic in ALL}
    return lambda topic: AsyncCrew(crews[topic].pop()).kickoff(inputs={"topic": topic})


def going_on(folder: Path) -> Callable[[str], Awaitable[Any]]:
    """A kickoff that goes on from a checkpoint of its own for each topic."""
    files = {topic: first_written(folder / "first" / topic, write(topic)) for topic in ALL}
    other = AsyncCrew(two_tasks(folder / "other"))
    return lambda topic: other.kickoff(from_checkpoint=restoring(files[topic], folder / "later"))


def write(topic: str) -> Callable[[Path], None]:
    def written(folder: Path) -> None:
        asyncio.run(AsyncCrew(two_tasks(folder)).kickoff(inputs={"topic": topic}))
        crewai_event_bus.flush()

    return written


def first_written(folder: Path, write: Callable[[Path], Any]) -> Path:
    """The checkpoint after the first task; where it came too late or not, the run is repeated."""
    for attempt in range(10):
        write(folder / str(attempt))
        if file := after_the_first_task(folder / str(attempt)):
            return file
    raise AssertionError(f"no checkpoint came in time in {folder}")


def by_crewai_alone(what: str, place: Path) -> dict[str, Any]:
    """What a process of CrewAI alone makes of it."""
    command = [sys.executable, "-m", "tests.roads.checkpointed", what, str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert not result["fastcrew"], "this is to be CrewAI alone"
    return result


async def test_fifty_crews_write_at_once(tmp_path: Path, asked: list[str]) -> None:
    seen = await at_once(writing(tmp_path))
    await asyncio.to_thread(crewai_event_bus.flush)
    assert [outputs(result) for result in seen.results] == [told(topic) for topic in topics()]
    assert len(seen.threads) <= workers.pool().max_workers
    written = {topic: await asyncio.to_thread(after_the_first_task, tmp_path / topic) for topic in topics()}
    found = {topic: file for topic, file in written.items() if file}
    assert len(found) > RUNS // 2, "checkpoints came too late, or not at all"
    for topic, file in found.items():
        assert marks(await asyncio.to_thread(file.read_text)) == {topic}, "of another run"


async def test_fifty_crews_go_on_at_once(tmp_path: Path, asked: list[str]) -> None:
    start = await asyncio.to_thread(going_on, tmp_path)
    asked.clear()
    seen = await at_once(start)
    assert [outputs(result) for result in seen.results] == [told(topic) for topic in topics()]
    assert len(seen.threads) <= workers.pool().max_workers
    assert len(asked) == len(ALL), "only the second task is done again"
    assert all("Job 1" in text for text in asked)


async def test_a_cancelled_run_leaves_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    def written() -> Path | None:
        return after_the_first_task(tmp_path / "first")

    with answering(latency=1) as asked:
        running = asyncio.create_task(AsyncCrew(two_tasks(tmp_path / "first")).kickoff(inputs={"topic": "tea"}))
        while await asyncio.to_thread(written) is None:
            await asyncio.sleep(0.01)
            assert not running.done(), "no checkpoint came in time"
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert len(asked) == 1
    with answering() as asked:
        file = await asyncio.to_thread(written)
        assert file is not None
        other = AsyncCrew(two_tasks(tmp_path / "other"))
        result: Any = await other.kickoff(from_checkpoint=restoring(file, tmp_path / "later"))
    assert outputs(result) == told("tea")
    assert len(asked) == 1
    assert "Job 1 about <tea>" in asked[0]


def test_what_is_written_here_goes_on_in_crewai(tmp_path: Path, asked: list[str]) -> None:
    there = by_crewai_alone("restore", first_written(tmp_path, write("tea")))
    assert there["outputs"] == told("tea")
    assert len(there["asked"]) == 1
    assert "Job 1 about <tea>" in there["asked"][0]
    assert "a leaf of <tea>" in there["asked"][0]


def test_what_crewai_wrote_goes_on_here(tmp_path: Path, asked: list[str]) -> None:
    written = first_written(tmp_path, lambda folder: by_crewai_alone("write", folder))
    later = restoring(written, tmp_path / "later")
    result: Any = asyncio.run(AsyncCrew(two_tasks(tmp_path / "other")).kickoff(from_checkpoint=later))
    assert outputs(result) == told("tea")
    assert len(asked) == 1
    assert "Job 1 about <tea>" in asked[0]
    assert "a leaf of <tea>" in asked[0]
