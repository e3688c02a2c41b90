"""Sessions and their workers; owners and those who come after them. Blocks J and L of the pool's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dspex_pool.core.records import Granted, Outcome
from dspex_pool.errors import (
    CheckoutTimeoutError,
    SessionBusyError,
    SessionLimitError,
    SessionLostError,
)
from dspex_pool.lifecycle import WorkerState
from dspex_testkit.pool_driver import PoolDriver

if TYPE_CHECKING:
    from collections.abc import Callable


def ready_pool(pool_size: int = 1, **options: Any) -> PoolDriver:
    """Return a pool whose workers are all idle; from then on the test answers for the world."""
    driver = PoolDriver(
        auto=True, pool_size=pool_size, max_starting=pool_size, health_check_interval=None, **options
    )
    driver.auto = False
    return driver


def bind(driver: PoolDriver, session: str, affinity: str = "strict") -> int:
    """Use a session once; return the worker that it is bound to from then on."""
    lease = driver.lease(session=session, affinity=affinity)
    driver.checkin(lease)
    assert driver.state.worker_of(session) == lease.number
    return lease.number


def told(driver: PoolDriver, event: str) -> list[tuple[Any, Any]]:
    """Return the session and the reason of each event of a kind."""
    return [
        (each.metadata["session"], each.metadata["reason"]) for each in driver.events if each.name == event
    ]


# --- incarnations ---------------------------------------------------------------------------------------


def test_strict_session_hears_of_the_loss_after_a_restart() -> None:
    """The new process in the old one's place is another worker: a strict session is refused it. [property 98]"""
    driver = ready_pool()
    lost = bind(driver, "s")
    old_name = driver.record(lost).worker_id
    driver.gone(lost)
    new = driver.started()
    assert driver.record(new).worker_id == old_name
    for affinity in ("strict", "strict_nowait"):
        error = driver.refusal(session="s", affinity=affinity)
        assert isinstance(error, SessionLostError)
        assert (error.session_id, error.incarnation) == ("s", lost)
    assert driver.state.forget_session("s", driver.now)
    assert driver.lease(session="s", affinity="strict").number == new


def test_strict_waiters_hear_of_the_loss_at_once() -> None:
    """Those who wait for the session's own worker fail when it dies, and nobody else does. [property 98]"""
    driver = ready_pool()
    lease = driver.lease(session="s", affinity="strict")
    strict, anybody = driver.wait(session="s", affinity="strict"), driver.wait()
    driver.gone(lease.number)
    assert isinstance(driver.refused[strict], SessionLostError)
    assert anybody not in driver.refused
    driver.started()
    assert driver.granted[anybody].number != lease.number


def test_hint_session_moves_after_a_restart() -> None:
    """A session without a claim gets the new worker and keeps to it. [property 98]"""
    driver = ready_pool()
    lost = bind(driver, "s", "hint")
    driver.gone(lost)
    new = driver.started()
    assert driver.state.worker_of("s") is None
    assert driver.lease(session="s").number == new
    assert driver.state.worker_of("s") == new


def test_one_strict_use_makes_a_session_strict() -> None:
    """A session that was used with a hint and then strictly is lost with its worker. [property 98]"""
    driver = ready_pool()
    lost = bind(driver, "s", "hint")
    bind(driver, "s", "strict")
    driver.gone(lost)
    assert isinstance(driver.refusal(session="s", affinity="strict"), SessionLostError)


def test_session_that_an_undone_grant_had_bound_is_not_lost() -> None:
    """A strict session whose first worker turns out unclean is served by the next, as are its waiters. [property 98]

    The grant had bound it, so with the worker it was lost, though nothing of it had ever run there.
    """
    driver = ready_pool(2)
    leases = [driver.lease(), driver.lease()]
    first, second = (driver.wait(session="s", affinity="strict") for _ in range(2))
    driver.checkin(leases[0])
    driver.checkin(leases[1])
    again = driver.reject(driver.granted[first])
    assert isinstance(again, Granted)
    assert again.number == leases[1].number == driver.state.worker_of("s")
    assert told(driver, "session_lost") == []
    driver.checkin(again)
    assert driver.granted[second].number == again.number


def test_session_whose_worker_turns_out_unclean_later_is_lost() -> None:
    """It was bound before this grant, so what it had there is gone. [property 98]"""
    driver = ready_pool(2)
    bind(driver, "s")
    assert isinstance(driver.reject(driver.lease(session="s", affinity="strict")), SessionLostError)


