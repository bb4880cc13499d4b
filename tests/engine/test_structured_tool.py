from __future__ import annotations

from types import MethodType
from typing import Any

import pytest
from crewai.tools import BaseTool, tool
from crewai.tools.structured_tool import CrewStructuredTool
from crewai.tools.tool_failure import ToolFailure, ToolFailurePolicy, ToolFailureReason
from crewai.utilities.agent_utils import format_native_tool_output_for_agent, parse_tools
from pydantic import BaseModel, Field, ValidationError

from fastcrew_async.engine import structured_tool
from fastcrew_async.engine.structured_tool import count_use, original_of, shown, shown_natively, structured


class Found(BaseModel):
    title: str


class Search(BaseTool):
    name: str = "Search the web"
    description: str = "Looks things up."
    result_as_answer: bool = True
    max_usage_count: int | None = 3

    def _run(self, query: str, limit: int = 5) -> str:
        return f"{query} {limit}"


class Typed(Search):
    result_schema: type[BaseModel] | None = Found
    tool_failure_policy: ToolFailurePolicy | None = ToolFailurePolicy.RAISE


class Loud(Search):
    def format_output_for_agent(self, raw_result: Any) -> str:
        return str(raw_result).upper()


@tool("ping")
def ping(x: int) -> str:
    """Answers with the number."""
    return f"pong {x}"


def _fields(made: CrewStructuredTool) -> dict[str, Any]:
    return {**made.__dict__, "original": made._original_tool, "set": made.model_fields_set}


@pytest.mark.parametrize("make", [Search, Typed, Loud, lambda: ping])
def test_the_second_form_is_what_crewai_makes(make: Any) -> None:
    used = make()
    structured([used])
    used.current_usage_count = 2
    (ours,) = structured([used])
    assert structured_tool._known(used) is not None
    assert used.current_usage_count == 0
    (theirs,) = parse_tools([used])
    assert _fields(ours) == _fields(theirs)
    assert ours._logger is not None
    assert ours.func == used._run


def test_each_execution_has_a_form_of_its_own() -> None:
    used = Search()
    first, second, third = (structured([used])[0] for _ in range(3))
    count_use(second)
    assert (first.current_usage_count, second.current_usage_count, third.current_usage_count) == (0, 1, 0)
    assert used.current_usage_count == 1
    assert original_of(second) is used


def test_another_schema_is_looked_at_again() -> None:
    class Wanting(BaseModel):
        limit: int = 1

    used = Search()
    structured([used])
    other = Search(args_schema=Wanting)
    for _ in range(2):
        with pytest.raises(ValueError, match="'query' not found in args_schema"):
            structured([other])


def test_what_pydantic_would_refuse_is_refused() -> None:
    used = Search()
    structured([used])
    used.description = 5  # type: ignore[assignment]
    with pytest.raises(ValidationError, match="description"):
        structured([used])


def test_a_tool_of_its_own_making_makes_it() -> None:
    class Own(Search):
        def to_structured_tool(self) -> CrewStructuredTool:
            made = super().to_structured_tool()
            made.description = "own"
            return made

    for _ in range(2):
        assert structured([Own()])[0].description == "own"


def test_what_is_no_tool_is_refused() -> None:
    with pytest.raises(ValueError, match="not a CrewStructuredTool or BaseTool"):
        structured([lambda: None])


class _Counting(CrewStructuredTool):
    def _increment_usage_count(self) -> None:
        self.current_usage_count += 10


def test_uses_are_counted_by_who_overrides_that() -> None:
    own = _Counting(name="a", description="b")
    count_use(own)
    assert own.current_usage_count == 10


_FAILURE = ToolFailure(message="no", reason=ToolFailureReason.INVALID_INPUT)


@pytest.mark.parametrize("make", [Search, Typed, Loud])
@pytest.mark.parametrize("raw", ["text", 5, None, {"title": "a"}, Found(title="a"), _FAILURE])
@pytest.mark.filterwarnings("ignore:Failed to validate or serialize:RuntimeWarning")
def test_results_are_put_into_words_as_crewai_does(make: Any, raw: Any) -> None:
    used = make()
    (made,) = parse_tools([used])
    assert shown(made, raw) == made.format_output_for_agent(raw)
    assert shown_natively(used, raw) == format_native_tool_output_for_agent(used, raw)


def test_a_form_without_a_tool_behind_it() -> None:
    class Args(BaseModel):
        x: int = Field(default=1)

    alone = CrewStructuredTool(name="a", description="b", args_schema=Args, func=lambda x: x)
    assert original_of(alone) is None
    assert shown(alone, 5) == "5"
    count_use(alone)
    assert alone.current_usage_count == 1
    assert original_of(object()) is None


def _again(used: BaseTool) -> CrewStructuredTool:
    structured([used])
    return structured([used])[0]


def test_a_tool_that_makes_its_schema_anew_is_asked_each_time() -> None:
    class Numbers(BaseModel):
        x: int

    class Growing(BaseTool):
        name: str = "grow"
        description: str = "Grows."
        asked: int = 0

        def _set_args_schema(self) -> None:
            self.asked += 1
            self.args_schema = Numbers

        def _run(self, x: int) -> str:
            return str(x)

    used = Growing()
    for times in (1, 2, 3):
        assert structured([used])[0].args_schema is Numbers
        assert used.asked == times


def test_attributes_are_read_as_the_tool_shows_them() -> None:
    class Telling(Search):
        def __getattribute__(self, name: str) -> Any:
            return "of today" if name == "description" else super().__getattribute__(name)

    assert _again(Telling()).description == "of today"


def test_any_callable_may_be_bound_as_the_body() -> None:
    class Body:
        __slots__ = ()
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, tool: Any, query: str) -> str:
            return f"{tool.name}: {query}"

    used = Search()
    object.__setattr__(used, "_run", MethodType(Body(), used))
    assert _again(used).func(query="tea") == "Search the web: tea"


def test_a_result_schema_that_is_none_is_refused_at_each_use() -> None:
    used = Search()
    structured([used])
    used.result_schema = int  # type: ignore[assignment]
    for _ in range(2):
        with pytest.raises(ValidationError, match="result_schema"):
            structured([used])
