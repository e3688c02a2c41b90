"""The idle workers, and which of them is lent next."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspex_pool.core.records import WorkerRecord

__all__ = ["IdleSet"]


class IdleSet:
    """Workers that nobody uses, in the order of their last use.

    Iterating yields them in that order.

    Args:
        order: Which one is lent next: ``lifo``, the one used last; ``fifo``, the one idle for longest.
    """

    def __init__(self, order: str) -> None:
        self._is_lifo = order == "lifo"
        self._workers: dict[int, WorkerRecord] = {}

    def __len__(self) -> int:
        return len(self._workers)

    def __contains__(self, number: int) -> bool:
        return number in self._workers

    def __iter__(self) -> Iterator[WorkerRecord]:
        return iter(self._workers.values())

    def add(self, record: WorkerRecord) -> None:
        """Put a worker among the idle."""
        workers = self._workers
        newest = next(reversed(workers.values())) if workers else record
        workers[record.number] = record
        # A ping is no use. Were it put last, it would be lent next, and with pings no worker would be idle for long.
        if newest.last_used > record.last_used:
            self._workers = dict(sorted(workers.items(), key=lambda item: item[1].last_used))

    def remove(self, number: int) -> WorkerRecord | None:
        """Take out one certain worker; ``None`` if it is not idle."""
        return self._workers.pop(number, None)

    def take(self) -> WorkerRecord:
        """Take out the worker that is lent next.

        Raises:
            KeyError, StopIteration: There is none; a bug of the pool.
        """
        if self._is_lifo:
            return self._workers.popitem()[1]
        return self._workers.pop(next(iter(self._workers)))

    def take_for(self, bound_to: int | None, *, strict: bool) -> WorkerRecord | None:
        """Take out the worker for a session, if any can serve it now.

        Args:
            bound_to: The worker that the session is bound to, if any.
            strict: Whether no other will do.
        """
        workers = self._workers
        if bound_to is not None and (strict or bound_to in workers):
            return workers.pop(bound_to, None)
        return self.take() if workers else None
