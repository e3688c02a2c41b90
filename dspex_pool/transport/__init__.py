"""How the pool reaches a worker: the port protocol and its implementations."""
