"""What an agent was taught by ``Crew.train``, put into its prompt.

Source: ``crewai/agent/utils.py: apply_training_data``, which reads a file under a lock for each task.
"""

from __future__ import annotations

import os
from typing import Any

from crewai.agent.core import Agent
from crewai.agent.utils import apply_training_data
from crewai_core.constants import CREWAI_TRAINED_AGENTS_FILE_ENV, TRAINED_AGENTS_DATA_FILE

from fastcrew_async.engine.effects import Blocking
from fastcrew_async.engine.seams import replaced

_STOCK_TRAINING = Agent._training_handler
_STOCK_TRAINED = Agent._use_trained_data


async def follow_training(agent: Any, prompt: str) -> str:
    """`prompt` with what the agent was taught; the file, where there is one, is read off the loop."""
    crew = agent.crew if agent.crew and not isinstance(agent.crew, str) else None
    own = replaced(agent, "_use_trained_data", _STOCK_TRAINED) or replaced(agent, "_training_handler", _STOCK_TRAINING)
    if (crew and crew._train) or own or _trained(crew):
        return str(await Blocking(apply_training_data, agent, prompt))
    return prompt


def _trained(crew: Any) -> bool:
    """Whether there is a file of trained data. Source: ``Agent._use_trained_data`` and ``PickleHandler``."""
    chosen = getattr(crew, "trained_agents_file", None)
    name = os.fspath(chosen) if chosen else os.getenv(CREWAI_TRAINED_AGENTS_FILE_ENV, TRAINED_AGENTS_DATA_FILE)
    return os.path.exists(name if name.endswith(".pkl") else f"{name}.pkl")
