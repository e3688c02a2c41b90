"""The states of a worker and the only transitions between them."""

from __future__ import annotations

import enum
from typing import Protocol

__all__ = ["TRANSITIONS", "WorkerState", "move"]


class WorkerState(enum.Enum):
    """Where a worker process stands in its life."""

    #: The process is being started and shaken hands with.
    STARTING = "starting"
    #: Proven clean, nobody uses it.
    IDLE = "idle"
    #: The pool checks its health; it cannot be lent.
    PINGING = "pinging"
    #: In a caller's hands.
    LEASED = "leased"
    #: The caller left while an answer was due; the pool waits for it, within the grace.
    DRAINING = "draining"
    #: Out of service; its process is being ended.
    RETIRING = "retiring"
    #: Reaped. Its slot is free.
    DEAD = "dead"

    # Members are compared by identity; hashing the string value in Python code costs more.
    __hash__ = object.__hash__


_S = WorkerState

#: Every transition there is. What is not listed here is a bug of the pool.
TRANSITIONS: dict[WorkerState, frozenset[WorkerState]] = {
    _S.STARTING: frozenset({_S.IDLE, _S.RETIRING, _S.DEAD}),
    _S.IDLE: frozenset({_S.LEASED, _S.PINGING, _S.RETIRING, _S.DEAD}),
    _S.PINGING: frozenset({_S.IDLE, _S.RETIRING, _S.DEAD}),
    _S.LEASED: frozenset({_S.IDLE, _S.DRAINING, _S.RETIRING, _S.DEAD}),
    _S.DRAINING: frozenset({_S.IDLE, _S.RETIRING, _S.DEAD}),
    _S.RETIRING: frozenset({_S.DEAD}),
    _S.DEAD: frozenset(),
}


class HasState(Protocol):
    """Anything with a worker state."""

    state: WorkerState


def move(record: HasState, to: WorkerState) -> WorkerState:
    """Move ``record`` to state ``to`` and return the state it left.

    Raises:
        AssertionError: The table has no such transition; a bug of the pool.
    """
    left = record.state
    assert to in TRANSITIONS[left], f"no transition from {left.value} to {to.value}"
    record.state = to
    return left
