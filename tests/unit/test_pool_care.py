"""Idling, pings, lifetimes, shrinking: the pool's own care disturbs nobody. Block F of the pool's rules."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.config import PoolOptions
from dspex_pool.config.rules import Seconds
from dspex_pool.config.settings import settings_of
from dspex_pool.core.records import Outcome
from dspex_pool.errors import InvalidConfigError
from dspex_pool.lifecycle import WorkerState
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.mock_port import MockPort, MockPortFactory
from dspex_testkit.pool_driver import PoolDriver

if TYPE_CHECKING:
    from trio.testing import MockClock

DAY = 86_400.0


def ready_pool(pool_size: int = 1, **options: Any) -> PoolDriver:
    """Return a pool whose workers are all idle; from then on the test answers for the world."""
    driver = PoolDriver(auto=True, pool_size=pool_size, max_starting=pool_size, **options)
    driver.auto = False
    return driver


# --- pings ----------------------------------------------------------------------------------------------


def test_worker_under_a_ping_is_lent_when_the_ping_ends() -> None:
    """Who comes while the only worker is pinged waits for the answer, and gets that worker. [property 61]"""
    driver = ready_pool(health_check_interval=10.0)
    driver.advance(10.0)
    assert driver.pinging == [1]
    waiter = driver.wait()
    assert not driver.starting
    driver.pinged()
    assert driver.granted[waiter].number == 1


def test_worker_that_comes_back_during_a_ping_is_lent_instead() -> None:
    """Who waits beside a pinged worker gets another that comes free first. [property 61]"""
    driver = ready_pool(2, health_check_interval=10.0)
    lease = driver.lease()
    driver.advance(10.0)
    (pinged,) = driver.pinging
    waiter = driver.wait()
    driver.checkin(lease)
    assert driver.granted[waiter].number == lease.number != pinged
    driver.pinged()
    assert driver.in_state(WorkerState.IDLE) == [pinged]


def test_worker_that_fails_its_ping_is_replaced_for_who_waits() -> None:
    """A ping that ends badly gives its waiter a new worker. [property 61]"""
    driver = ready_pool(health_check_interval=10.0)
    driver.advance(10.0)
    waiter = driver.wait()
    driver.failed(1)
    driver.reap()
    assert driver.granted.get(waiter) is None
    replacement = driver.started()
    assert driver.granted[waiter].number == replacement != 1


def test_hanging_ping_ends_with_its_worker_and_delays_no_other() -> None:
    """At ``ping_timeout`` the silent worker is retired; the others are pinged in their own time. [property 63]"""
    driver = ready_pool(3, health_check_interval=10.0, ping_timeout=4.0)
    driver.advance(10.0)
    silent, *well = driver.pinging
    for number in well:
        driver.pinged(number)
    driver.advance(3.9)
    assert driver.retirements == []
    driver.advance(0.1)
    assert driver.retirements == [(silent, "ping_timeout", False)]
    driver.advance(6.0)
    assert driver.pinging == well, "they answered at 10 s, so at 20 s it is their turn again"


def test_limit_on_pings_makes_them_take_turns() -> None:
    """With ``max_idle_pings`` a hanging ping holds the next one up for ``ping_timeout`` at most. [property 63]"""
    driver = ready_pool(2, health_check_interval=10.0, ping_timeout=4.0, max_idle_pings=1)
    driver.advance(10.0)
    (first,) = driver.pinging
    driver.advance(4.0)
    (second,) = driver.pinging
    assert first != second
    driver.pinged()
    assert driver.in_state(WorkerState.IDLE) == [second]


STATES = [WorkerState.STARTING, WorkerState.LEASED, WorkerState.DRAINING, WorkerState.RETIRING]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.value)
def test_round_of_pings_leaves_a_busy_worker_where_it_is(state: WorkerState) -> None:
    """A ping that falls due for a worker that is not idle neither loses nor doubles it. [property 70]"""
    driver = PoolDriver(pool_size=1, health_check_interval=1.0, cancel_grace=100.0)
    if state is not WorkerState.STARTING:
        driver.started()
        lease = driver.lease()
        if state is not WorkerState.LEASED:
            driver.checkin(lease, Outcome.CARE if state is WorkerState.DRAINING else Outcome.RETIRE)
    driver.advance(10.0)
    assert driver.pinging == []
    assert driver.in_state(state) == [1]
    assert len(driver.state.workers) == 1


def test_late_answer_to_a_ping_changes_nothing_for_the_worker_that_was_lent_since() -> None:
    """An answer that arrives when the worker is no longer pinged is ignored and counted. [property 70]"""
    driver = ready_pool(health_check_interval=10.0)
    driver.advance(10.0)
    driver.pinged()
    lease = driver.lease()
    assert not driver.state.ping_answered(lease.number, driver.now)
    assert driver.in_state(WorkerState.LEASED) == [1]
    assert driver.state.counters.stale_notices == 1
    driver.checkin(lease)
    assert driver.in_state(WorkerState.IDLE) == [1]


# --- slow ends, busy pools ------------------------------------------------------------------------------


def test_slow_end_of_a_process_delays_nobody() -> None:
    """While a process takes its time to end, workers are lent and given back as ever. [property 64]"""
    driver = ready_pool(2)
    driver.checkin(driver.lease(), Outcome.RETIRE)
    for _ in range(3):
        driver.advance(10.0)
        lease = driver.lease()
        waiter = driver.wait()
        driver.checkin(lease)
        assert driver.granted[waiter].waited == 0.0
        driver.checkin(driver.granted[waiter])
    assert list(driver.ending) == [2]


@pytest.mark.trio
async def test_slow_goodbye_of_a_worker_delays_no_caller(autojump_clock: MockClock) -> None:
    """A retired worker that ignores end of stdin and SIGTERM holds no checkout or check-in up. [property 64]"""

    def script(port: MockPort) -> None:
        port.answer("echo", "hello")
        port.reactions.eof = port.reactions.terminate = None

    async with WorkerPool(MockPortFactory(script), pool_size=2, max_uses=1, terminate_grace=8.0) as pool:
        await pool.wait_ready(2)
        began = trio.current_time()
        for _ in range(2):
            async with pool.checkout(timeout=0) as lease:
                await lease.request("echo")
        assert trio.current_time() == began
        assert pool.statistics().retiring == 2
        async with pool.checkout():
            assert trio.current_time() == began + 8.0, "a slot is free when its process is reaped"


def test_idle_timers_fire_in_a_busy_pool() -> None:
    """However often others are lent and given back, an unused worker is pinged and retired. [property 65]"""
    driver = ready_pool(3, min_idle=1, idle_timeout=5.0, health_check_interval=2.0)
    for _ in range(24):
        lease = driver.lease()
        driver.advance(0.25)
        driver.checkin(lease)
        for number in driver.pinging[:]:
            driver.pinged(number)
    assert [(number, reason) for number, reason, _ in driver.retirements] == [
        (1, "idle_timeout"),
        (2, "idle_timeout"),
    ]
    assert driver.names().count("ping_start") == 4


# --- idle workers ---------------------------------------------------------------------------------------


def test_care_keeps_min_idle_and_starts_nothing_in_a_day() -> None:
    """Idle workers above the floor leave, those at it stay, and nothing is started. [property 67]"""
    driver = PoolDriver(auto=True, pool_size=4, min_idle=2, idle_timeout=60.0, health_check_interval=7200.0)
    driver.advance(60.0)
    assert len(driver.in_state(WorkerState.IDLE)) == 2
    driver.advance(DAY)
    assert len(driver.in_state(WorkerState.IDLE)) == 2
    assert driver.state.counters.starts == 4


def test_eager_pool_left_alone_keeps_the_workers_it_started_with() -> None:
    """A pool whose floor is its size has the same workers a day later, each well. [property 67]"""
    driver = PoolDriver(auto=True, pool_size=3, idle_timeout=1.0, health_check_interval=7200.0)
    driver.advance(DAY)
    assert driver.in_state(WorkerState.IDLE) == [1, 2, 3]
    assert driver.names().count("ping_start") == 3 * 12


def test_lazy_pool_left_alone_is_empty() -> None:
    """A lazy pool starts nothing by itself, and its workers leave when they are not needed. [property 67]"""
    driver = PoolDriver(auto=True, pool_size=3, lazy=True, idle_timeout=10.0, health_check_interval=None)
    driver.advance(DAY)
    assert driver.start_times == []
    driver.checkin(driver.granted[driver.wait()])
    assert len(driver.state.workers) == 1
    driver.advance(10.0)
    assert driver.state.workers == {}


@pytest.mark.parametrize("idle_order", ["lifo", "fifo"])
def test_no_worker_is_surplus_beside_one_that_leaves_at_the_same_moment(idle_order: str) -> None:
    """A worker that was idle for long enough stays when the other is killed for its lease. [property 67]

    Workers were looked at in the order of their start. If the idle one came first, it was surplus beside the one
    whose lease was over, and left; then that one did too, and a pool that has to keep a worker had none.
    """
    driver = ready_pool(
        2, min_idle=1, idle_timeout=5.0, lease_timeout=5.0, health_check_interval=None, idle_order=idle_order
    )
    driver.lease()
    driver.advance(5.0)
    assert [reason for _, reason, _ in driver.retirements] == ["lease_timeout"]
    assert driver.state.ready_count == 1


@pytest.mark.parametrize("ping_interval", [None, 2.0])
@pytest.mark.parametrize(("idle_order", "left"), [("lifo", 1), ("fifo", 4)])
def test_pool_shrinks_to_its_floor_when_one_caller_is_left(
    idle_order: str, left: int, ping_interval: float | None
) -> None:
    """With the last used lent first the others fall idle and leave; in turns none ever does. [property 68]"""
    driver = ready_pool(
        4, min_idle=1, idle_timeout=10.0, idle_order=idle_order, health_check_interval=ping_interval
    )
    for lease in [driver.lease() for _ in range(4)]:
        driver.checkin(lease)
    for _ in range(42):
        lease = driver.lease()
        driver.advance(0.25)
        driver.checkin(lease)
        for number in reversed(driver.pinging[:]):
            driver.pinged(number)
    assert driver.state.live_count == left


def test_unused_lease_does_not_bring_a_worker_to_the_front() -> None:
    """A worker that was looked at by housekeeping, and not used, is not lent before one that was. [property 68]"""
    driver = ready_pool(2, health_check_interval=None)
    used = driver.lease()
    driver.advance(1.0)
    driver.checkin(used)
    other = driver.state.claim(3 - used.number, driver.now)
    assert other is not None
    driver.advance(1.0)
    driver.checkin(other, Outcome.UNUSED)
    assert driver.lease().number == used.number


def test_worker_beyond_the_size_leaves_after_its_time() -> None:
    """A worker that a burst started is kept for ``overflow_ttl`` after its last use. [property 68]"""
    driver = PoolDriver(auto=True, pool_size=1, max_overflow=1, overflow_ttl=5.0, health_check_interval=None)
    first, waiter = driver.lease(), driver.wait()
    driver.checkin(driver.granted[waiter])
    driver.checkin(first)
    driver.advance(4.9)
    assert driver.state.live_count == 2
    driver.advance(0.1)
    assert driver.state.live_count == 1
    assert driver.retirements[-1][1:] == ("overflow_ttl", True)


# --- lifetimes ------------------------------------------------------------------------------------------


def test_lifetime_ends_for_workers_that_nobody_uses() -> None:
    """An idle worker is replaced when its time is over, without any traffic. [property 71]"""
    driver = PoolDriver(auto=True, pool_size=2, max_lifetime=(100.0, 200.0), health_check_interval=None)
    driver.advance(200.0)
    assert {number for number, reason, _ in driver.retirements if reason == "max_lifetime"} == {1, 2}
    assert len(driver.in_state(WorkerState.IDLE)) == 2


def test_pings_and_uses_do_not_prolong_a_life() -> None:
    """The lifetime counts from the start, whatever the worker does meanwhile. [property 71]"""
    driver = PoolDriver(auto=True, pool_size=1, max_lifetime=(50.0, 50.0), health_check_interval=3.0)
    for _ in range(50):
        driver.checkin(driver.lease())
        driver.advance(1.0)
    assert driver.retirements == [(1, "max_lifetime", True)]


def test_workers_started_together_end_apart() -> None:
    """Of a hundred at most a fifth end within the same tenth of the range. [property 72]"""
    driver = ready_pool(100, max_lifetime=(1000.0, 2000.0), health_check_interval=None)
    ends = [record.expires_at for record in driver.state.workers.values()]
    assert min(ends) >= 1000.0
    assert max(ends) <= 2000.0
    by_tenth = Counter(int((end - 1000.0) // 100.0) for end in ends)
    assert max(by_tenth.values()) <= 20
    assert len(by_tenth) == 10


def test_lifetime_that_ends_in_a_callers_hands_is_applied_at_check_in() -> None:
    """A lease outlives its worker's time undisturbed; the worker leaves when it is given back. [property 73]"""
    driver = ready_pool(max_lifetime=(50.0, 50.0), health_check_interval=None)
    lease = driver.lease()
    waiter = driver.wait()
    driver.advance(500.0)
    assert driver.retirements == []
    driver.checkin(lease)
    assert driver.retirements == [(1, "max_lifetime", True)]
    driver.reap()
    driver.started()
    assert driver.granted[waiter].number == 2


