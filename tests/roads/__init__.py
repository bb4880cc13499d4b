"""Every road of CrewAI's execution layer, fifty runs at once on one event loop."""
