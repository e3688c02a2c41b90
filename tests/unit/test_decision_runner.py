"""What carries out the core's decisions: nobody sleeps through a change."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest
import trio

from dspex_pool.config import PoolOptions
from dspex_pool.errors import WorkerDiedError
from dspex_pool.worker_life import REAP_TIMEOUT
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.mock_port import MockPortFactory
from dspex_testkit.plan import Plan

if TYPE_CHECKING:
    from trio.testing import MockClock

    from dspex_testkit.mock_port import MockPort


WHOSE = ContextVar("WHOSE", default="nobody's")


def unkillable(port: MockPort) -> None:
    """Stay alive whatever is sent, as a process that hangs in the kernel."""
    port.reactions.eof = port.reactions.terminate = None
    port.reactions.kill = 1_000.0


@pytest.mark.trio
async def test_closing_within_the_block_does_not_cancel_the_block(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that even SIGKILL does not end is given up, and nobody but its own task is cancelled for it.

    The block was cancelled with the pool's tasks, and that cancellation left the pool although no scope caught it.
    """
    async with WorkerPool(MockPortFactory(unkillable), pool_size=1, close_timeout=10.0) as pool:
        await pool.wait_ready()
        await pool.aclose()
        assert trio.current_time() == 10.0 + REAP_TIMEOUT
        await trio.sleep(1.0)
    assert trio.current_time() == 11.0 + REAP_TIMEOUT
    assert pool.statistics().processes == 0
    assert "could not be reaped" in caplog.text


@pytest.mark.trio
async def test_lease_that_is_out_too_long_ends_although_nobody_listens(autojump_clock: MockClock) -> None:
    """The pool's timer hears of a lease's bound at the grant, not only with the next decision.

    Without a listener a grant makes no decision, and the timer slept until something else woke it.
    """
    options = PoolOptions(pool_size=1, lease_timeout=5.0, health_check_interval=None)
    async with WorkerPool(MockPortFactory(), options) as pool:
        await pool.wait_ready()
        async with pool.checkout() as lease:
            await lease.worker.exited.wait()
            assert trio.current_time() == 5.0


@pytest.mark.trio
async def test_port_that_cannot_be_told_of_a_deadline_costs_its_worker_and_not_the_timer(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of somebody's port in the pool's timer would have ended the pool."""

    def faulty(port: MockPort) -> None:
        port.answer("slow", Plan().stall(deaf=True))
        port.expire = _fail  # type: ignore[method-assign] # as a port of somebody's own would

    options = PoolOptions(pool_size=1, health_check_interval=None)
    async with WorkerPool(MockPortFactory(faulty), options) as pool:
        for _ in range(2):
            async with pool.checkout() as lease:
                with pytest.raises(WorkerDiedError):
                    await lease.request("slow", timeout=1.0)
    assert "cannot be told that the time of its call is up" in caplog.text


def _fail() -> None:
    raise RuntimeError("not today")


@pytest.mark.trio
@pytest.mark.hangs_after(5)
async def test_port_that_does_not_end_a_late_call_is_told_once(autojump_clock: MockClock) -> None:
    """It does as it likes; the pool's timer goes on to sleep and looks after the other workers."""
    ports = MockPortFactory(lambda port: port.answer("slow", Plan().after(9.0).reply("late")))
    async with WorkerPool(ports, pool_size=1, health_check_interval=None) as pool, pool.checkout() as lease:
        told: list[float] = []
        lease.worker._expire_port = lambda: told.append(trio.current_time())
        began = trio.current_time()
        assert await lease.request("slow", timeout=1.0) == "late"
        assert told == [began + 1.0]


@pytest.mark.trio
async def test_worker_does_not_live_in_the_context_of_its_first_caller(autojump_clock: MockClock) -> None:
    """A worker that is started for a caller is the pool's, in context variables too, and so is its aftercare.

    What it printed for others was logged under the first caller's request, which stayed in memory with it.
    """
    contexts: list[str] = []

    async def reset(_: object) -> None:
        contexts.append(WHOSE.get())

    def note(port: MockPort) -> None:
        port.answer("echo", {})
        contexts.append(WHOSE.get())

    async with WorkerPool(MockPortFactory(note), pool_size=1, lazy=True, reset=reset) as pool:
        WHOSE.set("a caller's")
        async with pool.checkout() as lease:
            await lease.request("echo")
        async with pool.checkout():
            pass
    assert contexts == ["nobody's", "nobody's"]
