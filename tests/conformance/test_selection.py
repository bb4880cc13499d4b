"""All of CrewAI's tests are run, but for what is named."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.selection import LEFT_OUT_FILES, LEFT_OUT_FOLDERS, PART, whole, within


def test_what_is_new_in_the_suite_is_run(tmp_path: Path):
    for folder in ("llms", "agents", "quantum"):
        (tmp_path / folder).mkdir()
    for file in ("conftest.py", "utils.py", "test_crew.py", *LEFT_OUT_FILES):
        (tmp_path / file).touch()
    assert whole(tmp_path) == ["test_crew.py", "agents", "quantum"]


def test_the_part_is_in_the_whole():
    assert not [file for file in PART if file in LEFT_OUT_FILES or file.split("/")[0] in LEFT_OUT_FOLDERS]


def test_a_test_belongs_to_its_file_and_folder():
    assert within("test_task.py::test_one", ["test_task.py"])
    assert within("agents/test_agent.py::TestOne::test_two", ["agents"])
    assert not within("task/test_async_task.py::test_one", ["test_task.py", "tas"])
