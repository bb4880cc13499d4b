from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from crewai.llms.base_llm import BaseLLM
from crewai.utilities.converter import Converter, ConverterError
from pydantic import BaseModel

from fastcrew_async import workers
from fastcrew_async.engine.convert import export, to_pydantic
from fastcrew_async.engine.drivers import drive, drive_in_place
from fastcrew_async.testing import ScriptedLLM
from tests import crews


class Word(BaseModel):
    word: str


class CallOnly(BaseLLM):
    """A model of which only ``call`` was written."""

    def call(self, *_: Any, **__: Any) -> str:
        self.__dict__["thread"] = threading.get_ident()
        return '{"word": "tea"}'

    def supports_function_calling(self) -> bool:
        return False


class OnlySync(Converter):
    def to_pydantic(self, current_attempt: int = 1) -> BaseModel:
        return Word(word="theirs")


def task(script: Any = '{"word": "tea"}', **fields: Any) -> Any:
    return crews.task(crews.agent(script, **{name: fields.pop(name) for name in ("llm",) if name in fields}), **fields)


async def test_nothing_is_converted_without_a_model() -> None:
    assert await drive(export(task(), "text")) == (None, None)


async def test_text_by_the_model_on_the_loop() -> None:
    before = workers.pool().stats()["done"]
    assert await drive(export(task(output_pydantic=Word), "a word on tea")) == (Word(word="tea"), None)
    assert workers.pool().stats()["done"] == before


def test_text_by_the_model_in_place() -> None:
    assert drive_in_place(export(task(output_pydantic=Word), "a word on tea")) == (Word(word="tea"), None)


async def test_a_model_that_has_only_call_is_asked_on_a_worker() -> None:
    llm = CallOnly(model="call only")
    assert await drive(export(task(llm=llm, output_pydantic=Word), "a word on tea")) == (Word(word="tea"), None)
    assert llm.__dict__["thread"] != threading.get_ident()


async def test_a_converter_that_has_only_the_sync_form_is_called() -> None:
    of_user = task(output_pydantic=Word, converter_cls=OnlySync)
    assert await drive(export(of_user, "a word on tea")) == (Word(word="theirs"), None)


async def test_a_users_own_export_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    of_user = task(output_pydantic=Word)
    monkeypatch.setitem(of_user.__dict__, "_export_output", lambda text: (Word(word=text), None))
    assert await drive(export(of_user, "own")) == (Word(word="own"), None)


async def test_a_cancel_ends_a_conversion(until: Any) -> None:
    llm = ScriptedLLM('{"word": "tea"}', latency=30)
    running = asyncio.create_task(drive(export(task(llm=llm, output_pydantic=Word), "a word on tea")))
    await until(lambda: len(llm.requests) == 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_the_last_attempt_of_a_converter_fails() -> None:
    converter = Converter(llm=ScriptedLLM("no"), text="x", model=Word, instructions="y")
    with pytest.raises(ConverterError):
        await drive(to_pydantic(converter))
