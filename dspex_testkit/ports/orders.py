"""Orders: what workers are to do instead of answering a command, on every kind of port.

A simulated worker and a mock server look an order up where the test gave it. A worker process finds it in a folder
that the test shares with it. Who carries an order out says so, so a test can see that it happened.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dspex_testkit.plan import Deed, Pause, Plan
from dspex_testkit.plan_json import plan_from_json, plan_to_json

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HANDSHAKE", "ORDERS_VARIABLE", "Order", "OrderFolder", "Orders", "carried_out", "comes_before"]

#: The environment variable that names the folder to a worker process.
ORDERS_VARIABLE: Final = "DSPEX_TESTKIT_ORDERS"
#: What the first ping is called in orders.
HANDSHAKE: Final = "handshake"

_FILE = "orders.json"


def is_meant(wanted: str, command: str) -> bool:
    """Tell whether an order for ``wanted`` is for ``command``; ``*`` is for all but the handshake."""
    return wanted == command or (wanted == "*" and command != HANDSHAKE)


def _check(command: object, plan: object, worker: object, times: object) -> None:
    """Refuse what no worker could ever follow: its order would never happen, or fail in the worker's hands."""
    if not isinstance(command, str):
        raise TypeError(f"an order is for the name of a command, such as 'echo', not {command!r}")
    if not isinstance(plan, Plan):
        raise TypeError(f"what is ordered for {command!r} is a Plan, such as Plan().reply(5), not {plan!r}")
    if not isinstance(worker, str | None):
        raise TypeError(
            f"worker is a name, such as 'w-1', not {worker!r}; pool.worker(0).worker_id is the oldest's"
        )
    if times is not None and (not isinstance(times, int) or isinstance(times, bool)):
        raise TypeError(f"times is a whole number, or None for always, not {times!r}")
    if times is not None and times < 0:
        raise ValueError(f"times must be at least 0, or None for always, not {times}")


@dataclass(slots=True)
class Order:
    """What workers are to do instead of answering a command; pauses alone come before the answer."""

    command: str
    plan: Plan
    #: Name of the worker that is meant; ``None`` for any.
    worker: str | None
    #: How often it is carried out; ``None`` for always.
    times: int | None
    number: int
    _orders: Orders
    _count: int = 0

    @property
    def happened(self) -> int:
        """How often it was carried out so far."""
        return self._orders.count(self)

    def withdraw(self) -> None:
        """Have the command answered as always again."""
        self._orders.withdraw(self)

    def fits(self, worker_id: str, command: str) -> bool:
        """Tell whether the order is for this command of this worker."""
        return is_meant(self.command, command) and self.worker in (None, worker_id)

    def take(self) -> bool:
        """Count one time more, unless it was carried out as often as it is to be."""
        if self.times is not None and self._count >= self.times:
            return False
        self._count += 1
        return True


@dataclass(slots=True)
class Orders:
    """The orders of one test, in the order in which they were given; the first that fits is carried out."""

    given: list[Order] = field(default_factory=list)
    numbered: int = 0

    def give(self, command: str, plan: Plan, *, worker: str | None, times: int | None) -> Order:
        """Give an order.

        Raises:
            TypeError: The command or the worker is no name, the plan no ``Plan``, or the times no whole number.
            ValueError: It is to be carried out less often than never.
        """
        _check(command, plan, worker, times)
        self.numbered += 1
        order = Order(command, plan, worker, times, self.numbered, self)
        self.given.append(order)
        return order

    def withdraw(self, order: Order) -> None:
        """Take an order back."""
        self.given = [other for other in self.given if other is not order]

    def take(self, worker_id: str, command: str) -> Plan | None:
        """Return what a worker is to do for a command, if anything was ordered; count it."""
        fitting = (order for order in self.given if order.fits(worker_id, command))
        return next((order.plan for order in fitting if order.take()), None)

    def count(self, order: Order) -> int:
        """Return how often an order was carried out."""
        return order._count


class OrderFolder(Orders):
    """Orders that worker processes read in a folder. An order that was carried out leaves a file there."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def give(self, command: str, plan: Plan, *, worker: str | None, times: int | None) -> Order:
        """Give an order."""
        order = super().give(command, plan, worker=worker, times=times)
        self._write()
        return order

    def withdraw(self, order: Order) -> None:
        """Take an order back."""
        super().withdraw(order)
        self._write()

    def count(self, order: Order) -> int:
        """Return how often an order was carried out."""
        return len(list(self.folder.glob(f"{order.number}.*")))

    def _write(self) -> None:
        records = [
            [order.number, order.command, order.worker, order.times, plan_to_json(order.plan)]
            for order in self.given
        ]
        unfinished = self.folder / "unfinished"
        unfinished.write_text(json.dumps(records), encoding="utf-8")
        unfinished.replace(self.folder / _FILE)


def ordered(folder: str, worker_id: str | None, command: str) -> Plan | None:
    """Return what a worker process is to do for a command by the orders in a folder; note that it does."""
    path = Path(folder)
    try:
        records = json.loads((path / _FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    for number, wanted, worker, times, steps in records:
        if is_meant(wanted, command) and worker in (None, worker_id) and _claim(path, number, times):
            return plan_from_json(steps)
    return None


def _claim(folder: Path, number: int, times: int | None) -> bool:
    """Leave a file for one time more; several processes may try at once, and each file is made by one."""
    turn = 0
    while times is None or turn < times:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(folder / f"{number}.{turn}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            return True
        turn += 1
    return False


def comes_before(plan: Plan) -> bool:
    """Tell whether a plan is nothing but pauses and deeds, so that the command is answered as always after it."""
    return bool(plan.steps) and all(isinstance(step, Pause | Deed) for step in plan.steps)


def carried_out(plan: Plan, answer: Callable[[], Any]) -> Plan:
    """Return what a worker does that was ordered a plan: pauses and deeds alone come before its answer."""
    if comes_before(plan):
        rest: Plan = answer()
        return Plan(*plan.steps, *rest.steps)
    return plan
