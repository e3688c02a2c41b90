"""Check-in and the wire, on every kind of port: who reads what, and which worker may serve again."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_pool.errors import (
    CallTimeoutError,
    CheckoutTimeoutError,
    ProgramError,
    RemoteProtocolError,
    WorkerDiedError,
)
from dspex_testkit.plan import Plan
from tests.bounded_waits import until
from tests.pool.callers import BRISK, planned, serving, use
from tests.search_profiles import depth

if TYPE_CHECKING:
    from dspex_pool.worker_pool import WorkerPool
    from dspex_testkit.ports.run import MakePool

pytestmark = pytest.mark.ports("all")


# --- whose answer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(depth(1, 50)))
async def test_nobody_reads_another_callers_answer(seed: int, make_pool: MakePool) -> None:
    """Twenty callers on three workers, many of whom time out or are cancelled: each reads its own answer or none.

    [property 50]
    """
    dice, unit = random.Random(seed), make_pool.unit
    answered: list[tuple[str, str]] = []

    async def call(name: str) -> None:
        await trio.sleep(dice.uniform(0.0, 5.0) * unit)
        work = Plan().after(dice.choice([0.0, 0.5, 3.0]) * unit, deaf=dice.random() < 0.2).reply(name)
        with trio.move_on_after(dice.choice([0.4, 2.0, 60.0]) * unit):
            try:
                async with pool.checkout() as lease:
                    timeout = dice.choice([0.4, 60.0]) * unit
                    answered.append((name, await lease.request(*planned(work), timeout=timeout)))
            except (CallTimeoutError, WorkerDiedError):
                pass

    async with make_pool.worker_pool(pool_size=3, health_check_interval=unit, **BRISK) as pool:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(call, f"caller {number}")
        await use(pool)
    assert all(own == read for own, read in answered)


async def test_each_call_ends_at_its_own_time(make_pool: MakePool) -> None:
    """One timer keeps the time of all calls, and a later call may have to end earlier. [property 110]"""
    unit = make_pool.unit
    ended: list[float] = []

    async def call(timeout: float) -> None:
        with pytest.raises(CallTimeoutError):
            async with pool.checkout() as lease:
                await lease.request(*planned(Plan().stall()), timeout=timeout)
        ended.append(timeout)

    async with make_pool.worker_pool(pool_size=3, cancel_grace=30.0) as pool:
        await pool.wait_ready(3)
        async with trio.open_nursery() as nursery:
            for timeout in (6 * unit, 2 * unit, 4 * unit):
                nursery.start_soon(call, timeout)
                await wait_all_tasks_blocked()
        assert await serving(pool) in {1, 2, 3}
    assert ended == [2 * unit, 4 * unit, 6 * unit]


async def test_late_answer_is_dropped_and_the_worker_kept(make_pool: MakePool) -> None:
    """An answer to a call that was given up reaches nobody and costs nothing. [property 51]"""
    unit = make_pool.unit
    async with make_pool.worker_pool(cancel_grace=30.0) as pool:
        with pytest.raises(CallTimeoutError):
            async with pool.checkout() as lease:
                await lease.request(*planned(Plan().late_reply("late", after=3 * unit)), timeout=unit)
        assert await serving(pool) == 1


WRONG_ANSWERS = {
    "never asked": Plan().reply(request_id=99),
    "answered before": Plan().reply(request_id=0),
    "answered twice": Plan().reply().duplicate(),
    "to nobody": Plan().garbage(
        b'\0\0\0\x44{"id":null,"success":false,"error":"what?","timestamp":0,"x":"12345"}'
    ),
}


@pytest.mark.parametrize("wrong", WRONG_ANSWERS)
async def test_answer_to_an_unknown_or_settled_id_condemns_the_worker(
    wrong: str, make_pool: MakePool
) -> None:
    """Who answers what was not asked, or asks twice for attention, is replaced; the pool serves on. [property 51]"""
    ports = make_pool.ports()
    async with make_pool.worker_pool(ports=ports) as pool:
        async with pool.checkout() as lease:
            if wrong == "answered twice":
                await lease.request(*planned(WRONG_ANSWERS[wrong]))
            else:
                with pytest.raises(RemoteProtocolError, match="worker w-1"):
                    await lease.request(*planned(WRONG_ANSWERS[wrong]))
        assert await serving(pool) == 2
        assert ports.ports[0].exit_status is not None


@pytest.mark.parametrize("late", ["never asked", "answered twice"])
async def test_wrong_answer_while_a_late_one_is_due_condemns_the_worker(
    late: str, make_pool: MakePool
) -> None:
    """In the pool's care the same rules hold: only the id that is due is taken. [property 51]"""
    plan = Plan().after(3 * make_pool.unit, deaf=True)
    plan = plan.reply(request_id=99) if late == "never asked" else plan.reply().duplicate()
    async with make_pool.worker_pool(cancel_grace=30.0) as pool:
        await pool.wait_ready()
        with trio.move_on_after(make_pool.unit):
            async with pool.checkout() as lease:
                await lease.request(*planned(plan))
        assert await serving(pool) == 2


