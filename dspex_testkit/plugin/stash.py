"""What the parts of the plugin share: the keys under which the state of a run and of a test is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dspex_testkit.fuzz.hunter import Hunter
    from dspex_testkit.layer_guard import Guard
    from dspex_testkit.layers import Layer
    from dspex_testkit.settings import State

__all__ = ["COMPLAINT", "CPU", "FAILED", "GUARD", "HUNTER", "LAYER", "STATE"]

#: Of the run: the settings, and what has been learned so far.
STATE: pytest.StashKey[State] = pytest.StashKey()
#: Of the run: who plays explored tests in the place of their own seeds.
HUNTER: pytest.StashKey[Hunter] = pytest.StashKey()
#: Of a test: its layer.
LAYER: pytest.StashKey[Layer] = pytest.StashKey()
#: Of a test: what holds it to its layer.
GUARD: pytest.StashKey[Guard] = pytest.StashKey()
#: Of a test: CPU seconds of the phase that has just ended.
CPU: pytest.StashKey[float] = pytest.StashKey()
#: Of a test: whether a phase of it has failed.
FAILED: pytest.StashKey[bool] = pytest.StashKey()
#: Of a test: why it may not run.
COMPLAINT: pytest.StashKey[str] = pytest.StashKey()