def test_session_is_not_lost_with_a_worker_that_never_heard_of_it() -> None:
    """A strict session whose first worker breaks before anything was sent to it is served by another. [property 98]

    The grant had bound it, so a call that was tried again, since it could not have begun, found its session lost.
    """
    driver = ready_pool(3)
    lease, busy = driver.lease(session="s", affinity="strict"), driver.lease()
    waiters = [driver.wait(session="s", affinity="strict") for _ in range(2)]
    driver.checkin(lease, Outcome.VOID, "died")
    assert told(driver, "session_lost") == []
    assert list(driver.granted) == waiters[:1], "the idle worker serves who waits"
    assert driver.state.worker_of("s") == driver.granted[waiters[0]].number
    driver.checkin(busy)
    assert list(driver.granted) == waiters[:1], "the session stays with its worker again"


def test_session_is_lost_with_a_worker_that_had_served_it() -> None:
    """That nothing was sent in the last lease says nothing of those before. [property 98]"""
    driver = ready_pool(2)
    bind(driver, "s")
    driver.checkin(driver.lease(session="s", affinity="strict"), Outcome.VOID, "died")
    assert isinstance(driver.refusal(session="s", affinity="strict"), SessionLostError)


# --- the line -------------------------------------------------------------------------------------------


def test_strict_waiter_holds_nobody_up() -> None:
    """Those behind a strict waiter get every worker but its own, in their order. [property 100]"""
    driver = ready_pool(3)
    own = driver.lease(session="s", affinity="strict")
    others = [driver.lease(), driver.lease()]
    strict = driver.wait(session="s", affinity="strict")
    behind = [driver.wait(), driver.wait(session="t")]
    for lease in others:
        driver.checkin(lease)
    assert list(driver.granted) == behind
    driver.checkin(own)
    assert driver.granted[strict].number == own.number


def test_strict_waiter_is_not_starved_by_others() -> None:
    """Its worker goes to the first in line that can take it: by arrival, whoever is strict. [property 100]"""
    driver = ready_pool()
    lease = driver.lease(session="s", affinity="strict")
    order = [
        driver.wait(),
        driver.wait(session="s", affinity="strict"),
        driver.wait(),
        driver.wait(session="s", affinity="strict"),
    ]
    for _ in order:
        driver.checkin(lease)
        lease = driver.granted[list(driver.granted)[-1]]
    assert list(driver.granted) == order


def test_strict_waiter_orders_no_worker_that_it_could_not_use() -> None:
    """Only its own worker can serve it, so its wait starts no other. [property 100]"""
    driver = PoolDriver(pool_size=3, lazy=True)
    waiter = driver.wait(session="s", affinity="strict")
    driver.started()
    driver.wait(session="s", affinity="strict")
    assert driver.granted[waiter]
    assert not driver.starting


def test_session_that_is_bound_while_it_waits_waits_for_that_worker() -> None:
    """Strict calls of a new session that wait together all get the worker that the first got. [property 100]"""
    driver = ready_pool(2)
    leases = [driver.lease(), driver.lease()]
    first, second = (driver.wait(session="s", affinity="strict") for _ in range(2))
    hasty = driver.wait(session="s", affinity="strict_nowait")
    driver.checkin(leases[0])
    assert driver.granted[first].number == leases[0].number
    assert isinstance(driver.refused[hasty], SessionBusyError)
    driver.checkin(leases[1])
    assert second not in driver.granted
    driver.checkin(driver.granted[first])
    assert driver.granted[second].number == leases[0].number


def test_hint_session_takes_another_worker_rather_than_wait() -> None:
    """A preference costs no waiting, and is kept for the next time. [property 100]"""
    driver = ready_pool(2)
    own = bind(driver, "s", "hint")
    busy = driver.state.claim(own, driver.now)
    driver.settle()
    assert busy is not None
    elsewhere = driver.lease(session="s")
    assert elsewhere.number != own
    driver.checkin(busy)
    driver.checkin(elsewhere)
    assert driver.lease(session="s").number == own


# --- retirement -----------------------------------------------------------------------------------------


def age(driver: PoolDriver) -> None:
    """Let the worker's lifetime end."""
    driver.advance(50.0)


def use_up(driver: PoolDriver) -> None:
    """Let the worker serve as often as it may."""
    driver.checkin(driver.lease())


def drain(driver: PoolDriver) -> None:
    """Begin a new generation."""
    driver.state.drain(driver.now)
    driver.settle()


