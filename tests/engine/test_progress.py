from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from crewai.tasks.task_output import TaskOutput

from fastcrew_async.engine.progress import Progress, current

TASKS = [SimpleNamespace(), SimpleNamespace()]
CREW = SimpleNamespace(tasks=TASKS)


def executor(task: Any, *said: str, crew: Any = CREW) -> Any:
    return SimpleNamespace(crew=crew, task=task, state=SimpleNamespace(messages=[{"content": text} for text in said]))


def output(*said: str) -> TaskOutput:
    return TaskOutput(
        description="d", agent="a", raw="r", messages=[{"role": "user", "content": text} for text in said]
    )


def texts(progress: Progress) -> list[str]:
    return [message["content"] for message in progress.messages()]


def test_nobody_watches_by_default() -> None:
    assert current.get() is None


def test_what_is_done_comes_before_what_is_not() -> None:
    progress = Progress()
    progress.begin(CREW)
    first, second = executor(TASKS[0], "one"), executor(TASKS[1], "two")
    progress.begin_execution(second)
    progress.begin_execution(first)
    assert texts(progress) == ["two", "one"]
    progress.end_execution(first)
    progress.done(CREW, TASKS[0], output("one"))
    assert texts(progress) == ["one", "two"]
    second.state.messages.append({"content": "three"})
    assert texts(progress) == ["one", "two", "three"]


def test_an_execution_without_an_output_is_kept_until_the_next_one_of_its_task() -> None:
    progress = Progress()
    progress.begin(CREW)
    for said in ("first try", "second try"):
        at_work = executor(TASKS[0], said)
        progress.begin_execution(at_work)
        progress.end_execution(at_work)
        at_work.state.messages.clear()
        assert texts(progress) == [said]
    progress.done(CREW, TASKS[0], output("answer"))
    assert texts(progress) == ["answer"]


def test_a_coworker_counts_while_it_works() -> None:
    progress = Progress()
    progress.begin(CREW)
    coworker = executor(SimpleNamespace(), "asked")
    progress.begin_execution(coworker)
    assert texts(progress) == ["asked"]
    progress.end_execution(coworker)
    assert texts(progress) == []


def test_other_crews_do_not_count() -> None:
    other = SimpleNamespace(tasks=TASKS)
    progress = Progress()
    progress.begin_execution(executor(TASKS[0], "alone", crew=None))
    progress.begin(CREW)
    progress.begin(other)
    progress.begin_execution(executor(TASKS[0], "inside", crew=other))
    progress.done(other, TASKS[0], output("inside"))
    progress.end(other)
    assert (texts(progress), progress.outputs) == ([], [])
    progress.end(CREW)
    progress.begin(CREW)
    progress.begin_execution(executor(TASKS[0], "of another run"))
    assert texts(progress) == []


def test_the_messages_are_copies() -> None:
    progress = Progress()
    progress.begin(CREW)
    progress.begin_execution(executor(TASKS[0], "said"))
    progress.messages()[0]["content"] = "changed"
    assert texts(progress) == ["said"]
