from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from crewai.state.checkpoint_config import CheckpointConfig

from fastcrew_async.engine import resumed as resumption
from fastcrew_async.engine.resumed import restored_from, resumed
from tests import crews


def test_only_the_first_run_of_a_restored_object_goes_on() -> None:
    agent = crews.agent()
    agent.checkpoint_kickoff_event_id = "restored"
    assert resumed(agent)
    assert not resumed(agent)
    assert agent.checkpoint_kickoff_event_id is None


def test_what_is_marked_by_a_checkpoint_of_its_own_is_not_restored() -> None:
    agent = crews.agent()
    assert not resumed(agent)
    agent.checkpoint_kickoff_event_id = "written"
    assert not resumed(agent)
    assert agent.checkpoint_kickoff_event_id is None


async def test_a_few_checkpoints_at_a_time_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, lock = [0, 0], threading.Lock()
    loop_thread = threading.get_ident()

    def read(entity: Any, config: CheckpointConfig) -> Any:
        assert threading.get_ident() != loop_thread
        with lock:
            begun[0] += 1
            begun[1] = max(begun)
        time.sleep(0.002)
        with lock:
            begun[0] -= 1
        return config.location

    monkeypatch.setattr(resumption, "apply_checkpoint", read)
    configs = [CheckpointConfig(location=str(number), restore_from="there") for number in range(20)]
    found = await asyncio.gather(*(restored_from(None, config) for config in configs))
    assert found == [str(number) for number in range(20)]
    assert begun == [0, 2]


async def test_nothing_to_restore() -> None:
    crew = crews.crew()
    config = CheckpointConfig(location="here")
    assert await restored_from(crew, None) is None
    assert await restored_from(crew, config) is None
    assert crew.checkpoint is config