@pytest.mark.parametrize(
    ("retire", "reason"), [(age, "max_lifetime"), (use_up, "max_uses"), (drain, "drained")]
)
def test_sessions_are_told_when_their_worker_retires(
    retire: Callable[[PoolDriver], None], reason: str
) -> None:
    """Each session of a worker that leaves is told why: the strict one is lost, the other moves. [property 101]"""
    driver = ready_pool(max_lifetime=(50.0, 50.0), max_uses=3)
    own = bind(driver, "strict")
    bind(driver, "hint", "hint")
    retire(driver)
    assert driver.retirements == [(own, reason, True)]
    assert told(driver, "session_lost") == [("strict", reason)]
    assert told(driver, "session_moved") == [("hint", reason)]
    driver.reap()
    new = driver.started()
    assert isinstance(driver.refusal(session="strict", affinity="strict"), SessionLostError)
    assert driver.lease(session="hint").number == new == driver.state.worker_of("hint")


def test_session_of_a_surplus_worker_is_told() -> None:
    """A strict session whose worker leaves because the pool shrinks fails at its next use. [property 101]"""
    driver = ready_pool(2)
    own = bind(driver, "s")
    driver.advance(1.0)
    other = driver.state.claim(3 - own, driver.now)
    assert other is not None
    driver.checkin(other)
    driver.state.resize(1, driver.now)
    driver.settle()
    assert told(driver, "session_lost") == [("s", "resized")]
    assert isinstance(driver.refusal(session="s", affinity="strict"), SessionLostError)


# --- bounds ---------------------------------------------------------------------------------------------


def test_table_of_sessions_forgets_the_least_recently_used() -> None:
    """One session too many displaces the hinted one that was used longest ago, and no worker. [property 102]"""
    driver = ready_pool(max_sessions=2)
    worker = bind(driver, "a", "hint")
    bind(driver, "b", "hint")
    bind(driver, "a", "hint")
    bind(driver, "c", "hint")
    assert [driver.state.worker_of(session) for session in "abc"] == [worker, None, worker]
    assert driver.state.statistics().bound_sessions == 2
    assert driver.retirements == []
    assert driver.state.counters.starts == 1


def test_strict_sessions_are_not_displaced() -> None:
    """A table full of strict sessions refuses another one, and lets a hinted one pass unbound. [property 102]"""
    driver = ready_pool(max_sessions=2)
    bind(driver, "a")
    bind(driver, "b")
    assert isinstance(driver.refusal(session="c", affinity="strict"), SessionLimitError)
    driver.checkin(driver.lease(session="d"))
    assert driver.state.worker_of("d") is None
    driver.state.forget_session("a", driver.now)
    bind(driver, "c")


@pytest.mark.parametrize("is_bound_first", [True, False])
def test_session_for_whose_worker_somebody_waits_is_not_displaced(is_bound_first: bool) -> None:
    """A strict caller waits for the worker of its session, hinted so far: the table keeps it. [property 102]

    The session was displaced by another, while its caller went on waiting for that one worker beside an idle one;
    who came later in the same session got the idle one.
    """
    driver = ready_pool(2, max_sessions=1)
    own = driver.lease(session="s") if is_bound_first else driver.lease()
    other = driver.lease()
    if not is_bound_first:
        driver.wait(session="s")
    patient = driver.wait(session="s", affinity="strict")
    if not is_bound_first:
        driver.checkin(own)
    driver.checkin(other)
    driver.checkin(driver.lease(session="t"))
    assert driver.state.worker_of("s") == own.number
    driver.wait(session="s", affinity="strict")
    driver.checkin(own if is_bound_first else driver.granted[1])
    assert driver.granted[patient].number == own.number


def test_strict_session_whose_place_was_taken_while_it_waited_is_refused() -> None:
    """A table that fills up while callers stand in line refuses when their turn comes, and goes on. [property 102]"""
    driver = ready_pool(max_sessions=1)
    lease = driver.lease()
    first, late = (driver.wait(session=session, affinity="strict") for session in "ab")
    anybody = driver.wait()
    driver.checkin(lease)
    driver.checkin(driver.granted[first])
    assert isinstance(driver.refused[late], SessionLimitError)
    assert driver.granted[anybody].number == lease.number


def test_waiters_of_a_forgotten_session_wait_for_no_worker_in_particular() -> None:
    """They stood in the lane of a busy worker while another was idle, and those who came later were served first."""
    driver = ready_pool(pool_size=2)
    busy = driver.lease(session="s", affinity="strict")
    early = driver.wait(session="s", affinity="strict")
    driver.state.forget_session("s", driver.now)
    driver.settle()
    assert driver.granted[early].number != busy.number


