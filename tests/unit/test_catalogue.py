"""Every event of the catalogue happens, and says what the catalogue lists."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from dspex_pool.config import PoolConfig, PoolOptions
from dspex_pool.errors import DspexPoolError
from dspex_pool.supervisor import PoolSupervisor
from dspex_pool.telemetry import EVENTS
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.mock_port import MockPortFactory
from dspex_testkit.plan import Plan
from tests.session_workers import CALM, CannedWorkers, EventLog, instead_of, open_sessions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock


async def ignore_errors(call: Callable[..., Awaitable[object]], *args: Any) -> None:
    """Call, whatever comes of it."""
    with contextlib.suppress(DspexPoolError):
        await call(*args)


def fail_once(thing: object, method: str) -> None:
    """Have the next call of a method raise."""

    def fail(*_: object) -> None:
        delattr(thing, method)
        raise RuntimeError("on purpose")

    setattr(thing, method, fail)


async def use(pool: WorkerPool, seconds: float = 0.0, **options: Any) -> None:
    """Check out a worker, ask it something, and keep it for a while."""
    async with pool.checkout(**options) as lease:
        await lease.request("ping")
        await trio.sleep(seconds)


async def live_through_leases(log: EventLog) -> None:
    """Let all happen that can happen to workers and those who want one."""
    workers = MockPortFactory(lambda port: port.answer("ping", {"status": "ok"}), fail_starts=1)
    options = PoolOptions(
        pool_size=1,
        max_waiting=2,
        checkout_timeout=5.0,
        health_check_interval=8.0,
        lease_timeout=7.0,
        leak_warning_after=6.0,
        backoff_min=0.1,
    )
    async with WorkerPool(workers, options, telemetry=log.telemetry) as pool, trio.open_nursery() as nursery:
        await pool.wait_ready()
        await trio.sleep(9)
        nursery.start_soon(ignore_errors, use, pool, 8.0)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await use(pool)
        for _ in range(3):
            nursery.start_soon(ignore_errors, use, pool)
        await trio.sleep(20)
        pool.drain()
        pool.resize(2)
        pool.suspend()
        pool.resume()
        await pool.wait_ready(2)
        workers.live[-1].inject(b"unasked")
        await use(pool)
        await trio.sleep(1)


async def live_through_sessions(log: EventLog) -> None:
    """Let all happen that can happen to sessions and their commands."""
    workers = CannedWorkers()
    args = {"program_id": "p"}
    async with open_sessions(workers, telemetry=log.telemetry, pool_size=1, session_ttl=20.0) as pool:
        for affinity in ("hint", "strict"):
            create = ("create_program", {"id": "p", "signature": "a -> b"})
            await pool.execute_in_session(affinity, *create, affinity=affinity)
        workers.intercept = instead_of("dump_program", Plan().die())
        await ignore_errors(pool.execute_in_session, "strict", "dump_program", args)
        workers.intercept = instead_of("dump_program", Plan().after(60))
        await trio.sleep(1)
        (port,) = workers.live
        port.stop_reading()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ignore_errors, pool.execute_in_session, "hint", "dump_program", args)
            await trio.testing.wait_all_tasks_blocked()
            port.die()
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        await trio.sleep(1)
        await pool.end_session("strict")
        await trio.sleep(30)
        await ignore_errors(pool.execute_in_session, "hint", "dump_program", args)


async def live_through_failures(log: EventLog) -> None:
    """Let all happen that can happen to the pool as a whole."""
    workers = CannedWorkers()
    config = PoolConfig(**(CALM | {"pool_size": 1, "breaker_after": 2.0, "monitor_interval": 5.0}))
    async with PoolSupervisor(config, ports=workers, telemetry=log.telemetry) as supervisor:
        await supervisor.pool.workers.wait_ready()
        fail_once(supervisor.pool.workers, "measure_memory")
        fail_once(supervisor.pool, "_expire")
        await trio.sleep(6)
        workers.fail_starts = 20
        workers.kill_all()
        await trio.sleep(10)
        workers.fail_starts = 0
        await trio.sleep(60)


@pytest.mark.trio
async def test_every_event_of_the_catalogue_happens(autojump_clock: MockClock) -> None:
    """Nobody subscribes in vain: each event is emitted, with all that it should carry and nothing else."""
    log = EventLog()
    await live_through_leases(log)
    await live_through_sessions(log)
    await live_through_failures(log)
    assert log.problems == []
    assert EVENTS.keys() - set(log.names) == set()
    carried: dict[str, set[str]] = {}
    for name, _, metadata in log.events:
        carried.setdefault(name, set()).update(metadata)
    never = {(name, part) for name, spec in EVENTS.items() for part in set(spec.metadata) - carried[name]}
    assert never == set()
