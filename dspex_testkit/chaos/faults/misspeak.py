"""A worker itself writes something else than its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from dspex_testkit.chaos.fault import Fault, Witness
from dspex_testkit.simulation import faults as of_simulation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_testkit.chaos.injection import Injection

__all__ = ["Misspeak"]

_PLANNED: Final[Mapping[str, type[of_simulation.InCall]]] = {
    "garbage": of_simulation.Garbage,
    "partial": of_simulation.Partial,
    "oversize": of_simulation.Oversize,
    "duplicate": of_simulation.Duplicate,
    "wrong_id": of_simulation.WrongId,
}


class Misspeak(Fault, frozen=True, kw_only=True):
    """A worker itself writes something else than its answer, into the pipe that the pool's own port reads."""

    #: The worker: the oldest is number 0.
    worker: int = 0
    #: What it writes.
    how: Literal["garbage", "partial", "oversize", "duplicate", "wrong_id"] = "garbage"
    proof = "the worker itself said that it did so"

    def __post_init__(self) -> None:
        Fault.__post_init__(self)
        if self.how not in _PLANNED:
            raise ValueError(f"Misspeak: how = {self.how!r} is refused: it is one of {', '.join(_PLANNED)}")

    def inject(self, to: Injection) -> Witness:
        """Have it misspeak when it is next asked for something."""
        plan = _PLANNED[self.how](0).plan(0.0, None)
        orders = to.order(plan, worker=self.worker)
        return lambda: [f"a worker wrote {self.how}" for order in orders for _ in range(order.happened)]
