from __future__ import annotations

import pytest

from fastcrew_async.demo.crew import TEAS, expected, order, script
from fastcrew_async.testing import Reply, Request, ToolCall


def asked(text: str, *tools: str, result: str | None = None) -> Request:
    messages = [{"role": "user", "content": text}]
    if result is not None:
        messages.append({"role": "tool", "content": result})
    return Request(messages, tools)


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("Find out how to brew oolong.", ToolCall("brewing", {"tea": "oolong"})),
        ("Find the price of 2 cups of assam.", ToolCall("price", {"cups": 2, "tea": "assam"})),
        ("Write the card of order 7: for whom", ToolCall("guest", {"order": 7})),
    ],
)
def test_each_agent_first_asks_its_tool(text: str, call: ToolCall) -> None:
    reply = script(asked(text, call.name))
    assert isinstance(reply, Reply)
    assert list(reply.tool_calls) == [call]


def test_an_agent_answers_with_what_its_tool_told() -> None:
    told = "assam at 95 °C for 4 minutes."
    assert script(asked("Find out", "brewing", result=told)) == told


def test_the_card_is_made_of_all_three_tools() -> None:
    context = "Write the card of order 1. Context: assam at 95 °C for 4 minutes. --- 2 cups: 4.80 EUR."
    assert script(asked(context, "guest", result="Order 1 for Blaise:")) == expected(order(1))


def test_a_prompt_without_the_facts_is_refused() -> None:
    with pytest.raises(ValueError, match="what to call brewing with"):
        script(asked("Hello", "brewing"))


def test_orders_differ() -> None:
    cards = {expected(order(number)) for number in range(len(TEAS) * 5)}
    assert len(cards) == len(TEAS) * 5
