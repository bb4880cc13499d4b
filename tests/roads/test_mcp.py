"""Tools of MCP servers: in this process, behind standard input, and one written with the ``mcp`` package."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from crewai.mcp import MCPServerStdio
from crewai.tools.mcp_native_tool import MCPNativeTool
from pydantic import BaseModel

from fastcrew_async import workers
from fastcrew_async.testing import Reply, Request, ToolCall
from tests.roads.at_once import FEW, answers, at_once, of, topics
from tests.roads.crews import LATENCY, calling, crew

# The protocol by hand: it starts in a moment, where one with the package takes a second of CPU.
SERVER = """
import json, sys
TOOL = {"name": "ping", "description": "Answers pong with the text.", "inputSchema":
        {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}}
for line in sys.stdin:
    asked = json.loads(line)
    method, given = asked.get("method"), asked.get("params") or {}
    if method == "initialize":
        answer = {"protocolVersion": given["protocolVersion"], "capabilities": {"tools": {}},
                  "serverInfo": {"name": "pinger", "version": "1"}}
    elif method == "tools/list":
        answer = {"tools": [TOOL]}
    elif method == "tools/call":
        answer = {"content": [{"type": "text", "text": "pong " + given["arguments"]["text"]}], "isError": False}
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": answer}), flush=True)
"""
WITH_THE_PACKAGE = """
from mcp.server.fastmcp import FastMCP
server = FastMCP("pinger")
@server.tool()
def ping(text: str) -> str:
    "Answers pong with the text."
    return "pong " + text
server.run()
"""


def pinging(request: Request) -> Reply | str:
    """Calls the one tool that is offered; its name is made of its server's."""
    offered = re.search(r"Tool Name: (\S+)", request.text)
    name = request.tools[0] if request.tools else (offered[1] if offered else "")
    return calling(name, lambda topic: {"text": f"<{topic}>"})(request)


class Client:
    """A client of a server that is only here."""

    threads: set[int]
    live = 0
    most = 0

    def __init__(self) -> None:
        self.open = False

    async def connect(self) -> None:
        await asyncio.sleep(0)
        self.open = True
        Client.live += 1
        Client.most = max(Client.most, Client.live)

    async def call_tool_result(self, name: str, arguments: dict[str, Any]) -> Any:
        assert self.open
        assert name == "ping"
        while Client.most < FEW:  # the calls of several runs are under way together, or this never ends
            await asyncio.sleep(LATENCY)
        Client.threads.add(threading.get_ident())
        if "fail" in arguments["text"]:
            raise ConnectionError(arguments["text"])
        return SimpleNamespace(content=f"pong {arguments['text']}", is_error=False)

    async def disconnect(self) -> None:
        Client.live -= 1
        self.open = False


class Text(BaseModel):
    text: str


def tool() -> MCPNativeTool:
    return MCPNativeTool(Client, "ping", {"description": "Pings.", "args_schema": Text}, "pinger")


@pytest.mark.parametrize("native", [False, True], ids=["react", "native"])
async def test_a_call_is_awaited_on_the_loop(native: bool) -> None:
    Client.threads, Client.most = set(), 0
    seen = await at_once(of(crew(pinging, native=native, tools=[tool()])))
    assert seen.texts == answers()
    assert seen.threads == []
    assert Client.threads == {threading.get_ident()}
    assert Client.most >= FEW
    assert Client.live == 0


async def test_a_call_that_fails_is_told_to_the_model() -> None:
    Client.threads = set()

    def failing(request: Request) -> Reply | str:
        if "Error executing MCP tool ping: fail" in request.text:
            return "seen"
        return Reply(tool_calls=[ToolCall("pinger_ping", {"text": "fail"})])

    seen = await at_once(of(crew(failing, native=True, tools=[tool()])), runs=5)
    assert seen.texts == ["seen"] * 5
    assert Client.live == 0


@pytest.mark.parametrize("native", [False, True], ids=["react", "native"])
async def test_a_server_behind_standard_input(tmp_path: Path, native: bool) -> None:
    program = tmp_path / "server.py"
    program.write_text(SERVER)
    server = MCPServerStdio(command=sys.executable, args=["-S", str(program)])
    seen = await at_once(of(crew(pinging, native=native, mcps=[server])), runs=5)
    assert seen.texts == answers(5)
    pool = [name for name in seen.threads if name.startswith("fastcrew-worker")]
    assert len(pool) <= workers.pool().max_workers


async def test_a_server_written_with_the_package(tmp_path: Path) -> None:
    pytest.importorskip("mcp.server.fastmcp", reason="the mcp package is not installed")
    program = tmp_path / "server.py"
    program.write_text(WITH_THE_PACKAGE)
    server = MCPServerStdio(command=sys.executable, args=[str(program)])
    seen = [await of(crew(pinging, native=True, mcps=[server]))(topic) for topic in topics(1)]
    assert [result.raw for result in seen] == answers(1)
