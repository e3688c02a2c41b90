"""The pool's public face on mock workers: what callers see, what administrators can do."""

from __future__ import annotations

import signal

import pytest
import trio
from trio.testing import MockClock

from dspex_pool.config import PoolOptions
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.mock_port import MockPortFactory
from tests.echo_pool import echo, echo_pool, hold, until


@pytest.mark.trio
async def test_claim_finds_out_that_a_worker_is_not_clean(autojump_clock: MockClock) -> None:
    """A worker that has said something unasked is retired instead of claimed."""
    ports = MockPortFactory(echo)
    async with echo_pool(ports=ports) as pool:
        await pool.wait_ready()
        ports.ports[0].inject(b"noise")
        assert pool.claim(pool.workers()[0]) is None
        await until(lambda: ports.started == 2)
        counters = pool.statistics().counters
        assert (counters.attempts, counters.granted) == (0, 0)


# --- opening, readiness, closing ------------------------------------------------------------------------


@pytest.mark.trio
async def test_settings_are_given_in_one_way(autojump_clock: MockClock) -> None:
    """Options or keywords, not both; whichever they are, the pool shows them."""
    ports = MockPortFactory()
    assert WorkerPool(ports, PoolOptions(pool_size=3)).options == WorkerPool(ports, pool_size=3).options
    with pytest.raises(TypeError, match="not both"):
        WorkerPool(ports, PoolOptions(), pool_size=3)


def test_keyboard_interrupt_in_the_block_closes_the_pool() -> None:
    """Ctrl-C leaves as it is, when every worker has been ended. [property 11]"""
    ports = MockPortFactory(echo)

    async def main() -> None:
        async with echo_pool(2, ports=ports) as pool, pool.checkout() as lease:
            await lease.request("echo")
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert ports.started == 2
    assert not ports.live


# --- administration -------------------------------------------------------------------------------------


# --- hooks ----------------------------------------------------------------------------------------------


# --- memory ---------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_worker_that_grew_too_large_is_replaced_at_check_in(autojump_clock: MockClock) -> None:
    """Above ``max_rss_bytes`` a worker finishes its lease and then leaves."""
    ports = MockPortFactory(echo)
    async with echo_pool(ports=ports, max_rss_bytes=1000) as pool:
        async with pool.checkout() as lease:
            ports.ports[0].resident_bytes = 1001
            assert pool.measure_memory() == {"w-1": 1001}
            assert await lease.request("echo") == {}
        await until(lambda: ports.started == 2)
        ports.ports[1].resident_bytes = 1000
        await hold(pool)
        assert pool.measure_memory() == {"w-1": 1000}
        assert ports.live == [ports.ports[1]]


@pytest.mark.trio
async def test_idle_worker_that_grew_too_large_is_replaced_when_it_is_measured(
    autojump_clock: MockClock,
) -> None:
    """``measure_memory`` applies the limit at once; a worker of unknown size is left alone."""
    ports = MockPortFactory(echo)
    async with echo_pool(2, ports=ports, max_rss_bytes=1000) as pool:
        await pool.wait_ready(2)
        ports.ports[0].resident_bytes = 5000
        assert pool.measure_memory() == {ports.ports[0].worker_id: 5000}
        await until(lambda: ports.started == 3)
        assert ports.ports[0] not in ports.live
        assert pool.measure_memory() == {}
