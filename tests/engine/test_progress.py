from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from crewai.tasks.task_output import TaskOutput

from fastcrew_async.engine.progress import Progress, current

TASKS = [SimpleNamespace(), SimpleNamespace()]
CREW = SimpleNamespace(tasks=TASKS)


def executor(task: Any, *said: str, crew: Any = CREW, working_for: Any = None) -> Any:
    return SimpleNamespace(
        crew=crew,
        agent=SimpleNamespace(crew=working_for or crew),
        task=task,
        state=SimpleNamespace(messages=[{"content": text} for text in said]),
    )


def output(*said: str) -> TaskOutput:
    return TaskOutput(
        description="d", agent="a", raw="r", messages=[{"role": "user", "content": text} for text in said]
    )


def texts(progress: Progress) -> list[str]:
    return [message["content"] for message in progress.messages()]


def of_the_crew() -> Progress:
    progress = Progress()
    assert progress.begin(CREW)
    return progress


def test_nobody_watches_by_default() -> None:
    assert current.get() is None


def test_executions_are_in_the_order_of_their_begin() -> None:
    progress = of_the_crew()
    first, second = executor(TASKS[0], "one"), executor(TASKS[1], "two")
    progress.begin_execution(second)
    progress.begin_execution(first)
    assert texts(progress) == ["two", "one"]
    progress.end_execution(first)
    progress.done(CREW, 0, TASKS[0], output("one", "answer"))
    assert texts(progress) == ["two", "one", "answer"]
    second.state.messages.append({"content": "three"})
    assert texts(progress) == ["two", "three", "one", "answer"]


def test_outputs_are_in_the_order_of_their_tasks() -> None:
    progress = of_the_crew()
    first, second = output("one"), output("two")
    progress.done(CREW, 1, TASKS[1], second)
    assert progress.outputs == [second]
    progress.done(CREW, 0, TASKS[0], first)
    progress.done(CREW, 1, TASKS[1], second)  # told again where it is stored
    assert progress.outputs == [first, second]
    assert texts(progress) == ["two", "one"]


def test_a_task_that_is_listed_twice_has_two_outputs() -> None:
    progress = of_the_crew()
    for place in (0, 1):
        at_work = executor(TASKS[0], "asked")
        progress.begin_execution(at_work)
        progress.end_execution(at_work)
        progress.done(CREW, place, TASKS[0], output(f"said {place}"))
    assert len(progress.outputs) == 2
    assert texts(progress) == ["said 0", "said 1"]


def test_each_try_of_a_task_is_kept() -> None:
    progress = of_the_crew()
    for said in ("first try", "second try"):
        at_work = executor(TASKS[0], said)
        progress.begin_execution(at_work)
        progress.end_execution(at_work)
        at_work.state.messages.clear()
    assert texts(progress) == ["first try", "second try"]
    progress.done(CREW, 0, TASKS[0], output("second try", "answer"))
    assert texts(progress) == ["first try", "second try", "answer"]


def test_a_coworker_counts() -> None:
    progress = of_the_crew()
    asking, coworker = executor(TASKS[0], "asks"), executor(SimpleNamespace(), "asked")
    progress.begin_execution(asking)
    progress.begin_execution(coworker)
    progress.end_execution(coworker)
    progress.end_execution(asking)
    assert texts(progress) == ["asks", "asked"]


def test_an_executor_that_was_made_for_another_crew_counts_for_that_of_its_agent() -> None:
    progress = of_the_crew()
    progress.begin_execution(executor(TASKS[0], "said", crew=SimpleNamespace(), working_for=CREW))
    assert texts(progress) == ["said"]


def test_other_crews_do_not_count() -> None:
    other = SimpleNamespace(tasks=TASKS)
    progress = Progress()
    progress.begin_execution(executor(TASKS[0], "before it"))
    assert progress.begin(CREW)
    assert not progress.begin(other)
    progress.begin_execution(executor(TASKS[0], "alone", crew=None, working_for=CREW))
    progress.begin_execution(executor(TASKS[0], "inside", crew=other))
    progress.done(other, 0, TASKS[0], output("inside"))
    progress.end(other)
    assert (texts(progress), progress.outputs) == ([], [])
    progress.end(CREW)
    assert not progress.begin(CREW)
    progress.begin_execution(executor(TASKS[0], "of another run"))
    assert texts(progress) == []


def test_the_messages_are_copies() -> None:
    progress = of_the_crew()
    progress.begin_execution(executor(TASKS[0], "said"))
    progress.messages()[0]["content"] = "changed"
    assert texts(progress) == ["said"]
