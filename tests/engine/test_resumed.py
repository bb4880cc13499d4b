from __future__ import annotations

from fastcrew_async.engine.resumed import resumed
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
