"""A cancellation at an exact step of trio's scheduler, for sweeps over all of them."""

from __future__ import annotations

import trio

__all__ = ["CancelAtStep"]


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
