"""An answer's text made a model: by the model that wrote it, where it is not the model's JSON already.

CrewAI has each conversion in a sync and an async form. The async one is taken on a loop where it does what the sync one
does. It does not for a model that has only ``call``, for a converter of the user's that has only the sync form, and for
JSON of a function calling model, which CrewAI gets from a sync client in a thread of the loop's few.
"""

from __future__ import annotations

from typing import Any, cast

from crewai.agent.core import Agent
from crewai.task import Task
from crewai.utilities.converter import Converter

from fastcrew_async.engine.calling import listen
from fastcrew_async.engine.effects import Blocking, Either
from fastcrew_async.engine.model import has_async_side
from fastcrew_async.engine.seams import OURS, Pair, async_form_stands, replaced
from fastcrew_async.engine.seams import theirs as call_theirs

_EXPORT = Pair.of(Task, "_export_output", "_aexport_output")
_STOCK_CONVERTER = Agent.get_output_converter


async def export(task: Task, text: Any) -> tuple[Any, Any]:
    """``Task._export_output``: the text as the task's model, or as its JSON; else None for both.

    Raises:
        ConverterError: it could not be converted.
    """
    if not (task.output_pydantic or task.output_json):
        return None, None
    theirs = await call_theirs(task, _EXPORT, text)
    if theirs is OURS:
        if _converts_on_loop(task):
            theirs = await Either(lambda: task._export_output(text), lambda: task._aexport_output(text))
        else:
            theirs = await Blocking(task._export_output, text)
    return cast("tuple[Any, Any]", theirs)


def _converts_on_loop(task: Task) -> bool:
    agent: Any = task.agent
    if agent is None:
        return True
    llm = agent.__dict__.get("function_calling_llm") or agent.llm
    listen(llm)
    if not has_async_side(llm) or (task.output_json and llm.supports_function_calling()):
        return False
    name = "json" if task.output_json else "pydantic"
    if task.converter_cls is not None:
        return async_form_stands(task.converter_cls, f"to_{name}", f"ato_{name}")
    return not replaced(agent, "get_output_converter", _STOCK_CONVERTER)


async def to_pydantic(converter: Converter) -> Any:
    """``Converter.to_pydantic``.

    Raises:
        ConverterError: the last attempt failed too.
    """
    listen(converter.llm)
    if has_async_side(converter.llm) and async_form_stands(converter, "to_pydantic", "ato_pydantic"):
        return await Either(converter.to_pydantic, converter.ato_pydantic)
    return await Blocking(converter.to_pydantic)
