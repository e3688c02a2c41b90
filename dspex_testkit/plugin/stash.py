"""What the parts of the plugin share: the keys under which the state of a run and of a test is kept."""

from __future__ import annotations

import pytest

from dspex_testkit.layer_guard import Guard
from dspex_testkit.layers import Layer
from dspex_testkit.settings import State

__all__ = ["COMPLAINT", "CPU", "FAILED", "GUARD", "LAYER", "STATE"]

#: Of the run: the settings, and what has been learned so far.
STATE = pytest.StashKey[State]()
#: Of a test: its layer.
LAYER = pytest.StashKey[Layer]()
#: Of a test: what holds it to its layer.
GUARD = pytest.StashKey[Guard]()
#: Of a test: CPU seconds of the phase that has just ended.
CPU = pytest.StashKey[float]()
#: Of a test: whether a phase of it has failed.
FAILED = pytest.StashKey[bool]()
#: Of a test: why it may not run.
COMPLAINT = pytest.StashKey[str]()
