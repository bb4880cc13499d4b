"""The core's classes in plain Python, with the same signatures: correct everywhere, fast nowhere."""
