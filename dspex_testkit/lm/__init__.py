"""A language model to test against: a script, an engine for DSPy that plays it, and an HTTP server that does."""
