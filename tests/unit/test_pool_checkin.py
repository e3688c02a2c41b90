"""Check-in and the wire: who reads what, and which worker may serve again. Block E of the pool's rules."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dspex_pool.core.records import Outcome
from dspex_pool.errors import CallTimeoutError, ProgramError, RemoteProtocolError, WorkerDiedError
from dspex_pool.lifecycle import WorkerState
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.mock_port import MockPortFactory
from dspex_testkit.plan import Plan
from dspex_testkit.pool_driver import PoolDriver
from dspex_testkit.sweep import echo
from tests.search_profiles import depth

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from dspex_pool.worker import PoolWorker
    from dspex_testkit.mock_port import MockPort


def pool_of_one(
    behaviour: Callable[[MockPort], object], **settings: Any
) -> tuple[WorkerPool, MockPortFactory]:
    """Return a pool of one worker with that behaviour, whose replacements echo."""
    ports = MockPortFactory({1: behaviour} | dict.fromkeys(range(2, 9), echo))
    return WorkerPool(ports, **{"pool_size": 1, "health_check_interval": None} | settings), ports


async def serving(pool: WorkerPool) -> int:
    """Return the incarnation that serves the next caller, after making sure that it does."""
    async with pool.checkout(timeout=30.0) as lease:
        assert await lease.request("echo", {"a": 1}) == {"a": 1}
        return lease.worker.incarnation


# --- torn frames ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("taken", "incarnation"), [(0, 1), (1, 2), (20, 2), (10_000, 1)])
@pytest.mark.trio
async def test_worker_with_half_a_frame_is_retired(
    taken: int, incarnation: int, autojump_clock: MockClock
) -> None:
    """Cut off in mid-frame a worker goes; before the first byte, or after the last and an answer, it stays.

    [property 49]
    """
    pool, ports = pool_of_one(echo)
    async with pool:
        with trio.move_on_after(1.0):
            async with pool.checkout() as lease:
                ports.ports[0].accept_only(taken)
                await lease.request("echo")
                await trio.sleep_forever()
        ports.ports[0].go_on()
        assert await serving(pool) == incarnation


# --- whose answer -----------------------------------------------------------------------------------------


def dawdle(port: MockPort) -> None:
    """Answer after as long as the request says, now and then deaf to interrupts."""
    port.answer("work", lambda args: Plan().after(args["takes"], deaf=args["deaf"]).reply(args["name"]))


@pytest.mark.parametrize("seed", range(depth(2, 200)))
@pytest.mark.trio
async def test_nobody_reads_another_callers_answer(seed: int, autojump_clock: MockClock) -> None:
    """Twenty callers on three workers, many of whom time out or are cancelled: each reads its own answer or none.

    [property 50]
    """
    dice = random.Random(seed)
    answered: list[tuple[str, str]] = []

    async def call(name: str) -> None:
        await trio.sleep(dice.uniform(0.0, 10.0))
        work = {"takes": dice.choice([0.0, 0.5, 3.0]), "deaf": dice.random() < 0.3, "name": name}
        with trio.move_on_after(dice.choice([0.4, 2.0, 60.0])):
            try:
                async with pool.checkout() as lease:
                    answered.append(
                        (name, await lease.request("work", work, timeout=dice.choice([0.4, 60.0])))
                    )
            except (CallTimeoutError, WorkerDiedError):
                pass

    async with WorkerPool(MockPortFactory(dawdle), pool_size=3, health_check_interval=1.0) as pool:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(call, f"caller {number}")
    assert answered
    assert all(own == read for own, read in answered)


@pytest.mark.trio
async def test_late_answer_is_dropped_and_the_worker_kept(autojump_clock: MockClock) -> None:
    """An answer to a call that was given up reaches nobody and costs nothing. [property 51]"""
    pool, _ = pool_of_one(lambda port: echo(port.answer("late", Plan().late_reply("late", after=1.5))))
    async with pool:
        with pytest.raises(CallTimeoutError):
            async with pool.checkout() as lease:
                await lease.request("late", timeout=1.0)
        assert await serving(pool) == 1
        assert trio.current_time() == 1.5


WRONG_ANSWERS = {
    "never asked": Plan().reply(request_id=99),
    "answered before": Plan().reply(request_id=0),
    "answered twice": Plan().reply().duplicate(),
    "to nobody": Plan().garbage(
        b'\0\0\0\x44{"id":null,"success":false,"error":"what?","timestamp":0,"x":"12345"}'
    ),
}


@pytest.mark.parametrize("wrong", WRONG_ANSWERS)
@pytest.mark.trio
async def test_answer_to_an_unknown_or_settled_id_condemns_the_worker(
    wrong: str, autojump_clock: MockClock
) -> None:
    """Who answers what was not asked, or asks twice for attention, is replaced; the pool serves on. [property 51]"""
    pool, ports = pool_of_one(lambda port: port.answer("work", WRONG_ANSWERS[wrong]))
    async with pool:
        async with pool.checkout() as lease:
            if wrong == "answered twice":
                await lease.request("work")
            else:
                with pytest.raises(RemoteProtocolError, match="worker w-1"):
                    await lease.request("work")
        assert await serving(pool) == 2
        assert ports.ports[0].exit_status is not None


@pytest.mark.parametrize("late", ["never asked", "answered twice"])
@pytest.mark.trio
async def test_wrong_answer_while_a_late_one_is_due_condemns_the_worker(
    late: str, autojump_clock: MockClock
) -> None:
    """In the pool's care the same rules hold: only the id that is due is taken. [property 51]"""
    plan = Plan().after(1.0, deaf=True)
    plan = plan.reply(request_id=99) if late == "never asked" else plan.reply().duplicate()
    pool, _ = pool_of_one(lambda port: port.answer("late", plan))
    async with pool:
        with trio.move_on_after(0.5):
            async with pool.checkout() as lease:
                await lease.request("late")
        assert await serving(pool) == 2


