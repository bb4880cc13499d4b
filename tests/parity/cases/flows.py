"""Flows: CrewAI's own engine with steps of every kind, crews inside them, and ends of every kind."""

from __future__ import annotations

from typing import Any

from crewai import Crew
from crewai.flow.flow import Flow, and_, listen, or_, router, start
from crewai.flow.persistence import FlowPersistence, persist
from pydantic import BaseModel, SkipValidation

from ..case import Case
from ..models import final
from ..recorder import Recorder
from .building import solo


class Topic(BaseModel):
    topic: str = ""
    seen: list[str] = []


class Noting(Flow[Topic]):
    """Notes what its steps see, and kicks crews off."""

    recorder: SkipValidation[Any]
    crew: SkipValidation[Any]

    def reach(self, step: str, given: Any = None) -> str:
        self.recorder.note("step", step, given=given, seen=list(self.state.seen))
        self.state.seen.append(step)
        return f"{step} of {self.state.topic}"

    async def awaited(self, step: str, given: Any = None) -> str:
        self.reach(step, given)
        output: Any = await self.crew.akickoff(inputs={"topic": self.state.topic})
        return str(output.raw)


class Awaiting(Noting):
    @start()
    async def first(self) -> str:
        return await self.awaited("first")

    @listen(first)
    async def second(self, before: str) -> str:
        return await self.awaited("second", before)


class InSyncSteps(Noting):
    @start()
    def first(self) -> str:
        self.reach("first")
        return str(self.crew.kickoff(inputs={"topic": self.state.topic}).raw)

    @listen(first)
    def second(self, before: str) -> str:
        return self.reach("second", before)


class Routed(Noting):
    @start()
    async def first(self) -> str:
        return self.reach("first")

    @router(first)
    def choose(self) -> str:
        return "again" if self.state.seen.count("choose") + len(self.reach("choose")) == len("choose of tea") else "out"

    @listen("again")
    async def once_more(self) -> str:
        return self.reach("once more")

    @listen(or_("out", once_more))
    async def last(self, before: Any) -> str:
        return self.reach("last", before)


class Joined(Noting):
    """Steps beside each other."""

    @start()
    async def left(self) -> str:
        return self.reach("left")

    @start()
    async def right(self) -> str:
        return self.reach("right")

    @listen(and_(left, right))
    def both(self) -> str:
        return self.reach("both")


class Failing(Noting):
    @start()
    async def first(self) -> str:
        return await self.awaited("first")

    @listen(first)
    def breaks(self) -> str:
        raise LookupError("no tea")


class Inside(Noting):
    """A flow in a step of another: its tokens are counted in both."""

    @start()
    async def first(self) -> str:
        inner = Awaiting(recorder=self.recorder, crew=self.crew)
        return str(await inner.kickoff_async(inputs={"topic": "inner tea"}))

    @listen(first)
    def second(self) -> str:
        inner = InSyncSteps(recorder=self.recorder, crew=self.crew)
        return str(inner.kickoff(inputs={"topic": "innermost tea"}))


class Stored(FlowPersistence):
    """Keeps states in memory."""

    recorder: SkipValidation[Any]

    def init_db(self) -> None:
        return None

    def save_state(self, flow_uuid: str, method_name: str, state_data: Any) -> None:
        seen = state_data["seen"] if isinstance(state_data, dict) else state_data.seen
        self.recorder.note("stored", method_name, seen=list(seen))

    def load_state(self, flow_uuid: str) -> None:
        return None


@persist()
class Persisted(InSyncSteps):
    pass


class Untyped(Flow[Any]):
    recorder: SkipValidation[Any]
    crew: SkipValidation[Any]

    @start()
    def first(self) -> str:
        self.recorder.note("step", "first", state={key: value for key, value in self.state.items() if key != "id"})
        self.state["seen"] = "first"
        return "first"


def of(kind: Any, answers: int = 0, **fields: Any) -> Any:
    """Builds a flow of that kind, with a crew that has so many answers."""

    def build(recorder: Recorder) -> Any:
        crew: Crew = solo(recorder, [final(f"answer {number}") for number in range(answers)])
        return kind(recorder=recorder, crew=crew, **fields)

    return build


def persisted(recorder: Recorder) -> Any:
    return of(Persisted, 1, persistence=Stored(recorder=recorder))(recorder)


CASES = [
    Case("flow, awaited crews", of(Awaiting, 2), kind="flow", hooks=True),
    Case("flow, crews in sync steps", of(InSyncSteps, 1), kind="flow", hooks=True),
    Case("flow, no events of its own", of(Awaiting, 2, suppress_flow_events=True), kind="flow"),
    Case("flow, router", of(Routed), kind="flow"),
    Case("flow, steps beside each other", of(Joined), kind="flow", concurrent=("method_execution_started",)),
    Case("flow, a step raises", of(Failing, 1), kind="flow"),
    Case("flow, flows inside", of(Inside, 3), kind="flow"),
    Case("flow, persisted", persisted, kind="flow"),
    Case("flow, state without a type", of(Untyped), kind="flow"),
    Case("flow, twice", of(Awaiting, 4), kind="flow", rounds=({"topic": "tea"}, {"topic": "coffee"})),
]
