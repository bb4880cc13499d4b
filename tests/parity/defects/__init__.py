"""Defects of CrewAI: what it does, and what we do; one file for each kind."""
