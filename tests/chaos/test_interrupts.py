"""Ctrl-C before single lines of the pool's own code, as a user's would come."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock

import dspex_pool
from dspex_pool.adapters import PythonPool
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.invariants import check_books
from dspex_testkit.mock_port import MockPortFactory
from tests.chaos.test_swept_pool import borrow, late_to_answer
from tests.search_profiles import depth
from tests.session_workers import CREATE, CannedWorkers, execute, open_sessions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

pytestmark = pytest.mark.chaos

PACKAGE = str(Path(dspex_pool.__file__).parent)


class Interrupt:
    """Sends this process SIGINT before one line of the pool's own code, as a user's Ctrl-C would.

    Args:
        at_line: Number of the line, counted from the beginning; or the name of a function, for the second line that
            is run in it, when its books are half written.
    """

    def __init__(self, at_line: int | str | None) -> None:
        self.lines = 0
        self.is_done = False
        self._at_line = at_line
        self._lines_within = 0

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            self.lines += 1
            self._lines_within += frame.f_code.co_name == self._at_line
            if not self.is_done and (self.lines == self._at_line or self._lines_within == 2):
                self.is_done = True
                signal.raise_signal(signal.SIGINT)
        return self


async def work_through_an_interrupt(ports: MockPortFactory) -> None:
    """Use a pool in all ordinary ways; if the interrupt meets the caller's own code, go on with the pool."""
    async with WorkerPool(ports, pool_size=1, health_check_interval=5.0) as pool:
        try:
            await borrow(pool)
            pool.resize(2)
            await pool.wait_ready(2)
            pool.drain()
            with trio.move_on_after(0.5):
                async with pool.checkout() as lease:
                    await lease.request("late")
            await trio.sleep(6.0)
        except KeyboardInterrupt:
            check_books(pool._state)
            await borrow(pool)
            raise


def test_keyboard_interrupt_leaves_books_that_agree() -> None:
    """Ctrl-C amid moves of the books, at night before any line: the pool serves on, or closes. [property 11]"""
    places: list[int | str] = ["_lend", "checkin", "_retire", "close", "abandon"]
    if many := depth(0, 800):
        lines = run_interrupted(None).lines
        places += range(1, lines, lines // many)
    for place in places:
        # How many lines are run may differ a little from run to run, so the last one may not come.
        assert run_interrupted(place).is_done or isinstance(place, int)


async def change_sessions(workers: CannedWorkers) -> None:
    """Begin a session, change and end it; if the interrupt meets the caller's own code, go on with another."""
    async with open_sessions(workers, pool_size=1) as pool:
        try:
            await pool.execute_in_session("s", *CREATE)
            await pool.execute_in_session("s", "delete_program", {"program_id": "p"})
            await pool.end_session("s")
        except KeyboardInterrupt:
            await pool.execute_in_session("t", *CREATE)
            await execute(pool, "t")
            raise


@pytest.mark.parametrize("place", ["_uninterrupted", "commit", "delete_program", "end"])
def test_keyboard_interrupt_in_a_change_of_a_session_leaves_the_pool_whole(place: str) -> None:
    """Ctrl-C could leave the scope open in which a change is made, and nothing was in order from then on."""
    assert run_interrupted(place, change_sessions, CannedWorkers()).is_done


async def leave_interrupted(workers: CannedWorkers) -> None:
    """Leave a pool's block; the interrupt meets the first function that is called for it."""

    def strike(_frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)

    async with PythonPool.open(ports=workers, pool_size=1):
        await trio.sleep(1.0)
        sys.setprofile(strike)


def test_keyboard_interrupt_where_a_pool_is_left_closes_it() -> None:
    """Ctrl-C could get between a pool's block and its closing, which made trio take it for an error of its own."""
    workers = CannedWorkers()
    is_heard = False
    try:
        trio.run(leave_interrupted, workers, clock=MockClock(autojump_threshold=0))
    except* KeyboardInterrupt:
        is_heard = True
    assert is_heard
    assert workers.started == 1
    assert not workers.live


def run_interrupted(
    at_line: int | str | None,
    scenario: Callable[[Any], Awaitable[None]] = work_through_an_interrupt,
    ports: MockPortFactory | None = None,
) -> Interrupt:
    """Run the scenario with an interrupt before that line, and check that nothing is left."""
    ports = ports or MockPortFactory(late_to_answer)
    interrupt = Interrupt(at_line)
    tracer = sys.gettrace()  # of whoever measures coverage
    sys.settrace(interrupt)
    try:
        trio.run(scenario, ports, clock=MockClock(autojump_threshold=0))
    except* KeyboardInterrupt:
        assert at_line is not None
    finally:
        sys.settrace(tracer)
    assert not ports.live, f"line {at_line}"
    return interrupt
