"""What the tests on real worker processes share: light pools, and waits that have a bound."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import psutil
import trio

from dspex_pool.transport.subprocess import SubprocessOptions, SubprocessPortFactory
from dspex_pool.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

__all__ = ["ECHO", "echo_ports", "is_gone", "open_pool", "patience"]

ECHO = "dspex_testkit.children.echo:EchoHandler"

#: Seconds that anything may take before a test gives up; far more than it does take.
PATIENCE = 15.0


def echo_ports(**options: Any) -> SubprocessPortFactory:
    """Return what starts workers of the echo handler, or of another command."""
    if "command" not in options:
        options = {"handler": ECHO, **options}
    return SubprocessPortFactory(SubprocessOptions(**options))


@contextlib.asynccontextmanager
async def open_pool(*, command: list[str] | None = None, **settings: Any) -> AsyncIterator[WorkerPool]:
    """Open a pool of echo workers; when it is left, check that every process it had is gone."""
    ports = echo_ports(command=command) if command is not None else echo_ports()
    pids: set[int] = set()
    options = {"pool_size": 1, "health_check_interval": None, "backoff_min": 0.05, "backoff_max": 0.2}
    pool = WorkerPool(ports, **(options | settings))
    pool.telemetry.attach((), lambda *_: pids.update(_pids(pool)))
    with trio.fail_after(4 * PATIENCE):
        async with pool:
            yield pool
    assert [pid for pid in pids if not is_gone(pid)] == []


def _pids(pool: WorkerPool) -> Iterable[int]:
    return [worker.port.pid for worker in pool.workers() if worker.port.pid is not None]


def is_gone(pid: int) -> bool:
    """Tell whether no process has this id, not even a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return not psutil.pid_exists(pid)


def patience() -> contextlib.AbstractContextManager[object]:
    """Return a block that fails the test when something takes far too long."""
    return trio.fail_after(PATIENCE)
