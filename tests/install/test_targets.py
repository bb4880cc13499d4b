from __future__ import annotations

import inspect
from types import ModuleType

from crewai.crew import Crew

from fastcrew_async.engine.executor import AgentExecutor
from fastcrew_async.install.patch import Patch
from fastcrew_async.install.targets import patches

TABLE = patches()


def made(patch: Patch) -> object:
    return patch.make(patch.owner.__dict__[patch.attribute])


def test_each_name_is_listed_once_with_its_reason() -> None:
    assert len({patch.name for patch in TABLE}) == len(TABLE)
    assert all(patch.reason for patch in TABLE)


def test_each_name_is_there_to_be_replaced() -> None:
    for patch in TABLE:
        assert patch.attribute in patch.owner.__dict__, patch.name
        assert patch.name == f"{patch.where}.{patch.attribute}"


def test_making_a_replacement_changes_nothing() -> None:
    before = [patch.owner.__dict__[patch.attribute] for patch in TABLE]
    for patch in TABLE:
        made(patch)
    assert all(patch.owner.__dict__[patch.attribute] is stock for patch, stock in zip(TABLE, before, strict=True))


def test_a_replacement_looks_like_what_it_replaces() -> None:
    for patch in TABLE:
        stock, ours = patch.owner.__dict__[patch.attribute], made(patch)
        if isinstance(stock, type):
            assert ours is AgentExecutor
            assert issubclass(ours, stock)
            assert ours.__name__ == stock.__name__
        elif isinstance(stock, ModuleType):
            assert ours.__name__ == stock.__name__
            assert ours.__doc__ == stock.__doc__
            assert ours.wrap_future is stock.wrap_future
            changed = {name for name in dir(stock) if not name.startswith("__") and hasattr(type(ours), name)}
            assert changed == {"create_task", "gather", "to_thread"}
        elif stock is None:  # the factories of stores, where none was set
            assert ours(*(["lancedb"] * len(inspect.signature(ours).parameters))) is None
        else:
            assert inspect.iscoroutinefunction(ours) is inspect.iscoroutinefunction(stock), patch.name
            assert inspect.signature(ours) == inspect.signature(stock), patch.name
            assert ours.__doc__ == stock.__doc__


def test_every_way_to_start_a_crew_is_covered() -> None:
    ways = {
        name for name in vars(Crew) if "kickoff" in name and not name.startswith("_") and callable(vars(Crew)[name])
    }
    assert ways <= {patch.attribute for patch in TABLE if patch.owner is Crew}
