"""Kickoffs that are cancelled at random moments, in crowds, and what they must not leave behind."""
