"""After each test with a layer nothing is left behind, or the test fails with the line that opened it."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

import pytest

from dspex_testkit import origins, run_watch
from dspex_testkit.aftercare import start_reaper
from dspex_testkit.descendants import TEST_RUN_VARIABLE, end_processes, own_tag, tagged
from dspex_testkit.leak_gate import NOTHING, Before, Resources, leaks_since
from dspex_testkit.plugin.stash import FAILED, LAYER, STATE

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["LeakError"]

#: Of a test: what was there before it.
BEFORE = pytest.StashKey[Before]()
#: Of a test: what it has opened.
LEDGER = pytest.StashKey[origins.Ledger]()
#: Of a run: what fixtures of wider scope than one test hold.
SHARED = pytest.StashKey[Resources]()
#: Of a run: whether it was interrupted, in the middle of a test that was then not torn down.
INTERRUPTED = pytest.StashKey[bool]()


class LeakError(AssertionError):
    """The test left something behind."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Prepare to notice who opens what, if any test has a layer."""
    layers = [item.stash[LAYER] for item in session.items if LAYER in item.stash]
    if layers:
        origins.install()
        session.config.add_cleanup(origins.remove)
        session.config.add_cleanup(run_watch.leave)
    if not all(layer.is_sealed for layer in layers):
        _care_for_processes(session.config)


@pytest.hookimpl(wrapper=True, specname="pytest_runtestloop")
def pytest_runtestloop_interrupted(session: pytest.Session) -> Generator[None, Any, Any]:
    """Notice Ctrl-C, after which pytest tears down no test and asks nobody what the last one left."""
    try:
        return (yield)
    except (KeyboardInterrupt, pytest.exit.Exception):
        session.config.stash[INTERRUPTED] = True
        raise


def pytest_configure(config: pytest.Config) -> None:
    """Care for xdist's workers before there are any: they inherit the environment."""
    is_controller = config.getoption("tx", None) and not hasattr(config, "workerinput")
    if is_controller and config.stash[STATE].is_used:
        _care_for_processes(config)


def _care_for_processes(config: pytest.Config) -> None:
    """Have all that is started from now on be found, and ended should this process be killed."""
    before, tag = os.environ.get(TEST_RUN_VARIABLE), own_tag()
    if tag in (before or "").split():
        return
    os.environ[TEST_RUN_VARIABLE] = tagged(os.environ, tag)
    config.add_cleanup(functools.partial(_restore_environment, before))
    # The reaper of xdist's controller looks after its workers.
    if before is None or not hasattr(config, "workerinput"):
        send_away = start_reaper(tag)
        config.add_cleanup(lambda: send_away(in_peace=not config.stash.get(INTERRUPTED, False)))


def _restore_environment(before: str | None) -> None:
    os.environ.pop(TEST_RUN_VARIABLE, None)
    if before is not None:
        os.environ[TEST_RUN_VARIABLE] = before


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Count what is there before the test, and note what it opens."""
    if LAYER not in item.stash:
        return (yield)
    run_watch.attend()
    ledger = origins.Ledger(item.config.stash[STATE].sites, spared=_spared(item.config))
    item.stash[LEDGER] = ledger
    item.stash[BEFORE] = Before.now()
    try:
        with ledger.keeping():
            return (yield)
    finally:
        # What it holds lives no longer than the test.
        del item.stash[LEDGER]


def _spared(config: pytest.Config) -> tuple[str, ...]:
    """Return where files are nobody's leak: pytest's temporary folders, and a project that is in a temporary one."""
    import tempfile

    temporary = os.path.join(tempfile.gettempdir(), "")  # noqa: PTH118 - keeps the last separator
    project = os.path.join(config.rootpath, "")  # noqa: PTH118 - as above
    given = config.option.basetemp
    return (
        f"{temporary}pytest-of-",
        *([project] if project.startswith(temporary) else []),
        *([os.path.abspath(given)] if given else []),  # noqa: PTH100 - a beginning, not a path
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """Look for what the test left behind; end the processes among it."""
    try:
        result = yield
    except BaseException as error:
        if text := _left_behind(item):
            error.add_note(text)
        raise
    if text := _left_behind(item):
        raise LeakError(text)
    return result


def _left_behind(item: pytest.Item) -> str:
    ledger = item.stash.get(LEDGER, None)
    if ledger is None:
        return ""
    shared = item.config.stash.get(SHARED, NOTHING)
    if item.stash.get(FAILED, False):
        # The traceback of a failed test holds its variables, and with them whatever closes itself when they go.
        shared |= Resources.now().only_descriptors()
    leaked = leaks_since(item.stash[BEFORE], ledger, shared=shared)
    if not leaked:
        return ""
    lines = "\n".join(leaked.describe(ledger)).replace("\n", "\n  ")
    end_processes(leaked.processes)
    return f"{item.nodeid} left behind:\n  {lines}"


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    """Allow fixtures of wider scope to hold what they open."""
    if fixturedef.scope == "function":
        return (yield)
    before, noted = Resources.now(), [(ledger, ledger.counts()) for ledger in origins.kept()]
    try:
        return (yield)
    finally:
        stash = request.config.stash
        stash[SHARED] = stash.get(SHARED, NOTHING) | (Resources.now() - before)
        for ledger, counts in noted:
            ledger.forget_since(counts)
