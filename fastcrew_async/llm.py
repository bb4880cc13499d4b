"""CrewAI's own models under many calls at once."""

from __future__ import annotations

from typing import TypeVar

from crewai.llms.base_llm import BaseLLM
from crewai.llms.providers.openai.completion import OpenAICompletion
from httpx import Limits
from openai import DefaultAsyncHttpxClient

LLM = TypeVar("LLM", bound=BaseLLM)


def few_idle_connections(llm: LLM, keep: int = 20) -> LLM:
    """The same model, whose async client keeps ``keep`` idle connections instead of 100, and still opens up to 1,000.

    httpx compares each idle connection with all connections whenever a request begins or ends, so that with a hundred
    idle ones a burst of calls costs several times the CPU of the calls themselves. Models of other providers than
    OpenAI and those compatible with it are given back as they are.

    Raises:
        ValueError: ``keep`` is negative, or the model has no API key yet.
    """
    if keep < 0:
        raise ValueError(f"keep must be 0 or more, not {keep}")
    if isinstance(llm, OpenAICompletion):
        pool = DefaultAsyncHttpxClient(limits=Limits(max_connections=1000, max_keepalive_connections=keep))
        llm._async_client = llm._get_async_client().with_options(http_client=pool)
    return llm
