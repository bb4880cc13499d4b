"""CrewAI's own tools that wait for others, on the loop: delegation to a coworker, a search in the memory, and tools of
MCP servers.

CrewAI runs a delegated task, a search with its model, or an event loop for one MCP call, on the thread of the sync
tool. Here the coworker and the search are coroutines of the engine and the MCP client one of the caller's loop, so that
none holds a worker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from crewai.task import Task
from crewai.tools.agent_tools.ask_question_tool import AskQuestionTool
from crewai.tools.agent_tools.base_agent_tools import BaseAgentTool
from crewai.tools.agent_tools.delegate_work_tool import DelegateWorkTool
from crewai.utilities.i18n import I18N_DEFAULT

from fastcrew_async.engine.drivers import Work
from fastcrew_async.engine.paced import Paced
from fastcrew_async.errors import ToolRecursionError

_DELEGATE = DelegateWorkTool._run
_ASK = AskQuestionTool._run
_EXECUTE = BaseAgentTool._execute
# By their names: importing them takes some ms, and few use them.
_MCP = ("crewai.tools.mcp_native_tool", "MCPNativeTool._run")
_SEARCH = ("crewai.tools.memory_tools", "RecallMemoryTool._run")


def in_engine(run: Any) -> Callable[..., Work[Any]] | None:
    """The engine's form of the bound method `run` of a tool that delegates, or searches the memory; None for any other,
    or an overridden one."""
    tool = getattr(run, "__self__", None)
    function = getattr(run, "__func__", None)
    if isinstance(tool, BaseAgentTool):
        own: Any = tool
        if type(tool)._execute is not _EXECUTE or "_execute" in tool.__dict__:
            return None
        if function is _DELEGATE:
            return lambda task, context, coworker=None, **more: _delegate(own, task, context, coworker, more)
        if function is _ASK:
            return lambda question, context, coworker=None, **more: _delegate(own, question, context, coworker, more)
    if _name(function) == _SEARCH:
        searching: Any = tool
        return lambda queries, **more: _search(searching.memory, queries)
    return None


def on_the_loop(run: Any) -> Callable[..., Awaitable[Any]] | None:
    """The async form of the bound method `run` of a server's tool; None for any other, or an overridden one."""
    if _name(getattr(run, "__func__", None)) != _MCP:
        return None
    return lambda **arguments: _call_server(run.__self__, arguments)


def _name(function: Any) -> tuple[Any, Any]:
    return getattr(function, "__module__", None), getattr(function, "__qualname__", None)


async def _search(memory: Any, queries: list[str] | str) -> str:
    """Source: ``crewai/tools/memory_tools.py: RecallMemoryTool._run``."""
    from fastcrew_async.engine.recall import recall  # by those who have a memory: it is not quickly imported

    found: dict[str, str] = {}
    for query in [queries] if isinstance(queries, str) else queries:
        for match in await recall(memory, query, limit=20):
            if match.record.id not in found:
                found[match.record.id] = match.format()
    return "Found memories:\n" + "\n".join(found.values()) if found else "No relevant memories found."


async def _delegate(tool: Any, work: str, context: str, coworker: Any, more: dict[str, Any]) -> Any:
    """Source: ``crewai/tools/agent_tools/base_agent_tools.py: BaseAgentTool._execute``."""
    from fastcrew_async.engine.agent import execute_task  # which imports the tools of its executor

    name = tool._get_coworker(coworker, **more)
    try:
        wanted = tool.sanitize_agent_name("" if name is None else name)
        agent = next((agent for agent in tool.agents if tool.sanitize_agent_name(agent.role) == wanted), None)
    except (AttributeError, ValueError) as error:
        return _no_such_coworker(tool, str(error))
    if agent is None:
        return _no_such_coworker(tool, f"No agent found with role '{wanted}'")
    try:
        task = Task(description=work, agent=agent, expected_output=I18N_DEFAULT.slice("manager_request"))
        return await execute_task(agent, task, context, None)
    except ToolRecursionError:  # it would be told to the model, of which each that hears of it may try again
        raise
    except Exception as error:
        return I18N_DEFAULT.errors("agent_tool_execution_error").format(
            agent_role=tool.sanitize_agent_name(agent.role), error=str(error)
        )


def _no_such_coworker(tool: Any, error: str) -> str:
    coworkers = "\n".join(f"- {tool.sanitize_agent_name(agent.role)}" for agent in tool.agents)
    return I18N_DEFAULT.errors("agent_tool_unexisting_coworker").format(coworkers=coworkers, error=error)


async def _call_server(tool: Any, arguments: dict[str, Any]) -> Any:
    """Source: ``crewai/tools/mcp_native_tool.py: MCPNativeTool._run``."""
    try:
        return await Paced(tool._run_async(**arguments))
    except Exception as error:
        raise RuntimeError(f"Error executing MCP tool {tool.original_tool_name}: {error!s}") from error
