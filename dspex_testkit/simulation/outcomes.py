"""How the calls of a simulated run ended, and what of that is against the pool's promises."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dspex_pool import errors
from dspex_testkit.simulation.faults import GRID
from dspex_testkit.simulation.telling import in_short

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from dspex_testkit.simulation.workload import Call

__all__ = ["ANSWER", "CANCELLED", "OWN_ERROR", "BrokenPromiseError", "Outcome", "Outcomes", "OwnError"]

#: Outcomes that are no error of the pool.
ANSWER, CANCELLED, OWN_ERROR = "answer", "cancelled", "own error"

#: All ends of a call but errors of the pool.
BESIDE_ERRORS = (ANSWER, CANCELLED, OWN_ERROR, "WouldBlock")

#: What a caller may hear of a worker to which a fault has happened.
OF_BROKEN_WORKERS = frozenset({"WorkerDiedError", "RemoteProtocolError", "RemoteFrameTooLargeError"})


class BrokenPromiseError(AssertionError):
    """The pool did something in a simulated run that it promises never to do.

    Args:
        text: What it did.
        at: When, in seconds since the begin of the simulation; ``None`` for when it was seen.
        calls: Numbers of the calls that it did it to.
    """

    def __init__(self, text: str, *, at: float | None = None, calls: tuple[int, ...] = ()) -> None:
        super().__init__(text)
        self.at = at
        self.calls = calls


class OwnError(Exception):
    """What the code of a caller raises while it has a worker."""


@dataclass(slots=True)
class Outcome:
    """How one call went. Times are in seconds since the begin of the simulation."""

    call: Call
    #: When it asked for a worker.
    began: float
    #: When it got one; infinite if it never did.
    granted: float = math.inf
    #: When its last request was sent.
    asked: float = math.inf
    #: When all was over.
    ended: float = math.inf
    #: ``answer``, ``cancelled``, ``own error``, or the name of an error; empty while it goes on.
    kind: str = ""
    #: Incarnation of its worker; -1 for none.
    incarnation: int = -1
    #: Whether only its begin and end are known, because others borrowed workers for it.
    is_coarse: bool = False

    def __str__(self) -> str:
        granted = (
            f"got worker {self.incarnation} at {self.granted:g} s" if self.incarnation >= 0 else "got none"
        )
        ended = f"ended with {self.kind!r} at {self.ended:g} s" if self.kind else "has not ended"
        return f"{in_short(self.call)} came at {self.began:g} s, {granted}, {ended}"

    @property
    def left_line(self) -> float:
        """When it stopped waiting for a worker."""
        return min(self.granted, self.ended)


@dataclass(slots=True)
class Outcomes:
    """How the calls of one ``World.run`` ended."""

    all: list[Outcome] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.all)

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self.all)

    @property
    def kinds(self) -> Counter[str]:
        """How many calls ended in which way."""
        return Counter(outcome.kind for outcome in self.all)

    def count(self, kind: str | type[BaseException]) -> int:
        """Return how many calls ended in this way: by a kind of outcome, or in an error of that very class.

        Raises:
            ValueError: There is no such kind, nor an error of the pool of that name.
        """
        name = kind if isinstance(kind, str) else kind.__name__
        if kind == name and name not in (*BESIDE_ERRORS, *errors.__all__):
            known = ", ".join(BESIDE_ERRORS)
            raise ValueError(f"no call ends with {name!r}; there are {known}, and the errors of the pool")
        return sum(outcome.kind == name for outcome in self.all)

    def check(
        self, *, patience: float, hit: Collection[int], starts_failed: bool, declines: Collection[float] = ()
    ) -> None:
        """Check that each call ended once and lawfully, and that nobody was overtaken in line.

        Args:
            patience: Seconds that a call without a patience of its own waits for a worker.
            hit: Incarnations of the workers to which a fault has happened.
            starts_failed: Whether a start has failed.
            declines: Moments at which a worker was found unclean, or dead, right after it had been granted.

        Raises:
            BrokenPromiseError: With the call.
        """
        for outcome in self.all:
            if not outcome.kind:
                number = outcome.call.number
                raise BrokenPromiseError(f"call {number} has no outcome", calls=(number,))
            if not _is_lawful(outcome, patience, hit, starts_failed):
                raise BrokenPromiseError(
                    f"this call ended unlawfully: {outcome}", at=outcome.ended, calls=(outcome.call.number,)
                )
        self._check_line(declines)

    def _check_line(self, declines: Collection[float]) -> None:
        """Check that nobody got a worker while somebody waited who had come at an earlier moment.

        Who was granted an unclean or dying worker waits again, at the head of the line. Others who were granted a
        worker at that moment came after it, and keep theirs.
        """
        latest: Outcome | None = None
        waiting: list[Outcome] = []
        for outcome in sorted(self.all, key=lambda one: one.began):
            if waiting and waiting[-1].began < outcome.began:
                latest = max((*waiting, *([latest] if latest else [])), key=lambda one: one.left_line)
                waiting.clear()
            is_late = latest is not None and outcome.granted < latest.left_line
            if is_late and outcome.granted not in declines:
                assert latest is not None
                both = (latest.call.number, outcome.call.number)
                raise BrokenPromiseError(
                    f"overtaken in line: {latest} by {outcome}", at=outcome.granted, calls=both
                )
            waiting.append(outcome)


def _is_lawful(outcome: Outcome, patience: float, hit: Collection[int], starts_failed: bool) -> bool:
    if outcome.kind == ANSWER:
        return True
    call = outcome.call
    patience = call.patience * GRID if call.patience > 0 else patience
    laws: dict[str, Callable[[], bool]] = {
        CANCELLED: lambda: bool(call.cancel or call.cancel_step),
        OWN_ERROR: lambda: call.fails,
        "WouldBlock": lambda: call.patience < 0,
        "CheckoutTimeoutError": lambda: math.isclose(outcome.ended - outcome.began, patience),
        "CallTimeoutError": lambda: math.isclose(outcome.ended - outcome.asked, call.limit),
        "CircuitOpenError": lambda: starts_failed,
    }
    if outcome.is_coarse:
        waited = outcome.ended - outcome.began
        laws["CheckoutTimeoutError"] = lambda: _is_at_least(waited, patience)
        laws["CallTimeoutError"] = lambda: _is_at_least(waited, call.limit)
        laws |= dict.fromkeys(OF_BROKEN_WORKERS, lambda: bool(hit))
    elif outcome.kind in OF_BROKEN_WORKERS:
        return outcome.incarnation in hit
    return outcome.kind in laws and laws[outcome.kind]()


def _is_at_least(waited: float, bound: float) -> bool:
    return waited > bound or math.isclose(waited, bound)
