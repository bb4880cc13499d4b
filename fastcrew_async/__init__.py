"""An asyncio-native runtime for CrewAI: crews on your event loop, on a Rust core."""