# --- proof of cleanliness ---------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["leased", "idle"])
@pytest.mark.trio
async def test_worker_with_unread_bytes_is_never_lent(when: str, autojump_clock: MockClock) -> None:
    """One stray byte, at check-in or while idle, and the next caller gets another worker. [property 52]"""
    pool, ports = pool_of_one(echo)
    async with pool:
        async with pool.checkout() as lease:
            await lease.request("echo")
            if when == "leased":
                ports.ports[0].inject(b"!")
        ports.ports[0].inject(b"!")
        assert await serving(pool) == 2


@pytest.mark.trio
async def test_worker_that_says_more_than_it_was_asked_does_not_come_back_to_the_idle(
    autojump_clock: MockClock,
) -> None:
    """What is left unread after a ping or a late answer costs the worker before anybody asks. [property 52]"""
    plan = Plan().after(1.0, deaf=True).reply({}).garbage(b"?")
    pool, ports = pool_of_one(lambda port: port.answer("late", plan))
    async with pool:
        with trio.move_on_after(0.5):
            async with pool.checkout() as lease:
                await lease.request("late")
        await trio.sleep(1.0)
        assert ports.ports[0].exit_status is not None
    pool, ports = pool_of_one(lambda port: port.answer("ping", plan), health_check_interval=5.0)
    async with pool:
        await trio.sleep(6.5)
        assert ports.ports[0].exit_status is not None
        assert pool.statistics().counters.attempts == 0


@pytest.mark.trio
async def test_request_still_running_at_check_in_costs_the_worker(autojump_clock: MockClock) -> None:
    """A lease that ends under a request of another task proves nothing, so the worker goes. [property 52]"""
    pool, _ = pool_of_one(lambda port: port.answer("late", Plan().late_reply(after=9.0)))

    async def ask(lease: Any) -> None:
        with pytest.raises(WorkerDiedError):
            await lease.request("late")

    async with pool, trio.open_nursery() as nursery:
        async with pool.checkout() as lease:
            nursery.start_soon(ask, lease)
            await wait_all_tasks_blocked()
        assert await serving(pool) == 2


async def fail_in_the_block(pool: WorkerPool) -> None:
    """Use a worker, then fail by oneself."""
    async with pool.checkout() as lease:
        await lease.request("echo")
        raise KeyError("the caller's own")


@pytest.mark.trio
async def test_error_of_the_caller_costs_no_worker(autojump_clock: MockClock) -> None:
    """Neither the caller's own exception nor a command that failed is a reason to replace a worker. [property 53]"""
    pool, _ = pool_of_one(lambda port: echo(port.answer("fail", Plan().fail("bad input", type="ValueError"))))
    async with pool:
        with pytest.raises(KeyError, match="own"):
            await fail_in_the_block(pool)
        with pytest.raises(ProgramError, match="bad input"):
            async with pool.checkout() as lease:
                await lease.request("fail")
        assert await serving(pool) == 1
        assert pool.statistics().counters.reaped == 0


