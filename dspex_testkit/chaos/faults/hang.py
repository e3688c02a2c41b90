"""A worker never answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.chaos.fault import Fault, Witness
from dspex_testkit.simulation.faults import Hang as Hanging

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["Hang"]


class Hang(Fault, frozen=True, kw_only=True):
    """A worker never answers."""

    #: The worker: the oldest is number 0.
    worker: int = 0
    #: Whether interrupts do not help.
    is_deaf: bool = False
    proof = "the worker itself said that it began to hang"

    def inject(self, to: Injection) -> Witness:
        """Have it hang when it is next asked for something."""
        orders = to.order(Hanging(0, self.is_deaf).plan(0.0, None), worker=self.worker)
        return lambda: [
            f"a worker hangs, order {order.number}" for order in orders for _ in range(order.happened)
        ]
