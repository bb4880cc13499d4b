"""CrewAI's structured tools: made of an agent's tools, counted, and their results put into words.

Source: ``crewai/tools/structured_tool.py`` and ``parse_tools`` of CrewAI 1.15.30. There each execution reads the
signature of each tool's function again, and each use looks private attributes up in pydantic's slow way. Where anything
is out of the ordinary, CrewAI's own methods are called.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from operator import attrgetter
from types import NoneType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from crewai.tools.base_tool import BaseTool
from crewai.tools.structured_tool import CrewStructuredTool
from crewai.tools.tool_failure import ToolFailurePolicy
from crewai.utilities.agent_utils import format_native_tool_output_for_agent, parse_tools
from pydantic import BaseModel

from fastcrew_async.engine.fields import private, put, shallow_copy
from fastcrew_async.engine.seams import replaced

_STOCK_MAKE = BaseTool.to_structured_tool
_STOCK_SCHEMA = BaseTool._set_args_schema
_STOCK_FORMAT = BaseTool.format_output_for_agent
_STOCK_SHOW = CrewStructuredTool.format_output_for_agent
_STOCK_COUNT = CrewStructuredTool._increment_usage_count
# What a structured tool takes over, and what pydantic lets through as it is.
_TAKEN_OVER: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "description": str,
    "args_schema": type,
    "result_schema": (type, NoneType),
    "result_as_answer": bool,
    "max_usage_count": (int, NoneType),
    "cache_function": object,
    "tool_failure_policy": (ToolFailurePolicy, NoneType),
}
_taken_over = attrgetter(*_TAKEN_OVER)
_fitting: WeakKeyDictionary[Any, WeakSet[type]] = WeakKeyDictionary()
"""The argument schemas that the signature of a function was found to fit."""
_blank = CrewStructuredTool()


def structured(tools: Iterable[Any]) -> list[CrewStructuredTool]:
    """``parse_tools``: the tools as one execution uses them, each with no use so far.

    Raises:
        ValueError: one is not a tool, or its function wants an argument that its schema does not have.
    """
    return [_known(tool) or _checked(tool) for tool in tools]


def _checked(tool: Any) -> CrewStructuredTool:
    made = parse_tools([tool])[0]
    function = getattr(made.func, "__func__", None)
    if function is not None and made.args_schema is not None:
        with suppress(TypeError):  # any callable may be bound as a method, one that cannot be remembered too
            _fitting.setdefault(function, WeakSet()).add(made.args_schema)
    return made


def _known(tool: Any) -> CrewStructuredTool | None:
    """The structured form of a tool whose function and schema were looked at before."""
    if (
        not isinstance(tool, BaseTool)
        or replaced(tool, "to_structured_tool", _STOCK_MAKE)
        or replaced(tool, "_set_args_schema", _STOCK_SCHEMA)
    ):
        return None
    run = tool._run
    values = _taken_over(tool)
    taken = dict(zip(_TAKEN_OVER, values, strict=True))
    if not all(map(isinstance, values, _TAKEN_OVER.values())) or not _fits(run, taken["args_schema"]):
        return None
    result = taken["result_schema"]
    if result is not None and not issubclass(result, BaseModel):
        return None
    made: CrewStructuredTool = shallow_copy(_blank)
    put(made, **taken, func=run, current_usage_count=0)
    private(made)["_original_tool"] = tool
    tool.current_usage_count = 0
    return made


def _fits(run: Any, schema: type) -> bool:
    try:
        return schema in _fitting.get(getattr(run, "__func__", None), ())
    except TypeError:  # not to be remembered
        return False


def original_of(tool: Any) -> Any:
    """The tool that a structured one was made of; None for none."""
    if type(tool) is CrewStructuredTool:
        return private(tool)["_original_tool"]
    return getattr(tool, "_original_tool", None)


def count_use(tool: Any) -> None:
    """``_increment_usage_count``."""
    if type(tool) is not CrewStructuredTool or replaced(tool, "_increment_usage_count", _STOCK_COUNT):
        tool._increment_usage_count()
        return
    uses = tool.current_usage_count + 1
    put(tool, current_usage_count=uses)
    original = private(tool)["_original_tool"]
    if original is not None:
        original.current_usage_count = uses


def shown(tool: CrewStructuredTool, raw: Any) -> str:
    """``tool.format_output_for_agent(raw)``."""
    if (
        type(tool) is CrewStructuredTool
        and not replaced(tool, "format_output_for_agent", _STOCK_SHOW)
        and _stays(original_of(tool), raw)
    ):
        return str(raw)
    return tool.format_output_for_agent(raw)


def shown_natively(tool: Any, raw: Any) -> str:
    """``format_native_tool_output_for_agent``."""
    return str(raw) if _stays(tool, raw) else format_native_tool_output_for_agent(tool, raw)


def _stays(tool: Any, raw: Any) -> bool:
    """Whether CrewAI looks for who is to put `raw` into words, and then leaves the text as it is."""
    return (
        type(raw) is str
        and isinstance(tool, BaseTool)
        and not replaced(tool, "format_output_for_agent", _STOCK_FORMAT)
        and tool.result_schema is None
        and "_original_tool" not in type(tool).__private_attributes__
    )