@pytest.mark.parametrize("busy", ["pinged", "in care"])
def test_lifetime_that_ends_in_the_pools_care_is_applied_afterwards(busy: str) -> None:
    """A worker whose time ends while it is pinged or drained is not lent again. [property 73]"""
    driver = ready_pool(max_lifetime=(50.0, 50.0), health_check_interval=49.0, cancel_grace=10.0)
    if busy == "pinged":
        driver.advance(49.0)
    else:
        driver.advance(48.0)
        driver.checkin(driver.lease(), Outcome.CARE)
    driver.advance(2.0)
    assert driver.retirements == []
    waiter = driver.wait()
    if busy == "pinged":
        driver.pinged()
    else:
        driver.drained()
    assert driver.retirements == [(1, "max_lifetime", True)]
    assert waiter not in driver.granted


# --- options --------------------------------------------------------------------------------------------


TIMES = [setting.name for setting in settings_of(PoolOptions).values() if isinstance(setting.rule, Seconds)]
#: What the other setting of a pair must be for three seconds to be allowed.
FITTING = {"backoff_max": {"backoff_min": 1}, "close_timeout": {"terminate_grace": 1}}
WRONG_TIMES = [0, 0.0, -1, -0.001, math.inf, -math.inf, math.nan, 1e10, True, "5"]
WRONG_RANGES = [(2.0, 1.0), (0.0, 1.0), (-1.0, 1.0), (1.0, math.inf), (1.0,), 5.0]


