from __future__ import annotations

import gc
import threading

from fastcrew_async.engine.beside import Beside


class Owner:
    """Equal to every other one, as two CrewAI models of the same values are, and so without a hash."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True


def test_each_object_has_its_own_entry() -> None:
    table = Beside(list)
    one, other = Owner(), Owner()
    table.of(one).append("x")
    assert table.of(one) == ["x"]
    assert table.of(one) is table.of(one)
    assert table.of(other) == []
    assert len(table) == 2


def test_an_entry_goes_with_its_object() -> None:
    table = Beside(list)
    owner = Owner()
    table.of(owner)
    del owner
    gc.collect()
    assert len(table) == 0


def test_a_new_object_at_an_old_address_gets_a_new_entry() -> None:
    table = Beside(list)
    owner, gone = Owner(), Owner()
    table.of(gone).append("of the old one")
    table._entries[id(owner)] = table._entries[id(gone)]  # what the table sees before the old one's callback has run
    assert table.of(owner) == []
    fresh = table.of(owner)
    table._forget(id(owner), table._entries[id(gone)][0])  # the late callback takes nothing away
    assert table.of(owner) is fresh


def test_threads_that_ask_at_once_get_one_entry() -> None:
    table = Beside(list)
    owner = Owner()
    start = threading.Barrier(8)
    found: list[int] = []

    def ask() -> None:
        start.wait()
        found.append(id(table.of(owner)))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
