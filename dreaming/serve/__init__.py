"""HTTP: OpenAI's API, our own, and the engine that answers many at once."""
