"""The line of waiters: first come, first served among those whom a worker can serve."""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspex_pool.core.records import Waiter

__all__ = ["WaitLine"]

# OrderedDict, not dict: taking the first of a dict walks over all entries deleted before it.
_Lane: TypeAlias = "OrderedDict[int, Waiter]"


class WaitLine:
    """Waiters in order of arrival.

    A waiter stands in the open lane, where any worker may serve it, or in the lane of the one worker that its
    strict session is bound to. All operations but ``bind``, ``unbind`` and ``strand`` take constant time, or
    logarithmic where a deadline is kept.
    """

    def __init__(self) -> None:
        self._open: _Lane = OrderedDict()
        self._bound: dict[int, _Lane] = {}
        #: The lane in which each waiter stands, by its number; empty while nobody waits.
        self.lane_of: dict[int, _Lane] = {}
        self._unbound_strict: dict[str, _Lane] = {}
        self._deadlines: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self.lane_of)

    def __iter__(self) -> Iterator[Waiter]:
        for number, lane in self.lane_of.items():
            yield lane[number]

    def __contains__(self, number: int) -> bool:
        return number in self.lane_of

    @property
    def open_count(self) -> int:
        """Waiters that any worker may serve: the demand for new workers."""
        return len(self._open)

    def add(self, waiter: Waiter, bound_to: int | None = None) -> None:
        """Put ``waiter`` into the open lane, or into that of worker ``bound_to``.

        It stands last, unless its number says that it was in line before: then it has its old place again.
        """
        if bound_to is None:
            lane = self._open
            if waiter.strict and waiter.session is not None:
                self._unbound_strict.setdefault(waiter.session, OrderedDict())[waiter.number] = waiter
        else:
            lane = self._bound.setdefault(bound_to, OrderedDict())
        is_back = bool(lane) and next(reversed(lane)) > waiter.number
        lane[waiter.number] = waiter
        if is_back:
            earlier = list(itertools.takewhile(lambda number: number < waiter.number, lane))
            for number in (waiter.number, *reversed(earlier)):
                lane.move_to_end(number, last=False)
        self.lane_of[waiter.number] = lane
        if waiter.deadline != float("inf"):
            heapq.heappush(self._deadlines, (waiter.deadline, waiter.number))

    def remove(self, number: int) -> Waiter | None:
        """Take the waiter out, wherever it stands; ``None`` if it is not in line."""
        lane = self.lane_of.pop(number, None)
        if lane is None:
            return None
        waiter = lane.pop(number)
        if waiter.strict and waiter.session in self._unbound_strict:
            same_session = self._unbound_strict[waiter.session]
            same_session.pop(number, None)
            if not same_session:
                del self._unbound_strict[waiter.session]
        self._compact()
        return waiter

    def first_for(self, worker: int) -> Waiter | None:
        """Return the waiter that has waited longest among those whom ``worker`` can serve."""
        first = next(iter(self._open.values()), None)
        lane = self._bound.get(worker)
        if not lane:
            return first
        bound_first = next(iter(lane.values()))
        return bound_first if first is None or bound_first.number < first.number else first

    def bind(self, session: str, worker: int) -> list[Waiter]:
        """Move the strict waiters of ``session`` to the lane of ``worker``; return those moved."""
        moved = list(self._unbound_strict.pop(session, {}).values())
        if moved:
            lane = self._bound.setdefault(worker, OrderedDict())
            for waiter in moved:
                del self.lane_of[waiter.number][waiter.number]
                lane[waiter.number] = waiter
                self.lane_of[waiter.number] = lane
            # Other sessions of this worker may have waiters that came between these.
            for number in sorted(lane):
                lane.move_to_end(number)
        return moved

    def unbind(self, session: str) -> bool:
        """Move the waiters of ``session`` back to the open lane, to their old places; tell whether there were any."""
        moved = [
            waiter for lane in self._bound.values() for waiter in lane.values() if waiter.session == session
        ]
        for waiter in moved:
            self.remove(waiter.number)
            self.add(waiter)
        return bool(moved)

    def strand(self, worker: int) -> list[Waiter]:
        """Take out and return all waiters that only ``worker`` could have served."""
        lane: _Lane = self._bound.pop(worker, OrderedDict())
        for number in lane:
            del self.lane_of[number]
        return list(lane.values())

    def expired(self, now: float) -> list[Waiter]:
        """Take out and return the waiters whose deadline has come, earliest first."""
        gone = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, number = heapq.heappop(self._deadlines)
            waiter = self.remove(number)
            if waiter is not None:
                gone.append(waiter)
        return gone

    def next_deadline(self) -> float:
        """Return the earliest deadline of a waiter in line, or infinity."""
        while self._deadlines and self._deadlines[0][1] not in self.lane_of:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else float("inf")

    def _compact(self) -> None:
        # Entries of waiters that left stay in the heap until they surface. Rebuilding when most are stale
        # keeps memory flat after any number of cancelled waiters, at constant cost for each.
        if len(self._deadlines) > 64 + 2 * len(self.lane_of):
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self.lane_of]
            heapq.heapify(self._deadlines)
