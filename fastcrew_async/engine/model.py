"""One model call of an agent: rate, hooks, context window, the call, and the checks on its answer.

Source: ``crewai.utilities.agent_utils.get_llm_response`` and ``handle_max_iterations_exceeded`` of CrewAI 1.15.30.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import AbstractContextManager, suppress
from importlib import import_module
from types import FunctionType
from typing import TYPE_CHECKING, Any

from crewai.agents.parser import AgentFinish
from crewai.hooks.dispatch import HookAborted, InterceptionPoint, get_scoped_hooks
from crewai.hooks.llm_hooks import _model_call_hooks_dispatched
from crewai.llms.base_llm import BaseLLM, LLMCallBlockedError
from crewai.utilities import agent_utils
from crewai.utilities.agent_utils import format_answer
from crewai.utilities.i18n import I18N_DEFAULT
from crewai.utilities.message_utils import format_message_for_llm
from crewai_core.printer import PRINTER

from fastcrew_async import limits, workers
from fastcrew_async.engine import calling, events
from fastcrew_async.engine.effects import Blocking, Effect
from fastcrew_async.engine.observer import reported, reported_in_place
from fastcrew_async.engine.paced import Paced
from fastcrew_async.engine.rate import WithinRate

if TYPE_CHECKING:
    from crewai.agents.agent_executor import AgentExecutor
    from pydantic import BaseModel

logger = logging.getLogger(__name__)
_STOCK: Any = import_module("crewai.agents.agent_executor")
_STOCK_ASK = _STOCK.get_llm_response
_ESTIMATE = BaseLLM.get_input_tokens_count
_OPENAI = "crewai.llms.providers.openai.completion"  # imported by those who use it
_CLIENT = "fastcrew_async.model.stand_in"
_STOCK_PREPARE = agent_utils._prepare_llm_call
_COMPARE = BaseLLM.is_context_window_overflowing_threshold


def _named(call: CallModel) -> str:
    return str(getattr(call.llm, "model", ""))


class CallModel(Effect):
    """``llm.acall`` on the loop; ``llm.call`` on a worker thread for a model that has no async side; or in place."""

    __slots__ = ("kwargs", "llm", "messages")

    def __init__(self, llm: Any, messages: list[Any], **kwargs: Any) -> None:
        self.llm = llm
        self.messages = messages
        self.kwargs = kwargs

    def perform(self) -> Any:
        permits = limits.active
        if permits is not None:
            return calling.call_in_place(permits, self.llm, self.messages, self.kwargs, self._call)
        return self._call()

    async def aperform(self) -> Any:
        permits = limits.active
        if permits is not None:
            return await calling.call(permits, self.llm, self.messages, self.kwargs, self._acall)
        return await self._acall()

    @reported_in_place("model", _named)
    def _call(self) -> Any:
        scope = events.scope()
        try:
            return self.llm.call(self.messages, **self.kwargs)
        finally:
            events.restore(scope)

    @reported("model", _named)
    async def _acall(self) -> Any:
        if not has_async_side(self.llm):
            return await workers.pool().run(self.llm.call, self.messages, **self.kwargs)
        if _CLIENT not in sys.modules and isinstance(self.llm, _openai() or ()):
            # The first call of an OpenAI model imports most of the openai package: 400 ms, which are not the loop's.
            await workers.pool().run(import_module, _CLIENT)
        scope = events.scope()
        try:
            answer = self.llm.acall(self.messages, **self.kwargs)
            return await (Paced(answer) if asyncio.iscoroutine(answer) else answer)
        except asyncio.CancelledError as error:
            events.close_scopes(scope, error, self.llm)  # models tell of their errors themselves, but not of this one
            raise
        finally:
            events.restore(scope)


def _openai() -> Any:
    """CrewAI's OpenAI provider; None while nobody imported it."""
    return getattr(sys.modules.get(_OPENAI), "OpenAICompletion", None)


def has_async_side(llm: Any) -> bool:
    """Whether ``acall`` stands for this model.

    It does not where only ``call`` was written: on a model without ``acall``, on a subclass that overrides ``call``
    alone, or where ``call`` was replaced on the class or the object (as tests and tracers do).
    """
    own: dict[str, Any] = getattr(llm, "__dict__", {})
    if "acall" in own:
        return True
    if "call" in own:
        return False
    for cls in type(llm).__mro__:
        if cls is BaseLLM:
            return False
        names = cls.__dict__
        if "acall" in names:
            return type(names.get("call", names["acall"])) is FunctionType
        if "call" in names:
            return False
    return False


