"""What is installed next to this worker, found out without importing it."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path

__all__ = ["installed_version", "is_installed"]


@cache
def is_installed(module: str) -> bool:
    """Tell whether a top-level module could be imported."""
    return importlib.util.find_spec(module) is not None


@cache
def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, or ``None``.

    Args:
        distribution: Its name, with underscores for hyphens.
    """
    # importlib.metadata answers the same from the same file names, but its import would take a third of the
    # time that a worker needs for its first answer.
    for folder in sys.path:
        for found in Path(folder or ".").glob(f"{distribution}-*.dist-info"):
            return found.name.removeprefix(f"{distribution}-").removesuffix(".dist-info")
    return None
