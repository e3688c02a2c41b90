"""What is installed next to this worker, found out without importing it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from functools import cache

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
        # It may be an archive, or not exist.
        with contextlib.suppress(OSError):
            for name in _names_in(folder or "."):
                if name.startswith(f"{distribution}-") and name.endswith(".dist-info"):
                    return name.removeprefix(f"{distribution}-").removesuffix(".dist-info")
    return None


@cache
def _names_in(folder: str) -> list[str]:
    return os.listdir(folder)  # noqa: PTH208 - before the first answer; matching patterns takes ten times as long
