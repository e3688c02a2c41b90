"""Sessions in memory: ids, order of use, expiry, bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex_pool import session_table
from dspex_pool.errors import InvalidArgumentError, SessionExpiredError, SessionLimitError
from dspex_pool.session_store import ProgramRecord, SessionRecord
from dspex_pool.session_table import Session, SessionTable, check_session_id


def record(session_id: str, last_used: float = 0.0) -> SessionRecord:
    return SessionRecord(id=session_id, created_at=0.0, last_used=last_used)


def expired(table: SessionTable, now: float) -> list[str]:
    return [session.id for session in table.expire(now)]


def test_session_ids_are_short_texts() -> None:
    """One to 256 bytes of any script; whatever else is refused in a sentence, however long it was."""
    for good in ("a", "x" * 256, "東" * 85, 'ä b/../"c"\n'):
        assert check_session_id(good) == good
    for bad in ("", "x" * 257, "東" * 86, "\ud800", "x" * 10_000_000, None, 7, b"bytes"):
        with pytest.raises(InvalidArgumentError, match="session id") as info:
            check_session_id(bad)
        assert info.value.argument == "session_id"
        assert len(str(info.value)) < 250


def test_sessions_expire_in_the_order_of_their_last_use() -> None:
    """Use postpones expiry, a clock that goes back does not hasten it, and one in use does not expire.

    [property 102]
    """
    table = SessionTable(time_to_live=10.0, max_sessions=9)
    table.fill([record("b", 2.0), record("a", 1.0), record("c", 3.0)])
    assert table.ids() == ["a", "b", "c"]
    assert expired(table, 10.9) == []
    assert table.find("a", 5.0) is not None
    assert table.find("a", 4.0) is not None
    assert table.ids() == ["b", "c", "a"]
    busy = table.peek("b")
    assert busy is not None
    busy.users = 1
    assert expired(table, 14.9) == ["c"]
    assert (busy.record.last_used, table.ids()) == (14.9, ["a", "b"])
    busy.users = 0
    assert expired(table, 25.0) == ["a", "b"]
    assert SessionTable(time_to_live=0.0, max_sessions=1).expire(0.0) == []


def test_session_used_by_a_clock_that_was_wrong_holds_up_no_other() -> None:
    """After a clock that was ahead was set right, its last session kept all later ones from expiring."""
    table = SessionTable(time_to_live=10.0, max_sessions=9)
    table.fill([record("ahead", 1e9), record("old", 80.0)])
    assert table.begin(record("new", 95.0)).id == "new"
    assert expired(table, 100.0) == ["old"]
    assert table.ids() == ["new", "ahead"]
    assert expired(table, 106.0) == ["new"]
    assert expired(table, 109.9) == []
    assert expired(table, 110.0) == ["ahead"]


def test_session_that_was_used_in_the_future_is_set_right_before_others_stand_behind_it() -> None:
    """A store's session from a clock that was ahead held up those used later, until that time had come.

    The table is looked at when the first session can expire, and not before each use.
    """
    table = SessionTable(time_to_live=100.0, max_sessions=9)
    table.fill([record("old", 0.0), record("ahead", 50.0)])
    assert expired(table, 1.0) == []
    assert table.find("ahead", 3.0) is not None
    table.begin(record("new", 5.0))
    assert table.find("old", 6.0) is not None
    assert table.next_expiry <= 103.0
    assert expired(table, 105.0) == ["ahead", "new"]


@st.composite
def kept_records(draw: st.DrawFn) -> list[SessionRecord]:
    """What a store has of some sessions, used before and, by a clock that was wrong, after."""
    times = draw(st.lists(st.integers(-30, 40), max_size=3))
    return [record(session_id, float(time)) for session_id, time in zip("abc", times, strict=False)]


MOVES = st.tuples(st.sampled_from(["use", "begin", "end", "enter", "leave", "look"]), st.sampled_from("abcd"))


def move(table: SessionTable, what: str, session_id: str, now: float) -> None:
    """Do as the books do for one command."""
    session = table.peek(session_id)
    if what == "begin" and session is None:
        table.begin(record(session_id, now))
    elif what == "end":
        table.end(session_id)
    elif session is not None and what in ("use", "enter"):
        table.touch(session, now)
        session.users += what == "enter"
    elif session is not None and what == "leave" and session.users:
        session.users -= 1
        table.touch(session, now)


@pytest.mark.budget(0.6)
@given(
    kept=kept_records(),
    time_to_live=st.sampled_from([None, 0.0, 10.0, 25.0]),
    steps=st.lists(st.tuples(st.integers(0, 12), MOVES), max_size=25),
)
def test_table_that_is_looked_at_when_a_session_may_expire_misses_none(
    kept: list[SessionRecord], time_to_live: float | None, steps: list[tuple[int, tuple[str, str]]]
) -> None:
    """The same sessions expire at the same calls as when all of them are looked at before every call."""
    limits = {"time_to_live": time_to_live, "max_sessions": 9}
    lazy, eager = SessionTable(**limits), SessionTable(**limits)  # type: ignore[arg-type] # one dict for both
    for table in (lazy, eager):
        table.fill([record(each.id, each.last_used) for each in kept])
    now = 0.0
    for pause, (what, session_id) in steps:
        now += pause
        gone = expired(lazy, now) if now >= lazy.next_expiry else []
        assert sorted(gone) == sorted(expired(eager, now))
        for table in (lazy, eager):
            move(table, what, session_id, now)
    assert sorted(lazy.ids()) == sorted(eager.ids())


def test_expired_session_is_told_from_one_never_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next use says how long it was idle, until it begins anew, is ended, or was too long ago."""
    monkeypatch.setattr(session_table, "MAX_TOMBSTONES", 2)
    table = SessionTable(time_to_live=10.0, max_sessions=9)
    table.fill(record(session_id, float(number)) for number, session_id in enumerate("abcd"))
    assert expired(table, 12.0) == ["a", "b", "c"]
    for session_id in ("b", "c"):
        with pytest.raises(SessionExpiredError, match=f"'{session_id}' has expired after 1[01] s"):
            table.find(session_id, 12.0)
    assert table.find("a", 12.0) is None, "the memory of expiry is bounded"
    table.begin(record("b", 12.0))
    table.end("c")
    assert table.find("b", 12.0) is not None
    assert table.find("c", 12.0) is None
    assert ("b" in table, "c" in table, len(table)) == (True, False, 2)


