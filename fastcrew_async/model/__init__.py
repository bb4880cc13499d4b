"""Model calls over HTTP: a client of the chat completions protocol on the core, and the model that uses it."""
