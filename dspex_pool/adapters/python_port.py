"""The public API on one single worker process, without a pool."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.adapters.commands import CommandAdapter
from dspex_pool.background import Background
from dspex_pool.config import PoolConfig
from dspex_pool.errors import CallTimeoutError, DspexPoolError, WorkerDiedError, WorkerStartError
from dspex_pool.session_call import ANONYMOUS
from dspex_pool.supervisor import ports_for
from dspex_pool.transport.port import keeping
from dspex_pool.worker_life import WorkerLife

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dspex_pool.transport.port import PortFactory
    from dspex_pool.worker import PoolWorker

__all__ = ["PythonPort"]


class PythonPort(CommandAdapter):
    """Programs of sessions on one process: ``async with PythonPort.open() as port``.

    For scripts and notebooks that want the isolation but not the pool. Calls of several tasks take turns. A call
    that was left is stopped before the next one begins; if it will not stop, the next one waits for it, as long as
    its ``timeout``. A process that broke the protocol, or was left with half a request, is ended by the next call.
    Nothing outlives the process: when it dies, every further call raises ``WorkerDiedError``, and its programs are
    gone.
    """

    def __init__(self, worker: PoolWorker, turn: trio.Lock, session_id: str = ANONYMOUS) -> None:
        super().__init__(session_id)
        #: The worker behind it.
        self.worker = worker
        self._turn = turn

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, config: PoolConfig | None = None, *, ports: PortFactory | None = None, **settings: Any
    ) -> AsyncIterator[PythonPort]:
        """Start the process, and end it when the block is left.

        Args:
            config: The settings; those of the worker are used.
            ports: Starts the process; by default as the settings say.
            settings: Single settings, over ``config``.

        Raises:
            InvalidConfigError: A setting is unknown or out of range; nothing was started.
            WorkerError: The process could not be started, or did not shake hands within ``spawn_timeout``.

        Cancellation: The process is ended and reaped before the cancellation leaves.
        """
        if config is not None:
            config = config.replace(**settings) if settings else config
        else:
            config = PoolConfig.load(**settings)
        ports = ports if ports is not None else ports_for(config)
        life = _SingleLife(ports, config)
        async with keeping(ports), Background() as nursery:
            nursery.start_soon(life.run, name="dspex_pool single worker")
            try:
                yield cls(await life.wait_started(), trio.Lock())
            finally:
                await life.end()

    @property
    def pid(self) -> int | None:
        """Process id of the worker."""
        return self.worker.port.pid

    def session_adapter(self, session_id: str) -> PythonPort:
        """Return the adapter of another session on the same process."""
        return PythonPort(self.worker, self._turn, session_id)

    async def _run(self, command: str, args: dict[str, Any], timeout: float | None) -> Any:
        async with self._turn:
            if self.worker.is_torn or self.worker.is_garbled:
                raise await self._end(command)
            with trio.move_on_after(math.inf if timeout is None else timeout) as scope:
                # A call that was left, or timed out, is still being stopped.
                await self.worker.settle()
            if scope.cancelled_caught:
                raise CallTimeoutError(
                    f"worker {self.worker.worker_id} is still busy with an earlier command, which has not stopped "
                    f"within {timeout:g} s; {command!r} was not sent.",
                    worker_id=self.worker.worker_id,
                    pid=self.pid,
                    command=command,
                    waited=timeout,
                    request_sent=False,
                )
            return await self.worker.request(command, args, timeout=timeout)

    async def _end(self, command: str) -> WorkerDiedError:
        """End the process, which can never be asked again, and return the error of whoever wanted to ask it."""
        worker, port = self.worker, self.worker.port
        port.kill()
        await worker.exited.wait()
        status, how = port.exit_status, f"it was ended, because it can serve no more: {worker.why_unclean()}"
        return WorkerDiedError(
            f"worker {worker.worker_id} died: {how}. {command!r} was not sent; open a new port.",
            worker_id=worker.worker_id,
            pid=port.pid,
            exit_status=status.code if status is not None else None,
            signal=status.signal if status is not None else None,
            stderr_tail=port.stderr_tail,
            request_sent=False,
            request_read=False,
            how=how,
        )


class _SingleLife:
    """The life of a worker that nobody replaces."""

    def __init__(self, ports: PortFactory, config: PoolConfig) -> None:
        self._config = config
        self._life = WorkerLife(
            1,
            "w-1",
            ports=ports,
            grace=config.terminate_grace,
            on_started=self._on_started,
            on_failed=self._on_failed,
        )
        self._settled = trio.Event()
        self._over = trio.Event()
        self._error: DspexPoolError | None = None

    async def run(self) -> None:
        try:
            await self._life.run()
        finally:
            self._over.set()

    async def wait_started(self) -> PoolWorker:
        """Wait for the handshake.

        Raises:
            WorkerStartError: The start failed or took longer than ``spawn_timeout``.
        """
        with trio.move_on_after(self._config.spawn_timeout) as scope:
            await self._settled.wait()
        if scope.cancelled_caught:
            raise WorkerStartError(
                f"the worker did not answer its first ping within {self._config.spawn_timeout:g} s. "
                "Raise spawn_timeout if its imports take longer.",
                waited=self._config.spawn_timeout,
            )
        if self._error is not None:
            raise self._error
        assert self._life.worker is not None
        return self._life.worker

    async def end(self) -> None:
        """End the process, politely unless something is being cancelled."""
        self._life.end(polite=True)
        try:
            await self._over.wait()
        finally:
            self._life.end(polite=False)
            with trio.CancelScope(shield=True):
                await self._over.wait()

    def _on_started(self, _: int) -> None:
        self._settled.set()

    def _on_failed(self, _: int, error: DspexPoolError) -> None:
        self._error = error
        self._settled.set()
        self._life.end(polite=False)
