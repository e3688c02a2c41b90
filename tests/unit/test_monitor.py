"""The monitor's figures, against what happened."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio

from dspex_pool.errors import DspexPoolError
from dspex_pool.monitor import MonitorSnapshot, Percentiles, PoolMonitor
from dspex_testkit.plan import Plan
from tests.session_workers import CannedWorkers, instead_of, open_sessions, slow

if TYPE_CHECKING:
    from trio.testing import MockClock


def test_percentiles_are_those_of_the_latest_durations() -> None:
    """Of none they are zeros, of one it is each, of a hundred they are what they say."""
    assert Percentiles.of(deque()) == Percentiles(0, 0.0, 0.0, 0.0)
    assert Percentiles.of(deque([2.5])) == Percentiles(1, 2.5, 2.5, 2.5)
    many = Percentiles.of(deque(float(number) for number in range(101)))
    assert (many.count, many.p50, many.p95, many.p99) == (101, 50.0, 95.0, 99.0)


@pytest.mark.trio
async def test_snapshot_counts_what_happened(autojump_clock: MockClock) -> None:
    """Sessions, workers in use, commands, errors, waits and durations are those of the story."""
    workers = CannedWorkers()
    workers.intercept = slow("execute_program", 4.0)
    async with open_sessions(workers) as pool:
        monitor = PoolMonitor(pool, interval=5.0)
        assert monitor.snapshot().wait == Percentiles()
        run = ("execute_program", {"program_id": "p", "inputs": {"a": "x"}})
        other = PoolMonitor(pool, interval=5.0)
        listening = other.listen()
        with monitor.listen():
            for session_id in ("a", "b"):
                create = ("create_program", {"id": "p", "signature": "a -> b"})
                await pool.execute_in_session(session_id, *create)
            async with trio.open_nursery() as nursery:
                for session_id in ("a", "b", "b"):
                    nursery.start_soon(pool.execute_in_session, session_id, *run)
                await trio.sleep(1)
                busy = monitor.snapshot()
            workers.intercept = instead_of("execute_program", Plan().fail("on purpose"))
            with pytest.raises(DspexPoolError):
                await pool.execute_in_session("a", *run)
        with pytest.raises(DspexPoolError):
            await pool.execute_in_session("a", *run)
        calm = monitor.snapshot()
        listening.close()
        with pytest.raises(DspexPoolError):
            await pool.execute_in_session("a", *run)
    assert other.snapshot().total_commands == 7, "each counts as long as it listens, and no longer"
    assert (busy.utilization, busy.active_sessions, busy.pool_size, busy.is_healthy) == (1.0, 2, 2, True)
    assert (calm.utilization, calm.total_commands, calm.total_errors) == (0.0, 6, 1)
    assert (calm.wait.count, calm.call.count) == (6, 6), "nothing is counted when nobody listens"
    assert calm.wait.p99 == pytest.approx(4.0, abs=0.3)
    assert calm.call.p50 == pytest.approx(2.0, abs=0.1)
    assert calm.call.p99 == pytest.approx(4.0, abs=0.1)


@pytest.mark.trio
async def test_snapshot_tells_of_a_pool_without_workers(autojump_clock: MockClock) -> None:
    """Health is what lives, not what was configured: a pool whose workers are all dead says so.

    Afterwards the replacements are counted by the reason for which those before them left.
    """
    workers = CannedWorkers()
    async with open_sessions(workers) as pool:
        monitor = PoolMonitor(pool, interval=5.0)
        with monitor.listen():
            await pool.execute_anonymous("ping")
            workers.hang_starts = 1
            workers.kill_all()
            await trio.sleep(1)
            dead = monitor.snapshot()
            await trio.sleep(pool.config.spawn_timeout + 5)
            healed = monitor.snapshot()
            pool.workers.drain()
            await trio.sleep(10)
            drained = monitor.snapshot()
    assert (dead.healthy_workers, dead.utilization, dead.is_healthy) == (0, 0.0, False)
    assert dead.pool_size + dead.unhealthy_workers == 2, "one is being started, one is missing"
    assert (healed.healthy_workers, healed.unhealthy_workers, healed.is_healthy) == (2, 0, True)
    assert not replace(healed, healthy_workers=0).is_healthy, (
        "of a lazy pool, none is missing before the first call"
    )
    assert sum(healed.restarts.values()) == 2
    assert drained.restarts["drained"] == 2
    assert isinstance(drained, MonitorSnapshot)


@pytest.mark.trio
async def test_memory_is_measured_at_intervals_and_too_much_of_it_costs_the_worker(
    autojump_clock: MockClock,
) -> None:
    """Resident memory is shown by worker, and a worker over the limit is replaced while it is idle."""
    workers = CannedWorkers()
    async with open_sessions(workers, max_rss_bytes=1000) as pool, trio.open_nursery() as nursery:
        monitor = PoolMonitor(pool, interval=5.0)
        for number, port in enumerate(workers.ports):
            port.resident_bytes = 100 + number
        with monitor.listen():
            nursery.start_soon(monitor.run)
            await trio.sleep(1)
            assert set(monitor.snapshot().resident_bytes.values()) == {100, 101}
            workers.port("w-1").resident_bytes = 2000
            await trio.sleep(3)
            assert 2000 not in monitor.snapshot().resident_bytes.values(), "it was not measured yet"
            await trio.sleep(8)
            assert workers.started == 3
            assert monitor.snapshot().restarts == {"max_rss": 1}
            assert set(monitor.snapshot().resident_bytes) == {"w-2"}, "nothing is known of the new one"
        nursery.cancel_scope.cancel()
