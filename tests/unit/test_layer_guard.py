"""The guard that holds a test to its layer, told of events by hand."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from dspex_testkit.layer_guard import Guard, LayerViolationError
from dspex_testkit.layers import LAYERS
from dspex_testkit.sites import Sites

ROOT = Path(__file__).resolve().parents[2]


def guard(layer: str = "fast", *, root: Path = ROOT, ignored: frozenset[int] = frozenset()) -> Guard:
    return Guard(LAYERS[layer], sleep_budget=0.05, sites=Sites(root), ignored_threads=ignored)


def test_refusal_names_the_act_and_the_line() -> None:
    """The message tells what was done, with which argument, and where."""
    watcher = guard()
    with pytest.raises(LayerViolationError) as info:
        watcher.on_event("subprocess.Popen", ("x" * 200, []))
    text = str(info.value)
    assert text.startswith("a fast test started a process (subprocess.Popen 'xxx")
    assert "...)\n    at tests/unit/test_layer_guard.py:" in text
    assert 'watcher.on_event("subprocess.Popen"' in text
    assert watcher.violations == [text]


def test_line_outside_of_the_project_is_not_named(tmp_path: Path) -> None:
    """Without a line of the project there is only the act."""
    with pytest.raises(LayerViolationError, match=r"^a fast test forked \(os.fork ''\)$"):
        guard(root=tmp_path).on_event("os.fork", ())


def test_other_events_and_other_layers_pass() -> None:
    """Opening a file is allowed everywhere, and a process in an open layer."""
    guard().on_event("open", ("file", "r", 0))
    guard("protocol").on_event("subprocess.Popen", ("true", []))
    guard("integration").on_event("import", ("dspy",))


@pytest.mark.parametrize("module", ["dspy", "dspy.predict"])
@pytest.mark.parametrize("layer", ["fast", "protocol"])
def test_import_of_a_forbidden_package_is_refused(layer: str, module: str) -> None:
    """Its submodules count too; modules that only begin alike do not."""
    watcher = guard(layer)
    watcher.on_event("import", ("dspyx",))
    with pytest.raises(LayerViolationError, match=f"a {layer} test imported {module}"):
        watcher.on_event("import", (module,))


def test_ignored_threads_may_do_what_they_like() -> None:
    """Threads that do not belong to tests are not judged."""
    guard(ignored=frozenset({threading.get_ident()})).on_event("os.fork", ())


def test_sleeps_are_added_up() -> None:
    """The budget is for the sum."""
    watcher = guard()
    watcher.on_sleep(0.03, "time.sleep")
    with pytest.raises(LayerViolationError, match=r"slept 0\.060 s of real time \(time\.sleep; 0\.050 s"):
        watcher.on_sleep(0.03, "time.sleep")


def test_check_tells_everything_once() -> None:
    """What was swallowed is told afterwards, and then forgotten."""
    watcher = guard()
    for event in ("os.fork", "os.system"):
        with pytest.raises(LayerViolationError):
            watcher.on_event(event, ())
    with pytest.raises(LayerViolationError, match=r"(?s)forked.*started a process"):
        watcher.check()
    watcher.check()


def test_guards_nest_and_leave_no_trace() -> None:
    """An inner guard is on alone, and what was there before is there again."""
    outer, inner, open_layer, sleep = guard(), guard(), guard("protocol"), time.sleep
    with outer.watching():
        with inner.watching(), pytest.raises(LayerViolationError):
            time.sleep(1)
        with open_layer.watching():
            time.sleep(0)
        assert (len(inner.violations), len(outer.violations)) == (1, 0)
        with pytest.raises(LayerViolationError):
            time.sleep(1)
    assert len(outer.violations) == 1
    assert time.sleep is sleep


def test_what_a_test_put_in_place_of_sleep_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that replaces sleep itself, while or before it is watched, has its own until it undoes it."""
    sleep = time.sleep
    slept: list[float] = []
    with guard().watching():
        counted = time.sleep
        with monkeypatch.context() as patch:
            patch.setattr(time, "sleep", slept.append)
            with guard().watching():
                time.sleep(1)
        assert time.sleep is counted
    assert time.sleep is sleep
    assert slept == [1]
