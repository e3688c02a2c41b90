"""The pool's public face on mock workers: what callers see, what administrators can do."""

from __future__ import annotations

import signal
from typing import Self

import pytest
import trio
from trio.testing import MockClock

from dspex_pool.config import PoolOptions
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.mock_port import MockPortFactory
from tests.echo_pool import echo, echo_pool

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


@pytest.mark.trio
async def test_block_that_is_left_twice_returns_its_worker_once(autojump_clock: MockClock) -> None:
    """Whoever leaves it by hand, and once more, tells the pool nothing new."""
    async with echo_pool(1) as pool:
        checkout = pool.checkout()
        lease = await checkout.__aenter__()
        await lease.request("echo")
        for _ in range(2):
            await checkout.__aexit__(None, None, None)
        counters = pool.statistics().counters
        assert (counters.returned, counters.stale_notices) == (1, 0)


@pytest.mark.trio
async def test_pool_that_shrinks_is_ready_with_all_that_it_has_left(autojump_clock: MockClock) -> None:
    """Whoever waits for more workers than it may have now does not wait for one whose start hangs."""
    ports = MockPortFactory(echo)
    async with echo_pool(1, ports=ports, spawn_timeout=100.0, terminate_grace=0.1) as pool:
        await pool.wait_ready()
        ports.hang_starts = 9
        pool.resize(2)
        async with pool.checkout(), trio.open_nursery() as nursery:
            nursery.start_soon(pool.wait_ready, 2)
            await trio.sleep(1.0)
            assert pool.statistics().starting == 1
            pool.resize(1)
        assert trio.current_time() == 1.0


@pytest.mark.trio
async def test_worker_that_is_found_unclean_when_it_is_claimed_is_replaced_at_once(
    autojump_clock: MockClock,
) -> None:
    """Although nobody else asks the pool for anything."""
    ports = MockPortFactory(echo)
    async with echo_pool(1, ports=ports) as pool:
        await pool.wait_ready()
        ports.live[0].inject(b"noise")
        assert pool.claim(pool.workers()[0]) is None
        await trio.sleep(1.0)
        assert [worker.incarnation for worker in pool.workers()] == [2]


@pytest.mark.trio
async def test_memory_of_a_worker_is_measured_when_it_is_returned(autojump_clock: MockClock) -> None:
    """One that takes more than is allowed is not lent again; without a bound nobody asks."""
    for bound, incarnation in ((1000, 2), (None, 1)):
        ports = MockPortFactory(echo)
        async with echo_pool(1, ports=ports, max_rss_bytes=bound) as pool:
            async with pool.checkout() as lease:
                ports.live[0].resident_bytes = 1001
                await lease.request("echo")
            async with pool.checkout() as lease:
                assert lease.worker.incarnation == incarnation


@pytest.mark.trio
@pytest.mark.parametrize("when", ["lent", "returned"])
async def test_worker_whose_port_fails_when_asked_is_replaced(when: str, autojump_clock: MockClock) -> None:
    """An error of a port, asked whether anything is unread, left its worker lent with nobody to return it."""
    ports = MockPortFactory(echo)

    def fail() -> bool:
        raise OSError("the connection to the worker's machine is gone")

    async with echo_pool(1, ports=ports) as pool:
        await pool.wait_ready()
        (port,) = ports.live
        if when == "lent":
            port.has_unread = fail  # type: ignore[method-assign] # a port of somebody's own
        async with pool.checkout() as lease:
            assert lease.worker.incarnation == (2 if when == "lent" else 1)
            await lease.request("echo")
            if when == "returned":
                port.has_unread = fail  # type: ignore[method-assign] # the same
        async with pool.checkout() as lease:
            assert lease.worker.incarnation == 2
        assert pool.statistics().idle == 1


class KeptPorts(MockPortFactory):
    """Keeps something running, and notes when that is over."""

    def __init__(self) -> None:
        super().__init__(echo)
        self.ends: list[str] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *details: object) -> None:
        self.ends.append("left")

    async def aclose(self) -> None:
        """End it."""
        self.ends.append("closed")

    def renew(self) -> None:
        """Begin anew."""
        self.ends.append("renewed")


@pytest.mark.trio
async def test_drained_pool_begins_anew_with_what_its_workers_are_made_from(
    autojump_clock: MockClock,
) -> None:
    """A template would make new workers of the old code."""
    ports = KeptPorts()
    async with echo_pool(1, ports=ports) as pool:
        pool.drain()
        assert ports.ends == ["renewed"]


@pytest.mark.trio
async def test_lazy_pool_keeps_no_worker_for_who_waits_no_more(autojump_clock: MockClock) -> None:
    """While somebody waits for two they are its floor; afterwards it has none again."""
    async with echo_pool(3, ports=MockPortFactory(echo, start_delay=2.0), lazy=True) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.wait_ready, 2)
            await trio.sleep(1.0)
            assert pool.floor == 2
        assert pool.floor == 0


@pytest.mark.trio
async def test_cancelled_pool_leaves_the_block_of_its_ports(autojump_clock: MockClock) -> None:
    """The cancellation, on its way out of the pool's own tasks, kept a template's nursery from ever being left."""
    ports = KeptPorts()
    with trio.CancelScope() as scope:
        async with echo_pool(1, ports=ports) as pool:
            await pool.wait_ready()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert (ports.live, ports.ends) == ([], ["closed", "left"])