async def ask(
    executor: AgentExecutor, tools: list[dict[str, Any]] | None, response_model: type[BaseModel] | None
) -> Any:
    """The model's answer to the executor's messages.

    Raises:
        ValueError: the answer is empty, or a hook blocked the call (``LLMCallBlockedError``).
        HookAborted: a hook stopped the run.
    """
    agent: Any = executor.agent
    llm: Any = executor.llm
    verbose = agent.verbose
    if executor.request_within_rpm_limit is not None:
        await WithinRate(executor.request_within_rpm_limit)
    if _STOCK.get_llm_response is not _STOCK_ASK:  # replaced, as tests do: theirs is asked
        return await _ask_theirs(executor, tools, response_model)
    kwargs: dict[str, Any] = {
        "tools": tools,
        "callbacks": executor.callbacks,
        "available_functions": None,
        "from_task": executor.task,
        "from_agent": agent,
        "response_model": response_model,
    }
    with _prepared(executor, verbose) as messages:
        if executor.respect_context_window and await _overflows(llm, messages, tools, response_model):
            await Blocking(
                agent_utils._proactively_summarize_context,
                llm=llm,
                messages=messages,
                callbacks=executor.callbacks,
                printer=PRINTER,
                tools=tools,
                response_model=response_model,
                verbose=verbose,
                from_task=executor.task,
                from_agent=agent,
            )
        answer = await CallModel(llm, messages, **kwargs)
    return agent_utils._validate_and_finalize_llm_response(answer, executor, PRINTER, verbose=verbose)


def _prepared(executor: AgentExecutor, verbose: bool) -> AbstractContextManager[list[Any]]:
    """``_prepare_llm_call``: the messages after the hooks before a call."""
    hooked = executor.before_llm_call_hooks or get_scoped_hooks(InterceptionPoint.PRE_MODEL_CALL)
    if hooked or agent_utils._prepare_llm_call is not _STOCK_PREPARE:
        return agent_utils._prepare_llm_call(executor, executor.messages, PRINTER, verbose=verbose)
    return _Unhooked(executor.messages)


class _Unhooked:
    """What it comes to where there are no hooks: the model is told not to look for them again."""

    __slots__ = ("_messages", "_token")

    def __init__(self, messages: list[Any]) -> None:
        self._messages = messages

    def __enter__(self) -> list[Any]:
        self._token = _model_call_hooks_dispatched.set(True)
        return self._messages

    def __exit__(self, *_: object) -> None:
        with suppress(ValueError):  # where the collector closes a forgotten coroutine, in any context
            _model_call_hooks_dispatched.reset(self._token)


async def _ask_theirs(executor: AgentExecutor, tools: list[dict[str, Any]] | None, response_model: Any) -> Any:
    agent: Any = executor.agent
    native: dict[str, Any] = {} if tools is None else {"tools": tools, "available_functions": None}
    return await Blocking(
        _STOCK.get_llm_response,
        llm=executor.llm,
        messages=list(executor.state.messages),
        callbacks=executor.callbacks,
        printer=PRINTER,
        from_task=executor.task,
        from_agent=agent,
        response_model=response_model,
        executor_context=executor,
        verbose=agent.verbose,
        **native,
    )


async def force_final_answer(executor: AgentExecutor) -> AgentFinish:
    """One more call, without tools and hooks, when the iterations are used up.

    Raises:
        ValueError: the answer is empty.
    """
    agent: Any = executor.agent
    if agent.verbose:
        PRINTER.print(content="Maximum iterations reached. Requesting final answer.", color="yellow")
    messages = [
        *executor.state.messages,
        format_message_for_llm(I18N_DEFAULT.errors("force_final_answer"), role="user"),
    ]
    answer = await CallModel(executor.llm, messages, callbacks=executor.callbacks)
    if answer is None or answer == "":
        if agent.verbose:
            PRINTER.print(content="Received None or empty response from LLM call.", color="red")
        raise ValueError("Invalid response from LLM call - None or empty.")
    formatted = format_answer(answer=answer)
    if isinstance(formatted, AgentFinish):
        return formatted
    return AgentFinish(thought=formatted.thought, output=formatted.text, text=formatted.text)


async def _overflows(llm: Any, messages: list[Any], tools: Any, response_model: Any) -> bool:
    try:
        if counts_here(llm):
            return bool(llm.is_context_window_overflowing_threshold(messages, tools, response_model))
        return bool(await Blocking(llm.is_context_window_overflowing_threshold, messages, tools, response_model))
    except (HookAborted, LLMCallBlockedError):
        raise
    except Exception:
        logger.debug("Counting the tokens of the context failed; the call goes on without it.", exc_info=True)
        return False


def counts_here(llm: Any) -> bool:
    """Whether counting tokens is CrewAI's estimate of four characters a token, or is said to be as quick.

    CrewAI's providers, and models of users, may ask a server for the number, with a sync request; OpenAI's does not
    where it talks to a compatible server. A model of which that is not true can have a class variable
    ``counts_tokens_locally = True``.
    """
    kind = type(llm)
    count = getattr(kind, "get_input_tokens_count", None)
    stock = (
        getattr(kind, "is_context_window_overflowing_threshold", None) is _COMPARE
        and "get_input_tokens_count" not in llm.__dict__
    )
    if stock and count is _ESTIMATE:
        return True
    if getattr(kind, "counts_tokens_locally", False):  # asked last: where there is none, pydantic is long in saying so
        return True
    return stock and count is getattr(_openai(), "get_input_tokens_count", None) and bool(llm._on_compatible_server())
