"""The table of sessions, without a pool."""

from __future__ import annotations

import pytest

from dspex_pool.core.affinity import AffinityTable


def table(*, max_sessions: int = 3, time_to_live: float = 10.0) -> AffinityTable:
    """Return an empty table."""
    return AffinityTable(max_sessions=max_sessions, time_to_live=time_to_live)


def test_session_stays_with_the_worker_that_served_it_first() -> None:
    """Another worker that serves it later does not take it over."""
    sessions = table()
    assert sessions.use("a", 1, 0.0, strict=False)
    assert not sessions.use("a", 2, 1.0, strict=False)
    assert sessions.worker_of("a") == 1
    assert sessions.worker_of("b") is None
    assert "a" in sessions


def test_session_once_strict_stays_strict() -> None:
    """A later use as a hint does not make its loss harmless."""
    sessions = table()
    for strict in (False, True, False):
        sessions.use("a", 1, 0.0, strict=strict)
    assert sessions.release(1) == (["a"], ["a"])


def test_release_frees_hints_and_remembers_strict_ones_as_lost() -> None:
    """The sessions of a worker that leaves are all unbound; strict ones stay lost until they are forgotten."""
    sessions = table()
    sessions.use("hint", 1, 0.0, strict=False)
    sessions.use("strict", 1, 0.0, strict=True)
    sessions.use("other", 2, 0.0, strict=True)
    assert sessions.release(1) == (["hint", "strict"], ["strict"])
    assert (sessions.lost_worker_of("hint"), sessions.lost_worker_of("strict")) == (None, 1)
    assert sessions.bindings() == {"other": 2}
    assert sessions.release(1) == ([], [])
    assert sessions.forget("strict")
    assert sessions.lost_worker_of("strict") is None
    assert not sessions.forget("strict")


def test_full_table_forgets_the_hint_used_longest_ago() -> None:
    """A new session takes the place of a hint; strict ones keep theirs."""
    sessions = table()
    for at, (session, strict) in enumerate([("strict", True), ("old", False), ("new", False)]):
        sessions.use(session, 1, float(at), strict=strict)
    sessions.use("old", 1, 3.0, strict=False)
    assert sessions.has_room("d")
    assert sessions.use("d", 2, 4.0, strict=True)
    assert sessions.bindings() == {"strict": 1, "old": 1, "d": 2}
    assert len(sessions) == 3


def test_table_full_of_strict_sessions_binds_no_more() -> None:
    """Then there is no room: a strict session must be refused, a hint is served unbound."""
    sessions = table(max_sessions=1)
    sessions.use("a", 1, 0.0, strict=True)
    assert sessions.has_room("a")
    assert not sessions.has_room("b")
    assert not sessions.use("b", 1, 0.0, strict=False)
    assert sessions.worker_of("b") is None


def test_lost_sessions_are_bounded_too() -> None:
    """Strict sessions that nobody forgets do not pile up: the oldest loss is dropped."""
    sessions = table(max_sessions=2)
    for number in range(4):
        sessions.use(f"s{number}", number, 0.0, strict=True)
        sessions.release(number)
    assert [sessions.lost_worker_of(f"s{number}") for number in range(4)] == [None, None, 2, 3]


def test_sessions_expire_in_order_of_their_last_use() -> None:
    """What was not used for the time to live is forgotten, the longest unused first, and nothing else."""
    sessions = table(time_to_live=64.0)
    for at, session in enumerate("abc"):
        sessions.use(session, 1, float(at), strict=False)
    sessions.use("a", 1, 3.0, strict=False)
    assert sessions.next_expiry() == 66.0
    assert sessions.expire(65.9) == []
    assert sessions.expire(67.0) == ["b", "c"]
    assert sessions.bindings() == {"a": 1}
    assert sessions.forget("a")
    assert sessions.next_expiry() == float("inf")


@pytest.mark.parametrize(("time_to_live", "grain"), [(64.0, 1.0), (3840.0, 60.0), (86400.0, 60.0)])
def test_session_lives_for_its_time_and_for_no_more_than_a_grain_longer(
    time_to_live: float, grain: float
) -> None:
    """Of the uses within a 64th of the time to live, or a minute, only the first is noted; no session goes early."""
    sessions = table(time_to_live=time_to_live)
    sessions.use("other", 1, 0.0, strict=False)
    for part in (0.0, 0.5, 0.99):
        sessions.use("a", 1, part * grain, strict=False)
    due = time_to_live + grain
    assert sessions.expire(0.99 * grain + time_to_live) == []
    assert sessions.next_expiry() == due
    assert sessions.expire(due) == ["other", "a"]
    sessions.use("b", 1, due, strict=False)
    sessions.use("c", 1, due + grain, strict=False)
    sessions.use("b", 1, due + grain, strict=False)
    assert list(sessions.bindings()) == ["c", "b"]


def test_full_table_forgets_the_hint_used_longest_ago_within_a_grain_too() -> None:
    """Who is displaced is told by the last use however little time has passed since the others."""
    sessions = table(max_sessions=2)
    for session in ("a", "b", "a", "c"):
        sessions.use(session, 1, 0.0, strict=False)
    assert list(sessions.bindings()) == ["a", "c"]


def test_sessions_of_a_pool_that_forgets_none_keep_their_order() -> None:
    """Without a time to live the order of uses still tells who is displaced."""
    sessions = table(max_sessions=3, time_to_live=float("inf"))
    for at, session in enumerate(("a", "b", "a", "c", "d")):
        sessions.use(session, 1, 61.0 * at, strict=False)
    assert list(sessions.bindings()) == ["a", "c", "d"]
    assert sessions.next_expiry() == float("inf")
