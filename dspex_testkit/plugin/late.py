"""The parts of the plugin that are loaded when a run turns out to have layers: others do not pay for them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

__all__ = ["LATE_PARTS", "load_late_parts"]

#: Their order matters: of hooks that want to be first, those of the last one are.
LATE_PARTS = (
    "holding",
    "leaks",
    "summary",
)


def load_late_parts(config: pytest.Config) -> None:
    """Load them, once; to be called before the first test runs."""
    for part in LATE_PARTS:
        if not config.pluginmanager.has_plugin(name := f"dspex_testkit.plugin.{part}"):
            config.pluginmanager.register(importlib.import_module(name), name)
