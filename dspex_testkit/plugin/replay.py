"""The one simulated run that is to be repeated, for tests made by ``explore``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from dspex_testkit.plugin.stash import HUNTER, STATE

if TYPE_CHECKING:
    from dspex_testkit.fuzz.hunter import Hunter
    from dspex_testkit.settings import State

__all__ = ["Replay"]

#: Of the run: the test in which the one run was repeated; in an xdist worker told to the controller.
REPLAYED = pytest.StashKey[str]()
#: Set on a run that had nothing to repeat.
MISSED = pytest.StashKey[bool]()
#: Of other ends it was said already why nothing was repeated.
_ENDED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


@dataclass(frozen=True)
class Replay:
    """What an explored test is asked for."""

    #: Name of the test as pytest is given it.
    nodeid: str
    #: The same from the folder that pytest was called in.
    from_here: str
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


def from_here(item: pytest.Item) -> str:
    """Return the name of a test from the folder that pytest was called in; its own begins at the tests' root."""
    path, separator, name = item.nodeid.partition("::")
    config = item.config
    return os.path.relpath(config.rootpath / path, config.invocation_params.dir) + separator + name


@pytest.fixture
def dspex_replay(request: pytest.FixtureRequest) -> Replay:
    """What a test made by explore plays: the run of --dspex-replay, else all that it explores."""
    state: State = request.config.stash[STATE]
    node: pytest.Item = request.node
    token, hunter = request.config.getoption("--dspex-replay"), request.config.stash.get(HUNTER, None)
    request.config.stash[REPLAYED] = node.nodeid
    return Replay(node.nodeid, from_here(node), token, state.seed, hunter, node.user_properties)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run that was to repeat another one and had no test that could: it would seem to prove something."""
    config = session.config
    if hasattr(config, "workerinput"):
        config.workeroutput["dspex_replayed"] = config.stash.get(REPLAYED, "")  # type: ignore[attr-defined] # by xdist
        return
    if config.getoption("--dspex-replay") is None or config.option.collectonly or exitstatus not in _ENDED:
        return
    config.stash[MISSED] = not config.stash.get(REPLAYED, "")
    if config.stash[MISSED] and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Learn from an xdist worker whether it repeated the run."""
    if test := getattr(node, "workeroutput", {}).get("dspex_replayed", ""):
        node.config.stash[REPLAYED] = test


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say that there was nothing to repeat."""
    if config.stash.get(MISSED, False):
        text = "--dspex-replay: nothing was repeated, for no test that ran is made by explore"
        terminalreporter.section("dspex replay")
        terminalreporter.write_line(text, red=True)
