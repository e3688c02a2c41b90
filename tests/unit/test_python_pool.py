"""The public API on a pool of mock workers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
import trio

from dspex_pool.adapters import PythonPool
from dspex_pool.config import PoolConfig
from dspex_pool.errors import (
    CallTimeoutError,
    InvalidArgumentError,
    InvalidConfigError,
    PoolClosedError,
    SessionBusyError,
    WorkerStartError,
)
from dspex_testkit.contracts.adapter import INPUTS, SIGNATURE, AdapterContract
from tests.session_workers import CALM, CannedWorkers, EventLog, slow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio.testing import MockClock

    from dspex_pool.adapters import Adapter


class PoolContract(AdapterContract):
    """The adapter contract on two mock workers."""

    @contextlib.asynccontextmanager
    async def open_adapter(self) -> AsyncIterator[Adapter]:
        """Open a pool."""
        async with PythonPool.open(ports=CannedWorkers(), pool_size=2, **CALM) as pool:
            yield pool


@pytest.mark.trio
async def test_pool_keeps_the_adapter_contract(autojump_clock: MockClock) -> None:
    """What every adapter promises holds on a pool, with canned programs."""
    contract = PoolContract()
    async with contract.open_adapter() as pool:
        await contract.keep_all(pool)


@pytest.mark.trio
async def test_adapters_of_a_pool_speak_for_their_sessions(autojump_clock: MockClock) -> None:
    """Programs belong to a session; a language model to one too, or to all that have none."""
    workers = CannedWorkers()
    async with PythonPool.open(ports=workers, pool_size=1, **CALM) as pool:
        tenant = pool.session_adapter("tenant")
        await pool.configure_lm(model="m/all")
        await tenant.create_program("p", SIGNATURE)
        await pool.create_program("p", SIGNATURE)
        assert (tenant.session_id, pool.session_id) == ("tenant", "anonymous")
        assert pool.sessions.session_ids() == ["tenant", "anonymous"]
        assert {workers.bridge("w-1").model_of(name) for name in ("tenant", "anonymous")} == {"m/all"}
        await tenant.configure_lm(model="m/tenant")
        assert workers.bridge("w-1").model_of("tenant") == "m/tenant"
        reply = await pool.call("tenant", "execute_program", {"program_id": "p", "inputs": INPUTS})
        assert (reply.worker_id, reply.attempts) == ("w-1", 1)
        assert reply.duration_s >= 0
        for wrong in ("", "x" * 300):
            with pytest.raises(InvalidArgumentError, match="session id"):
                pool.session_adapter(wrong)


@pytest.mark.trio
async def test_pool_offers_its_parts_and_passes_on_the_options_of_a_call(autojump_clock: MockClock) -> None:
    """Settings, figures and events can be had from the adapter; affinity, tries and timeouts reach the pool."""
    workers, log = CannedWorkers(), EventLog()
    config = PoolConfig(pool_size=4, retries=3)
    settings = {"pool_size": 2, **CALM}
    async with PythonPool.open(config, ports=workers, telemetry=log.telemetry, **settings) as pool:
        assert (pool.config.pool_size, pool.config.retries) == (2, 3)
        assert pool.telemetry is log.telemetry
        await pool.wait_ready(2)
        assert pool.statistics().idle == 2
        assert pool.monitor.snapshot().healthy_workers == 2
        tenant = pool.session_adapter("t")
        await tenant.create_program("p", SIGNATURE)
        workers.intercept = slow("execute_program", 10.0)
        with pytest.raises(CallTimeoutError):
            await tenant.execute_program("p", INPUTS, timeout=1.0)
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tenant.execute_program, "p", INPUTS)
            await trio.sleep(1)
            args = {"program_id": "p", "inputs": INPUTS}
            with pytest.raises(SessionBusyError):
                await pool.call("t", "execute_program", args, affinity="strict_nowait")
    for call in (pool.ping, pool.wait_ready):
        with pytest.raises(PoolClosedError):
            await call()
    assert await pool.health_check() is False
    assert workers.live == []


@pytest.mark.trio
async def test_closed_pool_says_so_whatever_it_is_asked(autojump_clock: MockClock) -> None:
    """Also what needs no worker is refused; lists were answered once, and changes met the store's own error."""
    async with PythonPool.open(ports=CannedWorkers(), pool_size=1, **CALM) as pool:
        await pool.create_program("p", SIGNATURE)
    calls: list[Callable[[], Awaitable[object]]] = [
        *(pool.list_programs, pool.cleanup_session, pool.get_stats, pool.wait_ready),
        lambda: pool.get_program_info("p"),
        lambda: pool.delete_program("p"),
        lambda: pool.create_program("p", SIGNATURE),
        lambda: pool.execute_program("unknown", INPUTS),
        lambda: pool.sessions.end_session("t"),
    ]
    for call in calls:
        with pytest.raises(PoolClosedError):
            await call()


@pytest.mark.trio
async def test_pool_that_cannot_start_says_why(autojump_clock: MockClock) -> None:
    """A wrong setting is refused before anything starts; a worker that fails to start is told to who asks."""
    workers = CannedWorkers()
    with pytest.raises(InvalidConfigError, match="pool_size"):
        async with PythonPool.open(ports=workers, pool_size=0):
            raise AssertionError("opened")
    assert workers.attempts == []
    workers.fail_starts = 9
    with pytest.raises(WorkerStartError, match="ordered by the test"):
        async with PythonPool.open(ports=workers, pool_size=1, **CALM) as pool:
            await pool.wait_ready(fail_fast=True)
    assert workers.live == []
