"""The task graph's contract, on the compiled core and on its Python twin."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcrew_async._fallback.task_graph import TaskGraph as InPython


@pytest.fixture
def make(backend: Any) -> Any:
    return backend.TaskGraph


def test_a_diamond_runs_its_sides_together(make: Any) -> None:
    graph = make([[], [0], [0], [1, 2]])
    assert (graph.take(9), graph.take(9), graph.left) == ([0], [], 4)
    graph.finish(0)
    assert graph.take(9) == [1, 2]
    graph.finish(2)
    assert graph.take(9) == []
    graph.finish(1)
    assert graph.take(9) == [3]
    graph.finish(3)
    assert graph.left == 0


def test_the_longest_chain_goes_first_and_equals_as_listed(make: Any) -> None:
    graph = make([[], [], [1], [2], []])
    assert [graph.take(1) for _ in range(4)] == [[1], [0], [4], []]


def test_a_failure_drops_all_that_waits_for_it_and_nothing_else(make: Any) -> None:
    graph = make([[], [0], [1], [], [3, 1]])
    assert graph.take(9) == [0, 3]
    assert graph.fail(0) == [1, 2, 4]
    graph.finish(3)
    assert (graph.take(9), graph.left) == ([], 0)


def test_what_is_named_twice_is_waited_for_once(make: Any) -> None:
    graph = make([[], [0, 0]])
    graph.take(1)
    graph.finish(0)
    assert graph.take(9) == [1]


def test_nothing_is_done_at_once(make: Any) -> None:
    graph = make([])
    assert (graph.take(1), graph.left) == ([], 0)


@pytest.mark.parametrize(
    ("dependencies", "message"),
    [
        ([[0]], "circle: [0]"),
        ([[], [2], [1]], "in a circle"),
        ([[], [7]], "task 1 waits for task 7, and there are only 2 tasks"),
    ],
)
def test_a_graph_that_cannot_be_worked_off_is_refused(make: Any, dependencies: Any, message: str) -> None:
    with pytest.raises(ValueError, match="task") as refused:
        make(dependencies)
    assert message in str(refused.value)


def test_only_a_running_task_ends(make: Any) -> None:
    graph = make([[], [0]])
    for end in (graph.finish, graph.fail):
        for task in (0, 1, 5):
            with pytest.raises(ValueError, match=f"task {task} is not running"):
                end(task)
    graph.take(1)
    graph.finish(0)
    with pytest.raises(ValueError, match="task 0 is not running"):
        graph.finish(0)


acyclic = st.integers(0, 12).flatmap(
    lambda count: st.tuples(*(st.lists(st.integers(0, max(0, i - 1)), max_size=4 if i else 0) for i in range(count)))
)


@given(acyclic, st.data())
def test_both_do_the_same_whatever_happens(dependencies: Any, data: Any) -> None:
    """Also that nothing starts before what it waits for is done, and that every task starts or is dropped."""
    core = pytest.importorskip("fastcrew_async._core", reason="the compiled core is not built here")
    graphs = [core.TaskGraph([list(tasks) for tasks in dependencies]), InPython([list(t) for t in dependencies])]
    done: set[int] = set()
    gone: set[int] = set()
    running: list[int] = []
    while graphs[0].left:
        limit = data.draw(st.integers(1, 4))
        taken, twin = (graph.take(limit) for graph in graphs)
        assert taken == twin
        assert all(done.issuperset(dependencies[task]) for task in taken)
        running += taken
        assert running, "left, and nothing runs: it would never end"
        task = running.pop(data.draw(st.integers(0, len(running) - 1)))
        if data.draw(st.booleans()):
            dropped, twins = (graph.fail(task) for graph in graphs)
            assert dropped == twins
            gone.update(dropped, [task])
        else:
            for graph in graphs:
                graph.finish(task)
            done.add(task)
        assert graphs[0].left == graphs[1].left == len(dependencies) - len(done) - len(gone)
    assert done | gone == set(range(len(dependencies)))
