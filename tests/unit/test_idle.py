"""The idle workers, and which of them is lent next."""

from __future__ import annotations

import pytest

from dspex_pool.core.idle import IdleSet
from dspex_pool.core.records import WorkerRecord
from dspex_pool.lifecycle import WorkerState


def used_at(number: int, last_used: float) -> WorkerRecord:
    """Return an idle worker that was last used then."""
    return WorkerRecord(number, number, 0, last_used, WorkerState.IDLE, last_used=last_used)


def idle(order: str, *uses: tuple[int, float]) -> IdleSet:
    """Return workers that came back in this order, each with the time of its last use."""
    workers = IdleSet(order)
    for number, last_used in uses:
        workers.add(used_at(number, last_used))
    return workers


@pytest.mark.parametrize(("order", "expected"), [("lifo", [3, 2, 1]), ("fifo", [1, 2, 3])])
def test_workers_are_lent_by_their_last_use(order: str, expected: list[int]) -> None:
    """The one used last, or the one idle for longest; also when a ping brought one back out of turn."""
    workers = idle(order, (1, 1.0), (3, 3.0), (2, 2.0))
    assert [record.number for record in workers] == [1, 2, 3]
    assert [workers.take().number for _ in range(3)] == expected
    assert len(workers) == 0


@pytest.mark.parametrize(
    ("bound_to", "strict", "expected"),
    [(1, False, 1), (1, True, 1), (9, False, 2), (9, True, None), (None, True, 2), (None, False, 2)],
)
def test_session_gets_its_own_worker_or_the_next_one(
    bound_to: int | None, strict: bool, expected: int | None
) -> None:
    """Its own if that is idle; else, unless the session is strict, whichever is next."""
    workers = idle("lifo", (1, 1.0), (2, 2.0))
    taken = workers.take_for(bound_to, strict=strict)
    assert (taken.number if taken is not None else None) == expected
    assert len(workers) == 2 - (taken is not None)


def test_nobody_is_taken_from_an_empty_set() -> None:
    """Without idle workers there is none for a session, and none to remove."""
    workers = idle("lifo", (1, 1.0))
    assert workers.remove(2) is None
    assert workers.remove(1) is not None
    assert 1 not in workers
    assert workers.take_for(None, strict=False) is None
