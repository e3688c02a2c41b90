"""SIGSTOP: a worker that is frozen, while called, while written to, while idle, and one that thaws in time."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import trio

from dspex_pool.errors import CallTimeoutError
from tests.bounded_waits import until
from tests.chaos.fire import check_whole, light, watched_pool

if TYPE_CHECKING:
    from dspex_pool.adapters.python_pool import PythonPool
    from dspex_pool.worker import PoolWorker

pytestmark = pytest.mark.chaos

#: More than a pipe holds, in bytes.
TOO_MUCH = 2_000_000


async def freeze(pool: PythonPool, session_id: str) -> PoolWorker:
    """Stop the worker that the session keeps to, and see that it is stopped."""
    pid = (await pool.call(session_id, "process")).result["pid"]
    worker = next(worker for worker in pool.sessions.workers.workers() if worker.port.pid == pid)
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "the worker is stopped")
    return worker


def signal_of(worker: PoolWorker) -> int | None:
    """Return the signal that ended a worker."""
    return worker.port.exit_status.signal if worker.port.exit_status is not None else None


@pytest.mark.trio
@pytest.mark.parametrize(
    ("args", "reason"),
    [({}, "cancel_grace"), ({"text": "x" * TOO_MUCH}, "torn_frame")],
    ids=["short", "torn"],
)
async def test_call_to_a_frozen_worker_ends_in_time_and_the_worker_is_replaced(
    args: dict[str, Any], reason: str
) -> None:
    """The caller leaves at its timeout, also in the middle of writing; the worker is replaced. [property 9, 49]"""
    async with watched_pool(light(pool_size=2, cancel_grace=0.3)) as (pool, ledger):
        await pool.wait_ready(2)
        frozen = await freeze(pool, "a")
        began = trio.current_time()
        with pytest.raises(CallTimeoutError) as caught:
            await pool.call("a", "echo", args, timeout=0.2)
        assert trio.current_time() - began < 2.0
        assert caught.value.pid == frozen.port.pid
        # Nobody waits for it meanwhile, the same session neither.
        assert (await pool.call("a", "echo", {"n": 1}, timeout=5)).result["n"] == 1
        await check_whole(pool, 2)
    assert signal_of(frozen) == signal.SIGKILL
    assert next(iter(ledger.retired_by_reason)) == reason


@pytest.mark.trio
async def test_worker_that_thaws_within_the_grace_is_kept() -> None:
    """It stops the command that was left, answers, and serves on: the same process."""
    async with watched_pool(light(pool_size=1, cancel_grace=20.0)) as (pool, _):
        frozen = await freeze(pool, "a")
        with pytest.raises(CallTimeoutError):
            await pool.call("a", "sleep", {"seconds": 60}, timeout=0.2)
        assert pool.statistics().draining == 1
        assert frozen.port.pid is not None
        os.kill(frozen.port.pid, signal.SIGCONT)
        assert (await pool.call("b", "process")).result["pid"] == frozen.port.pid
        await check_whole(pool, 1)


@pytest.mark.trio
async def test_idle_worker_that_freezes_is_found_by_its_ping() -> None:
    """The health check replaces it, and pings of the others go on. [property 63]"""
    options = light(pool_size=2, health_check_interval=0.1, ping_timeout=0.5)
    async with watched_pool(options) as (pool, _):
        await pool.wait_ready(2)
        frozen = await freeze(pool, "a")
        await until(lambda: signal_of(frozen) == signal.SIGKILL, "the frozen worker is killed")
        await until(lambda: pool.statistics().ready == 2, "it is replaced")
        assert (await pool.call("a", "echo", {"n": 1})).result["n"] == 1


@pytest.mark.trio
async def test_closing_does_not_wait_for_the_frozen() -> None:
    """A pool of frozen workers closes within one grace, not one for each. [property 85, 87]"""
    async with watched_pool(light(pool_size=3, terminate_grace=0.4)) as (pool, _):
        await pool.wait_ready(3)
        frozen = pool.sessions.workers.workers()
        for worker in frozen:
            assert worker.port.pid is not None
            os.kill(worker.port.pid, signal.SIGSTOP)
        began = trio.current_time()
    assert trio.current_time() - began < 3.0
    assert {signal_of(worker) for worker in frozen} == {signal.SIGKILL}
