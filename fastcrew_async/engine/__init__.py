"""The engine: CrewAI's execution layer, written once, without I/O, and driven on a loop or in place."""
