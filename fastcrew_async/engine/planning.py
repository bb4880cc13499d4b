"""A crew's plan: an agent is asked for the steps of each task before the first one, and they are added to its text.

Source: ``Crew._handle_crew_planning`` and ``crewai/utilities/planning_handler.py`` of CrewAI 1.15.30.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from crewai.crew import Crew
from crewai.llms.base_llm import BaseLLM
from crewai.utilities.planning_handler import CrewPlanner, PlannerTaskPydanticOutput

from fastcrew_async.engine.effects import Blocking
from fastcrew_async.engine.seams import replaced
from fastcrew_async.engine.task import run_task

_STOCK: Any = import_module("crewai.crew")
_STOCK_CREW = Crew._handle_crew_planning
_STOCK_PLANNER = CrewPlanner._handle_crew_planning


async def plan(crew: Any) -> None:
    """Add to the description of each task the plan for it.

    Raises:
        ValueError: the planning agent's answer is no plan.
    """
    if (
        replaced(crew, "_handle_crew_planning", _STOCK_CREW)
        or CrewPlanner._handle_crew_planning is not _STOCK_PLANNER
        or _STOCK.CrewPlanner is not CrewPlanner
    ):
        await Blocking(crew._handle_crew_planning)
        return
    crew._logger.log("info", "Planning the crew execution")
    planner = CrewPlanner(tasks=crew.tasks, planning_agent_llm=crew.planning_llm)
    if isinstance(planner.planning_agent_llm, BaseLLM):
        agent = planner._create_planning_agent()
    else:
        agent = await Blocking(planner._create_planning_agent)  # a model by name: its provider is imported
    task = planner._create_planner_task(planning_agent=agent, tasks_summary=planner._create_tasks_summary())
    output = await run_task(task, None, None, None)
    if not isinstance(output.pydantic, PlannerTaskPydanticOutput):
        raise ValueError("Failed to get the Planning output")
    plans: dict[int, str] = {}
    for step in output.pydantic.list_of_plans_per_task:
        if step.task_number in plans:
            crew._logger.log("warning", f"Duplicate plan for Task Number {step.task_number}, using the first plan")
        else:
            plans[step.task_number] = step.plan
    for number, of_crew in enumerate(crew.tasks, start=1):
        if number in plans:
            of_crew.description += plans[number]
        else:
            crew._logger.log("warning", f"No plan found for Task Number {number}")
