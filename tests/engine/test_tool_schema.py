"""The schemas that models with function calling get are CrewAI's, and belong to whoever asked for them."""

from __future__ import annotations

from typing import Any

from crewai.tools import BaseTool, tool
from crewai.utilities.agent_utils import convert_tools_to_openai_schema
from pydantic import BaseModel, Field

from fastcrew_async.engine.tool_schema import native_tools


class Place(BaseModel):
    """Where to look."""

    city: str = Field(description="A city")
    days: int | None = None


class Weather(BaseTool):
    name: str = "Weather Report"
    description: str = "Tells the weather."
    args_schema: type[BaseModel] = Place

    def _run(self, city: str, days: int | None = None) -> str:
        return city


@tool("ping")
def ping(x: int) -> str:
    """Answers pong."""
    return f"pong {x}"


def all_of(tools: list[BaseTool]) -> tuple[Any, list[str], list[str]]:
    schemas, functions, mapping = native_tools(tools)
    return schemas, list(functions), list(mapping)


def test_schemas_and_names_are_crewais() -> None:
    tools: list[BaseTool] = [Weather(), ping, Weather()]
    schemas, functions, mapping = convert_tools_to_openai_schema(tools)
    assert all_of(tools) == (schemas, list(functions), list(mapping))
    assert all_of(tools) == (schemas, list(functions), list(mapping)), "the second time from what is kept"


def test_two_tools_of_one_name_are_told_apart() -> None:
    first, second = Weather(), Weather()
    _, functions, mapping = native_tools([first, second])
    assert [mapping[name] for name in functions] == [first, second]
    assert functions["weather_report_2"](city="Rome") == "Rome"


def test_what_a_client_does_to_its_schema_reaches_no_other() -> None:
    edited, _, _ = native_tools([ping])
    edited[0]["function"]["parameters"].clear()
    fresh, _, _ = native_tools([ping])
    assert "x" in fresh[0]["function"]["parameters"]["properties"]
