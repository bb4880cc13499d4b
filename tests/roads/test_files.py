"""Files given to a kickoff (``input_files``), in CrewAI's file store."""

from __future__ import annotations

import pytest


def test_files_need_a_package_of_their_own() -> None:
    pytest.importorskip("crewai_files", reason="crewai-files is not installed: CrewAI then takes no files")