def test_table_of_sessions_forgets_those_not_used_for_their_time() -> None:
    """A session that is not used for ``session_ttl`` is unbound; its worker stays as it is. [property 102]"""
    driver = ready_pool(session_ttl=64.0)
    worker = bind(driver, "a")
    driver.advance(32.0)
    bind(driver, "b")
    driver.advance(33.0)
    assert driver.state.worker_of("a") is None
    assert driver.state.worker_of("b") == worker
    assert [event.metadata["session"] for event in driver.events if event.name == "session_unbound"] == ["a"]
    assert driver.in_state(WorkerState.IDLE) == [worker]
    assert driver.record(worker).last_used == 32.0


def test_lost_sessions_are_bounded_too() -> None:
    """A pool that loses strict sessions day after day remembers the last ``max_sessions``. [property 102]"""
    driver = ready_pool(max_sessions=3)
    for day in range(10):
        driver.gone(bind(driver, f"s{day}"))
        driver.started()
    lost = [day for day in range(10) if driver.state._affinity.lost_worker_of(f"s{day}") is not None]
    assert lost == [7, 8, 9]


# --- owners ---------------------------------------------------------------------------------------------


def test_deadline_of_an_earlier_lease_does_not_end_a_later_one() -> None:
    """``lease_timeout`` and the leak warning count from each lease's own begin. [property 110]"""
    driver = ready_pool(lease_timeout=10.0, leak_warning_after=6.0)
    lease = driver.lease()
    driver.advance(9.0)
    driver.checkin(lease)
    lease = driver.lease()
    driver.advance(5.0)
    assert driver.names().count("leak_suspected") == 1
    driver.advance(4.9)
    assert driver.names().count("leak_suspected") == 2
    assert driver.retirements == []
    driver.advance(0.1)
    assert driver.retirements == [(lease.number, "lease_timeout", False)]


def test_return_of_an_earlier_lease_does_not_take_the_worker_from_a_later_one() -> None:
    """An old token returns nothing, whatever it claims, and the present holder keeps the worker. [property 110]"""
    driver = ready_pool()
    earlier = driver.lease()
    driver.checkin(earlier)
    later = driver.lease()
    assert later.number == earlier.number
    for outcome in Outcome:
        assert not driver.checkin(earlier, outcome)
    assert driver.reject(earlier) is None
    assert driver.in_state(WorkerState.LEASED) == [later.number]
    assert driver.checkin(later)


def test_deadline_of_a_waiter_that_left_does_not_refuse_a_later_one() -> None:
    """The patience of who was served or left is nobody's any more. [property 110]"""
    driver = ready_pool()
    lease = driver.lease()
    driver.cancel(driver.wait(timeout=5.0))
    driver.advance(1.0)
    patient = driver.wait(timeout=50.0)
    driver.advance(10.0)
    assert driver.refused == {}
    driver.checkin(lease)
    assert driver.granted[patient].waited == 10.0
    assert isinstance(driver.refusal(timeout=0.0), CheckoutTimeoutError)


# --- state ----------------------------------------------------------------------------------------------


def test_worker_in_care_is_not_visible() -> None:
    """Until it is proven clean, a worker can neither be lent nor claimed, and serves no session. [property 111]"""
    driver = ready_pool()
    lease = driver.lease(session="s", affinity="strict")
    driver.checkin(lease, Outcome.CARE)
    assert driver.state.claim(lease.number, driver.now) is None
    assert isinstance(driver.refusal(session="s", affinity="strict_nowait"), SessionBusyError)
    waiter = driver.wait(session="s", affinity="strict")
    driver.drained()
    assert driver.granted[waiter].number == lease.number


def test_strict_waiter_is_free_for_any_worker_once_its_binding_expires() -> None:
    """Who waits for a session's worker while the binding expires is served first, and the session by one worker.

    [property 98]
    """
    pool = PoolDriver.ready(2, session_ttl=64.0)
    first, other = pool.lease(session="a", affinity="strict"), pool.lease()
    patient = pool.wait(session="a", affinity="strict")
    pool.advance(65.0)
    later = pool.wait(session="a", affinity="strict")
    pool.checkin(other)
    assert pool.granted[patient].number == other.number
    pool.checkin(first)
    assert later not in pool.granted
    pool.checkin(pool.granted[patient])
    assert pool.granted[later].number == other.number


def test_who_waits_in_sessions_that_expire_together_is_served_in_order() -> None:
    """Of two that wait for two workers, the first gets the idle one, whichever binding was used last. [property 100]

    The sessions were let go one after the other, so the idle worker went to the first of them, and past who had come
    earlier.
    """
    pool = PoolDriver.ready(3, session_ttl=64.0)
    for session in "ab":
        pool.lease(session=session, affinity="strict")
    early = pool.wait(session="b", affinity="strict")
    late = pool.wait(session="a", affinity="strict")
    pool.advance(65.0)
    assert early in pool.granted
    assert late not in pool.granted
