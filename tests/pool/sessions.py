"""Session pools on every kind of port, and workers that are told to behave otherwise."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.config import PoolConfig
from dspex_pool.session_pool import SessionPool
from dspex_testkit.plan import Plan
from tests.bounded_waits import until
from tests.session_workers import CALM

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dspex_pool.session_store import SessionStore
    from dspex_pool.telemetry import Telemetry
    from dspex_testkit.ports.orders import Order
    from dspex_testkit.ports.run import MakePool
    from dspex_testkit.ports.watched import WatchedPort

__all__ = ["Otherwise", "Workers", "instead_of", "open_sessions"]


@dataclass(frozen=True, slots=True)
class Otherwise:
    """What all workers do instead of answering a command; pauses alone come before the answer."""

    command: str
    plan: Plan
    times: int | None = None


def instead_of(command: str, plan: Plan, *, times: int | None = None) -> Otherwise:
    """Have workers do something else than answer one command."""
    return Otherwise(command, plan, times)


class Workers:
    """Workers with canned programs, of the kind of the test."""

    def __init__(self, make_pool: MakePool) -> None:
        #: Starts them.
        self.ports = make_pool.ports()
        self.unit = make_pool.unit
        self._order: Order | None = None

    def behave(self, otherwise: Otherwise | None = None) -> None:
        """Have workers behave as always, but for one command."""
        if self._order is not None:
            self._order.withdraw()
            self._order = None
        if otherwise is not None:
            self._order = self.ports.order(otherwise.command, otherwise.plan, times=otherwise.times)

    def dawdle(self, command: str, units: float = 1.0) -> None:
        """Have workers take their time over one command."""
        self.behave(instead_of(command, Plan().after(units * self.unit)))

    @property
    def happened(self) -> int:
        """How often workers behaved as they were told last."""
        return self._order.happened if self._order is not None else 0

    @property
    def heard(self) -> list[str]:
        """Requests in the order in which they were sent, with the worker's name: ``"w-1 create_program"``."""
        return [line for line in self.ports.heard if not line.endswith(" held")]

    def forget(self) -> None:
        """Begin ``heard`` anew."""
        self.ports.forget_heard()

    @property
    def live(self) -> list[WatchedPort]:
        """The workers that are not reaped."""
        return self.ports.live

    @property
    def started(self) -> int:
        """How many workers were started."""
        return self.ports.started

    def port(self, worker_id: str) -> WatchedPort:
        """Return the newest worker of a name."""
        return self.ports.port(worker_id)

    async def kill(self, worker_id: str) -> None:
        """Kill a worker, and wait until the pool has reaped it.

        Cancellation: It is killed.
        """
        victim = self.ports.kill(worker_id)
        await until(lambda: victim.exit_status is not None, "the killed worker is reaped")

    async def kill_all(self) -> None:
        """Kill every worker, and wait until the pool has reaped them.

        Cancellation: They are killed.
        """
        victims = self.live
        self.ports.kill_all()
        await until(lambda: all(port.exit_status is not None for port in victims), "they are reaped")

    async def model_of(self, pool: SessionPool, worker_id: str, session_id: str) -> Any:
        """Return the language model of a session on an idle worker, or ``None``; a default is told of no session.

        Cancellation: The worker goes back to the pool.
        """
        return (await self.ports.held(pool.workers))[worker_id].get(session_id)

    async def holding(self, pool: SessionPool, session_id: str) -> list[str]:
        """Return the names of the idle workers that hold something of a session.

        Cancellation: The workers go back to the pool.
        """
        return await self.ports.holding(pool.workers, session_id)


@contextlib.asynccontextmanager
async def open_sessions(
    workers: Workers,
    *,
    telemetry: Telemetry | None = None,
    store: SessionStore | None = None,
    **settings: Any,
) -> AsyncIterator[SessionPool]:
    """Open a session pool on workers of the test's kind; all of them are ready.

    Cancellation: The pool is closed.
    """
    config = PoolConfig(**{**CALM, "pool_size": 2, "max_starting": 4, **settings})
    clock = trio.current_time
    pool = SessionPool(workers.ports, config, telemetry=telemetry, store=store, wall_clock=clock)
    async with pool:
        if not config.lazy:
            await pool.workers.wait_ready(config.pool_size)
        yield pool
