"""While a test runs: it is held to its layer and its budget, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from dspex_testkit.layer_guard import Guard, LayerViolationError
from dspex_testkit.leak_gate import Resources, end_children, leaks_since
from dspex_testkit.plugin.stash import BEFORE, COMPLAINT, GUARD, LAYER, STATE

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ["BudgetExceededError", "LeakError"]


class BudgetExceededError(AssertionError):
    """The test took longer than its layer allows."""


class LeakError(AssertionError):
    """The test left something behind."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Remember the threads that are none of the tests'."""
    own = threading.get_ident()
    idents = {thread.ident for thread in threading.enumerate() if thread.ident is not None}
    session.config.stash[STATE].ignored_threads = frozenset(idents - {own})


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Count what is there before the test."""
    layer = item.stash.get(LAYER, None)
    if layer is not None:
        state = item.config.stash[STATE]
        item.stash[GUARD] = Guard(
            layer, sleep_budget=state.sleep_budget, root=state.root, ignored_threads=state.ignored_threads
        )
        item.stash[BEFORE] = Resources.now()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """Hold the set-up to the layer."""
    with _held(item):
        return (yield)


@pytest.hookimpl(specname="pytest_runtest_setup", tryfirst=True)
def pytest_runtest_setup_refused(item: pytest.Item) -> None:
    """Fail tests that break a rule before they run. Not in the wrapper: other plugins' need their turn."""
    if complaint := item.stash.get(COMPLAINT, ""):
        pytest.fail(complaint, pytrace=False)
    _check_imports(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Hold the test to the layer and to its budget."""
    began = time.monotonic(), time.process_time()
    with _held(item):
        result = yield
    _check_budget(item, time.monotonic() - began[0], time.process_time() - began[1])
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """Hold the tear-down to the layer, then look for what was left behind."""
    with _held(item):
        result = yield
    _check_leaks(item)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    """Allow fixtures of wider scope to hold what they open."""
    if fixturedef.scope == "function":
        return (yield)
    before = Resources.now()
    try:
        return (yield)
    finally:
        request.config.stash[STATE].shared |= Resources.now() - before


@contextlib.contextmanager
def _held(item: pytest.Item) -> Iterator[None]:
    guard = item.stash.get(GUARD, None)
    if guard is None or not guard.layer.forbidden_modules:
        yield
        return
    try:
        with guard.watching():
            yield
    except LayerViolationError:
        guard.violations.clear()  # it is being told
        raise
    guard.check()


def _check_imports(item: pytest.Item) -> None:
    """Fail if the test's module imported what its layer forbids."""
    layer, imports = item.stash.get(LAYER, None), item.config.stash[STATE].imports
    if layer is None:
        return
    for collector in item.listchain() if imports else ():
        if found := imports.get(collector.nodeid, set()) & layer.forbidden_modules:
            names = ", ".join(sorted(found))
            raise LayerViolationError(
                f"a {layer.name} test's {collector.nodeid} imported {names} at import time"
            )


def _check_budget(item: pytest.Item, wall: float, cpu: float) -> None:
    """Fail if the test took more than its budget and the slack."""
    layer, state = item.stash.get(LAYER, None), item.config.stash[STATE]
    if layer is None or not state.enforces_budgets:
        return
    own = item.get_closest_marker("budget")
    budget = state.budgets[layer.name] if own is None else float(own.args[0])
    used, unit = (cpu, "CPU seconds") if layer.counts_cpu else (wall, "seconds")
    if budget and used > budget * state.slack:
        raise BudgetExceededError(
            f"took {used:.3f} {unit}, more than {state.slack:g} times its budget of {budget:.3f}. "
            f"Is {layer.name} the right layer? If it is worth the time, mark it budget(seconds)."
        )


def _check_leaks(item: pytest.Item) -> None:
    """Fail if the test left something behind; end the processes among it."""
    before = item.stash.get(BEFORE, None)
    if before is None:
        return
    if leaked := leaks_since(before | item.config.stash[STATE].shared):
        described = leaked.describe()
        end_children(leaked)
        raise LeakError("\n".join([f"{item.nodeid} left behind:", *(f"  {line}" for line in described)]))
