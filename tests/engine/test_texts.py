from __future__ import annotations

from typing import Any

import pytest
from crewai import Agent, Crew, Task
from crewai.core.providers import content_processor

from fastcrew_async.engine.texts import interpolate, key_of_crew, key_of_task
from fastcrew_async.testing import ScriptedLLM

STOCK = Crew._interpolate_inputs


def make(description: str = "{a} and {b_1}", expected: str = 'a {a} {"json": {a}}', output_file: Any = None) -> Any:
    agent = Agent(role="{a} role", goal="goal {b_1}", backstory="none", llm=ScriptedLLM(["x"]))
    task = Task(description=description, expected_output=expected, agent=agent, output_file=output_file)
    return Crew(agents=[agent], tasks=[task])


def texts(crew: Any) -> list[Any]:
    (agent,), (task,) = crew.agents, crew.tasks
    shown = [getattr(agent, name) for name in ("role", "goal", "backstory")]
    shown += [getattr(agent, f"_original_{name}") for name in ("role", "goal", "backstory")]
    names = ("description", "expected_output", "output_file")
    return [*shown, *(getattr(task, name) for name in names), *(getattr(task, f"_original_{name}") for name in names)]


CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"a": "A", "b_1": 3}, {}),
    ({"a": ["x", {"y": 1}], "b_1": None}, {}),
    ({"a": "{b_1}", "b_1": "B"}, {}),
    ({"a": "A", "b_1": "B"}, {"output_file": "out/{a}.md"}),
    ({"a": "A", "b_1": "B", "crew_chat_messages": '[{"role": "user", "content": "hi"}]'}, {}),
    ({}, {"description": "plain", "expected": "plain"}),
    ({"unused": 1.5, "a": "", "b_1": True}, {"description": "no placeholder", "expected": "none"}),
]


@pytest.mark.parametrize(("inputs", "made"), CASES)
def test_gives_the_texts_and_the_keys_that_crewai_gives(inputs: dict[str, Any], made: dict[str, Any]) -> None:
    ours, theirs = make(**made), make(**made)
    for _ in range(2):  # the second time the originals are known
        interpolate(ours, inputs)
        STOCK(theirs, inputs)
        assert texts(ours) == texts(theirs)
    assert key_of_crew(ours) == ours.key == theirs.key
    assert key_of_task(ours.tasks[0]) == ours.tasks[0].key


@pytest.mark.parametrize(
    ("inputs", "made"),
    [({"a": 1}, {}), ({"a": object(), "b_1": 1}, {}), ({"b_1": 1}, {"description": "x", "expected": "{gone}"})],
)
def test_raises_what_crewai_raises(inputs: dict[str, Any], made: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError)) as theirs:
        STOCK(make(**made), inputs)
    with pytest.raises(type(theirs.value)) as ours:
        interpolate(make(**made), inputs)
    assert str(ours.value) == str(theirs.value)


def test_methods_of_the_user_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loud(Task):
        def interpolate_inputs_and_add_conversation_history(self, inputs: dict[str, Any]) -> None:
            super().interpolate_inputs_and_add_conversation_history(inputs)
            self.description += "!"

        @property
        def key(self) -> str:
            return "mine"

    agent = Agent(role="r", goal="g", backstory="b", llm=ScriptedLLM(["x"]))
    crew = Crew(agents=[agent], tasks=[Loud(description="{a}", expected_output="e", agent=agent)])
    interpolate(crew, {"a": "A"})
    assert crew.tasks[0].description == "A!"
    assert key_of_task(crew.tasks[0]) == "mine"
    assert key_of_crew(crew) == crew.key

    class Upper:
        def process(self, content: str, context: dict[str, Any] | None = None) -> str:
            return content + "!"

    token = content_processor._content_processor.set(Upper())
    try:
        ours, theirs = make(), make()
        interpolate(ours, {"a": "x", "b_1": "y"})
        STOCK(theirs, {"a": "x", "b_1": "y"})
        assert texts(ours) == texts(theirs)
        assert ours.tasks[0].description == "x and y!"
    finally:
        content_processor._content_processor.reset(token)
