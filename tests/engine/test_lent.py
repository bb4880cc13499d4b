from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
from crewai.utilities import string_utils

from fastcrew_async.engine.lent import Loan

HERE, OTHER, FUNCTION = "crewai.utilities.string_utils", "tests.not.imported", "interpolate_only"
STOCK = getattr(string_utils, FUNCTION)


def stand_in(*arguments: Any) -> str:
    return "ours"


@pytest.fixture
def loan() -> Iterator[Loan]:
    yield Loan(FUNCTION, HERE, stand_in=stand_in, reason="a test")
    assert getattr(string_utils, FUNCTION) is STOCK


def test_it_is_lent_from_the_first_to_the_last(loan: Loan) -> None:
    assert loan.names == (f"{HERE}.{FUNCTION}",)
    loan.take()
    loan.take()
    assert getattr(string_utils, FUNCTION) is stand_in
    assert loan.stock is STOCK
    loan.give_back()
    assert getattr(string_utils, FUNCTION) is stand_in
    loan.give_back()
    assert getattr(string_utils, FUNCTION) is STOCK
    loan.take()
    assert getattr(string_utils, FUNCTION) is stand_in
    loan.give_back()


def test_what_others_put_there_is_theirs(loan: Loan, monkeypatch: pytest.MonkeyPatch) -> None:
    def theirs() -> None: ...

    with monkeypatch.context() as patch:  # before
        patch.setattr(string_utils, FUNCTION, theirs)
        loan.take()
        assert getattr(string_utils, FUNCTION) is theirs
        loan.give_back()
        assert getattr(string_utils, FUNCTION) is theirs
    loan.take()
    setattr(string_utils, FUNCTION, theirs)  # meanwhile
    loan.give_back()
    assert getattr(string_utils, FUNCTION) is theirs
    setattr(string_utils, FUNCTION, STOCK)


def test_a_module_that_is_imported_later_is_lent_to_who_comes_then(monkeypatch: pytest.MonkeyPatch) -> None:
    loan = Loan(FUNCTION, OTHER, stand_in=stand_in, reason="a test")
    loan.take()
    module: Any = ModuleType(OTHER)
    module.interpolate_only = STOCK
    monkeypatch.setitem(sys.modules, OTHER, module)
    assert module.interpolate_only is STOCK
    loan.take()
    assert module.interpolate_only is stand_in
    loan.give_back()
    loan.give_back()
    assert module.interpolate_only is STOCK


def test_two_modules_need_the_same_function(loan: Loan, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType(OTHER)
    module.interpolate_only = lambda: "theirs"
    monkeypatch.setitem(sys.modules, OTHER, module)
    both = Loan(FUNCTION, HERE, OTHER, stand_in=stand_in, reason="a test")
    both.take()
    assert getattr(string_utils, FUNCTION) is STOCK
    both.give_back()


def test_many_threads(loan: Loan) -> None:
    def use() -> None:
        for _ in range(200):
            loan.take()
            assert getattr(string_utils, FUNCTION) is stand_in
            loan.give_back()

    with ThreadPoolExecutor(4) as threads:
        for used in [threads.submit(use) for _ in range(4)]:
            used.result(20)
