"""The pool's public face on mock workers: what callers see, what administrators can do."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock

from dspex_pool.config import PoolOptions
from dspex_pool.errors import (
    CheckoutTimeoutError,
    PoolClosedError,
    ProgramError,
    SessionBusyError,
    SessionLostError,
    WorkerStartError,
)
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.mock_port import MockPortFactory
from dspex_testkit.plan import Plan
from tests.echo_pool import echo, echo_pool, hold, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dspex_pool.lease import Lease
    from dspex_pool.worker import PoolWorker


# --- lending --------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_caller_talks_to_its_worker(autojump_clock: MockClock) -> None:
    """A lease carries requests and answers, names its worker, and ends with its block."""
    async with echo_pool() as pool:
        async with pool.checkout(session="s") as lease:
            assert await lease.request("echo", {"n": 1}) == {"n": 1}
            assert (lease.worker_id, lease.session, lease.token, lease.is_ended) == ("w-1", "s", 1, False)
        assert lease.is_ended
        async with pool.checkout() as later:
            assert later.token == 2


@pytest.mark.trio
async def test_nowait_lends_what_is_free_and_never_waits(autojump_clock: MockClock) -> None:
    """Without a free worker ``WouldBlock`` is raised in no time, and nobody is in line."""
    async with echo_pool() as pool:
        with pytest.raises(trio.WouldBlock):
            async with pool.checkout_nowait():
                pass
        await pool.wait_ready()
        async with pool.checkout_nowait(session="s", affinity="strict") as lease:
            assert await lease.request("echo") == {}
            with pytest.raises(trio.WouldBlock):
                async with pool.checkout_nowait():
                    pass
            with pytest.raises(SessionBusyError):
                async with pool.checkout_nowait(session="s", affinity="strict_nowait"):
                    pass
        assert pool.statistics().counters.declined == 3
    with pytest.raises(PoolClosedError):
        async with pool.checkout_nowait():
            pass


@pytest.mark.trio
async def test_timeout_names_those_who_hold_the_workers(autojump_clock: MockClock) -> None:
    """The error of a vain wait carries the gauges and says who has which worker, for how long."""
    async with echo_pool() as pool, trio.open_nursery() as nursery:
        nursery.start_soon(hold, pool, 8.0, name="the long one")
        await trio.sleep(1.0)
        with pytest.raises(CheckoutTimeoutError, match="w-1 for 3 s by task 'the long one'") as caught:
            async with pool.checkout(timeout=2.0):
                pass
        assert caught.value.waited == 2.0
        assert caught.value.statistics.leased == 1
        assert pool.holders() == ("w-1 for 3 s by task 'the long one'",)
    assert pool.holders() == ()


@pytest.mark.trio
async def test_error_of_the_block_leaves_as_it_is_and_keeps_the_worker(autojump_clock: MockClock) -> None:
    """An exception of the caller passes through checkout and pool unwrapped; the worker serves on. [property 53]"""
    ports = MockPortFactory(echo)
    error = RuntimeError("mine")

    async def fail() -> None:
        async with echo_pool(ports=ports) as pool:
            for _ in range(2):
                with pytest.raises(ProgramError, match="as asked"):
                    async with pool.checkout() as lease:
                        await lease.request("fail")
            async with pool.checkout():
                raise error

    with pytest.raises(RuntimeError) as caught:
        await fail()
    assert caught.value is error
    assert caught.value.__cause__ is None
    assert ports.started == 1


@pytest.mark.trio
async def test_claimed_worker_is_lent_to_nobody_else(autojump_clock: MockClock) -> None:
    """Housekeeping gets the very worker it asks for, while it is idle, and returns it unused."""
    async with echo_pool(2) as pool:
        await pool.wait_ready(2)
        worker = pool.workers()[0]
        claimed = pool.claim(worker)
        assert claimed is not None
        async with claimed as lease:
            assert lease.worker is worker
            assert pool.claim(worker) is None
            assert "by the pool's housekeeping" in pool.holders()[0]
            async with pool.checkout() as other:
                assert other.worker is not worker
        assert pool.statistics().idle == 2
    assert pool.claim(worker) is None


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


@pytest.mark.trio
async def test_pool_opens_once(autojump_clock: MockClock) -> None:
    """A second opening, also after the close, is refused and harms nothing."""
    pool = echo_pool()
    async with pool:
        with pytest.raises(PoolClosedError, match="twice"):
            await pool.__aenter__()
        async with pool.checkout() as lease:
            assert await lease.request("echo") == {}
    with pytest.raises(PoolClosedError, match="twice"):
        await pool.__aenter__()


@pytest.mark.trio
async def test_pool_that_is_not_open_yet_says_so(autojump_clock: MockClock) -> None:
    """Before its block nothing can be lent or awaited, and what changes the pool starts nothing."""
    ports = MockPortFactory(echo)
    pool = echo_pool(ports=ports)
    for _ in range(2):
        with pytest.raises(PoolClosedError, match="not open yet"):
            await hold(pool)
        with pytest.raises(PoolClosedError, match="not open yet"):
            await pool.wait_ready()
        pool.resize(2)
        pool.drain()
        pool.suspend()
        pool.resume()
    assert (ports.started, pool.statistics().processes) == (0, 0)
    async with pool:
        await pool.wait_ready(2)
        await hold(pool)


@pytest.mark.trio
async def test_readiness_can_be_awaited(autojump_clock: MockClock) -> None:
    """``wait_ready`` returns when so many workers are in service, not when they are free."""
    async with echo_pool(2, ports=MockPortFactory(echo, start_delay=3.0), max_starting=1) as pool:
        await pool.wait_ready()
        assert trio.current_time() == 3.0
        async with pool.checkout():
            await pool.wait_ready(2)
            assert trio.current_time() == 6.0
            await pool.wait_ready(2)


@pytest.mark.trio
async def test_lazy_pool_gets_ready_for_who_waits_for_it(autojump_clock: MockClock) -> None:
    """Waiting for workers that nobody else would start starts them, also again when a start fails. [property 24]"""
    ports = MockPortFactory(echo, start_delay=1.0)
    async with echo_pool(3, ports=ports, lazy=True, backoff_min=1.0, backoff_max=1.0) as pool:
        ports.fail_starts = 1
        with trio.fail_after(100.0):
            await pool.wait_ready(2)
        assert pool.statistics().idle == 2
        await trio.sleep(100.0)
        assert ports.started == 2


@pytest.mark.trio
async def test_nobody_waits_for_more_workers_than_there_can_be(autojump_clock: MockClock) -> None:
    """More than ``pool_size`` are refused; when the pool shrinks meanwhile, all it has left will do. [property 24]"""
    async with echo_pool(2, ports=MockPortFactory(echo, start_delay=1.0), max_starting=1) as pool:
        with pytest.raises(ValueError, match=r"3 workers .* pool_size is 2"):
            await pool.wait_ready(3)
        with trio.fail_after(100.0):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.wait_ready, 2)
                await trio.sleep(0.5)
                pool.resize(1)
        assert trio.current_time() == 1.0


@pytest.mark.trio
async def test_waiting_for_readiness_fails_fast_if_asked_to(autojump_clock: MockClock) -> None:
    """With ``fail_fast`` the first failed start is raised while nothing serves; without, the pool tries on."""
    ports = MockPortFactory(echo, fail_starts=1)
    async with echo_pool(ports=ports, backoff_min=2.0, backoff_max=2.0) as pool:
        with pytest.raises(WorkerStartError, match="ordered by the test"):
            await pool.wait_ready(fail_fast=True)
        assert trio.current_time() == 0.0
        await pool.wait_ready()
        assert trio.current_time() == 2.0
        ports.fail_starts = 1
        pool.drain()
        pool.resize(2)
        await pool.wait_ready(2)


@pytest.mark.trio
async def test_start_that_takes_too_long_is_reported_with_its_last_words(autojump_clock: MockClock) -> None:
    """What a worker said before ``spawn_timeout`` ended it is in the error of who waits for it. [property 108]"""
    hanging = Plan().stderr("loading\nasking for a licence\n").stall(deaf=True)
    ports = MockPortFactory(lambda port: port.answer_handshake(hanging))
    async with echo_pool(ports=ports, spawn_timeout=3.0) as pool:
        with pytest.raises(
            WorkerStartError, match=r"within 3 s.*last words: asking for a licence$"
        ) as caught:
            await pool.wait_ready(fail_fast=True)
        assert caught.value.stderr_tail == "loading\nasking for a licence\n"
        with pytest.raises(CheckoutTimeoutError, match="asking for a licence"):
            await hold(pool, timeout=0.5)


@pytest.mark.trio
async def test_waiting_for_readiness_changes_nothing_when_cancelled(autojump_clock: MockClock) -> None:
    """Whoever stops waiting leaves no trace, and the pool gets ready for others."""
    async with echo_pool(ports=MockPortFactory(echo, start_delay=3.0)) as pool:
        with trio.move_on_after(1.0) as scope:
            await pool.wait_ready()
        assert scope.cancelled_caught
        await pool.wait_ready()
        assert pool.statistics().idle == 1


@pytest.mark.trio
async def test_pool_within_a_cancelled_scope_closes_and_lets_the_cancellation_go_on(
    autojump_clock: MockClock,
) -> None:
    """A cancellation around the pool is neither swallowed nor turned into something else. [property 81]"""
    ports = MockPortFactory(echo)
    with trio.move_on_after(5.0) as outer:
        with trio.CancelScope() as inner:
            async with echo_pool(ports=ports) as pool, pool.checkout() as lease:
                await lease.request("echo")
                await trio.sleep_forever()
        raise AssertionError("the inner scope has taken the outer one's cancellation")
    assert outer.cancelled_caught
    assert not inner.cancelled_caught
    assert not ports.live


@pytest.mark.trio
async def test_cancellation_within_the_pool_does_not_touch_the_pool(autojump_clock: MockClock) -> None:
    """A caller that is cancelled costs the pool nothing but the care of its worker. [property 53]"""
    ports = MockPortFactory(echo)
    async with echo_pool(ports=ports) as pool:
        with trio.move_on_after(1.0) as scope:
            async with pool.checkout() as lease:
                await lease.request("slow")
        assert scope.cancelled_caught
        async with pool.checkout() as lease:
            assert await lease.request("echo", {"n": 2}) == {"n": 2}
        assert ports.started == 1
        assert ports.ports[0].signals == ["interrupt"]


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


@pytest.mark.trio
async def test_statistics_are_a_snapshot(autojump_clock: MockClock) -> None:
    """What was read does not change when the pool goes on."""
    async with echo_pool() as pool:
        before = pool.statistics()
        await hold(pool)
        assert (before.counters.granted, pool.statistics().counters.granted) == (0, 1)
        assert (before.live, before.ready, before.processes) == (1, 0, 1)


@pytest.mark.trio
async def test_suspended_pool_lets_callers_wait(autojump_clock: MockClock) -> None:
    """Nobody is served between ``suspend`` and ``resume``, then everybody in order."""
    async with echo_pool() as pool, trio.open_nursery() as nursery:
        await pool.wait_ready()
        pool.suspend()
        nursery.start_soon(hold, pool)
        await trio.sleep(10.0)
        assert (pool.statistics().waiting, pool.statistics().idle) == (1, 1)
        with pytest.raises(trio.WouldBlock):
            async with pool.checkout_nowait():
                pass
        pool.resume()
        await trio.sleep(0.5)
        assert (pool.statistics().waiting, pool.statistics().leased) == (0, 1)


@pytest.mark.trio
async def test_drained_pool_has_new_workers(autojump_clock: MockClock) -> None:
    """After ``drain`` every worker is another one, a lent one when it comes back."""
    ports = MockPortFactory(echo)
    async with echo_pool(2, ports=ports) as pool:
        await pool.wait_ready(2)
        async with pool.checkout() as lease:
            pool.drain()
            await trio.sleep(1.0)
            assert await lease.request("echo") == {}
            assert len(ports.live) == 2
        await pool.wait_ready(2)
        assert [port.incarnation for port in ports.live] == [3, 4]


@pytest.mark.trio
async def test_forgotten_session_may_begin_anew(autojump_clock: MockClock) -> None:
    """A strict session that lost its worker is refused until the pool is told to forget it."""
    ports = MockPortFactory(echo)
    async with echo_pool(ports=ports) as pool:
        await hold(pool, session="s", affinity="strict")
        ports.ports[0].die()
        await until(lambda: ports.started == 2)
        with pytest.raises(SessionLostError):
            await hold(pool, session="s", affinity="strict")
        pool.forget_session("s")
        await hold(pool, session="s", affinity="strict")


# --- hooks ----------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_setup_hook_prepares_each_lease(autojump_clock: MockClock) -> None:
    """The hook runs in the caller's task before its block, with the lease."""
    prepared: list[tuple[int, str]] = []

    async def setup(lease: Lease) -> None:
        await lease.request("echo")
        prepared.append((lease.token, trio.lowlevel.current_task().name))

    async with echo_pool(setup=setup) as pool, trio.open_nursery() as nursery:
        for name in ("a", "b"):
            nursery.start_soon(hold, pool, name=name)
    assert sorted(token for token, _ in prepared) == [1, 2]
    assert sorted(name for _, name in prepared) == ["a", "b"]


