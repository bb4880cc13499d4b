"""Stock CrewAI beside ours: the same case is run by both and everything a user can observe is compared."""
