"""Histories of what was asked of a pool, and checks of what became of it."""