@pytest.mark.trio
@pytest.mark.parametrize("how", ["raises", "is cancelled"])
async def test_setup_hook_that_fails_costs_the_worker_and_serves_the_next(
    how: str, autojump_clock: MockClock
) -> None:
    """The caller gets the hook's error, the worker is retired, the head of the line gets another. [property 6]"""
    ports = MockPortFactory(echo)

    async def setup(lease: Lease) -> None:
        if lease.token == 1:
            await trio.sleep(1.0)
            raise LookupError("no data")

    async with echo_pool(ports=ports, setup=setup) as pool, trio.open_nursery() as nursery:
        await pool.wait_ready()
        with trio.move_on_after(0.5 if how == "is cancelled" else 9.0) as scope:
            with pytest.raises(LookupError) if how == "raises" else trio.CancelScope():
                nursery.start_soon(hold, pool)
                await hold(pool)
        assert scope.cancelled_caught == (how == "is cancelled")
    assert ports.started == 2
    assert pool.statistics().counters.granted == 2


@pytest.mark.trio
async def test_reset_hook_cleans_after_each_use(autojump_clock: MockClock) -> None:
    """The hook runs after leases that used their worker, and after no other. [property 111]"""
    cleaned: list[int] = []

    async def reset(worker: PoolWorker) -> None:
        await worker.request("echo", {})
        cleaned.append(worker.incarnation)

    async with echo_pool(reset=reset) as pool:
        async with pool.checkout():
            pass
        await trio.sleep(1.0)
        assert cleaned == []
        await hold(pool)
        await hold(pool)
        await trio.sleep(1.0)
        assert cleaned == [1, 1]


