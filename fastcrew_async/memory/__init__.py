"""Agents' memory in the core: CrewAI's storage protocol on SQLite and memory-mapped vectors."""