# --- proof of cleanliness ---------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["leased", "idle"])
async def test_worker_with_unread_bytes_is_never_lent(when: str, make_pool: MakePool) -> None:
    """One stray byte, at check-in or while idle, and the next caller gets another worker. [property 52]"""
    ports = make_pool.ports()
    plan = Plan().reply("said").after(0.0 if when == "leased" else 2 * make_pool.unit).garbage(b"!")
    async with make_pool.worker_pool(ports=ports) as pool:
        async with pool.checkout() as lease:
            assert await lease.request(*planned(plan)) == "said"
            if when == "leased":
                await until(ports.ports[0].has_unread, "the stray byte is there")
        if when == "idle":
            assert pool.statistics().idle == 1
            await until(ports.ports[0].has_unread, "the stray byte is there")
        assert await serving(pool) == 2


async def test_worker_that_says_more_than_it_was_asked_does_not_come_back_to_the_idle(
    make_pool: MakePool,
) -> None:
    """What is left unread after a ping or a late answer costs the worker before anybody asks. [property 52]"""
    plan = Plan().after(2 * make_pool.unit, deaf=True).reply({}).garbage(b"?")
    ports = make_pool.ports()
    async with make_pool.worker_pool(ports=ports, cancel_grace=30.0) as pool:
        await pool.wait_ready()
        with trio.move_on_after(make_pool.unit):
            async with pool.checkout() as lease:
                await lease.request(*planned(plan))
        await until(lambda: ports.ports[0].exit_status is not None, "the talkative worker is ended")
    ports = make_pool.ports()
    ports.order("ping", plan, times=1)
    async with make_pool.worker_pool(ports=ports, health_check_interval=5 * make_pool.unit) as pool:
        await until(lambda: ports.started == 2, "the talkative worker is replaced")
        assert pool.statistics().counters.attempts == 0


async def test_request_still_running_at_check_in_costs_the_worker(make_pool: MakePool) -> None:
    """A lease that ends under a request of another task proves nothing, so the worker goes. [property 52]"""

    async def ask(lease: Any) -> None:
        with pytest.raises(WorkerDiedError):
            await lease.request(*planned(Plan().stall(deaf=True)))

    async with make_pool.worker_pool(**BRISK) as pool, trio.open_nursery() as nursery:
        async with pool.checkout() as lease:
            nursery.start_soon(ask, lease)
            await wait_all_tasks_blocked()
        assert await serving(pool) == 2


async def fail_in_the_block(pool: WorkerPool) -> None:
    """Use a worker, then fail by oneself."""
    async with pool.checkout() as lease:
        await lease.request("echo")
        raise KeyError("the caller's own")


async def test_error_of_the_caller_costs_no_worker(make_pool: MakePool) -> None:
    """Neither the caller's own exception nor a command that failed is a reason to replace a worker. [property 53]"""
    async with make_pool.worker_pool() as pool:
        with pytest.raises(KeyError, match="own"):
            await fail_in_the_block(pool)
        with pytest.raises(ProgramError, match="bad input"):
            async with pool.checkout() as lease:
                await lease.request("raise_error", {"message": "bad input", "type": "ValueError"})
        assert await serving(pool) == 1
        assert pool.statistics().counters.reaped == 0


async def test_reset_runs_after_use_only_and_keeps_the_worker(make_pool: MakePool) -> None:
    """A used worker is reset before the next caller sees it; an unused one needs none. [property 54]"""
    ports = make_pool.ports()
    reset = lambda worker: worker.request("reset_state", {})  # noqa: E731 - one line of data
    async with make_pool.worker_pool(ports=ports, reset=reset) as pool:
        async with pool.checkout():
            pass
        assert await serving(pool) == 1
        assert await serving(pool) == 1
        await until(lambda: pool.statistics().idle == 1, "the worker is reset")
    assert ports.ports[0].received == ["ping", "echo", "reset_state", "echo", "reset_state"]