def options_with(**settings: Any) -> PoolOptions:
    """Return options with settings of any type."""
    return PoolOptions(**settings)


def test_times_are_seconds_as_floats() -> None:
    """Every time that is given as a whole number is that number of seconds, as a float. [property 75]"""
    assert len(TIMES) == 17
    for name in TIMES:
        value = getattr(options_with(**{name: 3}, **FITTING.get(name, {})), name)
        assert (type(value), value) == (float, 3.0)


def test_times_that_cannot_be_meant_are_refused_at_construction() -> None:
    """Zero, negative, infinite and absurd times raise where they are given, and name the setting. [property 75]"""
    for name, wrong in itertools.product(TIMES, WRONG_TIMES):
        with pytest.raises(InvalidConfigError, match=f"^{name} = ") as caught:
            options_with(**{name: wrong})
        assert caught.value.key == name


def test_ranges_that_are_reversed_or_open_are_refused_at_construction() -> None:
    """A range's ends are times, the shorter first. [property 75]"""
    for wrong in WRONG_RANGES:
        with pytest.raises(InvalidConfigError, match="max_lifetime"):
            options_with(max_lifetime=wrong)
    with pytest.raises(InvalidConfigError, match="backoff_min"):
        options_with(backoff_min=3.0, backoff_max=2.0)


