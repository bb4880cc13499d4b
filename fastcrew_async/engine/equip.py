"""An agent's executor for one execution: chosen, and given its tools, prompt and stop words.

Source: ``crewai/agent/core.py: Agent.create_agent_executor`` of CrewAI 1.15.30. What it renders there for every task
(the JSON schema of each tool, the prompt of the agent) is rendered once per schema and per set of texts here.
"""

from __future__ import annotations

import copy
import sys
from collections import OrderedDict
from typing import Any

from crewai.agent.core import Agent
from crewai.agents.agent_executor import AgentExecutor as StockAgentExecutor
from crewai.llms.base_llm import BaseLLM
from crewai.task import Task
from crewai.utilities.i18n import I18N_DEFAULT
from crewai.utilities.prompts import Prompts

from fastcrew_async.engine.executor import AgentExecutor, new_executor
from fastcrew_async.engine.fields import private, put
from fastcrew_async.engine.seams import replaced
from fastcrew_async.engine.structured_tool import structured
from fastcrew_async.engine.tool_call import tool_names
from fastcrew_async.engine.tool_schema import describe

_STOCK_CREATE: Any = Agent.create_agent_executor
_STOCK_UPDATE = Agent._update_executor_parameters
_STOCK_PROMPT = Agent._build_execution_prompt
_PROMPTS_KEPT = 512

_prompts: OrderedDict[tuple[Any, ...], Any] = OrderedDict()


def create_agent_executor(agent: Agent, tools: Any = None, task: Task | None = None) -> None:
    """``Agent.create_agent_executor`` that makes the engine's executor; ``install()`` puts it in that place."""
    if ready_executor(agent) is None or not _equip(agent, tools, task):
        _STOCK_CREATE(agent, tools=tools, task=task)


def set_up_executor(agent: Any, tools: Any, task: Task) -> None:
    """Give the executor that :func:`ready_executor` chose what this task needs; by the user's own method if they have
    one."""
    current = getattr(type(agent), "create_agent_executor", None)
    own = current is _STOCK_CREATE or getattr(current, "__wrapped__", None) is _STOCK_CREATE
    if not own or "create_agent_executor" in agent.__dict__:
        agent.create_agent_executor(tools=tools, task=task)
    elif not _equip(agent, tools, task):
        _STOCK_CREATE(agent, tools=tools, task=task)


def makes_executor(agent: Any) -> bool:
    """Whether :func:`ready_executor` gives one: not where the user chose a class that has not been made yet."""
    return agent.agent_executor is not None or agent.executor_class in (StockAgentExecutor, AgentExecutor)


def ready_executor(agent: Any) -> Any:
    """The executor for one execution: the agent's own when it is idle, a new one when it is busy.

    An ``executor_class`` that the user chose is left alone.

    Raises:
        RuntimeError: the agent's model has not been resolved.
    """
    executor = agent.agent_executor
    busy = False
    if agent.executor_class not in (StockAgentExecutor, AgentExecutor):
        return executor
    if executor is not None:
        if type(executor) not in (StockAgentExecutor, AgentExecutor) or executor._resuming:
            return executor  # put there by the user, or by a checkpoint
        taken = type(executor) is AgentExecutor and (executor._is_executing or executor._reserved)
        idle = type(executor) is AgentExecutor and not taken
        busy = taken and not executor._retried
        if idle:
            executor._beside = False
            return executor
    if not isinstance(agent.llm, BaseLLM):
        raise RuntimeError("LLM must be resolved before creating agent executor.")
    executor = new_executor(agent)
    executor._beside = busy
    put(agent, agent_executor=executor)
    return executor


def _equip(agent: Any, tools: Any, task: Task | None) -> bool:
    """Set the parameters of the agent's executor. False where CrewAI's own methods have to do it."""
    executor = agent.agent_executor
    if type(executor) is not AgentExecutor or replaced(agent, "_update_executor_parameters", _STOCK_UPDATE):
        return False
    if not isinstance(agent.llm, BaseLLM):
        raise RuntimeError("LLM must be resolved before updating agent executor parameters.")
    raw_tools = list(tools if tools is not None else agent.tools or [])
    skills = sys.modules.get("crewai.skills.tool")  # where nothing has imported it, nobody has such a tool
    if agent.skills or (skills and any(isinstance(tool, skills.LoadSkillTool) for tool in raw_tools)):
        raw_tools = agent._add_skill_loader_tool(raw_tools, task=task)
    parsed = structured(raw_tools)
    prompt, stop_words, rate_check = prompt_of(agent, raw_tools)
    fields = {
        "llm": agent.llm,
        "tools": parsed,
        "original_tools": raw_tools,
        "prompt": prompt,
        "stop_words": stop_words,
        "tools_names": tool_names(parsed),
        "tools_description": describe(parsed),
        "response_model": (task.response_model or task.output_pydantic or task.output_json) if task else None,
        "tools_handler": _tools_handler(agent, executor),
        "request_within_rpm_limit": rate_check,
        "use_better_compaction": agent.use_better_compaction,
    }
    if task is not None:
        fields["task"] = task
    executor.__dict__.update(fields)
    return True


def _tools_handler(agent: Any, executor: AgentExecutor) -> Any:
    """The agent's, which remembers the last call so that it is not repeated. An execution beside another one of the
    agent remembers for itself; the cache of results is the same."""
    handler = agent.tools_handler
    if handler is None or not executor._beside:
        return handler
    own = copy.copy(handler)
    own.last_used_tool = None
    return own


def prompt_of(agent: Any, tools: list[Any]) -> tuple[Any, list[str], Any]:
    """``Agent._build_execution_prompt``: the prompt, the stop words, and what holds the agent to its rate."""
    if agent.skills or agent.inject_date or replaced(agent, "_build_execution_prompt", _STOCK_PROMPT):
        prompt, stop_words, rate_check = agent._build_execution_prompt(tools)
        return prompt, stop_words, rate_check
    native = agent._supports_native_tool_calling(tools)
    templates = (agent.system_template, agent.prompt_template, agent.response_template)
    key = (agent.role, agent.goal, agent.backstory, bool(tools), native, agent.use_system_prompt, *templates)
    prompt = _prompts.get(key)
    if prompt is None:
        prompt = Prompts(
            agent=agent,
            has_tools=bool(tools),
            use_native_tool_calling=native,
            use_system_prompt=agent.use_system_prompt,
            system_template=agent.system_template,
            prompt_template=agent.prompt_template,
            response_template=agent.response_template,
        ).task_execution()
        _prompts[key] = prompt
        if len(_prompts) > _PROMPTS_KEPT:
            _prompts.popitem(last=False)
    stop_words = [I18N_DEFAULT.slice("observation")]
    if agent.response_template:
        stop_words.append(agent.response_template.split("{{ .Response }}")[1].strip())
    controller = private(agent)["_rpm_controller"]
    return prompt, stop_words, controller.check_or_wait if controller else None
