"""How long is fuzzed: ``30s``, ``10m``, ``2h``."""

from __future__ import annotations

import math
import re
from typing import Final

__all__ = ["in_words", "seconds_of"]

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(text: str) -> float:
    """Read a budget: a number with ``s``, ``m`` or ``h``; a bare number means seconds.

    Raises:
        ValueError: It is no such thing, or nothing is left to do anything in.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", text)
    seconds = float(match[1]) * _UNITS[match[2] or "s"] if match else 0.0
    if not 0 < seconds < math.inf:
        raise ValueError(f"a budget is a time such as 30s, 10m or 2h, not {text!r}")
    return seconds


def in_words(seconds: float) -> str:
    """Write a time as a budget is written, in the largest unit of which there is one."""
    unit, size = next(((unit, size) for unit, size in [*_UNITS.items()][::-1] if seconds >= size), ("s", 1.0))
    return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit}"
