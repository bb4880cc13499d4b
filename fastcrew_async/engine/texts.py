"""Inputs put into the texts of a crew's tasks and agents, and the keys made of those texts.

Source: ``Crew._interpolate_inputs``, ``Crew.key`` and what they call in CrewAI 1.15.30, which read the texts through
pydantic's slow way to private attributes. Where something is out of the ordinary, CrewAI's own methods are called.
"""

from __future__ import annotations

from hashlib import md5
from typing import Any

from crewai.agent.core import Agent
from crewai.agents.agent_builder.base_agent import BaseAgent
from crewai.core.providers.content_processor import NoOpContentProcessor, get_processor
from crewai.crew import Crew
from crewai.llm_overlay import active as overlay_active
from crewai.task import Task
from crewai.utilities.string_utils import interpolate_only

from fastcrew_async.engine.fields import private, put
from fastcrew_async.engine.seams import replaced

_OF_CREW = Crew._interpolate_inputs
_OF_TASK = Task.interpolate_inputs_and_add_conversation_history
_OF_AGENT = Agent.interpolate_inputs
_KEY_OF_CREW: Any = Crew.key
_KEY_OF_TASK: Any = Task.key
_KEY_OF_AGENT: Any = BaseAgent.key
_TASK_KEY = ("description", "expected_output")
_AGENT_KEY = ("role", "goal", "backstory")


def interpolate(crew: Any, inputs: dict[str, Any]) -> None:
    """``Crew._interpolate_inputs``.

    Raises:
        ValueError: a value is of an unsupported type, or a placeholder of a task has none.
        KeyError: a placeholder of an agent has no value.
    """
    if replaced(crew, "_interpolate_inputs", _OF_CREW):
        crew._interpolate_inputs(inputs)
        return
    ordinary = bool(inputs) and not inputs.get("crew_chat_messages") and type(get_processor()) is NoOpContentProcessor
    for task in crew.tasks:
        if not ordinary or replaced(task, "interpolate_inputs_and_add_conversation_history", _OF_TASK):
            task.interpolate_inputs_and_add_conversation_history(inputs)
            continue
        try:
            names = _TASK_KEY if task.output_file is None else (*_TASK_KEY, "output_file")
            _fill(task, names, inputs)
        except (KeyError, ValueError):
            task.interpolate_inputs_and_add_conversation_history(inputs)  # for CrewAI's wording of the error
            raise
    for agent in crew.agents:
        if not ordinary or overlay_active.get() is not None or replaced(agent, "interpolate_inputs", _OF_AGENT):
            agent.interpolate_inputs(inputs)
        else:
            _fill(agent, _AGENT_KEY, inputs)


def _fill(model: Any, names: tuple[str, ...], inputs: dict[str, Any]) -> None:
    fields, own = model.__dict__, private(model)
    for name in names:
        original = own[f"_original_{name}"]
        if original is None:
            original = own[f"_original_{name}"] = fields[name]
        put(model, **{name: interpolate_only(input_string=original, inputs=inputs)})


def key_of_crew(crew: Any) -> str:
    """``Crew.key``."""
    if getattr(type(crew), "key", None) is not _KEY_OF_CREW:
        return str(crew.key)
    return _digest([*(_key(agent, _KEY_OF_AGENT, _AGENT_KEY) for agent in crew.agents), *map(key_of_task, crew.tasks)])


def key_of_task(task: Any) -> str:
    """``Task.key``."""
    return _key(task, _KEY_OF_TASK, _TASK_KEY)


def _key(model: Any, stock: Any, names: tuple[str, ...]) -> str:
    if getattr(type(model), "key", None) is not stock:
        return str(model.key)
    fields, own = model.__dict__, private(model)
    return _digest([own[f"_original_{name}"] or fields[name] for name in names])


def _digest(texts: list[str]) -> str:
    return md5("|".join(texts).encode(), usedforsecurity=False).hexdigest()
