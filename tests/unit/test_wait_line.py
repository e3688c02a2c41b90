"""The line of waiters, without a pool."""

from __future__ import annotations

import time

import pytest

from dspex_pool.core.records import NEVER, Waiter
from dspex_pool.core.wait_line import WaitLine


def waiter(number: int, *, deadline: float = NEVER, session: str | None = None) -> Waiter:
    """Return the waiter with arrival ``number``; one with a session is strict."""
    return Waiter(number, 0.0, deadline, session, strict=session is not None)


def line_of(*waiters: Waiter, bound_to: int | None = None) -> WaitLine:
    """Return a line in which ``waiters`` arrived in this order."""
    line = WaitLine()
    for each in waiters:
        line.add(each, bound_to)
    return line


def served(line: WaitLine, worker: int = 1) -> list[int]:
    """Take out everybody whom ``worker`` can serve, in the order in which it would."""
    numbers = []
    while (first := line.first_for(worker)) is not None:
        line.remove(first.number)
        numbers.append(first.number)
    return numbers


def test_line_serves_in_order_of_arrival() -> None:
    """Who came first is first, and who left is not there."""
    line = line_of(*map(waiter, (1, 2, 3, 4)))
    assert line.remove(2) is not None
    assert line.remove(2) is None
    assert (len(line), line.open_count, 2 in line, 3 in line) == (3, 3, False, True)
    assert [each.number for each in line] == [1, 3, 4]
    assert served(line) == [1, 3, 4]
    assert not line


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_line_gives_back_old_places(order: tuple[int, int]) -> None:
    """Who was in line before stands where it stood, in whatever order several come back. [property 21]"""
    line = line_of(*map(waiter, (1, 2, 3, 4)))
    for number in (1, 2):
        line.remove(number)
    for number in order:
        line.add(waiter(number))
    assert served(line) == [1, 2, 3, 4]


def test_worker_serves_its_own_sessions_and_everybody_else_by_arrival() -> None:
    """A worker takes the first of its strict sessions' waiters and of the others; other workers' are not for it."""
    line = line_of(waiter(1, session="other"), bound_to=2)
    for number, bound_to in ((2, None), (3, 1), (4, None), (5, 1)):
        line.add(waiter(number, session="s" if bound_to else None), bound_to)
    assert line.open_count == 2
    assert served(line) == [2, 3, 4, 5]
    assert served(line, 2) == [1]
    assert served(line, 3) == []


def test_binding_moves_the_waiters_of_a_session_in_order() -> None:
    """When a session is bound, its waiters wait for that worker only, among its others by arrival."""
    line = line_of(waiter(1, session="s"), waiter(2), waiter(4, session="s"), waiter(5, session="t"))
    line.add(waiter(3, session="u"), 7)
    assert [each.number for each in line.bind("s", 7)] == [1, 4]
    assert line.bind("s", 7) == []
    assert line.bind("nobody's", 7) == []
    assert served(line, 8) == [2, 5]
    assert served(line, 7) == [1, 3, 4]


def test_waiter_that_left_is_not_bound() -> None:
    """A strict waiter that leaves before its session is bound is forgotten by both."""
    line = line_of(waiter(1, session="s"), waiter(2, session="s"))
    line.remove(1)
    assert [each.number for each in line.bind("s", 7)] == [2]
    line.remove(2)
    assert line.bind("s", 7) == []
    assert len(line) == 0


def test_stranding_takes_out_who_waits_for_one_worker() -> None:
    """When a worker leaves, exactly those come out whom nobody else can serve."""
    line = line_of(waiter(1), waiter(2))
    line.add(waiter(3, session="s"), 7)
    assert [each.number for each in line.strand(7)] == [3]
    assert line.strand(7) == []
    assert [each.number for each in line] == [1, 2]


def test_waiters_expire_at_their_deadline_earliest_first() -> None:
    """Those whose time has come are taken out, by deadline; the next deadline is that of a waiter in line."""
    line = line_of(waiter(1, deadline=5.0), waiter(2, deadline=3.0), waiter(3, deadline=9.0), waiter(4))
    assert line.next_deadline() == 3.0
    assert [each.number for each in line.expired(5.0)] == [2, 1]
    assert line.expired(5.0) == []
    line.remove(3)
    assert line.next_deadline() == NEVER
    assert served(line) == [4]


def test_waiter_that_came_back_expires_once() -> None:
    """Standing in line for the second time with the same deadline yields one timeout."""
    line = line_of(waiter(1, deadline=5.0))
    line.remove(1)
    line.add(waiter(1, deadline=5.0))
    assert [each.number for each in line.expired(5.0)] == [1]
    assert line.expired(6.0) == []


@pytest.mark.budget(0.1)
def test_ten_thousand_timeouts_leave_nothing_behind() -> None:
    """After 10,000 timeouts the line holds its live waiters only, and serving one costs no more than ever.

    [property 22]
    """
    line = line_of(*(waiter(number, deadline=1.0) for number in range(10_000)))
    line.add(waiter(10_000))
    assert len(line.expired(1.0)) == 10_000
    assert (len(line), line.next_deadline()) == (1, NEVER)
    began = time.process_time()
    assert served(line) == [10_000]
    assert time.process_time() - began < 0.001, "serving one walked over those that had left"


def test_memory_stays_flat_after_any_number_of_cancelled_waiters() -> None:
    """Deadlines of waiters that left long before are dropped, not kept until they come. [property 22]"""
    line = line_of(waiter(0, deadline=1_000.0))
    for number in range(1, 2_000):
        line.add(waiter(number, deadline=1_000.0))
        line.remove(number)
    assert len(line._deadlines) < 100
    assert line.next_deadline() == 1_000.0
