"""What the fixtures of the ports are before the body of a test runs."""

from __future__ import annotations

import random

import pytest

from dspex_testkit.chaos.chaos import Chaos
from dspex_testkit.ports.run import WANTED
from dspex_testkit.scenarios.wanted import WantedScenarios


@pytest.mark.parametrize("name", WANTED)
def test_fixture_on_a_pool_that_is_not_open_yet_is_told_what_to_do(name: str) -> None:
    """A fixture made of ``pool`` was told that a Wanted object has no attribute ``call``."""
    with pytest.raises(
        AttributeError, match=f"{name} is opened when the body of a test begins.*ask for {name} in"
    ):
        WANTED[name].call("echo")
    with pytest.raises(TypeError, match=f"{name} is opened when the body of a test begins"):
        WANTED[name](pool_size=4)
    assert not hasattr(WANTED[name], "kill")


def test_scenario_is_told_likewise() -> None:
    """It opens pools of its own, in the body too."""
    with pytest.raises(TypeError, match="scenario is opened when the body of a test begins"):
        WantedScenarios(Chaos(random.Random(0)), seed=1)("single-death")
