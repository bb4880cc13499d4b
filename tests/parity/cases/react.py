"""Text-form (ReAct) agents: rounds, limits, bad answers."""

from __future__ import annotations

from ..case import Case
from ..models import action, final
from ..tools import ping
from .building import solo

CASES = [
    Case("react 0 rounds", lambda r: solo(r, [final("done")])),
    Case("react 0 rounds, hooks", lambda r: solo(r, [final("done")]), hooks=True),
    Case("react 1 round", lambda r: solo(r, [action("ping", x=1), final("done")], tools=[ping(r)])),
    Case("react 1 round, hooks", lambda r: solo(r, [action("ping", x=1), final("done")], tools=[ping(r)]), hooks=True),
    Case(
        "react 2 rounds",
        lambda r: solo(r, [action("ping", x=1), action("ping", x=2), final("done")], tools=[ping(r)]),
    ),
]
