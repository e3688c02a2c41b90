"""Who plays with the pool of a ``PoolStateMachine``: callers that keep a worker, and workers that are known."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.errors import DspexPoolError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_pool.lease import Lease
    from dspex_pool.transport.port import Port, PortFactory
    from dspex_testkit.pool_state_machine import Call, PoolStateMachine

__all__ = ["Caller", "KnownPorts"]


class Caller:
    """A task that asks for a worker, keeps it, and does with it what rules say.

    Args:
        machine: The machine, which is told of leases, answers and errors.
        asked: How it asks: ``session``, ``affinity`` and ``timeout``; ``None`` as timeout means not to wait.
    """

    def __init__(self, machine: PoolStateMachine, asked: Mapping[str, Any]) -> None:
        self.scope = trio.CancelScope()
        #: The lease, while it has one.
        self.lease: Lease | None = None
        #: Why it got no worker, if it did not.
        self.refusal: Exception | None = None
        #: Whether it has come to its end.
        self.is_done = False
        #: Whether its worker did something that it should not have done.
        self.is_tainted = False
        self._machine = machine
        self._asked = dict(asked)
        self._todo: deque[Call | None] = deque()
        self._has_work = trio.lowlevel.ParkingLot()
        self._is_busy = False
        self._retires = False

    @property
    def is_idle(self) -> bool:
        """Whether it has a worker and nothing to do."""
        return self.lease is not None and not self._is_busy and not self._todo

    def ask(self, call: Call) -> None:
        """Have it ask its worker for something."""
        self._todo.append(call)
        self._has_work.unpark()

    def leave(self, *, retire: bool) -> None:
        """Have it return its worker, to be replaced or not."""
        self._retires = retire
        self._todo.append(None)
        self._has_work.unpark()

    async def live(self) -> None:
        """Ask, keep, do, return.

        Cancellation: Ends it wherever it is.
        """
        pool = self._machine.pool
        timeout = self._asked.pop("timeout")
        checkout = (
            pool.checkout_nowait(**self._asked)
            if timeout is None
            else pool.checkout(timeout=timeout, **self._asked)
        )
        try:
            with self.scope:
                async with checkout as lease:
                    await self._use(lease)
        except (DspexPoolError, trio.WouldBlock) as error:
            self.refusal = error
        finally:
            self.is_done = True

    async def _use(self, lease: Lease) -> None:
        incarnation = lease.worker.incarnation
        self._machine.note_lease(self, incarnation)
        self.lease = lease
        try:
            while (call := await self._next()) is not None:
                self._is_busy = True
                try:
                    await self._call(lease, call)
                finally:
                    self._is_busy = False
            if self._retires:
                lease.retire()
        finally:
            self.lease = None
            self._machine.note_return(incarnation)

    async def _next(self) -> Call | None:
        while not self._todo:
            await self._has_work.park()
        return self._todo.popleft()

    async def _call(self, lease: Lease, call: Call) -> None:
        self.is_tainted |= call.is_faulty
        try:
            answer = await lease.request(call.command, dict(call.args), timeout=call.timeout)
        except DspexPoolError as error:
            self._machine.note_error(self, call, error)
            if not error.worker_survives:
                raise
        else:
            self._machine.note_answer(self, call, answer)


class KnownPorts:
    """Starts workers by another factory and remembers them; implements ``PortFactory``.

    Args:
        ports: The other factory.
    """

    def __init__(self, ports: PortFactory) -> None:
        #: The other factory.
        self.inner = ports
        #: Incarnations that somebody has disturbed from outside.
        self.disturbed: set[int] = set()
        #: What the other factory ended with that is no error of a start: it cannot start any worker.
        self.broken: Exception | None = None
        self._opened: dict[int, Port] = {}

    @property
    def live(self) -> list[Port]:
        """The workers that are not reaped, oldest first."""
        return [port for port in self._opened.values() if port.exit_status is None]

    def number_of(self, port: Port) -> int:
        """Return the incarnation of a worker."""
        return next(number for number, each in self._opened.items() if each is port)

    async def open(self, *, worker_id: str, incarnation: int) -> Port:
        """Start one worker.

        Raises:
            WorkerStartError: It could not be started.

        Cancellation: As of the other factory.
        """
        try:
            port = await self.inner.open(worker_id=worker_id, incarnation=incarnation)
        except DspexPoolError:
            raise
        except Exception as error:
            self.broken = error
            raise
        self._opened[incarnation] = port
        return port
