"""The one simulated run that is to be repeated, for tests made by ``explore``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from dspex_testkit.plugin.stash import HUNTER, STATE

if TYPE_CHECKING:
    from dspex_testkit.fuzz.hunter import Hunter
    from dspex_testkit.settings import State

__all__ = ["Replay"]


@dataclass(frozen=True)
class Replay:
    """What an explored test is asked for."""

    #: Name of the test as pytest is given it.
    nodeid: str
    #: The one run that is to be repeated, or ``None``.
    token: str | None
    #: Seed of this pytest run.
    seed: int
    #: Plays the test in the place of its own seeds; ``None`` but in a process of the fuzzer.
    hunter: Hunter | None
    _properties: list[tuple[str, object]]

    def tell(self, what: str) -> None:
        """Keep a line about the test for the report."""
        self._properties.append(("dspex_explored", what))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option."""
    text = "Repeat this one simulated run, as a failure of an explored test names it, instead of exploring."
    parser.getgroup("dspex", "layers and seeds").addoption("--dspex-replay", metavar="TOKEN", help=text)


@pytest.fixture
def dspex_replay(request: pytest.FixtureRequest) -> Replay:
    """What a test made by explore plays: the run of --dspex-replay, else all that it explores."""
    state: State = request.config.stash[STATE]
    node: pytest.Item = request.node
    token, hunter = request.config.getoption("--dspex-replay"), request.config.stash.get(HUNTER, None)
    return Replay(node.nodeid, token, state.seed, hunter, node.user_properties)
