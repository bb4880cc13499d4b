"""CrewAI's task outputs, crew outputs and events as plain bodies, and back.

A ``pydantic`` result is written with the name of its class. No class is looked up when it is read: the result has the
same fields and is a :class:`Result`, which a program turns into its own by ``Report.model_validate(dict(result))``.
"""

from __future__ import annotations

from typing import Any

from crewai.crews.crew_output import CrewOutput
from crewai.events.base_events import BaseEvent
from crewai.events.types.task_events import TaskCompletedEvent
from crewai.state.event_record import _resolve_event
from crewai.tasks.task_output import TaskOutput
from crewai.types.usage_metrics import UsageMetrics
from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from fastcrew_async.codec import Unknown
from fastcrew_async.engine.beside import Beside
from fastcrew_async.errors import DecodeError, EncodeError


class _Kept:
    unknown: Unknown | None = None


_kept: Beside[_Kept] = Beside(_Kept)


class Result(BaseModel):
    """A structured result that was read from a document: the fields of the class that ``class_name`` names."""

    model_config = ConfigDict(extra="allow")

    _class_name: str = PrivateAttr("")

    @property
    def class_name(self) -> str:
        """Module and name of the class that it was an instance of."""
        return self._class_name


def body_of(document: Any) -> tuple[str, dict[str, Any], Unknown | None]:
    """The kind and the body of one of CrewAI's objects.

    Raises:
        EncodeError: it is none of them.
    """
    if isinstance(document, TaskOutput):
        kind, body = "task_output", _task_body(document)
    elif isinstance(document, CrewOutput):
        kind, body = "crew_output", _crew_body(document)
    elif isinstance(document, BaseEvent):
        kind, body = "event", _event_body(document)
    else:
        raise EncodeError(
            f"{type(document).__name__} is no document; use an AgentMessage, RunState, TaskOutput, CrewOutput, an "
            "event, or plain values"
        )
    kept = _kept.of(document).unknown
    if kept is not None:
        body.update(kept.fields)
    return kind, body, kept


def made(kind: str, body: dict[str, Any], around: dict[str, Any]) -> Any:
    """The object for a body.

    Raises:
        DecodeError: a field has a value of a wrong type.
    """
    body = dict(body)
    try:
        if kind == "task_output":
            document: Any = _task(body)
        elif kind == "crew_output":
            document = _crew(body)
        else:
            document = _event(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in (kind, *first["loc"]))
        raise DecodeError(f"{place}: {first['msg']}") from error
    unknown = {name: value for name, value in body.items() if name not in type(document).model_fields}
    if unknown or around:
        _kept.of(document).unknown = Unknown(unknown, around)
    return document


def unknown_of(document: Any) -> Unknown | None:
    return _kept.of(document).unknown


def _task_body(output: TaskOutput) -> dict[str, Any]:
    body: dict[str, Any] = {"description": output.description}
    for name in ("name", "expected_output", "summary"):
        value = getattr(output, name)
        if value is not None:
            body[name] = value
    body["raw"] = output.raw
    _add_results(body, output)
    body["agent"] = output.agent
    body["output_format"] = output.output_format.value
    if output.messages:
        body["messages"] = output.messages
    if output.tool_failures:
        body["tool_failures"] = [failure.model_dump(mode="json") for failure in output.tool_failures]
    return body


def _add_results(body: dict[str, Any], output: TaskOutput | CrewOutput) -> None:
    if output.pydantic is not None:
        body["pydantic"] = _model_body(output.pydantic)
    if output.json_dict is not None:
        body["json_dict"] = output.json_dict


def _model_body(model: BaseModel) -> dict[str, Any]:
    cls = type(model)
    name = model.class_name if isinstance(model, Result) else f"{cls.__module__}.{cls.__qualname__}"
    return {"class_name": name, "fields": model.model_dump(mode="json")}


def _model(body: Any) -> Result | None:
    if body is None:
        return None
    if not isinstance(body, dict) or not isinstance(body.get("fields", {}), dict):
        raise DecodeError("pydantic must be a map of class_name and fields")
    result = Result.model_validate(body.get("fields", {}))
    result._class_name = str(body.get("class_name", ""))
    return result


def _task(body: dict[str, Any]) -> TaskOutput:
    fields = {name: value for name, value in body.items() if name in TaskOutput.model_fields}
    messages = fields.pop("messages", None) or []
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise DecodeError("task_output.messages must be a list of maps")
    fields["pydantic"] = _model(fields.get("pydantic"))
    output = TaskOutput.model_validate({"description": "", "agent": "", **fields})
    output.__dict__["messages"] = messages  # validated, they would lose the fields that CrewAI does not declare
    if isinstance(fields.get("summary"), str):
        output.__dict__["summary"] = fields["summary"]
    return output


def _crew_body(output: CrewOutput) -> dict[str, Any]:
    body: dict[str, Any] = {"raw": output.raw}
    _add_results(body, output)
    if output.tasks_output:
        body["tasks_output"] = [body_of(task)[1] for task in output.tasks_output]
    body["token_usage"] = output.token_usage.model_dump()
    return body


def _crew(body: dict[str, Any]) -> CrewOutput:
    fields = {name: value for name, value in body.items() if name in CrewOutput.model_fields}
    tasks = fields.pop("tasks_output", None) or []
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DecodeError("crew_output.tasks_output must be a list of maps")
    fields["pydantic"] = _model(fields.get("pydantic"))
    if fields.get("token_usage") is None:
        fields["token_usage"] = UsageMetrics()
    output = CrewOutput.model_validate(fields)
    output.tasks_output = [made("task_output", task, {}) for task in tasks]
    return output


def _event_body(event: BaseEvent) -> dict[str, Any]:
    output = getattr(event, "output", None)
    if type(event) is TaskCompletedEvent and isinstance(output, TaskOutput):
        body: dict[str, Any] = event.model_dump(mode="json", exclude_none=True, exclude={"output"})
        body["output"] = _task_body(output)
        return body
    try:
        body = event.model_dump(mode="json", exclude_none=True)
    except ValueError:  # it holds an object of the run; CrewAI's own text of it, then
        shown = event.to_json()
        body = {name: value for name, value in shown.items() if value is not None} if isinstance(shown, dict) else {}
    return body


def _event(body: dict[str, Any]) -> BaseEvent:
    values = {"type": "", **body}
    output = values.get("output")
    if values["type"] == "task_completed" and isinstance(output, dict):
        values["output"] = made("task_output", output, {})
    event: BaseEvent = _resolve_event(values)
    return event
