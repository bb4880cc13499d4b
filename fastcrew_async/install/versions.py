"""Whether the installed CrewAI is one that the engine was made for."""

from __future__ import annotations

import importlib
from importlib import metadata

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from fastcrew_async.errors import UnsupportedCrewAIError

SUPPORTED = SpecifierSet(">=1.15.29,<1.16")

# What the engine calls or stands in for, beyond what its imports check by themselves. "module:Class.attribute".
NAMES = (
    "crewai.agent.core:AgentExecutor",
    "crewai.agent.core:Agent.aexecute_task",
    "crewai.agent.core:Agent.create_agent_executor",
    "crewai.agent.core:Agent.execute_task",
    "crewai.agent.core:Agent._check_execution_error",
    "crewai.agent.core:Agent._emit_skill_usage",
    "crewai.agent.core:Agent._finalize_task_execution",
    "crewai.agent.core:Agent._is_any_available_memory",
    "crewai.agent.core:Agent._retrieve_memory_context",
    "crewai.agent.core:_passthrough_exceptions",
    "crewai.agents.agent_executor:AgentExecutor.flow_definition",
    "crewai.agents.agent_executor:AgentExecutor.kickoff_async",
    "crewai.agents.agent_executor:AgentExecutor.invoke_async",
    "crewai.agents.agent_executor:AgentExecutor._ahandle_human_feedback",
    "crewai.agents.agent_executor:AgentExecutor._ainject_files_from_inputs",
    "crewai.agents.agent_executor:AgentExecutor._cleanup_deferred_tool_results",
    "crewai.agents.agent_executor:AgentExecutor._copy_and_serialize_state",
    "crewai.agents.agent_executor:AgentExecutor._downgrade_to_text_tool_calling",
    "crewai.agents.agent_executor:AgentExecutor._execute_single_native_tool_call",
    "crewai.agents.agent_executor:AgentExecutor._owns_execution_boundary",
    "crewai.agents.agent_executor:AgentExecutor._prepare_tool_result_for_context",
    "crewai.agents.agent_executor:AgentExecutor._save_to_memory",
    "crewai.agents.agent_executor:AgentExecutor._setup_messages",
    "crewai.agents.agent_executor:AgentExecutor._should_parallelize_native_tool_calls",
    "crewai.agents.agent_executor:AgentExecutor._show_logs",
    "crewai.agents.agent_executor:AgentExecutor._show_start_logs",
    "crewai.agents.agent_executor:AgentExecutorState",
    "crewai.agents.agent_executor:execute_tool_and_check_finality",
    "crewai.crew:Crew.akickoff",
    "crewai.crew:Crew.akickoff_for_each",
    "crewai.crew:Crew.kickoff",
    "crewai.crew:Crew.kickoff_async",
    "crewai.crew:Crew.kickoff_for_each",
    "crewai.crew:Crew.kickoff_for_each_async",
    "crewai.crew:Crew.replay",
    "crewai.crew:Crew._aexecute_tasks",
    "crewai.crew:Crew._arun_hierarchical_process",
    "crewai.crew:Crew._arun_sequential_process",
    "crewai.crew:Crew._create_manager_agent",
    "crewai.crew:Crew._dispatch_execution_end_failure",
    "crewai.crew:Crew._drain_memory_writes",
    "crewai.crew:Crew._execute_tasks",
    "crewai.crew:Crew._get_execution_start_index",
    "crewai.crew:Crew._prepare_tools",
    "crewai.crew:Crew._store_execution_log",
    "crewai.crews.utils:_extract_files_from_inputs",
    "crewai.crews.utils:_resolve_crew_skills",
    "crewai.events.event_bus:CrewAIEventsBus.emit",
    "crewai.events.event_bus:CrewAIEventsBus._enter_runtime_scope",
    "crewai.events.event_bus:CrewAIEventsBus._exit_runtime_scope",
    "crewai.events.event_context:_event_id_stack",
    "crewai.llms.base_llm:LLMCallBlockedError",
    "crewai.task:Task._aexecute_core",
    "crewai.task:Task._execute_core",
    "crewai.task:Task._export_output",
    "crewai.task:Task._save_file",
    "crewai.tools.tool_usage:ToolUsage._select_tool",
    "crewai.utilities.agent_utils:_prepare_llm_call",
    "crewai.utilities.agent_utils:_proactively_summarize_context",
    "crewai.utilities.agent_utils:_validate_and_finalize_llm_response",
    "crewai.utilities.file_store:_CREW_PREFIX",
    "crewai.utilities.task_output_storage_handler:TaskOutputStorageHandler.load",
)


def check() -> None:
    """Raise unless CrewAI is of a supported version and has every name the engine needs.

    Raises:
        UnsupportedCrewAIError: names the version, or the missing name.
    """
    try:
        version = metadata.version("crewai")
    except metadata.PackageNotFoundError:
        raise UnsupportedCrewAIError(f"CrewAI is not installed; install crewai{SUPPORTED}") from None
    if not SUPPORTED.contains(Version(version), prereleases=True):
        raise UnsupportedCrewAIError(
            f"CrewAI {version} is not supported: this release is made for crewai{SUPPORTED}; install one of "
            "those, or a release of fastcrew-async made for yours"
        )
    missing = [name for name in NAMES if not _exists(name)]
    if missing:
        raise UnsupportedCrewAIError(
            f"CrewAI {version} lacks {missing[0]}, which the engine needs; it was changed after its release, or by "
            f"another package (crewai{SUPPORTED} as published has it)"
        )


def _exists(name: str) -> bool:
    module, _, path = name.partition(":")
    try:
        found: object = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return False
    return True
