from __future__ import annotations

import asyncio

import pytest
from crewai import LLM

from fastcrew_async.llm import few_idle_connections
from fastcrew_async.testing import ModelServer, ScriptedLLM

QUESTION = [{"role": "user", "content": "What colour?"}]


def test_the_model_answers_as_before() -> None:
    async def ask_many() -> list[str]:
        async with llm._async_client:
            return list(await asyncio.gather(*(llm.acall(QUESTION) for _ in range(20))))

    with ModelServer("Green.", latency=0.1) as server:
        llm = few_idle_connections(LLM(model="openai/gpt-4o-mini", base_url=server.base_url, api_key="unused"), keep=3)
        assert asyncio.run(ask_many()) == ["Green."] * 20
        assert server.peak_in_flight > 3


def test_other_models_are_left_alone() -> None:
    llm = ScriptedLLM("ok")
    assert few_idle_connections(llm) is llm


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="not -1"):
        few_idle_connections(ScriptedLLM("ok"), keep=-1)