async def reset_that_raises(_: PoolWorker) -> None:
    """Fail."""
    raise LookupError("no data")


async def reset_that_hangs(_: PoolWorker) -> None:
    """Never end."""
    await trio.sleep_forever()


async def reset_that_leaves_an_answer_due(worker: PoolWorker) -> None:
    """Give a request up."""
    with trio.move_on_after(0.1):
        await worker.request("slow", {})


@pytest.mark.trio
@pytest.mark.parametrize("reset", [reset_that_raises, reset_that_hangs, reset_that_leaves_an_answer_due])
async def test_reset_hook_that_fails_costs_the_worker(
    reset: Callable[[PoolWorker], Awaitable[None]], autojump_clock: MockClock
) -> None:
    """A worker that was not cleaned within ``cancel_grace`` is replaced, and who waits is served. [property 54]"""
    ports = MockPortFactory(echo)
    async with echo_pool(ports=ports, reset=reset, cancel_grace=2.0) as pool, trio.open_nursery() as nursery:
        async with pool.checkout() as lease:
            await lease.request("echo")
            began = trio.current_time()
            nursery.start_soon(hold, pool, 0.0)
        await until(lambda: ports.started >= 2)
        assert trio.current_time() <= began + 2.2
    assert ports.ports[0] not in ports.live


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
