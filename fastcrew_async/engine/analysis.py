"""What CrewAI's memory asks a model about: what to keep of a text, where to keep it, how to search.

Source: ``crewai/memory/analyze.py`` of CrewAI 1.15.30, whose functions word the question, ask, and read the answer.
Here the same functions are called twice: with a model that only notes what it is asked, and with one that knows the
answer. In between the real one is awaited.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from crewai.memory import analyze

from fastcrew_async.engine.effects import Blocking
from fastcrew_async.engine.model import CallModel

_STOCK = frozenset(
    {
        analyze.analyze_for_consolidation,
        analyze.analyze_for_save,
        analyze.analyze_query,
        analyze.extract_memories_from_content,
    }
)


class _Question(BaseException):
    """Carries a question past the ``except Exception`` of those who ask it."""


class _Asked:
    """A model that raises what it is asked."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm

    def __getattr__(self, name: str) -> Any:
        return getattr(self._llm, name)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        raise _Question(args, kwargs)


class _Answering(_Asked):
    """A model that knows its answer, or its error."""

    def __init__(self, llm: Any, answer: Any, error: Exception | None) -> None:
        super().__init__(llm)
        self._answer = answer
        self._error = error

    def call(self, *args: Any, **kwargs: Any) -> Any:
        if self._error is not None:
            raise self._error
        return self._answer


async def analysed(function: Callable[..., Any], *args: Any) -> Any:
    """``function(*args)``, one of the functions of ``crewai.memory.analyze``; the model is the last argument.

    Raises:
        HookAborted: a hook stopped the run. Other errors of the model become CrewAI's defaults.
    """
    if function not in _STOCK:  # replaced, as tests do
        return await Blocking(function, *args)
    *given, llm = args
    try:
        return function(*given, _Asked(llm))
    except _Question as asked:
        (messages, *more), kwargs = asked.args
    answer, failure = None, None
    try:
        answer = await CallModel(llm, messages, *more, **kwargs)
    except Exception as error:
        failure = error
    try:
        return await Blocking(function, *given, _Answering(llm, answer, failure))  # it may log
    finally:
        del failure  # whose traceback holds this frame
