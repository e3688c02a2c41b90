"""While a test runs: it is held to its layer and its budget."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from dspex_testkit.layer_guard import Guard, LayerViolationError
from dspex_testkit.plugin.stash import COMPLAINT, CPU, GUARD, LAYER, STATE
from dspex_testkit.settings import seconds_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ["BudgetExceededError"]


class BudgetExceededError(AssertionError):
    """The test took longer than its layer allows."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Remember the threads that are none of the tests'."""
    own = threading.get_ident()
    idents = {thread.ident for thread in threading.enumerate() if thread.ident is not None}
    session.config.stash[STATE].ignored_threads = frozenset(idents - {own})


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Make what holds the test to its layer."""
    layer = item.stash.get(LAYER, None)
    if layer is not None:
        state = item.config.stash[STATE]
        item.stash[GUARD] = Guard(
            layer, sleep_budget=state.sleep_budget, sites=state.sites, ignored_threads=state.ignored_threads
        )
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
    """Hold the tear-down to the layer."""
    with _held(item):
        return (yield)


@contextlib.contextmanager
def _held(item: pytest.Item) -> Iterator[None]:
    began = time.process_time()
    try:
        with _guarded(item):
            yield
    finally:
        item.stash[CPU] = time.process_time() - began


@contextlib.contextmanager
def _guarded(item: pytest.Item) -> Iterator[None]:
    guard = item.stash.get(GUARD, None)
    if guard is None or not guard.layer.forbids:
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
    if layer is None or layer.name not in state.enforced:
        return
    own = seconds_of(item, "budget")
    budget = state.budgets[layer.name] if own is None else own
    used, unit = (cpu, "CPU seconds") if layer.counts_cpu else (wall, "seconds")
    if budget and used > budget * state.slack:
        raise BudgetExceededError(
            f"took {used:.3f} {unit}, more than {state.slack:g} times its budget of {budget:.3f}. "
            f"Is {layer.name} the right layer? If it is worth the time, mark it budget(seconds)."
            f"\n    at {_line_of(item)}"
        )


def _line_of(item: pytest.Item) -> str:
    path, line, name = item.location
    return f"{path}:{(line or 0) + 1} in {name}"
