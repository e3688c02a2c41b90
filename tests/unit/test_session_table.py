"""Sessions in memory: ids, order of use, expiry, bounds."""

from __future__ import annotations

import pytest

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
