"""Async tests with ``@given``: each example gets a clock of its own and a schedule that Hypothesis draws and shrinks.

    @simulated
    @given(st.lists(st.integers(1, 5)))
    async def test_queue(delays: list[int]) -> None:
        ...

The schedule is drawn before trio runs, and nothing is drawn while it does: an example that Hypothesis gives up would
tear the run apart.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import TYPE_CHECKING, Any, Final, TypeVar

import hypothesis
import trio
from hypothesis import strategies as st
from hypothesis.control import current_build_context
from trio.testing import MockClock

from dspex_testkit.simulation.run import only_error
from dspex_testkit.simulation.schedulers import Schedule, Steering, Turn
from dspex_testkit.trio_seam import require_seam, tasks_ordered_by

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

__all__ = ["drawn_schedule", "schedules", "simulated"]

TestT = TypeVar("TestT", bound="Callable[..., Any]")

#: Virtual seconds after which an example counts as hung.
PATIENCE: Final = 100_000.0
#: Choices of the scheduler that are drawn one by one.
CHOICES: Final = 40
#: Of a choice: how many positions, and how many rounds, a task may be held back from.
POSITIONS, ROUNDS = 4, 3


def schedules() -> st.SearchStrategy[Schedule]:
    """Return a strategy for schedules: a few tasks held back, or a policy with a seed; or the plain order."""
    few = st.lists(st.integers(0, POSITIONS * ROUNDS), max_size=CHOICES).map(_schedule_of)
    policies = st.builds(Schedule, st.sampled_from(["hold-back", "fair", "pct"]), st.integers(0, 2**16))
    return few | policies


def _schedule_of(numbers: list[int]) -> Schedule:
    """Read each number as who is held back for how long in one choice; 0 holds nobody back."""
    turns = (
        Turn(choice, held=(((number - 1) % POSITIONS, 1 + (number - 1) // POSITIONS),))
        for choice, number in enumerate(numbers)
        if number
    )
    return Schedule(turns=tuple(turns))


@contextlib.contextmanager
def drawn_schedule() -> Iterator[None]:
    """Have the tasks of trio runs in this block ordered by a schedule of the example that is being tried."""
    require_seam()
    schedule = current_build_context().data.draw(schedules())
    steering = Steering(schedule)
    with tasks_ordered_by(steering):
        try:
            yield
        finally:
            hypothesis.note(f"schedule: {schedule.policy} {schedule.seed or list(schedule.turns)}")


def simulated(test: TestT) -> TestT:
    """Run each example of an async test with ``@given`` in virtual time, with a clock and a schedule of its own.

    Put it above ``@given``. The test needs no plugin for async tests, and may use any fixture that is not async.

    Raises:
        TypeError: This is no async test with ``@given``.
    """
    handle: Any = getattr(test, "hypothesis", None)
    body = getattr(handle, "inner_test", None)
    if body is None or not inspect.iscoroutinefunction(body):
        raise TypeError("@simulated goes above @given, on an async test; without @given, use @explore")

    @functools.wraps(body)
    def example(*args: Any, **drawn: Any) -> None:
        with drawn_schedule():
            _run(functools.partial(body, *args, **drawn))

    # Or plugins, and Hypothesis, would still take it for a coroutine function.
    del example.__wrapped__
    handle.inner_test = example
    return test


def _run(body: Callable[[], Awaitable[object]]) -> None:
    async def main() -> None:
        with trio.fail_after(PATIENCE):
            await body()

    try:
        trio.run(main, clock=MockClock(autojump_threshold=0))
    except BaseExceptionGroup as group:
        # Hypothesis tells failures apart by their class and place, and a group hides both.
        if len(group.exceptions) > 1:
            raise
        raise only_error(group) from None
