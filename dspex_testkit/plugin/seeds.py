"""The seed of the run: drawn or given, shown, and handed to tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dspex_testkit.layers import selected_layers
from dspex_testkit.plugin.stash import STATE
from dspex_testkit.seeds import how_to_replay, random_of

if TYPE_CHECKING:
    import random


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Show the seed, to those who use the test kit."""
    state = config.stash[STATE]
    return [f"dspex: {how_to_replay(state.seed)}"] if state.is_used else []


def pytest_sessionstart(session: pytest.Session) -> None:
    """Show the seed of a chaos run also without a header: of a run that hangs, nothing else is seen."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if (
        reporter is not None
        and not reporter.showheader
        and "chaos" in selected_layers(session.config.option.markexpr)
    ):
        reporter.write_line(f"dspex: {how_to_replay(session.config.stash[STATE].seed)}")


@pytest.fixture(scope="session")
def dspex_seed(pytestconfig: pytest.Config) -> int:
    """The seed of this run: that of --dspex-seed or DSPEX_SEED, else drawn; shown with each failure that used it."""
    return pytestconfig.stash[STATE].seed


@pytest.fixture
def dspex_random(dspex_seed: int, request: pytest.FixtureRequest) -> random.Random:
    """Random numbers for one test, drawn from the run's seed and the test's name, whatever ran before it."""
    return random_of(dspex_seed, request.node.nodeid)