# --- what is due when a lease ends ------------------------------------------------------------------------


def test_lease_that_used_nothing_ends_behind_the_time_at_which_its_worker_had_to_go() -> None:
    """Its worker was not used for long enough then: it goes at once, and not after as long again."""
    driver = PoolDriver.ready(2, min_idle=1, idle_timeout=10.0)
    lease, other = driver.lease(), driver.lease()
    driver.advance(9.0)
    driver.checkin(other)
    driver.advance(3.0)
    driver.checkin(lease, Outcome.UNUSED)
    driver.advance(0.0)
    assert driver.retirements == [(lease.number, "idle_timeout", True)]


@pytest.mark.parametrize("is_other_lent", [False, True])
def test_lifetime_is_watched_again_from_the_end_of_a_lease(is_other_lent: bool) -> None:
    """Whatever is due before and after it in the pool: an idle worker goes when its lifetime ends."""
    patience: dict[str, float] = {"leak_warning_after": 30.0, "lease_timeout": 500.0, "overflow_ttl": 1000.0}
    driver = PoolDriver.ready(2, max_lifetime=(100.0, 100.0), **patience)
    leases = [driver.lease(), driver.lease()]
    driver.advance(60.0)
    for lease in leases[: 1 if is_other_lent else 2]:
        driver.checkin(lease)
    driver.advance(39.0)
    assert driver.retirements == []
    driver.advance(1.0)
    assert (leases[0].number, "max_lifetime", True) in driver.retirements


def test_workers_that_were_kept_for_who_waited_go_in_time_when_he_leaves() -> None:
    """The floor falls then, and what is due for idle workers comes nearer."""
    driver = PoolDriver(auto=True, pool_size=2, lazy=True, idle_timeout=10.0, health_check_interval=None)
    driver.state.await_ready(2, driver.now)
    driver.settle()
    driver.advance(4.0)
    driver.state.stop_awaiting(2, driver.now)
    driver.settle()
    driver.advance(6.0)
    assert [reason for _, reason, _ in driver.retirements] == ["idle_timeout"] * 2


# --- memory -----------------------------------------------------------------------------------------------


def test_worker_is_replaced_for_more_memory_than_is_allowed_and_keeps_an_earlier_reason() -> None:
    """As much as the limit is allowed; what condemned a worker before is not covered up by its memory."""
    driver = PoolDriver.ready(2, max_rss_bytes=1000)
    lease = driver.lease()
    (idle,) = driver.in_state(WorkerState.IDLE)
    for number, resident in ((idle, 1000), (idle, 1001)):
        assert driver.retirements == []
        driver.state.memory_measured(number, resident, driver.now)
        driver.settle()
    driver.failed(lease.number, "torn_frame")
    driver.state.memory_measured(lease.number, 1001, driver.now)
    driver.checkin(lease)
    assert [reason for _, reason, _ in driver.retirements] == ["max_rss", "torn_frame"]
