"""Have Hypothesis imported when a test asks for it, not when pytest starts: ``-p dspex_testkit.late_hypothesis``.

The plugin of pytest-trio 0.8 imports Hypothesis as it is loaded, if it is there, to make the order of trio's tasks
repeatable. That takes as long as the start of pytest itself, also in a run without Hypothesis. Trio does the same
by its own entry point as soon as Hypothesis is imported, so nothing is lost by waiting.
"""

from __future__ import annotations

import contextlib
import sys
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

__all__ = ["pytest_load_initial_conftests"]


class _NotYet(MetaPathFinder):
    """Says of Hypothesis that it is not there."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname == "hypothesis":
            raise ModuleNotFoundError("Hypothesis waits until pytest's plugins are loaded", name=fullname)


_not_yet = _NotYet()
sys.meta_path.insert(0, _not_yet)


def pytest_load_initial_conftests() -> None:
    """Let it be imported: plugins are loaded, and what comes now asks because it needs it."""
    with contextlib.suppress(ValueError):  # an inner run of pytest finds it gone
        sys.meta_path.remove(_not_yet)
