"""Load on a pool: when calls arrive, what they are, how long they took, and what the process grew by meanwhile."""
