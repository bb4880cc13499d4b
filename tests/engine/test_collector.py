from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

import fastcrew_async
from fastcrew_async.engine import collector

THRESHOLDS = (701, 11, 12)


@pytest.fixture(autouse=True)
def own_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The policy as in a fresh process, which has thresholds of its own."""
    collector.stop()
    before = gc.get_threshold()
    monkeypatch.setattr(collector, "_state", collector._State())
    gc.set_threshold(*THRESHOLDS)
    yield
    collector.stop()
    gc.set_threshold(*before)


def held_back() -> bool:
    young, middle, full = gc.get_threshold()
    assert (young, middle) == THRESHOLDS[:2]
    return full == collector._NEVER


def test_start_freezes_and_stop_undoes_it() -> None:
    gc.unfreeze()  # Python 3.12 begins with some
    collector.start()
    assert gc.get_freeze_count() > 1000
    collector.stop()
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == THRESHOLDS


def test_start_again_freezes_nothing_more() -> None:
    collector.start()
    frozen = gc.get_freeze_count()
    later = [[number] for number in range(1000)]
    collector.start()
    assert gc.get_freeze_count() <= frozen
    del later


def test_full_collections_are_held_back_while_any_run_is_inside() -> None:
    collector.start()
    with collector.BUSY:
        assert held_back()
        with collector.BUSY:
            assert held_back()
        assert held_back()
    assert gc.get_threshold() == THRESHOLDS


def test_an_error_of_a_run_lets_them_go_again() -> None:
    collector.start()
    with pytest.raises(KeyError), collector.BUSY:
        raise KeyError
    assert gc.get_threshold() == THRESHOLDS


def test_stop_while_runs_are_inside() -> None:
    collector.start()
    with collector.BUSY:
        collector.stop()
        assert gc.get_threshold() == THRESHOLDS
    assert gc.get_threshold() == THRESHOLDS
    assert collector._state.running == 0


def test_start_while_runs_are_inside() -> None:
    with collector.BUSY:
        assert gc.get_threshold() == THRESHOLDS
        collector.start()
    assert gc.get_threshold() == THRESHOLDS
    with collector.BUSY:
        assert held_back()


def test_the_setting_switches_it_off() -> None:
    before = fastcrew_async.settings().collector_policy
    fastcrew_async.configure(collector_policy=False)
    try:
        collector.start()
        with collector.BUSY:
            assert gc.get_threshold() == THRESHOLDS
        assert gc.get_freeze_count() == 0
    finally:
        fastcrew_async.configure(collector_policy=before)


def test_a_process_that_has_grown_is_collected_while_runs_are_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    resident = [0]
    collections: list[int] = []
    monkeypatch.setattr(collector, "_resident_bytes", lambda: resident[0])
    monkeypatch.setattr(gc, "collect", lambda: collections.append(resident[0]))
    collector.start()
    with collector.BUSY:
        _many_runs()
        assert collections == []
        resident[0] = collector.GROWTH_BYTES + 1
        _many_runs()
        assert collections == [collector.GROWTH_BYTES + 1]
        _many_runs()  # no growth since
        assert len(collections) == 1


def _many_runs() -> None:
    for _ in range(collector._CHECK_EVERY):
        with collector.BUSY:
            pass


def test_resident_bytes_is_that_of_this_process() -> None:
    assert collector._resident_bytes() > 10 * 1024 * 1024


def test_a_forked_child_forgets_the_runs_of_its_parent() -> None:
    collector.start()
    with collector.BUSY:
        assert held_back()
        collector._after_fork_in_child()
        assert gc.get_threshold() == THRESHOLDS
        with collector.BUSY:
            assert held_back()
        assert gc.get_threshold() == THRESHOLDS
    assert collector._state.running == 0
