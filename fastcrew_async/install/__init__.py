"""Putting every crew of the process on the engine, and taking it off again."""
