"""What both facades offer beyond the adapter's methods, as coroutine functions of the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dspex_pool.adapters import PythonPool
    from dspex_pool.core.records import PoolStatistics
    from dspex_pool.monitor import MonitorSnapshot
    from dspex_pool.protocol import Event
    from dspex_pool.session_call import Reply

__all__ = ["execute_anonymous", "snapshot", "statistics"]


async def execute_anonymous(
    pool: PythonPool,
    command: str,
    args: Mapping[str, Any] | None = None,
    *,
    timeout: float | None = None,
    retries: int | None = None,
    idempotent: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> Reply:
    """Run a command on any worker, for nobody in particular; see ``SessionPool.execute_anonymous``.

    Cancellation: The caller leaves at once.
    """
    return await pool.sessions.execute_anonymous(
        command, args, timeout=timeout, retries=retries, idempotent=idempotent, on_event=on_event
    )


async def statistics(pool: PythonPool) -> PoolStatistics:
    """Return gauges and counters of the workers and the line.

    Cancellation: Changes nothing.
    """
    return pool.statistics()


async def snapshot(pool: PythonPool) -> MonitorSnapshot:
    """Return how the pool is doing: workers, waits, calls, restarts, memory.

    Cancellation: Changes nothing.
    """
    return pool.monitor.snapshot()
