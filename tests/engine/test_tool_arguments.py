from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    computed_field,
    create_model,
    field_serializer,
    field_validator,
    model_validator,
)

from fastcrew_async.engine.tool_arguments import is_quiet


class Plain(BaseModel):
    x: int
    function: str | None = None
    rows: list[dict[str, int]] = []


class Colour(Enum):
    RED = "red"


class Nested(BaseModel):
    plain: Plain
    colour: Colour
    kind: Literal["a", "b"] = "a"
    size: Annotated[int, Field(gt=1)] = 2


class Validated(BaseModel):
    x: int

    @field_validator("x")
    @classmethod
    def check(cls, value: int) -> int:
        return value


class Before(BaseModel):
    x: int

    @model_validator(mode="before")
    @classmethod
    def fill(cls, value: Any) -> Any:
        return value


class Made(BaseModel):
    rows: list[int] = Field(default_factory=list)


class Ready(BaseModel):
    x: int

    def model_post_init(self, context: Any) -> None:
        pass


class Written(BaseModel):
    x: int

    @field_serializer("x")
    def write(self, value: int) -> int:
        return value


class Computed(BaseModel):
    x: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def y(self) -> int:
        return self.x


class Own(BaseModel):
    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)


class Dumped(BaseModel):
    x: int

    def model_dump(self, **options: Any) -> dict[str, Any]:
        return super().model_dump(**options)


class Inner(BaseModel):
    inner: Validated


class Annotation(BaseModel):
    x: Annotated[int, AfterValidator(abs)]


@pytest.mark.parametrize("schema", [None, Plain, Nested, create_model("Any", a=(Any, ...), b=(int, 3))])
def test_a_schema_of_plain_types_calls_nothing(schema: Any) -> None:
    assert is_quiet(schema)


@pytest.mark.parametrize(
    "schema", [Validated, Before, Made, Ready, Written, Computed, Own, Dumped, Inner, Annotation, object]
)
def test_one_with_code_of_the_user_does(schema: Any) -> None:
    assert not is_quiet(schema)
