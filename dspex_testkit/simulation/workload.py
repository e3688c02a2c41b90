"""What a simulated pool is asked to do, as plain data: calls, faults and cancellations, in ticks of ``GRID``.

Everything is drawn before the run begins. So a run can be told in one token, and cut down to a smaller one.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import TYPE_CHECKING, Final

import msgspec

from dspex_testkit.simulation.faults import FAULTS, GRID, Fault, Places
from dspex_testkit.simulation.schedulers import POLICIES, Schedule

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

__all__ = ["LONG", "Call", "Case", "Workload", "draw_workload", "of_token", "to_token"]

#: Begin of every token: the version of the form.
VERSION: Final = "S1."


#: Ticks after which a call that sets no time itself gives up a worker that does not answer.
LONG: Final = 40


class Call(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One caller: it borrows a worker, asks it, keeps it for a while, and goes. Zero means the simplest of each."""

    #: Its number, which stays with it when other calls are left out.
    number: int
    #: Ticks from the begin of the run to its begin.
    at: int = 0
    #: Ticks that the worker needs for each answer.
    work: int = 0
    #: Ticks that it keeps the worker after the last answer.
    keep: int = 0
    #: Ticks that it waits for a worker; 0 for the pool's own patience, -1 for not at all.
    patience: int = 0
    #: Ticks that it waits for each answer; 0 for those of ``LONG``.
    timeout: int = 0
    #: Ticks after which it is cancelled; 0 for never.
    cancel: int = 0
    #: Steps of its own task after which it is cancelled; 0 for never.
    cancel_step: int = 0
    #: Requests beyond the first.
    more: int = 0
    #: Whose work it is; 0 for nobody's.
    session: int = 0
    #: Whether its own code fails after the first answer.
    fails: bool = False

    @property
    def limit(self) -> float:
        """Seconds that it waits for each answer."""
        return (self.timeout or LONG) * GRID


class Workload(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What happens in one ``World.run``."""

    calls: tuple[Call, ...] = ()
    faults: tuple[Fault, ...] = ()


class Case(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One simulated run: all that it depends on, beside the test's own code."""

    #: What is still to be drawn, is drawn from it.
    seed: int = 0
    schedule: Schedule = Schedule()
    #: The workloads so far, one for each ``World.run``; what is missing is drawn.
    workloads: tuple[Workload, ...] = ()

    @property
    def calls(self) -> int:
        """Calls in all workloads."""
        return sum(len(workload.calls) for workload in self.workloads)

    @property
    def faults(self) -> int:
        """Faults in all workloads."""
        return sum(len(workload.faults) for workload in self.workloads)


def to_token(case: Case) -> str:
    """Write ``case`` as one word that a shell leaves alone."""
    data = zlib.compress(msgspec.msgpack.encode(case), 9)
    return VERSION + base64.urlsafe_b64encode(data).decode().rstrip("=")


def of_token(token: str) -> Case:
    """Read what ``to_token`` wrote.

    Raises:
        ValueError: It is none, is cut off, or comes from another version.
    """
    body = token.removeprefix(VERSION)
    if body == token:
        raise ValueError(f"a replay token begins with {VERSION!r}; this begins with {token[:12]!r}")
    try:
        data = zlib.decompress(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        case = msgspec.msgpack.decode(data, type=Case)
    except (binascii.Error, zlib.error, msgspec.MsgspecError) as error:
        raise ValueError(f"this replay token cannot be read: {error}. Was it copied whole?") from None
    if case.schedule.policy not in {"turns", *POLICIES}:
        raise ValueError(f"this replay token names a policy that there is not: {case.schedule.policy!r}")
    return case


def draw_workload(
    numbers: random.Random,
    *,
    clients: int,
    calls: int,
    workers: int,
    faults: Sequence[type[Fault]] = (),
    cancel: str = "",
    sessions: int = 3,
) -> Workload:
    """Draw a workload.

    Args:
        numbers: Where it is drawn from.
        clients: How many calls are under way at a time, more or less.
        calls: Number of calls.
        workers: Number of workers.
        faults: Kinds of faults, of which some are drawn.
        cancel: ``ticks`` cancels some calls at moments, ``everywhere`` also at steps of their tasks.
        sessions: Number of sessions to which calls may belong.

    Raises:
        ValueError: There is to be no client, or no call.
    """
    if clients < 1 or calls < 1:
        raise ValueError(f"{clients} clients with {calls} calls show nothing: both must be at least 1")
    swarm = _Swarm(numbers, cancel, sessions)
    horizon = max(1, round(calls * swarm.work / clients * swarm.pace))
    drawn = tuple(swarm.call(number, horizon) for number in range(calls))
    places = Places(numbers, calls=calls, horizon=horizon, workers=workers)
    kinds = [kind for kind in faults if numbers.random() < 0.5] or [*faults][:1]
    count = numbers.randint(1, max(1, calls // 6)) if kinds else 0
    struck = tuple(numbers.choice(kinds).draw(places) for _ in range(count))
    return Workload(drawn, struck)  # type: ignore[arg-type]  # draw is declared by the bases of the kinds


class _Swarm:
    """How the calls of one workload are: each run has habits of its own, or rare things would never meet."""

    def __init__(self, numbers: random.Random, cancel: str, sessions: int) -> None:
        self._numbers = numbers
        self.work = numbers.choice((1, 1, 2, 4))
        #: Below 1 callers queue, above they seldom meet.
        self.pace = numbers.choice((0.25, 0.5, 1.0, 1.0, 2.0))
        self._cancels = numbers.choice((0.0, 0.1, 0.4)) if cancel else 0.0
        self._steps = cancel == "everywhere"
        self._timeouts = numbers.choice((0.0, 0.1, 0.5))
        self._hurry = numbers.choice((0.0, 0.1, 0.5))
        self._sessions = numbers.choice((0.0, 0.5)) if sessions else 0.0
        self._session_count = sessions
        self._keeps = numbers.choice((0.0, 0.2))
        self._odd = numbers.choice((0.0, 0.1))

    def call(self, number: int, horizon: int) -> Call:
        """Draw one call."""
        numbers = self._numbers
        cancel = self._often(self._cancels) and numbers.randint(1, 6)
        at_step = bool(cancel) and self._steps and numbers.random() < 0.5
        return Call(
            number,
            at=numbers.randrange(horizon),
            work=numbers.randint(0, 2 * self.work),
            keep=self._often(self._keeps) and numbers.randint(1, 4),
            patience=self._often(self._hurry) and numbers.choice((-1, 1, 2, 4)),
            timeout=self._often(self._timeouts) and numbers.randint(1, 4),
            cancel=0 if at_step else cancel,
            cancel_step=numbers.randint(1, 12) if at_step else 0,
            more=self._often(self._odd) and numbers.randint(1, 2),
            session=self._often(self._sessions) and numbers.randint(1, self._session_count),
            fails=bool(self._often(self._odd)),
        )

    def _often(self, share: float) -> int:
        return int(self._numbers.random() < share)


def kinds_of(workload: Workload) -> set[str]:
    """Return the names of the kinds of faults in ``workload``."""
    return {type(fault).__name__ for fault in workload.faults} & FAULTS.keys()
