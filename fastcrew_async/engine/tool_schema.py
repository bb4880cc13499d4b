"""A tool as models are told of it, in words or for function calling, rendered once per argument schema.

Source: ``crewai/utilities/agent_utils.py: render_text_description_and_args`` and ``convert_tools_to_openai_schema`` of
CrewAI 1.15.30.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

from crewai.tools.base_tool import BaseTool
from crewai.tools.structured_tool import (
    CrewStructuredTool,
    format_description_for_llm,
    strip_composite_description_prefix,
)
from crewai.utilities.pydantic_schema_utils import generate_model_description

from fastcrew_async.engine.tool_call import tool_name

_STOCK_DESCRIPTION = CrewStructuredTool.formatted_description

_descriptions: WeakKeyDictionary[type, dict[tuple[str, str], str]] = WeakKeyDictionary()
_parameters: WeakKeyDictionary[type, str] = WeakKeyDictionary()


def describe(tools: Sequence[CrewStructuredTool]) -> str:
    """``render_text_description_and_args``: the tools as the prompt describes them."""
    return "\n".join(_describe(tool) for tool in tools)


def _describe(tool: CrewStructuredTool) -> str:
    schema = tool.args_schema
    if schema is None or type(tool).formatted_description is not _STOCK_DESCRIPTION:
        return tool.formatted_description
    known = _descriptions.setdefault(schema, {})
    key = (tool.name, tool.description)
    text = known.get(key)
    if text is None:
        text = known[key] = format_description_for_llm(tool.name, schema, tool.description)
    return text


def native_tools(
    tools: Sequence[BaseTool],
) -> tuple[list[dict[str, Any]], dict[str, Callable[..., Any]], dict[str, BaseTool]]:
    """The schemas of `tools`, and by the names in them, what runs each and the tool itself."""
    schemas: list[dict[str, Any]] = []
    functions: dict[str, Callable[..., Any]] = {}
    by_name: dict[str, BaseTool] = {}
    for tool in tools:
        name = _free_name(tool_name(tool.name), functions)
        function = {
            "name": name,
            "description": strip_composite_description_prefix(tool.description),
            "parameters": _parameters_of(getattr(tool, "args_schema", None)),
            "strict": True,
        }
        schemas.append({"type": "function", "function": function})
        functions[name] = tool.run
        by_name[name] = tool
    return schemas, functions, by_name


def _free_name(name: str, taken: dict[str, Any]) -> str:
    if name not in taken:
        return name
    counter = 2
    while (numbered := tool_name(f"{name}_{counter}")) in taken:
        counter += 1
    return numbered


def _parameters_of(schema: Any) -> dict[str, Any]:
    """The JSON schema of a tool's arguments; a new dictionary each time, since clients edit it."""
    if schema is None:
        return {}
    text = _parameters.get(schema)
    if text is None:
        try:
            described = generate_model_description(schema, strip_null_types=False)
            parameters = described.get("json_schema", {}).get("schema", {})
            parameters.pop("title", None)
            parameters.pop("description", None)
            text = json.dumps(parameters)
        except Exception:  # as CrewAI: a schema that cannot be rendered is left out
            text = "{}"
        _parameters[schema] = text
    return cast("dict[str, Any]", json.loads(text))
