"""Restoring crews, agents and flows from a checkpoint; whether one was restored, and so goes on where that ended."""

from __future__ import annotations

from typing import Any

from crewai.state.checkpoint_config import apply_checkpoint

from fastcrew_async.engine import collector
from fastcrew_async.engine.beside import Beside
from fastcrew_async.engine.fields import put
from fastcrew_async.engine.lane import Lane, OnLane

_READING = Lane(2)  # 80 ms of Python each


async def restored_from(entity: Any, from_checkpoint: Any) -> Any:
    """The crew, agent or flow that a checkpoint holds, read off the loop; None where none is to be restored."""
    if from_checkpoint is None or from_checkpoint.restore_from is None:
        return apply_checkpoint(entity, from_checkpoint)
    with collector.BUSY:
        return await OnLane(_READING, apply_checkpoint, entity, from_checkpoint).aperform()


class _Kickoffs:
    """Whether an object has been run by this engine."""

    ran = False


_kickoffs: Beside[_Kickoffs] = Beside(_Kickoffs)


def resumed(entity: Any) -> bool:
    """Whether `entity` was restored from a checkpoint and not run since; notes that it is run now.

    CrewAI goes by a field of the crew or agent. Writing a checkpoint sets it on the running one too, which CrewAI then
    takes for a restored one: a crew's second kickoff runs no task, an agent's has no started event.
    """
    kickoffs = _kickoffs.of(entity)
    marked, again = entity.checkpoint_kickoff_event_id is not None, kickoffs.ran
    kickoffs.ran = True
    if marked and again:
        put(entity, checkpoint_kickoff_event_id=None)
    return marked and not again
