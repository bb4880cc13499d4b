"""The crew of the demonstration: three agents, a tool each, and the script its model follows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fastcrew_async.testing import Reply, Request, ToolCall

if TYPE_CHECKING:
    from crewai import Crew

TEAS = {
    "sencha": ("70 °C", "1 minute", 2.80),
    "assam": ("95 °C", "4 minutes", 2.40),
    "oolong": ("90 °C", "3 minutes", 3.50),
    "rooibos": ("100 °C", "7 minutes", 2.20),
}
GUESTS = ("Ada", "Blaise", "Edsger", "Grace", "Kurt")


def order(number: int) -> dict[str, Any]:
    """The inputs of kickoff ``number``."""
    return {"order": number, "tea": list(TEAS)[number % len(TEAS)], "cups": number % 3 + 1}


def expected(inputs: dict[str, Any]) -> str:
    """What the scripted model makes of the tools' results, so that every answer can be checked."""
    temperature, duration, price = TEAS[inputs["tea"]]
    guest = GUESTS[inputs["order"] % len(GUESTS)]
    return (
        f"Order {inputs['order']} for {guest}: {inputs['tea']} at {temperature} for {duration}. "
        f"{inputs['cups']} cups: {inputs['cups'] * price:.2f} EUR."
    )


def make_crew(model: str, base_url: str | None, api_key: str | None) -> Crew:
    """The crew: each agent has one tool and one task, and each task reads the ones before."""
    from crewai import LLM, Agent, Crew, Task
    from crewai.tools import tool

    from fastcrew_async.llm import few_idle_connections

    @tool("brewing")
    def brewing(tea: str) -> str:
        """How to brew a tea: temperature and time."""
        temperature, duration, _ = TEAS[tea.lower()]
        return f"{tea} at {temperature} for {duration}."

    @tool("price")
    def price(tea: str, cups: int) -> str:
        """What a number of cups of a tea costs."""
        return f"{cups} cups: {cups * TEAS[tea.lower()][2]:.2f} EUR."

    @tool("guest")
    def guest(order: int) -> str:
        """For whom an order is."""
        return f"Order {order} for {GUESTS[order % len(GUESTS)]}:"

    llm = few_idle_connections(LLM(model=model, base_url=base_url, api_key=api_key))
    brewer = Agent(role="Brewer", goal="Brew well", backstory="Knows every leaf.", llm=llm, tools=[brewing])
    cashier = Agent(role="Cashier", goal="Charge right", backstory="Counts twice.", llm=llm, tools=[price])
    waiter = Agent(role="Waiter", goal="Serve right", backstory="Knows every guest.", llm=llm, tools=[guest])
    tasks = [
        Task(description="Find out how to brew {tea}.", expected_output="Temperature and time", agent=brewer),
        Task(description="Find the price of {cups} cups of {tea}.", expected_output="One price", agent=cashier),
        Task(
            description="Write the card of order {order}: for whom, how to brew it, what it costs.",
            expected_output="One line",
            agent=waiter,
        ),
    ]
    return Crew(agents=[brewer, cashier, waiter], tasks=tasks)


def script(request: Request) -> Reply | str:
    """The scripted model: calls the one tool offered, then answers with what it was told."""
    results = request.tool_results
    text = request.text
    if results and "guest" in request.tools:
        told = [re.search(r"\w+ at \d+ °C for \d minutes?\.", text), re.search(r"\d+ cups: [\d.]+ EUR\.", text)]
        return " ".join([results[-1], *(match.group() for match in told if match)])
    if results:
        return results[-1]
    if "brewing" in request.tools:
        return _call("brewing", re.search(r"brew (?P<tea>\w+)", text))
    if "price" in request.tools:
        return _call("price", re.search(r"price of (?P<cups>\d+) cups of (?P<tea>\w+)", text))
    return _call("guest", re.search(r"card of order (?P<order>\d+)", text))


def _call(name: str, asked: re.Match[str] | None) -> Reply:
    if asked is None:
        raise ValueError(f"the prompt does not say what to call {name} with")
    values = {key: int(value) if value.isdigit() else value for key, value in asked.groupdict().items()}
    return Reply(tool_calls=[ToolCall(name, values)])
