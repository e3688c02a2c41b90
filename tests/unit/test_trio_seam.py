"""The seam to trio's scheduler does what it is told, leaves trio as it was, and says when it is broken."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio._core import _run as scheduler
from trio.testing import MockClock

from dspex_testkit.trio_seam import SeamBrokenError, order_of_tasks, require_seam, tasks_ordered_by

if TYPE_CHECKING:
    from dspex_testkit.trio_seam import Task

pytestmark = pytest.mark.fast

NAMES = ("_r", "_ALLOW_DETERMINISTIC_SCHEDULING", "CancelStatus", "Deadlines")


def test_order_is_trios_own_again_afterwards() -> None:
    """Nothing of trio is changed afterwards, also when a run fails."""
    seam: Any = scheduler
    before = [getattr(seam, name) for name in NAMES], seam.Deadlines.add, seam._r.getstate()
    with contextlib.suppress(KeyError), order_of_tasks(7):
        assert seam._ALLOW_DETERMINISTIC_SCHEDULING is True
        raise KeyError("a run that fails")
    assert ([getattr(seam, name) for name in NAMES], seam.Deadlines.add, seam._r.getstate()) == before


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING"),
        (scheduler.Deadlines, "add"),
        (scheduler, "GLOBAL_RUN_CONTEXT"),
    ],
    ids=["switch", "ties", "queue"],
)
def test_broken_seam_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """A version of trio without one of the names gives an error with both, not a run in an order of its own."""
    monkeypatch.delattr(owner, name)
    with pytest.raises(SeamBrokenError, match=rf"trio {trio.__version__} .*{name} is missing"):
        require_seam()


def test_task_that_is_held_back_runs_later_at_the_same_time() -> None:
    """The clock stands still as long as somebody could run."""
    seen: list[tuple[str, float]] = []
    rounds = 0

    def hold_first_back(ready: list[Task]) -> list[Task]:
        nonlocal rounds
        rounds += 1
        return [task for task in ready if task.name != "first" or rounds > 20]

    async def note(name: str) -> None:
        seen.append((name, trio.current_time()))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for name in ("first", "second"):
                nursery.start_soon(note, name, name=name)

    with tasks_ordered_by(hold_first_back):
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert seen == [("second", 0.0), ("first", 0.0)]
    assert rounds > 20
