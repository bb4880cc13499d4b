"""What a scripted model is asked and what it answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias


@dataclass(frozen=True)
class ToolCall:
    """The model wants ``name`` called with ``arguments``, which must be JSON values."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


Latency: TypeAlias = "float | Callable[[], float]"
"""Seconds that an answer takes, or a function that draws them: ``lambda: random.lognormvariate(0, 0.5)``."""

Fault: TypeAlias = Literal["stall", "cut", "malformed", "slow"]
"""What goes wrong with an answer of the server: it never comes, it ends half-way, its JSON is broken, or it comes byte
by byte with ``pace`` seconds between two."""


@dataclass(frozen=True)
class Reply:
    """One answer of the model: text, or tool calls, or a refusal.

    A ``status`` of 400 and up refuses, with the text as the error's message, and ``error`` as its further fields.
    ``latency``, in seconds or a function that gives them, replaces the server's or model's own. The token counts are
    what ``usage`` will say. ``fault`` and ``pace``, the seconds between two events, are for :class:`ModelServer`.
    """

    content: str = ""
    tool_calls: Sequence[ToolCall] = ()
    prompt_tokens: int = 10
    completion_tokens: int = 5
    latency: Latency | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    finish_reason: str | None = None
    fault: Fault | None = None
    pace: float = 0.0
    error: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def rate_limited(cls, retry_after: float | None = None, **headers: str) -> Reply:
        """A refusal with status 429; ``retry_after`` in seconds, underscores of header names are dashes."""
        own = {name.replace("_", "-"): value for name, value in headers.items()}
        if retry_after is not None:
            own["retry-after"] = f"{retry_after:g}"
        error = {"type": "requests", "code": "rate_limit_exceeded"}
        return cls("Rate limit reached", status=429, headers=own, error=error)

    @classmethod
    def context_length_exceeded(cls, limit: int = 8192) -> Reply:
        """The refusal of a prompt that is too long for the model, as OpenAI words it."""
        text = f"This model's maximum context length is {limit} tokens. However, your messages resulted in more."
        error = {"type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}
        return cls(text, status=400, error=error)

    @property
    def usage(self) -> dict[str, Any]:
        """The token counts in OpenAI's form."""
        usage: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }
        if self.cached_tokens:
            usage["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        if self.reasoning_tokens:
            usage["completion_tokens_details"] = {"reasoning_tokens": self.reasoning_tokens}
        return usage

    def functions(self, prefix: str) -> list[dict[str, Any]]:
        """The tool calls in OpenAI's form; their ids begin with ``prefix``."""
        return [
            {
                "id": f"{prefix}_{index}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
            }
            for index, call in enumerate(self.tool_calls)
        ]

    def react(self) -> str:
        """The reply in CrewAI's text form (ReAct), for models without tool calls; of several, the first."""
        if self.tool_calls:
            call = self.tool_calls[0]
            thought = self.content or "a tool will help"
            return f"Thought: {thought}\nAction: {call.name}\nAction Input: {json.dumps(dict(call.arguments))}"
        if "Final Answer:" in self.content:
            return self.content
        return f"Thought: I now know the final answer\nFinal Answer: {self.content}"


@dataclass(frozen=True)
class Request:
    """One question to the model: its messages, the names of the tools it offers, and the body as it came."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[str] = ()
    stream: bool = False
    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    """The HTTP headers, their names in lower case; only :class:`ModelServer` has any."""

    @classmethod
    def from_body(cls, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Request:
        """A request out of an OpenAI chat completions body."""
        tools = [tool["function"]["name"] for tool in body.get("tools") or ()]
        return cls(body["messages"], tools, bool(body.get("stream")), body, headers or {})

    @property
    def text(self) -> str:
        """The text of all messages, one after another."""
        return "\n".join(str(message.get("content") or "") for message in self.messages)

    @property
    def tool_results(self) -> list[str]:
        """What the tools called so far have answered (native tool calls only)."""
        return [str(message.get("content")) for message in self.messages if message.get("role") == "tool"]


# A function of the request; or the replies in order, of which the last is given again and again; or one reply for all.
Script = Callable[[Request], Reply | ToolCall | str] | Sequence[Reply | ToolCall | str] | Reply | ToolCall | str


class Prompter:
    """Gives out the replies of a script, from any thread."""

    def __init__(self, script: Script) -> None:
        if not callable(script) and not isinstance(script, (str, Reply, ToolCall)) and not script:
            raise ValueError("the script is empty: give it at least one reply")
        self._script = script
        self._given = 0
        self._lock = threading.Lock()

    def reply(self, request: Request) -> Reply:
        """The answer to `request`."""
        script = self._script
        if callable(script):
            answer = script(request)
        elif isinstance(script, (str, Reply, ToolCall)):
            answer = script
        else:
            with self._lock:
                answer = script[min(self._given, len(script) - 1)]
                self._given += 1
        if isinstance(answer, str):
            return Reply(answer)
        if isinstance(answer, ToolCall):
            return Reply(tool_calls=[answer])
        if not isinstance(answer, Reply):
            raise TypeError(f"a script's reply must be a str, a Reply or a ToolCall, got {answer!r}")
        return answer


def seconds(latency: Latency) -> float:
    """A latency, drawn where it is a function."""
    return max(0.0, latency()) if callable(latency) else latency