# --- the reset hook ---------------------------------------------------------------------------------------


async def fail(_: PoolWorker) -> None:
    """Fail at once."""
    raise OSError("cannot be reset")


async def hang(_: PoolWorker) -> None:
    """Never end."""
    await trio.sleep_forever()


async def fail_politely(worker: PoolWorker) -> None:
    """Ask the worker to reset itself, which it cannot."""
    await worker.request("reset", {})


@pytest.mark.parametrize(("reset", "after"), [(fail, 0.0), (hang, 2.0), (fail_politely, 0.0)])
@pytest.mark.trio
async def test_reset_that_fails_or_hangs_costs_the_worker(
    reset: Callable[[PoolWorker], Any], after: float, autojump_clock: MockClock
) -> None:
    """The worker is retired within the grace, its replacement ordered, and who waits is served. [property 54]"""
    behaviour = lambda port: echo(port.answer("reset", Plan().fail("no")))  # noqa: E731 - one line of data
    pool, _ = pool_of_one(behaviour, reset=reset, cancel_grace=2.0)
    async with pool:
        async with pool.checkout() as lease:
            await lease.request("echo")
        async with pool.checkout() as lease:
            assert (lease.worker.incarnation, trio.current_time()) == (2, after)


@pytest.mark.trio
async def test_reset_runs_after_use_only_and_keeps_the_worker(autojump_clock: MockClock) -> None:
    """A used worker is reset before the next caller sees it; an unused one needs none. [property 54]"""
    pool, ports = pool_of_one(echo, reset=lambda worker: worker.request("reset", {}))
    async with pool:
        async with pool.checkout():
            pass
        assert await serving(pool) == 1
        assert await serving(pool) == 1
    assert [request.command for request in ports.ports[0].received] == [
        "ping",
        "echo",
        "reset",
        "echo",
        "reset",
    ]


def test_worker_in_care_that_fails_is_replaced_for_the_line() -> None:
    """To the core a failed reset is a failed drain: retired, reaped, replaced, and the head served. [property 54]"""
    driver = PoolDriver.ready()
    lease = driver.lease()
    waiter = driver.wait()
    driver.checkin(lease, Outcome.CARE)
    assert driver.in_state(WorkerState.DRAINING) == [1]
    driver.failed(1, "drain_failed")
    driver.reap()
    driver.started()
    assert waiter in driver.granted


def test_worker_in_care_has_the_grace_and_no_longer() -> None:
    """A drain that does not end is ended by the pool. [property 54]"""
    driver = PoolDriver.ready(cancel_grace=2.0)
    driver.checkin(driver.lease(), Outcome.CARE)
    driver.advance(1.9)
    assert driver.in_state(WorkerState.DRAINING) == [1]
    driver.advance(0.1)
    assert driver.retirements == [(1, "cancel_grace", False)]


# --- one user of a pipe -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(depth(2, 50)))
@pytest.mark.trio
async def test_ping_and_lease_never_use_one_pipe_together(seed: int, autojump_clock: MockClock) -> None:
    """Under constant pings and checkouts nobody finds a port in another's use. [property 60]"""
    dice = random.Random(seed)

    def slow_ping(port: MockPort) -> None:
        port.answer("ping", lambda _: Plan().after(0.2).reply({}))
        echo(port)

    async def use(pool: WorkerPool) -> None:
        for _ in range(5):
            await trio.sleep(dice.uniform(0.0, 0.6))
            async with pool.checkout() as lease:
                await lease.request("echo")

    async with WorkerPool(MockPortFactory(slow_ping), pool_size=2, health_check_interval=0.3) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(use, pool)
        assert pool.statistics().counters.reaped == 0


def test_worker_under_a_ping_is_in_no_ones_reach() -> None:
    """A pinged worker is not idle, so neither checkout nor claim can take it. [property 60]"""
    driver = PoolDriver.ready(health_check_interval=10.0)
    driver.advance(10.0)
    assert driver.pinging == [1]
    assert driver.state.claim(1, driver.now) is None
    waiter = driver.wait()
    driver.pinged()
    assert waiter in driver.granted
