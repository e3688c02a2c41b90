"""Scenarios by name: the fixture ``scenario``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dspex_testkit.chaos.chaos import Chaos
    from dspex_testkit.scenarios.wanted import WantedScenarios


@pytest.fixture
def scenario(chaos: Chaos, make_pool: object, dspex_seed: int) -> WantedScenarios:
    """Play a scenario from the run's seed: ``await scenario("crash-storm")``; it opens its own pools."""
    from dspex_testkit.scenarios.wanted import WantedScenarios

    return WantedScenarios(chaos, dspex_seed)