# --- one user of a pipe -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(depth(1, 20)))
async def test_ping_and_lease_never_use_one_pipe_together(seed: int, make_pool: MakePool) -> None:
    """Under constant pings and checkouts nobody finds a port in another's use. [property 60]"""
    dice, unit, ports = random.Random(seed), make_pool.unit, make_pool.ports()
    ports.order("ping", Plan().after(0.2 * unit))

    async def callers(pool: WorkerPool) -> None:
        for _ in range(5):
            await trio.sleep(dice.uniform(0.0, 0.6) * unit)
            await use(pool)

    async with make_pool.worker_pool(ports=ports, pool_size=2, health_check_interval=0.3 * unit) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(callers, pool)
        assert pool.statistics().counters.reaped == 0


# --- granting ---------------------------------------------------------------------------------------------


async def test_cancelled_caller_leaves_no_trace_of_a_checkout(make_pool: MakePool) -> None:
    """A caller that is cancelled already gets Cancelled; nothing waits, starts or is counted. [property 13]"""
    ports = make_pool.ports()
    async with make_pool.worker_pool(ports=ports, lazy=True) as pool:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with pool.checkout():
                raise AssertionError("the block was entered")
        assert scope.cancelled_caught
        assert pool.statistics().counters.attempts == 0
        assert (pool.statistics().waiting, pool.statistics().starting, ports.attempts) == (0, 0, [])


@pytest.mark.parametrize("timeout", [0.0, -1.0])
async def test_deadline_that_is_over_fails_at_once(timeout: float, make_pool: MakePool) -> None:
    """Without patience an idle worker is lent, and else the call fails in no time; no timer is left. [property 14]"""
    async with make_pool.worker_pool() as pool:
        await pool.wait_ready()
        async with pool.checkout(timeout=timeout):
            wakes_at = pool._state.wake_at
            with pytest.raises(CheckoutTimeoutError) as caught:
                await pool.checkout(timeout=timeout).__aenter__()
            assert pool._state.wake_at == wakes_at
            assert caught.value.waited == 0.0


async def test_lease_without_a_request_is_unused(make_pool: MakePool) -> None:
    """A caller that leaves before its first request costs neither the worker nor one of its uses. [property 4]"""
    async with make_pool.worker_pool(max_uses=1) as pool:
        for _ in range(3):
            async with pool.checkout():
                pass
        with trio.move_on_after(0):
            async with pool.checkout() as lease:
                await lease.request("echo")
        assert pool.statistics().counters.reaped == 0
        assert next(iter(pool._state.workers.values())).uses == 0


async def test_block_that_is_left_has_returned_its_worker_before_anything_is_awaited(
    make_pool: MakePool,
) -> None:
    """Ctrl-C may strike before whoever leaves a block awaits that: the worker was never given back. [property 11]"""
    async with make_pool.worker_pool(pool_size=1) as pool:
        checkout = pool.checkout()
        await checkout.__aenter__()
        leaving = checkout.__aexit__(None, None, None)
        assert pool.statistics().leased == 0
        await leaving


async def test_block_that_is_left_twice_returns_its_worker_once(make_pool: MakePool) -> None:
    """Whoever leaves it by hand, and once more, tells the pool nothing new."""
    async with make_pool.worker_pool() as pool:
        checkout = pool.checkout()
        lease = await checkout.__aenter__()
        await lease.request("echo")
        for _ in range(2):
            await checkout.__aexit__(None, None, None)
        counters = pool.statistics().counters
        assert (counters.returned, counters.stale_notices) == (1, 0)


async def test_failing_set_up_retires_the_worker_and_serves_the_head(make_pool: MakePool) -> None:
    """The error of the set-up reaches its caller; the worker goes, its slot does not. [property 6]"""
    ports = make_pool.ports()
    ports.order("echo", Plan().fail("no"), times=1)
    served: list[int] = []

    async def wait_behind(pool: WorkerPool) -> None:
        async with pool.checkout() as lease:
            served.append(lease.worker.incarnation)

    async with make_pool.worker_pool(ports=ports, setup=lambda lease: lease.request("echo")) as pool:
        async with trio.open_nursery() as nursery:
            await pool.wait_ready()
            with pytest.raises(ProgramError, match="no"):
                async with pool.checkout():
                    raise AssertionError("the block was entered")
            nursery.start_soon(wait_behind, pool)
        assert served == [2]
        assert (len(ports.live), pool.statistics().idle) == (1, 1)


async def test_cancelled_caller_leaves_at_once_and_the_silent_worker_is_replaced(make_pool: MakePool) -> None:
    """Neither the request nor the check-in waits for the worker; the pool ends it in time. [property 9, 8]"""
    async with make_pool.worker_pool(cancel_grace=2 * make_pool.unit, terminate_grace=0.2) as pool:
        await pool.wait_ready()
        with trio.move_on_after(make_pool.unit):
            async with pool.checkout() as lease:
                await lease.request(*planned(Plan().stall(deaf=True)))
        assert pool.statistics().draining == 1
        assert await serving(pool) == 2
