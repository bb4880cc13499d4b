"""The demonstration behind ``fastcrew-async demo``: one crew, this engine beside stock CrewAI."""
