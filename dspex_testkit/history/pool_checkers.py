"""Checkers of what a pool did: leases, sizes, the order of the line, starts, deaths, and the end."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from dspex_testkit.history.attending import PRESENT
from dspex_testkit.history.verdict import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspex_testkit.history.record import History, LeaseRecord, PoolEvent

__all__ = [
    "deaths_cost_one_call_each",
    "leases_exclusive",
    "nothing_alive_after_close",
    "sizes_within_bounds",
    "starts_bounded",
    "waiters_in_order",
    "without_gaps",
]

#: Seconds that two times may differ by which were computed in different ways.
_ROUNDING = 1e-6


def without_gaps(history: History) -> list[Violation]:
    """Check that every event of the pool was recorded."""
    return [Violation(f"an event of the pool could not be recorded: {gap!r}") for gap in history.gaps]


def leases_exclusive(history: History) -> list[Violation]:
    """Check that nobody had a worker that somebody else had, that no token came twice, and that all use was lent."""
    found: list[Violation] = []
    by_worker: dict[tuple[str, int], list[LeaseRecord]] = defaultdict(list)
    for lease in history.leases:
        by_worker[lease.told_by, lease.worker].append(lease)
    for leases in by_worker.values():
        for earlier, later in itertools.pairwise(leases):
            if later.since < earlier.until:
                found.append(Violation(f"one worker in two hands: {_told(earlier)}, and {_told(later)}"))
    lent = [lease for lease in history.leases if lease.told_by == "pool"]
    for earlier, later in itertools.pairwise(lent):
        if later.token <= earlier.token:
            found.append(Violation(f"a token does not grow: {_told(earlier)}, then {_told(later)}"))
    return found + (_used_without_a_lease(history, lent) if lent else [])


def _used_without_a_lease(history: History, lent: list[LeaseRecord]) -> list[Violation]:
    by_token = {(lease.worker, lease.token): lease for lease in lent}
    found = []
    for use in history.leases:
        lease = by_token.get((use.worker, use.token))
        if lease is None or not lease.since <= use.since < lease.until:
            found.append(Violation(f"a worker was used by somebody to whom it was not lent: {_told(use)}"))
    return found


def _told(lease: LeaseRecord) -> str:
    return (
        f"{lease.worker_id} (incarnation {lease.worker}, token {lease.token}) "
        f"from {lease.acquired:.3f} s to {lease.released:.3f} s, says the {lease.told_by}"
    )


def sizes_within_bounds(history: History) -> list[Violation]:
    """Check that no start brought a pool over its size and overflow, and that no snapshot shows more."""
    found: list[Violation] = []
    if history.options is None:
        return found
    size = largest = history.options.pool_size
    overflow = history.options.max_overflow
    alive: set[int] = set()
    for event in history.events:
        if event.name == "resized":
            size = int(event.measured["to_size"])
            largest = max(largest, size)
        elif event.name == "worker_retired":
            alive.discard(event.about["incarnation"])
        elif event.name in (PRESENT, "worker_starting"):
            alive.add(event.about["incarnation"])
            if event.name == "worker_starting" and len(alive) > size + overflow:
                text = (
                    f"a start at {event.at:.3f} s makes {len(alive)} processes, allowed are {size + overflow}"
                )
                found.append(Violation(text))
    found += [
        Violation(
            f"a snapshot at {at:.3f} s shows {now.processes} processes, allowed are {largest + overflow}"
        )
        for at, now in history.samples
        if now.processes > largest + overflow
    ]
    return found


def waiters_in_order(history: History) -> list[Violation]:
    """Check that workers were lent in the order in which callers had come.

    Callers who insist on a certain worker stand in lines of their own, one for each session. Who was lent a worker
    that turned out unclean was served when that one was lent; the worker that it got instead is not looked at.
    """
    found = []
    latest: dict[str | None, float] = defaultdict(lambda: -math.inf)
    for event in _grants(history):
        session = event.about.get("session")
        lane = session if session in history.strict_sessions else None
        arrived = event.about["arrived"]
        if arrived < latest[lane] - _ROUNDING:
            late = f"somebody who came at {arrived:.6f} s was lent a worker at {event.at:.6f} s"
            found.append(Violation(f"overtaken in line: {late}, after one who came at {latest[lane]:.6f} s"))
        latest[lane] = max(latest[lane], arrived)
    return found


def _grants(history: History) -> Iterator[PoolEvent]:
    """Give the loans to callers, without those that make up for a loan that was undone."""
    last: dict[str, PoolEvent] = {}
    undone: list[PoolEvent] = []
    for event in history.events:
        if event.name == "checkout_declined":
            undone.append(last[event.about["worker_id"]])
        elif event.name == "checkout" and event.about.get("arrived") is not None:
            last[event.about["worker_id"]] = event
            before = next((other for other in undone if _is_same_caller(other, event)), None)
            if before is None:
                yield event
            else:
                undone.remove(before)


def _is_same_caller(one: PoolEvent, other: PoolEvent) -> bool:
    is_same_session = one.about.get("session") == other.about.get("session")
    return is_same_session and abs(one.about["arrived"] - other.about["arrived"]) <= _ROUNDING


def starts_bounded(history: History) -> list[Violation]:
    """Check that starts in flight are bounded, and that after a failure one is tried at a time, when it is due."""
    if history.options is None:
        return []
    found: list[Violation] = []
    starting: set[Any] = set()
    retry_at: float | None = None
    for event in history.events:
        number = event.about.get("incarnation")
        if event.name == "worker_start_failed":
            retry_at = event.about["retry_at"]
        elif event.name == "worker_started":
            retry_at = None
        if event.name == "worker_starting":
            found += _too_early(event, retry_at, len(starting), history.options.max_starting)
            starting.add(number)
        elif event.about.get("to") not in (None, "starting"):
            starting.discard(number)
    return found


def _too_early(event: PoolEvent, retry_at: float | None, in_flight: int, most: int) -> list[Violation]:
    found = []
    which = f"the start of {event.about['worker_id']} at {event.at:.3f} s"
    if in_flight >= most:
        found.append(Violation(f"{which} is number {in_flight + 1} in flight, allowed are {most}"))
    if retry_at is not None and in_flight:
        found.append(Violation(f"{which} was not alone, though the last start had failed"))
    if retry_at is not None and event.about["began"] < retry_at - _ROUNDING:
        found.append(Violation(f"{which} came too early after a failed one: allowed from {retry_at:.3f} s"))
    return found


def deaths_cost_one_call_each(history: History) -> list[Violation]:
    """Check that of one name no more calls ended by a worker's death than workers of that name have lived."""
    if history.options is None:
        return []
    lived = Counter(
        event.about["worker_id"] for event in history.events if event.name in (PRESENT, "worker_starting")
    )
    ended = defaultdict(list)
    for operation in history.operations:
        if operation.error == "WorkerDiedError":
            ended[operation.worker_id].append(operation)
    return [
        Violation(f"{len(operations)} calls died with {lived[str(name)]} workers {name}", tuple(operations))
        for name, operations in ended.items()
        if len(operations) > lived[str(name)]
    ]


def nothing_alive_after_close(history: History) -> list[Violation]:
    """Check that a pool that has closed had reaped all its workers, and got all leases back.

    A pool that has not closed yet is not looked at. Processes themselves are looked for by the leak gate.
    """
    found = []
    alive: dict[int, str] = {}
    is_closed = False
    for event in history.events:
        if event.name in (PRESENT, "worker_starting"):
            alive[event.about["incarnation"]] = event.about["worker_id"]
            if is_closed:
                found.append(Violation(f"{event.about['worker_id']} was started after the pool had closed"))
        elif event.name == "worker_retired":
            alive.pop(event.about["incarnation"], None)
        elif event.name == "closed":
            is_closed = True
            found += [Violation(f"{name} was alive when the pool had closed") for name in alive.values()]
    if is_closed:
        found += [
            Violation(f"a lease outlives the pool: {_told(lease)}")
            for lease in history.leases
            if lease.until == math.inf
        ]
    return found
