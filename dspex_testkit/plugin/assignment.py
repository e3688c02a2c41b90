"""Which test has which layer, and whether a layer that was asked for holds tests."""

from __future__ import annotations

import gc
import inspect
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from dspex_testkit.layers import LAYERS, dearest, names_layers_only, selected_layers
from dspex_testkit.plugin.late import load_late_parts
from dspex_testkit.plugin.ports import complaint_about_parameters, is_body, port_of
from dspex_testkit.plugin.stash import COMPLAINT, LAYER, STATE
from dspex_testkit.ports.names import LAYER_OF_PORT
from dspex_testkit.settings import seconds_of

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from dspex_testkit.settings import State


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
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, name: str, obj: object) -> None:
    """Refuse a contract that does not say what is under test: pytest passes over abstract classes without a word.

    Raises:
        pytest.Collector.CollectError: With what it lacks.
    """
    if not isinstance(obj, type) or not collector.classnamefilter(name) or not inspect.isabstract(obj):
        return
    ours = [base for base in obj.__mro__ if base.__module__.startswith("dspex_testkit.contracts.")]
    if ours and getattr(obj, "__test__", True):
        lacking: frozenset[str] = vars(obj)["__abstractmethods__"]
        what = f"is a {ours[0].__name__} without {', '.join(sorted(lacking))}"
        raise pytest.Collector.CollectError(
            f"{collector.nodeid}::{name} {what}: define it, or say __test__ = False"
        )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give every test its layer.

    Raises:
        pytest.UsageError: A test has two layers; or none, and the settings are strict; or a marker of ours is given
            something wrong.
    """
    state = config.stash[STATE]
    for item in items:
        if complaint := _assign_layer(item, state) or _complaint_about_marks(item):
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
    if (port := port_of(item)) is not None:
        # A body is held to what its port needs, or to the layer it was given if that allows more.
        return _assign(item, dearest(name, LAYER_OF_PORT[port]), state, is_marked=bool(marked))
    if state.trusts_folders and by_folder not in (None, name) and state.folders.has(marked[0]):
        return (
            f"{item.nodeid} is marked {name}, but its folder is for {by_folder} (dspex_trust_folders is on)"
        )
    if name is None:
        strict = f"{item.nodeid} has no layer: mark it or its folder as one of {', '.join(LAYERS)}"
        return strict if state.is_strict and not is_body(item) else ""
    return _assign(item, name, state, is_marked=bool(marked))


def _assign(item: pytest.Item, name: str, state: State, *, is_marked: bool) -> str:
    if not is_marked:
        item.add_marker(name)
    item.stash[LAYER] = LAYERS[name]
    state.collected[name] += 1
    return ""


def _complaint_about_marks(item: pytest.Item) -> str:
    """Return what is wrong with markers of ours, or with the seconds that they are given, if anything."""
    if complaint := complaint_about_parameters(item):
        return complaint
    try:
        # The name is a common one, and a test without a layer has no budget.
        if LAYER in item.stash:
            seconds_of(item, "budget")
        seconds_of(item, "hangs_after")
    except ValueError as error:
        return str(error)
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
    if any(LAYER in item.stash or COMPLAINT in item.stash for item in session.items):
        load_late_parts(session.config)
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
    # With --lf pytest does not even read files in which nothing failed.
    selected = () if config.getoption("lf", False) else selected_layers(config.option.markexpr)
    if empty := [name for name in selected if not state.collected[name]]:
        state.verdicts.append(
            f"selected with -m {config.option.markexpr!r}, but without any test: {', '.join(empty)}"
        )
        if session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Learn from an xdist worker what it collected."""
    collected = getattr(node, "workeroutput", {}).get("dspex_collected", {})
    node.config.stash[STATE].collected |= Counter(collected)
