"""The guard against slow code: it counts instructions, knows the baseline, and can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.guard.baseline import LIMIT, Baseline, compare, load
from benchmarks.guard.instructions import Count
from benchmarks.guard.subjects import SUBJECTS, count_all
from dspex_pool.pool_state import PoolState
from dspex_pool.protocol import ClientConversation
from dspex_pool.worker import PoolWorker

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
CORE, CALL = "core: checkout and check-in", "PythonPool: one call"

# A file name in the package makes the guard count it as ours.
_PLANTED = compile(
    "def slowed(function, steps):\n"
    "    def slow(*args, **options):\n"
    "        for _ in range(steps):\n"
    "            pass\n"
    "        return function(*args, **options)\n"
    "    return slow\n",
    str(ROOT / "dspex_pool" / "planted.py"),
    "exec",
)


def slowed(function: Callable[..., Any], steps: int) -> Callable[..., Any]:
    """Return ``function`` with a loop before it that does nothing so many times."""
    names: dict[str, Any] = {}
    exec(_PLANTED, names)
    slow: Callable[..., Any] = names["slowed"](function, steps)
    return slow


def baseline() -> Baseline:
    """Return the baseline of this Python; without one there is nothing to compare with."""
    known = load()
    if known is None:
        pytest.skip(f"no baseline for Python {sys.version_info.major}.{sys.version_info.minor}")
    return known


def test_no_call_takes_a_tenth_more_instructions_than_the_baseline() -> None:
    """Core, protocol, each layer of a call and the worker's side stay within the limit. The remedy is in the text."""
    known = baseline()
    counted = subprocess.run(
        [sys.executable, "-m", "benchmarks.guard"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert counted.returncode == 0, (
        f"{counted.stdout}{counted.stderr}\nmake it shorter, or 'make guard ARGS=--record' and say why"
    )
    assert set(known.counts) == set(SUBJECTS)


def test_counts_are_the_same_again() -> None:
    """Two counts of the same code agree to the instruction, whatever else the machine does."""
    baseline()  # elsewhere instructions may be counted in another way
    assert count_all() == count_all()


def test_call_that_fails_is_told_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is counted then. The clock stood still while the pool gave its worker time, and the guard hung."""

    def fail(conversation: ClientConversation, payload: bytes) -> Any:
        if conversation.version > 1:
            raise ZeroDivisionError
        return receive(conversation, payload)

    receive: Any = ClientConversation.receive
    monkeypatch.setattr(ClientConversation, "receive", fail)
    with pytest.raises(ZeroDivisionError):
        SUBJECTS[CALL]()


def test_cost_planted_in_the_core_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some 80 instructions more in each check-in, and the core's counts fail."""
    known = baseline()
    monkeypatch.setattr(PoolState, "checkin", slowed(PoolState.checkin, 40))
    assert any(complaint.startswith(f"{CORE}:") for complaint in compare(count_all(), known))


def test_cost_planted_in_a_call_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pure core is innocent, the call is not: the complaint tells where to look."""
    known = baseline()
    monkeypatch.setattr(PoolWorker, "why_unclean", slowed(PoolWorker.why_unclean, 200))
    complaints = " ".join(compare(count_all(), known))
    assert f"{CALL}:" in complaints
    assert f"{CORE}:" not in complaints


def test_limit_is_a_tenth() -> None:
    """Just at the limit passes, one more fails; libraries of other versions are not compared; a new name is told."""
    before = Baseline({"call": Count(1000, 1000)}, {"trio": "0"})
    assert LIMIT == 0.1
    assert not compare({"call": Count(1100, 5000)}, before)
    assert compare({"call": Count(1101, 1000)}, before) == [
        "call: 1101 instructions of ours, 1000 in the baseline"
    ]
    assert compare({"new": Count(1, 1)}, before) == ["new: no baseline"]