def test_number_of_sessions_is_bounded() -> None:
    """One more than allowed is refused and says what to do; an end makes room."""
    table = SessionTable(time_to_live=None, max_sessions=2)
    first = table.begin(record("a"))
    table.begin(record("b"))
    with pytest.raises(SessionLimitError, match=r"2 sessions live already.*max_sessions") as info:
        table.begin(record("c"))
    assert info.value.session_id == "c"
    assert table.end("a") is first
    assert table.end("a") is None
    again = table.begin(record("a"))
    assert (table.is_live(first), table.is_live(again)) == (False, True)
    assert expired(table, 1e12) == [], "without a time to live nothing expires"


def test_session_knows_the_last_revision_that_was_kept() -> None:
    """What is made after a restart is newer than all that was there before."""
    kept = record("s")
    assert (Session(kept).revision, Session(kept).lm_revision) == (0, 0)
    kept.programs = {
        name: ProgramRecord(id=name, definition={}, revision=revision, created_at=0.0)
        for name, revision in (("p", 3), ("q", 7))
    }
    kept.lm = {"model": "m/1"}
    session = Session(kept, is_kept=True)
    assert (session.revision, session.lm_revision, session.is_kept) == (7, 1, True)
    assert session.program("q") is kept.programs["q"]
    assert session.program("r") is None
