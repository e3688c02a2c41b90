"""The session-aware public API on a pool, and the same API on one process."""
