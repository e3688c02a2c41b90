"""What all tests share: the plugin that tests plugins, what it leaves out, and the names of profiles of searches."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["pytester"]

#: The signals that end a program.
ENDING = (signal.SIGINT, signal.SIGTERM)
#: Plugins that are installed to test ours beside them: where a test runs pytest, they are out unless it wants them.
NEIGHBOURS = ("anyio", "asyncio", "randomly", "timeout", "pytest_cov")
OPTIONS = " ".join(f"-p no:{name}" for name in NEIGHBOURS)
#: What else small runs do without: these import Hypothesis, half of the CPU seconds of their start.
UNUSED = " ".join(f"-p no:{name}" for name in ("faker", "hypothesispytest", "trio"))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Leave the neighbours out of inner runs; choose the profile ``fast`` before Hypothesis' plugin loads another."""
    os.environ.setdefault("PYTEST_ADDOPTS", OPTIONS)
    config.addinivalue_line("markers", "with_trio: runs pytest with pytest-trio and Hypothesis' plugin.")
    if config.pluginmanager.hasplugin("hypothesispytest"):
        importlib.import_module("tests.search_profiles")


def pytest_collection_finish() -> None:
    """Pay here what would be some test's: Hypothesis' table of characters, and garbage collection of what stays.

    The table takes 2 s, once in a working copy. What is imported and collected by now lives until the end, so looking
    for garbage in it is in vain, and pytest looks in all there is before it ends, five times.
    """
    if "hypothesis" in sys.modules and not Path(".hypothesis", "unicode_data").exists():
        importlib.import_module("hypothesis.strategies").text().validate()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Fail a test that leaves Ctrl-C or SIGTERM in other hands: all that later tests start would ignore them, too."""
    before = [signal.getsignal(number) for number in ENDING]
    yield
    assert before == [signal.getsignal(number) for number in ENDING]


@pytest.fixture
def pytester(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> pytest.Pytester:
    """Runs pytest apart, as pytest's own fixture does, without the neighbours.

    Also without pytest-trio and Hypothesis' plugin, unless the test is marked ``with_trio``.
    """
    # Pytest's fixture forgets the options of the outer run.
    wanted = request.node.get_closest_marker("with_trio")
    monkeypatch.setenv("PYTEST_ADDOPTS", OPTIONS if wanted else f"{OPTIONS} {UNUSED}")
    return pytester
