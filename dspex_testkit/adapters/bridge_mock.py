"""Layer 2: the adapter over the wire, to the mock server in a thread."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.adapters.base import ANONYMOUS
from dspex_pool.adapters.commands import CommandAdapter
from dspex_pool.worker import PoolWorker
from dspex_testkit.bridge_mock_server import BridgeMockServer
from dspex_testkit.pipe_port import PipePort
from dspex_testkit.server_loop import ServerOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["BridgeMock"]


class BridgeMock(CommandAdapter):
    """One mock server behind the adapter interface; open it with ``BridgeMock.open()``.

    Requests of several tasks take turns. A request that its caller left is asked to stop before the next one
    is sent.

    Args:
        worker: The worker, after its handshake.
        server: The server behind it.
        turn: Held while the worker is used; shared by all sessions of a worker.
        session_id: The session it speaks for.
    """

    def __init__(
        self,
        worker: PoolWorker,
        server: BridgeMockServer,
        turn: trio.Lock,
        session_id: str = ANONYMOUS,
    ) -> None:
        super().__init__(session_id)
        self.worker = worker
        #: The server, to look at its violations, its faults and what it received.
        self.server = server
        self._turn = turn

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, **options: Any) -> AsyncIterator[BridgeMock]:
        """Start a mock server, shake hands, and end it when the block is left.

        Args:
            options: As for ``ServerOptions``.

        Raises:
            WorkerError: The server was told to fail in its handshake.

        Cancellation: The server ends.
        """
        server = BridgeMockServer(ServerOptions(**options))
        port = PipePort(server)
        worker = PoolWorker(port, worker_id=server.options.worker_id, incarnation=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_attend, worker)
            try:
                await worker.handshake()
                yield cls(worker, server, trio.Lock())
            finally:
                port.kill()

    def session_adapter(self, session_id: str) -> BridgeMock:
        """Return the adapter of another session on the same server."""
        return BridgeMock(self.worker, self.server, self._turn, session_id)

    async def _run(self, command: str, args: dict[str, Any], timeout: float | None) -> Any:
        async with self._turn:
            await self.worker.settle()
            return await self.worker.request(command, args, timeout=timeout)


async def _attend(worker: PoolWorker) -> None:
    """See the worker to its end, which its owner orders: a thread cannot be left behind."""
    with trio.CancelScope(shield=True):
        await worker.port.attend()
    worker.exited.set()
