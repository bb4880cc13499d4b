from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from crewai.events.base_events import BaseEvent
from crewai.state import checkpoint_listener
from crewai.state.checkpoint_config import CheckpointConfig
from crewai.state.provider.json_provider import JsonProvider
from crewai.state.runtime import RuntimeState
from pydantic import model_serializer

from fastcrew_async import AsyncCrew
from fastcrew_async.engine import checkpoints
from tests import crews

STOCK = checkpoint_listener._do_checkpoint


class Counted:
    """Counts how many threads are at it at once."""

    def __init__(self, stock: Any) -> None:
        self.stock = stock
        self.now = self.most = self.all = 0
        self.lock = threading.Lock()

    def __call__(self, *arguments: Any) -> Any:
        with self.lock:
            self.now += 1
            self.all += 1
            self.most = max(self.most, self.now)
        time.sleep(0.01)
        with self.lock:
            self.now -= 1
        return self.stock(*arguments)


@pytest.fixture(autouse=True)
def no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that is made adds none to the bus, where other tests would find them."""
    monkeypatch.setattr(checkpoint_listener, "_handlers_registered", True)


@pytest.fixture
def lent() -> Iterator[None]:
    checkpoints.LOAN.take()
    assert checkpoint_listener._do_checkpoint is not STOCK
    yield
    checkpoints.LOAN.give_back()
    assert checkpoint_listener._do_checkpoint is STOCK


def write(config: CheckpointConfig) -> None:
    checkpoint_listener._do_checkpoint(RuntimeState(root=[]), config)


@pytest.mark.usefixtures("lent")
def test_one_is_written_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(checkpoint_listener._prepare_entities)
    monkeypatch.setattr(checkpoint_listener, "_prepare_entities", counted)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, [CheckpointConfig(location=str(tmp_path))] * 8))
    assert (counted.all, counted.most) == (8, 1)
    assert len(list(tmp_path.rglob("*.json"))) == 8


@pytest.mark.usefixtures("lent")
def test_a_record_that_grows_meanwhile(tmp_path: Path) -> None:
    state = RuntimeState(root=[])

    class Growing(BaseEvent):
        type: str = "growing"

        @model_serializer(mode="wrap")
        def grown(self, serialize: Any) -> Any:
            state.event_record.add(BaseEvent(type="later"))
            return serialize(self)

    for number in range(3):
        state.event_record.add(Growing(type=f"growing {number}"))
    first, second = written(tmp_path, state), written(tmp_path, state)
    assert [node["event"]["type"] for node in first["event_record"]["nodes"].values()] == [
        "growing 0",
        "growing 1",
        "growing 2",
    ]
    assert len(second["event_record"]["nodes"]) == 6
    assert first["parent_id"] is None
    assert second["parent_id"] is not None
    assert state._parent_id not in (None, second["parent_id"])


def written(folder: Path, state: RuntimeState) -> Any:
    before = set(folder.rglob("*.json"))
    checkpoint_listener._do_checkpoint(state, CheckpointConfig(location=str(folder)))
    (file,) = set(folder.rglob("*.json")) - before
    return json.loads(file.read_text(), object_hook=without_context)


def without_context(part: dict[str, Any]) -> dict[str, Any]:
    """The number of the last event is there, and each checkpoint has some of its own."""
    return {name: value for name, value in part.items() if name != "execution_context"}


def test_the_file_is_as_crewai_writes_it(tmp_path: Path) -> None:
    crew = crews.crew("done", tasks=2)
    state = RuntimeState(root=[crew, *crew.agents])
    state._branch = "other"
    state.event_record.add(first := BaseEvent(type="first"))
    state.event_record.add(BaseEvent(type="second", previous_event_id=first.event_id))
    stock = written(tmp_path / "stock", state)
    state._parent_id = state._checkpoint_id = None
    checkpoints.LOAN.take()
    try:
        assert written(tmp_path / "ours", state) == stock
    finally:
        checkpoints.LOAN.give_back()


@pytest.mark.usefixtures("lent")
def test_a_store_of_the_users_own_is_not_waited_for() -> None:
    both = threading.Barrier(2)

    class Own(JsonProvider):
        def checkpoint(self, *arguments: Any, **named: Any) -> str:
            both.wait(20)
            return "there"

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, [CheckpointConfig(provider=Own())] * 2))
    assert not both.broken


@pytest.mark.usefixtures("lent")
async def test_a_loop_waits_for_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(root: Any) -> None:
        raise ValueError("here")

    monkeypatch.setattr(checkpoint_listener, "_prepare_entities", prepare)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(checkpoints._writing.acquire).result()
        with pytest.raises(ValueError, match="here"):
            write(CheckpointConfig(location=str(tmp_path)))
        threads.submit(checkpoints._writing.release).result()


async def test_it_is_lent_to_runs(tmp_path: Path) -> None:
    seen: list[Any] = []
    crew = crews.crew("done", crew_options={"checkpoint": CheckpointConfig(location=str(tmp_path))})

    def look(result: Any) -> Any:
        seen.append(checkpoint_listener._do_checkpoint)
        return result

    crew.after_kickoff_callbacks.append(look)
    await AsyncCrew(crew).kickoff(inputs={"topic": "tea"})
    assert seen == [checkpoints._do_checkpoint]
    assert checkpoint_listener._do_checkpoint is STOCK
