"""The public API on a pool, on every kind of port."""

from __future__ import annotations

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
from tests.bounded_waits import until
from tests.pool.sessions import Workers
from tests.session_workers import CALM, EventLog, all_idle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from dspex_pool.adapters import Adapter
    from dspex_testkit.ports.run import MakePool

pytestmark = pytest.mark.ports("all")


class PoolContract(AdapterContract):
    """The adapter contract on one pool, which is open already."""

    __test__ = False

    def open_adapter(self) -> AbstractAsyncContextManager[Adapter]:
        """Refuse: every promise is kept on the pool that is given."""
        raise AssertionError("one pool serves all")


async def test_pool_keeps_the_adapter_contract(make_pool: MakePool) -> None:
    """What every adapter promises holds on a pool, with canned programs."""
    async with PythonPool.open(ports=make_pool.ports(), pool_size=2, **CALM) as pool:
        await PoolContract().keep_all(pool)


async def test_adapters_of_a_pool_speak_for_their_sessions(make_pool: MakePool) -> None:
    """Programs belong to a session; a language model to one too, or to all that have none."""
    workers = Workers(make_pool)
    async with PythonPool.open(ports=workers.ports, pool_size=1, **CALM) as pool:
        tenant = pool.session_adapter("tenant")
        await pool.configure_lm(model="m/all")
        await tenant.create_program("p", SIGNATURE)
        await pool.create_program("p", SIGNATURE)
        assert (tenant.session_id, pool.session_id) == ("tenant", "anonymous")
        assert pool.sessions.session_ids() == ["tenant", "anonymous"]
        assert (await workers.ports.held(pool.sessions.workers))["w-1"] == {
            "tenant": "m/all",
            "anonymous": "m/all",
        }
        await tenant.configure_lm(model="m/tenant")
        assert await workers.model_of(pool.sessions, "w-1", "tenant") == "m/tenant"
        reply = await pool.call("tenant", "execute_program", {"program_id": "p", "inputs": INPUTS})
        assert (reply.worker_id, reply.attempts) == ("w-1", 1)
        assert reply.duration_s >= 0
        for wrong in ("", "x" * 300):
            with pytest.raises(InvalidArgumentError, match="session id"):
                pool.session_adapter(wrong)


async def test_pool_offers_its_parts_and_passes_on_the_options_of_a_call(make_pool: MakePool) -> None:
    """Settings, figures and events can be had from the adapter; affinity, tries and timeouts reach the pool."""
    workers, log = Workers(make_pool), EventLog()
    config = PoolConfig(pool_size=4, retries=3)
    settings = {"pool_size": 2, **CALM}
    async with PythonPool.open(config, ports=workers.ports, telemetry=log.telemetry, **settings) as pool:
        assert (pool.config.pool_size, pool.config.retries) == (2, 3)
        assert pool.telemetry is log.telemetry
        await pool.wait_ready(2)
        assert pool.statistics().idle == 2
        assert pool.monitor.snapshot().healthy_workers == 2
        tenant = pool.session_adapter("t")
        await tenant.create_program("p", SIGNATURE)
        workers.dawdle("execute_program", 20.0)
        with pytest.raises(CallTimeoutError):
            await tenant.execute_program("p", INPUTS, timeout=make_pool.unit)
        await all_idle(pool.sessions, 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tenant.execute_program, "p", INPUTS)
            await until(lambda: pool.statistics().leased, "the program runs")
            args = {"program_id": "p", "inputs": INPUTS}
            with pytest.raises(SessionBusyError):
                await pool.call("t", "execute_program", args, affinity="strict_nowait")
            nursery.cancel_scope.cancel()
    for call in (pool.ping, pool.wait_ready):
        with pytest.raises(PoolClosedError):
            await call()
    assert await pool.health_check() is False
    assert workers.live == []


async def test_closed_pool_says_so_whatever_it_is_asked(make_pool: MakePool) -> None:
    """Also what needs no worker is refused; lists were answered once, and changes met the store's own error."""
    async with PythonPool.open(ports=make_pool.ports(), pool_size=1, **CALM) as pool:
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


async def test_pool_that_cannot_start_says_why(make_pool: MakePool) -> None:
    """A wrong setting is refused before anything starts; a worker that fails to start is told to who asks."""
    workers = Workers(make_pool)
    with pytest.raises(InvalidConfigError, match="pool_size"):
        async with PythonPool.open(ports=workers.ports, pool_size=0):
            raise AssertionError("opened")
    assert workers.ports.attempts == []
    workers.ports.fail_starts = 9
    with pytest.raises(WorkerStartError, match="ordered by the test"):
        async with PythonPool.open(ports=workers.ports, pool_size=1, **CALM) as pool:
            await pool.wait_ready(fail_fast=True)
    assert workers.live == []
