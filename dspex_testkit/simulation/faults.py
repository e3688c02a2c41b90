"""Faults that a simulated worker can have, as plain data: where each one strikes, and what the worker then does.

A fault strikes in a call, at a moment, or at a start. Times are whole ticks of ``GRID``, so that things coincide.
Each class draws one of itself; ``swarm`` names those that an exploration draws from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

import msgspec

from dspex_testkit.plan import Plan

if TYPE_CHECKING:
    import random

    from dspex_testkit.mock_port import MockPort

__all__ = [
    "FAULTS",
    "GRID",
    "Deaf",
    "DieInCall",
    "Duplicate",
    "FailStart",
    "Fault",
    "Garbage",
    "Hang",
    "HangStart",
    "InCall",
    "InStart",
    "Kill",
    "Late",
    "OnWorker",
    "Oversize",
    "Partial",
    "Places",
    "SlowStart",
    "Stray",
    "WrongId",
    "swarm",
]

#: Seconds of a tick. The pool's own settings are multiples of it too.
GRID: Final = 0.5


class Places:
    """Where faults can strike in the workload that is being drawn.

    Args:
        numbers: What is drawn comes from here.
        calls: Number of calls.
        horizon: Ticks until the last call begins.
        workers: Number of workers.
    """

    def __init__(self, numbers: random.Random, *, calls: int, horizon: int, workers: int) -> None:
        self.numbers = numbers
        self.calls = calls
        self.horizon = horizon
        self.workers = workers

    def call(self) -> int:
        """Draw a call."""
        return self.numbers.randrange(self.calls)

    def moment(self) -> int:
        """Draw a moment in ticks; the first workers are ready then."""
        return self.numbers.randrange(self.horizon + 1)

    def worker(self) -> int:
        """Draw a worker: the n-th of those alive."""
        return self.numbers.randrange(self.workers)

    def start(self) -> int:
        """Draw a start: one of the first few after those that fill the pool."""
        return self.workers + self.numbers.randrange(4)


class InCall(msgspec.Struct, frozen=True, tag=True, array_like=True, omit_defaults=True):
    """A fault of the worker that serves a certain call, when it first does."""

    call: int
    #: Whether the worker is no good afterwards, so that its caller may hear of it in any way.
    breaks: ClassVar[bool] = True

    @classmethod
    def draw(cls, places: Places) -> InCall:
        """Draw one."""
        return cls(places.call())

    def plan(self, work: float, result: object) -> Plan:
        """Return what the worker does instead of working for ``work`` seconds and answering ``result``."""
        return Plan().after(work).reply(result)


class DieInCall(InCall, frozen=True, tag=True, array_like=True, omit_defaults=True):
    """The worker is killed in the middle of the call."""

    def plan(self, work: float, result: object) -> Plan:
        """Work, and die instead of answering."""
        return Plan().after(work).die(signal=9)


class Hang(InCall, frozen=True, tag=True, array_like=True, omit_defaults=True):
    """The worker never answers; a deaf one does not hear interrupts either."""

    deaf: bool = False

    @classmethod
    def draw(cls, places: Places) -> Hang:
        """Draw one."""
        return cls(places.call(), places.numbers.random() < 0.5)

    def plan(self, work: float, result: object) -> Plan:
        """Stay busy."""
        return Plan().stall(deaf=self.deaf)


class Late(InCall, frozen=True, tag=True, array_like=True, omit_defaults=True):
    """The answer comes some ticks late, whoever interrupts meanwhile."""

    by: int = 4
    breaks: ClassVar[bool] = False

    @classmethod
    def draw(cls, places: Places) -> Late:
        """Draw one."""
        return cls(places.call(), places.numbers.randint(1, 8))

    def plan(self, work: float, result: object) -> Plan:
        """Answer late."""
        return Plan().late_reply(result, after=work + self.by * GRID)


class Partial(InCall, frozen=True, tag=True, array_like=True, omit_defaults=True):
    """Only the first bytes of the answer are written; then the worker dies, or hangs."""

    size: int = 6
    dies: bool = True

    @classmethod
    def draw(cls, places: Places) -> Partial:
        """Draw one."""
        return cls(places.call(), places.numbers.randint(1, 12), places.numbers.random() < 0.5)

    def plan(self, work: float, result: object) -> Plan:
        """Begin to answer."""
        plan = Plan().after(work).send_partial_frame(self.size, result)
        return plan.die() if self.dies else plan.stall(deaf=True)


class Garbage(InCall, frozen=True, tag=True, array_like=True, omit_defaults=True):
    """Text stands where the answer should."""

    def plan(self, work: float, result: object) -> Plan:
        """Print."""
        return Plan().after(work).garbage().reply(result)


class Oversize(InCall, frozen=True, tag=True, array_like=True, omit_defaults=True):
    """The answer announces more bytes than a frame may have."""

    def plan(self, work: float, result: object) -> Plan:
        """Announce too much."""
        return Plan().after(work).oversize()


class Duplicate(InCall, frozen=True, tag=True, array_like=True, omit_defaults=True):
    """The answer is written twice."""

    def plan(self, work: float, result: object) -> Plan:
        """Answer, and once more."""
        return Plan().after(work).reply(result).duplicate()


class WrongId(InCall, frozen=True, tag=True, array_like=True, omit_defaults=True):
    """The answer carries the id of a request that nobody made."""

    def plan(self, work: float, result: object) -> Plan:
        """Answer somebody else."""
        return Plan().after(work).reply(result, request_id=2**40)


class OnWorker(msgspec.Struct, frozen=True, tag=True, array_like=True, omit_defaults=True):
    """A fault of a worker at a moment: the n-th of those that are alive then."""

    at: int
    worker: int

    @classmethod
    def draw(cls, places: Places) -> OnWorker:
        """Draw one."""
        return cls(places.moment(), places.worker())

    def strike(self, port: MockPort) -> None:
        """Do it to the worker behind ``port``."""


class Kill(OnWorker, frozen=True, tag=True, array_like=True, omit_defaults=True):
    """The worker is killed from outside."""

    def strike(self, port: MockPort) -> None:
        """Kill it."""
        port.die(signal=9)


class Stray(OnWorker, frozen=True, tag=True, array_like=True, omit_defaults=True):
    """The worker prints to its protocol, whatever it is doing."""

    def strike(self, port: MockPort) -> None:
        """Print."""
        port.inject(b"stray")


class Deaf(OnWorker, frozen=True, tag=True, array_like=True, omit_defaults=True):
    """From now on the worker heeds neither interrupts nor the end of stdin nor SIGTERM."""

    def strike(self, port: MockPort) -> None:
        """Make it deaf."""
        port.reactions.interrupt = port.reactions.eof = port.reactions.terminate = None


class InStart(msgspec.Struct, frozen=True, tag=True, array_like=True, omit_defaults=True):
    """A fault of a start, counted from the first of the pool."""

    start: int

    @classmethod
    def draw(cls, places: Places) -> InStart:
        """Draw one."""
        return cls(places.start())

    @property
    def delay(self) -> float:
        """Seconds that the start takes, in full."""
        return 0.0


class SlowStart(InStart, frozen=True, tag=True, array_like=True, omit_defaults=True):
    """The start takes some ticks longer."""

    by: int = 10

    @classmethod
    def draw(cls, places: Places) -> SlowStart:
        """Draw one."""
        return cls(places.start(), places.numbers.randint(2, 40))

    @property
    def delay(self) -> float:
        """Seconds that the start takes, in full."""
        return self.by * GRID


class FailStart(InStart, frozen=True, tag=True, array_like=True, omit_defaults=True):
    """The start fails, and so do the next ones."""

    times: int = 1

    @classmethod
    def draw(cls, places: Places) -> FailStart:
        """Draw one."""
        return cls(places.start(), places.numbers.choice((1, 2, 6)))


class HangStart(InStart, frozen=True, tag=True, array_like=True, omit_defaults=True):
    """The start never ends."""


Fault: TypeAlias = (
    DieInCall
    | Hang
    | Late
    | Partial
    | Garbage
    | Oversize
    | Duplicate
    | WrongId
    | Kill
    | Stray
    | Deaf
    | SlowStart
    | FailStart
    | HangStart
)

#: Every kind of fault by its name.
FAULTS: dict[str, type[Fault]] = {
    kind.__name__: kind
    for kind in (
        DieInCall, Hang, Late, Partial, Garbage, Oversize, Duplicate, WrongId,
        Kill, Stray, Deaf, SlowStart, FailStart, HangStart,
    )
}  # fmt: skip


def swarm(*kinds: type[Fault]) -> tuple[type[Fault], ...]:
    """Return the kinds that an exploration draws from; without arguments all there are.

    Each run draws a few of these kinds and leaves out the others: a fault that is always there hides what shows only
    without it.
    """
    return kinds or tuple(FAULTS.values())
