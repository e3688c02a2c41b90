"""The pytest plugin: layers of testing as markers, held to their promises.

Every pytest run of the environment loads this module, so it imports the standard library, pytest and two small
modules of ours. A project opts in by marking tests or by the setting ``dspex_layers``; tests without a layer are
left alone. All state is in ``config.stash``.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from dspex_testkit.layer_guard import Guard, LayerViolationError
from dspex_testkit.layers import LAYERS, Layer, names_layers_only, selected_layers
from dspex_testkit.leak_gate import Resources, end_children, leaks_since
from dspex_testkit.seeds import how_to_replay, random_of
from dspex_testkit.settings import State, declare

if TYPE_CHECKING:
    import random
    from collections.abc import Generator, Iterator
    from pathlib import Path

__all__ = ["BudgetExceededError", "LeakError"]

pytest.register_assert_rewrite("dspex_testkit.contracts", "dspex_testkit.invariants")


class BudgetExceededError(AssertionError):
    """The test took longer than its layer allows."""


class LeakError(AssertionError):
    """The test left something behind."""


STATE = pytest.StashKey[State]()
LAYER = pytest.StashKey[Layer]()
GUARD = pytest.StashKey[Guard]()
COMPLAINT = pytest.StashKey[str]()
BEFORE = pytest.StashKey[Resources]()


# --- settings --------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the settings."""
    declare(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and read the settings."""
    # For those who run pytest inside a process of their own. First in, last out: pytest looks for garbage
    # once more at the end, and need not look at what was frozen.
    config.add_cleanup(gc.unfreeze)
    for layer in LAYERS.values():
        config.addinivalue_line("markers", f"{layer.name}: layer of {layer.purpose}")
    config.addinivalue_line("markers", "budget(seconds): this test's own budget, instead of its layer's.")
    try:
        config.stash[STATE] = State.of(config)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    # All options travel to xdist's workers, so they take this seed and draw none.
    config.option.dspex_seed = config.stash[STATE].seed


# --- the seed ----------------------------------------------------------------------------------------------


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


# --- which test has which layer --------------------------------------------------------------------------


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out folders that cannot hold a test of the layers that ``-m`` asks for, where folders are trusted."""
    state, expression = config.stash[STATE], config.option.markexpr
    if not state.trusts_folders or not names_layers_only(expression):
        return None
    if not collection_path.is_relative_to(state.root):
        return None
    path = collection_path.relative_to(state.root)
    return state.folders.is_out_of(selected_layers(expression), path) or None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Note which test modules import what their layer forbids, while they are imported."""
    before = _forbidden_loaded()
    report = yield
    if imported := _forbidden_loaded() - before:
        collector.config.stash[STATE].imports[collector.nodeid] = imported
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give every test its layer.

    Raises:
        pytest.UsageError: A test has two layers; or none, and the settings are strict.
    """
    state = config.stash[STATE]
    for item in items:
        if complaint := _assign_layer(item, state):
            if not hasattr(config, "workerinput"):
                raise pytest.UsageError(complaint)
            # A usage error of an xdist worker reaches nobody; a failed test does.
            item.stash[COMPLAINT] = complaint


def _assign_layer(item: pytest.Item, state: State) -> str:
    """Give ``item`` its layer; return what is wrong with it, if anything."""
    marked = sorted({mark.name for mark in item.iter_markers()} & LAYERS.keys())
    if len(marked) > 1:
        return f"{item.nodeid} has {len(marked)} layers: {', '.join(marked)}"
    by_folder = _layer_of_folder(item, state)
    name = marked[0] if marked else by_folder
    if state.trusts_folders and by_folder not in (None, name) and state.folders.has(marked[0]):
        return (
            f"{item.nodeid} is marked {name}, but its folder is for {by_folder} (dspex_trust_folders is on)"
        )
    if name is None:
        strict = f"{item.nodeid} has no layer: mark it or its folder as one of {', '.join(LAYERS)}"
        return strict if state.is_strict else ""
    if not marked:
        item.add_marker(name)
    item.stash[LAYER] = LAYERS[name]
    state.collected[name] += 1
    return ""


def _layer_of_folder(item: pytest.Item, state: State) -> str | None:
    if not item.path.is_relative_to(state.root):
        return None
    return state.folders.layer_of(item.path.relative_to(state.root))


def _forbidden_loaded() -> set[str]:
    return {name for layer in LAYERS.values() for name in layer.forbidden_modules if name in sys.modules}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Take all that was loaded so far out of the garbage collector's work: it stays to the end anyway.

    A quarter of the time of two thousand fast tests, measured; and the leak gate collects garbage sooner.
    """
    if any(LAYER in item.stash for item in session.items):
        gc.freeze()


# --- a layer that was asked for holds tests --------------------------------------------------------------


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if a layer named with ``-m`` holds no test."""
    config = session.config
    state = config.stash[STATE]
    if hasattr(config, "workerinput"):
        config.workeroutput["dspex_collected"] = dict(state.collected)  # type: ignore[attr-defined] # by xdist
        return
    selected = selected_layers(config.option.markexpr)
    if empty := [name for name in selected if not state.collected[name]]:
        state.verdict = (
            f"selected with -m {config.option.markexpr!r}, but without any test: {', '.join(empty)}"
        )
        if session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Learn from an xdist worker what it collected."""
    collected = getattr(node, "workeroutput", {}).get("dspex_collected", {})
    node.config.stash[STATE].collected |= Counter(collected)


# --- while a test runs -----------------------------------------------------------------------------------


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


# --- what is told ----------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write the layer into the report, which travels from xdist's workers to the controller."""
    report = yield
    if (layer := item.stash.get(LAYER, None)) is not None:
        vars(report)["dspex_layer"] = layer.name
    if report.failed and "dspex_seed" in vars(item).get("fixturenames", ()):
        report.sections.append(("dspex seed", how_to_replay(item.config.stash[STATE].seed)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show number, time and slowest test of each layer, and why the run fails if it is for a layer."""
    seconds = _seconds_by_layer(terminalreporter)
    verdict = config.stash[STATE].verdict
    if not seconds and not verdict:
        return
    terminalreporter.section("layers")
    for name, tests in seconds.items():
        slowest = max(tests, key=tests.__getitem__)
        total = sum(tests.values())
        terminalreporter.write_line(
            f"{name:<12} {len(tests):>5} tests {total:>8.2f} s   slowest {tests[slowest]:.2f} s  {slowest}"
        )
    if verdict:
        terminalreporter.write_line(verdict, red=True)


def _seconds_by_layer(terminalreporter: pytest.TerminalReporter) -> dict[str, dict[str, float]]:
    seconds: dict[str, dict[str, float]] = {name: {} for name in LAYERS}
    for reports in terminalreporter.stats.values():
        for report in reports:
            # A subtest's time is part of its test's.
            if type(report) is pytest.TestReport and (name := vars(report).get("dspex_layer")) is not None:
                seconds[name][report.nodeid] = seconds[name].get(report.nodeid, 0.0) + report.duration
    return {name: tests for name, tests in seconds.items() if tests}
