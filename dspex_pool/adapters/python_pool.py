"""The session-aware public API on a pool of DSPy workers."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.adapters.commands import CommandAdapter
from dspex_pool.session_call import ANONYMOUS, Reply
from dspex_pool.supervisor import PoolSupervisor

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from dspex_pool.config import PoolConfig
    from dspex_pool.core.records import PoolStatistics
    from dspex_pool.errors import PoolFailedError
    from dspex_pool.monitor import PoolMonitor
    from dspex_pool.protocol import Event
    from dspex_pool.session_pool import SessionPool
    from dspex_pool.session_store import SessionStore
    from dspex_pool.telemetry import Telemetry
    from dspex_pool.transport.port import PortFactory

__all__ = ["PythonPool"]


class PythonPool(CommandAdapter):
    """Programs of sessions on a pool of workers: ``async with PythonPool.open(pool_size=2) as pool``.

    The pool itself speaks for the session ``anonymous``; ``session_adapter`` gives an adapter for another one.
    ``configure_lm`` on the pool sets the language model of all sessions that have none of their own, on all
    workers, present and future; on a session's adapter that of the session.
    """

    def __init__(self, supervisor: PoolSupervisor, session_id: str = ANONYMOUS) -> None:
        super().__init__(session_id)
        self._supervisor = supervisor

    @classmethod
    def open(
        cls,
        config: PoolConfig | None = None,
        *,
        ports: PortFactory | None = None,
        telemetry: Telemetry | None = None,
        store: SessionStore | None = None,
        random: random.Random | None = None,
        **settings: Any,
    ) -> AbstractAsyncContextManager[PythonPool]:
        """Open a pool, and close it when the block is left; then no process of it is left.

        Args:
            config: The settings; by default those of the environment and ``pyproject.toml``.
            ports: Starts worker processes; by default as the settings say.
            telemetry: Where events go.
            store: Where sessions are kept; by default as the settings say.
            random: Source of the back-off's spread.
            settings: Single settings, over ``config``.

        Raises:
            InvalidConfigError: A setting is unknown or out of range; nothing was started.
            PoolFailedError: A service of the pool failed again and again.

        Cancellation: Every process is ended and reaped before the cancellation leaves.
        """
        supervisor = PoolSupervisor(
            config, ports=ports, telemetry=telemetry, store=store, random=random, **settings
        )
        return _Opening(cls, supervisor)

    @property
    def config(self) -> PoolConfig:
        """The settings."""
        return self._supervisor.config

    @property
    def monitor(self) -> PoolMonitor:
        """The monitor: ``monitor.snapshot()`` says how the pool is doing."""
        return self._supervisor.monitor

    @property
    def failure(self) -> PoolFailedError | None:
        """Why the pool closes by itself, once a service of it has failed for good; raised at the end of its block."""
        return self._supervisor.failure

    @property
    def sessions(self) -> SessionPool:
        """The session pool, for what the adapter does not offer."""
        return self._supervisor.pool

    @property
    def telemetry(self) -> Telemetry:
        """Where events come from: ``telemetry.attach(prefix, handler)``."""
        return self.sessions.telemetry

    def session_adapter(self, session_id: str) -> PythonPool:
        """Return the adapter of another session on the same pool.

        Raises:
            InvalidArgumentError: The id cannot be one.
        """
        return PythonPool(self._supervisor, session_id)

    def statistics(self) -> PoolStatistics:
        """Return gauges and counters of the workers and the line."""
        return self.sessions.workers.statistics()

    async def wait_ready(self, count: int = 1, *, fail_fast: bool = False) -> None:
        """Wait until ``count`` workers are in service; see ``WorkerPool.wait_ready``.

        Raises:
            PoolClosedError: The pool is closed.
            WorkerStartError: A start has failed; only with ``fail_fast``.

        Cancellation: Changes nothing.
        """
        await self.sessions.workers.wait_ready(count, fail_fast=fail_fast)

    async def call(
        self,
        session_id: str,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        retries: int | None = None,
        idempotent: bool = False,
        affinity: str | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> Reply:
        """Run any command in a session and say how its answer came about.

        Arguments and errors are those of ``SessionPool.execute_in_session``.

        Cancellation: The caller leaves at once. The change of a session is in the store if its commit had begun.
        """
        return await self._supervisor.pool.execute_in_session(
            session_id,
            command,
            args,
            timeout=timeout,
            retries=retries,
            idempotent=idempotent,
            affinity=affinity,
            on_event=on_event,
        )

    async def _run(self, command: str, args: dict[str, Any], timeout: float | None) -> Any:
        if "session_id" not in args:
            return (await self.sessions.execute_anonymous(command, args, timeout=timeout)).result
        session_id = args.pop("session_id")
        return (await self.call(session_id, command, args, timeout=timeout)).result


class _Opening(AbstractAsyncContextManager[PythonPool]):
    """What ``PythonPool.open`` gives to be entered. No generator: contextlib's code around one can be interrupted.

    Args:
        adapter: Makes the adapter.
        supervisor: What is entered, and left.
    """

    def __init__(self, adapter: Callable[[PoolSupervisor], PythonPool], supervisor: PoolSupervisor) -> None:
        self._adapter = adapter
        self._supervisor = supervisor

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> PythonPool:
        return self._adapter(await self._supervisor.__aenter__())

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(self, *failure: Any) -> None:
        await self._supervisor.__aexit__(*failure)
