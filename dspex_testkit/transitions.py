"""What happens to one worker, without a process, a loop or a clock: every step is taken by the pool's own core.

    worker = simulate_ready(simulate_start())
    simulate_checkin(simulate_checkout(worker, session="tenant"))
    assert (worker.state, worker.uses) == (WorkerState.IDLE, 1)

Each function tells the core one fact, checks the pool's books, and returns the worker. Where the core takes no such
fact in the worker's present state, the function raises, and nothing has changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_pool.core.records import Granted, Outcome
from dspex_pool.lifecycle import WorkerState
from dspex_testkit.pool_driver import PoolDriver

if TYPE_CHECKING:
    from dspex_pool.core.records import Emit, WorkerRecord
    from dspex_pool.errors import DspexPoolError

__all__ = [
    "NoSuchTransitionError",
    "SimulatedWorker",
    "simulate_checkin",
    "simulate_checkout",
    "simulate_death",
    "simulate_drained",
    "simulate_failure",
    "simulate_ping",
    "simulate_pong",
    "simulate_ready",
    "simulate_reaped",
    "simulate_reject",
    "simulate_start",
]


class NoSuchTransitionError(AssertionError):
    """The core does not take this fact about a worker in its present state."""


class SimulatedWorker:
    """One worker of a pool that is played by ``PoolDriver``.

    Args:
        driver: The pool.
        number: The worker's incarnation number.
    """

    def __init__(self, driver: PoolDriver, number: int) -> None:
        #: The pool; its other workers, its time and its events are there.
        self.driver = driver
        #: Incarnation number.
        self.number = number
        #: The lease, while somebody has it.
        self.lease: Granted | None = None
        #: Why the core refused the last checkout, if it did.
        self.refusal: DspexPoolError | None = None
        self._record = driver.record(number)

    @property
    def record(self) -> WorkerRecord:
        """What the core knows of it, also after its end."""
        return self._record

    @property
    def state(self) -> WorkerState:
        """Where it stands in its life."""
        return self._record.state

    @property
    def uses(self) -> int:
        """How many leases have used it."""
        return self._record.uses

    @property
    def session(self) -> str | None:
        """Whose work it does, or did last."""
        return self._record.session

    @property
    def reason(self) -> str | None:
        """Why it must leave service, or has left."""
        return self._record.condemned

    @property
    def events(self) -> list[Emit]:
        """The pool's events about it, in order."""
        worker_id = self._record.worker_id
        found = [each for each in self.driver.events if each.metadata.get("worker_id") == worker_id]
        # A name is used again, by another incarnation.
        begins = [number for number, each in enumerate(found) if each.name == "worker_starting"]
        begin = next(at for at in begins if found[at].metadata["incarnation"] == self.number)
        return found[begin : next((at for at in begins if at > begin), None)]

    def require(self, fact: str, *, was_taken: bool) -> SimulatedWorker:
        """Return the worker if the core took a fact.

        Raises:
            NoSuchTransitionError: It did not.
        """
        if not was_taken:
            raise NoSuchTransitionError(
                f"worker {self.number} is {self.state.value}: the core takes no {fact}"
            )
        return self

    def __repr__(self) -> str:
        return f"<SimulatedWorker {self.number}: {self.state.value}, {self.uses} uses>"


def simulate_start(**settings: Any) -> SimulatedWorker:
    """Begin the start of a worker, in a pool of its own.

    Args:
        settings: As for ``PoolOptions``; by default a pool of one worker that is never pinged.
    """
    driver = PoolDriver(**{"pool_size": 1, "health_check_interval": None} | settings)
    if not driver.starting:
        raise NoSuchTransitionError("this pool starts no worker by itself; it is lazy")
    return SimulatedWorker(driver, driver.starting[0])


def simulate_ready(worker: SimulatedWorker) -> SimulatedWorker:
    """Let the handshake succeed: starting → idle."""
    driver = worker.driver
    if worker.number in driver.starting:
        driver.starting.remove(worker.number)
    taken = driver.state.worker_started(worker.number, driver.now)
    driver.settle()
    return worker.require("end of its start", was_taken=taken)


def simulate_checkout(
    worker: SimulatedWorker, *, session: str | None = None, affinity: str = "hint"
) -> SimulatedWorker:
    """Lend the worker: idle → leased.

    Raises:
        NoSuchTransitionError: The pool lends nothing now, or another worker; nobody stays in line for it.
    """
    answer = worker.driver.checkout(session=session, affinity=affinity)
    if isinstance(answer, Granted) and answer.number == worker.number:
        worker.lease = answer
        return worker
    if isinstance(answer, Granted):
        worker.driver.checkin(answer, Outcome.UNUSED)
    elif isinstance(answer, int):
        worker.driver.cancel(answer)
    else:
        worker.refusal = answer
    return worker.require(f"checkout; a caller gets {answer!r}", was_taken=False)


def simulate_checkin(
    worker: SimulatedWorker, outcome: Outcome = Outcome.CLEAN, *, reason: str = "caller"
) -> SimulatedWorker:
    """Return the worker: leased → idle, → draining (``Outcome.CARE``), or → retiring (``Outcome.RETIRE``)."""
    lease, worker.lease = worker.lease, None
    taken = lease is not None and worker.driver.checkin(lease, outcome, reason)
    return worker.require("check-in", was_taken=taken)


def simulate_reject(worker: SimulatedWorker) -> SimulatedWorker:
    """Find the worker unclean right after its checkout: leased → retiring. Its caller waits for another one."""
    lease, worker.lease = worker.lease, None
    taken = lease is not None and worker.driver.reject(lease) is not None
    return worker.require("rejection", was_taken=taken)


def simulate_drained(worker: SimulatedWorker) -> SimulatedWorker:
    """Let the worker be proven clean in the pool's care: draining → idle."""
    driver = worker.driver
    if worker.number in driver.draining:
        driver.draining.remove(worker.number)
    taken = driver.state.drained(worker.number, driver.now)
    driver.settle()
    return worker.require("proof that it is clean", was_taken=taken)


def simulate_ping(worker: SimulatedWorker) -> SimulatedWorker:
    """Let time pass until the pool pings the worker: idle → pinging. The pool needs a ``health_check_interval``."""
    interval = worker.driver.state.options.health_check_interval
    if interval is not None:
        worker.driver.advance(interval)
    return worker.require("ping", was_taken=worker.state is WorkerState.PINGING)


def simulate_pong(worker: SimulatedWorker) -> SimulatedWorker:
    """Let the worker answer its ping: pinging → idle."""
    driver = worker.driver
    if worker.number in driver.pinging:
        driver.pinging.remove(worker.number)
    taken = driver.state.ping_answered(worker.number, driver.now)
    driver.settle()
    return worker.require("answer to a ping", was_taken=taken)


def simulate_failure(worker: SimulatedWorker, reason: str = "broken") -> SimulatedWorker:
    """Report that the worker must leave service: → retiring; in a caller's hands only from the check-in on."""
    return worker.require("failure", was_taken=worker.driver.failed(worker.number, reason))


def simulate_death(worker: SimulatedWorker, error: BaseException | None = None) -> SimulatedWorker:
    """Let the worker's process end and be reaped, whatever it was doing: → dead."""
    worker.lease = None
    return worker.require("death", was_taken=worker.driver.gone(worker.number, error))


def simulate_reaped(worker: SimulatedWorker) -> SimulatedWorker:
    """Let the end of a retired worker be complete: retiring → dead."""
    worker.require("reaping", was_taken=worker.state is WorkerState.RETIRING)
    return simulate_death(worker)
