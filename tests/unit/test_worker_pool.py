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
