"""A cancellation at an exact step of trio's scheduler, for sweeps over all steps and several orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from dspex_testkit.trio_seam import order_of_tasks

__all__ = ["CancelAtStep", "run_in_order"]

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


def run_in_order(order: int, main: Callable[[], Awaitable[T]]) -> T:
    """Run ``main`` with the order in which trio runs tasks that are ready together fixed by a seed.

    One order misses faults that another shows, and without a seed a sweep is not the same twice.
    """
    with order_of_tasks(order):
        return trio.run(main)


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope before one step of the scheduler, counted from when it is added to the run.

    Args:
        step: Number of the step, from 1.
        scope: What to cancel.
    """

    def __init__(self, step: int, scope: trio.CancelScope) -> None:
        self._steps_left = step
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count, and cancel when the time has come."""
        self._steps_left -= 1
        if self._steps_left == 0:
            self._scope.cancel()
