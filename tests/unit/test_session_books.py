"""Sessions and their store: what is in the one is in the other, in whatever order things are asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from dspex_pool.errors import (
    PoolClosedError,
    ProgramExistsError,
    ProgramNotFoundError,
    SessionError,
    SessionExpiredError,
    SessionNotFoundError,
    SessionStoreError,
)
from dspex_pool.session_answers import answer
from dspex_pool.session_books import SessionBooks
from dspex_pool.session_store import MemorySessionStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dspex_pool.session_table import Session

NEW = {"id": "p", "signature": "a -> b", "session_id": "s"}


class GatedStore(MemorySessionStore):
    """Makes changes one after the other, while the gate is open, and remembers in which order."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.is_failing = False
        self._gate = trio.Event()
        self._gate.set()
        self._turn = trio.StrictFIFOLock()

    def shut(self) -> None:
        """Let no change through until ``open_gate``."""
        self._gate = trio.Event()

    def open_gate(self) -> None:
        """Let all changes through."""
        self._gate.set()

    async def _begin(self) -> None:
        async with self._turn:
            await self._gate.wait()
            await super()._begin()
        if self.is_failing:
            raise SessionStoreError("the disk is full")

    async def contents(self) -> dict[str, dict[str, int]]:
        """Return the execution counts of all programs, by session."""
        return {
            record.id: {each.id: each.execution_count for each in record.programs.values()}
            for record in await self.load_all()
        }


class Clock:
    """A wall clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_books(store: MemorySessionStore, clock: Clock | None = None, **settings: Any) -> SessionBooks:
    limits: dict[str, Any] = {"time_to_live": 10.0, "max_sessions": 9} | settings
    clock = clock if clock is not None else Clock()
    books = SessionBooks(store, wall_clock=clock, **limits)
    books.clock = clock
    return books


@pytest.mark.trio
@pytest.mark.parametrize("step", [-5000.0, 5000.0])
async def test_clock_that_is_set_ends_no_session(step: float) -> None:
    """Set forward by more than the time to live, it ended all sessions at once, and took them out of the store."""
    wall, steady, store = Clock(), Clock(), MemorySessionStore()
    books = make_books(store, wall, time_to_live=100.0)
    books.clock = steady
    session = books.begin("s")
    await books.commit(session, "create_program", {"id": "p", "signature": "a -> b"})
    wall.now += step
    assert books.expire(books.now()) == []
    steady.now += 60
    wall.now += 60
    assert books.find("s", "list_programs", books.now()) is session
    await books.save()
    (kept,) = await store.load_all()
    # What another pool will measure by: never earlier than it was, and the clock as it is.
    assert kept.last_used == max(1000.0, wall.now)
    steady.now += 101
    assert books.expire(books.now()) == [session]


@pytest.mark.trio
async def test_session_of_an_earlier_run_expires_by_the_wall_clock() -> None:
    """The clock that nobody sets begins anew with each run; what the store knows is told by the other."""
    wall, store = Clock(), MemorySessionStore()
    await begin(make_books(store, wall))
    wall.now += 10
    books = make_books(store, wall)
    books.clock = lambda: 3.0
    await books.load()
    assert [session.id for session in books.expire(books.now())] == ["s"]


async def make_books_of_expired(store: MemorySessionStore, *session_ids: str) -> SessionBooks:
    """Make books whose sessions have all expired, and are still in the store."""
    clock = Clock()
    books = make_books(store, clock)
    for session_id in session_ids:
        await books.commit(books.begin(session_id), "create_program", NEW)
    clock.now += 10
    assert len(books.expire(books.now())) == len(session_ids)
    return books


async def begin(books: SessionBooks, **changes: str) -> Session:
    """Begin session ``s`` with program ``p``."""
    session = books.begin("s")
    await books.commit(session, "create_program", NEW | changes)
    return session


async def outcome(outcomes: list[object], change: Callable[..., Awaitable[object]], *args: object) -> None:
    """Note what a change returns or raises."""
    try:
        outcomes.append(await change(*args))
    except SessionError as error:
        outcomes.append(type(error))


@pytest.mark.trio
async def test_first_commit_brings_session_and_program_into_the_store_together() -> None:
    """The store never has a session with nothing in it, and a failure leaves neither."""
    store = GatedStore()
    books = make_books(store)
    session = books.begin("s")
    store.is_failing = True
    for command, args in (("create_program", NEW), ("configure_lm", {"model": "m/1"})):
        with pytest.raises(SessionStoreError):
            await books.commit(session, command, args)
    assert (session.is_kept, session.record.programs, session.record.lm, session.revision) == (
        False,
        {},
        None,
        0,
    )
    store.is_failing = False
    assert await store.contents() == {}
    kept = await books.commit(session, "create_program", NEW)
    assert kept is not None
    assert (kept.program_id, kept.revision, kept.is_first) == ("p", 1, True)
    secret = {"model": "m/1", "api_key": "sk-secret", "session_id": "s"}
    kept = await books.commit(session, "configure_lm", secret)
    assert kept is not None
    assert (kept.program_id, kept.revision, kept.is_first) == (None, 1, False)
    assert session.lm_secrets == {"api_key": "sk-secret"}
    assert await books.commit(session, "execute_program", {}) is None
    (record,) = await store.load_all()
    assert record.lm == {"model": "m/1", "key_by_value": True}
    assert record.programs["p"].definition == {"signature": "a -> b"}
    with pytest.raises(ProgramExistsError):
        await books.commit(session, "create_program", NEW)


@pytest.mark.trio
async def test_program_that_is_overwritten_keeps_its_age_and_gets_a_new_revision() -> None:
    """Loading over a program is a change of it, not another one."""
    clock = Clock()
    books = make_books(MemorySessionStore(), clock)
    session = await begin(books)
    clock.now += 5
    load = {"program_id": "p", "definition": {"factory": "m:f", "program_type": "predict"}, "state": {"k": 1}}
    kept = await books.commit(session, "load_program", load)
    assert kept is not None
    assert kept.revision == 2
    program = session.record.programs["p"]
    assert (program.created_at, program.state) == (1000.0, {"k": 1})
    listed = answer("s", session.record.programs, "list_programs", {})
    assert listed is not None
    assert [each["program_type"] for each in listed["programs"]] == ["factory"]


@pytest.mark.trio
async def test_changes_of_one_session_are_made_in_the_order_in_which_they_were_asked() -> None:
    """What was asked before the end is made, what was asked after it is refused, nothing of it comes back."""
    store = GatedStore()
    books = make_books(store)
    session = await begin(books)
    outcomes: list[object] = []
    store.shut()
    changes: list[tuple[Callable[..., Awaitable[object]], tuple[object, ...]]] = [
        (books.commit, (session, "create_program", NEW | {"id": "q"})),
        (books.end, ("s",)),
        (books.commit, (session, "create_program", NEW | {"id": "r"})),
        (books.delete_program, (session, "p")),
        (books.end, ("s",)),
    ]
    async with trio.open_nursery() as nursery:
        for change, args in changes:
            nursery.start_soon(outcome, outcomes, change, *args)
            await trio.testing.wait_all_tasks_blocked()
        store.open_gate()
        await trio.testing.wait_all_tasks_blocked()
    assert outcomes[1:] == [session, SessionNotFoundError, SessionNotFoundError, None]
    again = await begin(books)
    assert await store.contents() == {"s": {"p": 0}}
    assert books.table.is_live(again)
    with pytest.raises(SessionNotFoundError):
        await books.delete_program(session, "p")
    await books.delete_program(again, "p")
    with pytest.raises(ProgramNotFoundError):
        await books.delete_program(again, "p")
    assert await store.contents() == {"s": {}}


@pytest.mark.trio
async def test_change_whose_caller_was_cancelled_is_made_all_the_same() -> None:
    """Once a commit, a deletion or an end was asked for, it happens, in the store and in memory."""
    store = GatedStore()
    books = make_books(store)
    with trio.CancelScope() as scope:
        scope.cancel()
        session = await begin(books)
        await books.commit(session, "create_program", NEW | {"id": "q"})
        await books.delete_program(session, "p")
        await books.end("s")
    assert (await store.contents(), books.table.ids()) == ({}, [])


@pytest.mark.trio
async def test_expired_session_leaves_the_store_unless_it_began_anew() -> None:
    """The record of an expired session goes with the next saving, also a failed one later; a new one stays."""
    store, clock = GatedStore(), Clock()
    books = make_books(store, clock)
    for session_id in ("a", "b", "c"):
        await books.commit(books.begin(session_id), "create_program", NEW)
    books.begin("never kept")
    clock.now += 10
    assert len(books.expire(books.now())) == 4
    assert books.find("b", "create_program", books.now()) is None
    with pytest.raises(SessionExpiredError):
        books.find("b", "execute_program", books.now())
    store.is_failing = True
    with pytest.raises(SessionStoreError):
        await books.save()
    store.is_failing = False
    store.shut()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(books.save)
        await trio.testing.wait_all_tasks_blocked()
        new = {name: books.begin(name) for name in ("a", "b")}
        for session in new.values():
            nursery.start_soon(books.commit, session, "create_program", NEW | {"id": "new"})
            await trio.testing.wait_all_tasks_blocked()
        store.open_gate()
    assert await store.contents() == {"a": {"new": 0}, "b": {"new": 0}}


@pytest.mark.trio
async def test_expired_session_that_began_anew_in_vain_leaves_the_store() -> None:
    """A command that was to begin it and failed had the books forget that the old record was still to go."""
    store = GatedStore()
    books = await make_books_of_expired(store, "refused", "not kept")
    refused, not_kept = books.begin("refused"), books.begin("not kept")
    for session in (refused, not_kept):
        books.enter(session)
    store.is_failing = True
    with pytest.raises(SessionStoreError):
        await books.commit(not_kept, "create_program", NEW)
    store.is_failing = False
    for session in (refused, not_kept):
        assert books.leave(session) is True
    await books.save()
    assert await store.contents() == {}


@pytest.mark.trio
async def test_expired_session_that_is_ended_leaves_the_store_at_once() -> None:
    """Who ended a session that had expired was told that it was gone, and its record stayed until the next saving."""
    store = GatedStore()
    books = await make_books_of_expired(store, "a", "b")
    store.is_failing = True
    with pytest.raises(SessionStoreError):
        await books.end("a")
    store.is_failing = False
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await books.end("a") is None
    assert await store.contents() == {"b": {"p": 0}}
    store.shut()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(books.end, "b")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(books.commit, books.begin("b"), "create_program", NEW | {"id": "new"})
        await trio.testing.wait_all_tasks_blocked()
        store.open_gate()
    assert (await store.contents(), books.table.ids()) == ({"b": {"new": 0}}, ["b"])


@pytest.mark.trio
async def test_uses_that_could_not_be_saved_are_saved_the_next_time() -> None:
    """Neither a full disk nor a cancellation loses a count or a time."""
    store, clock = GatedStore(), Clock()
    books = make_books(store, clock)
    session = await begin(books)
    clock.now += 5
    books.count_execution(session, "p")
    books.count_execution(session, "unknown")
    books.enter(session)
    assert books.leave(session) is False
    store.is_failing = True
    with pytest.raises(SessionStoreError):
        await books.save()
    books.count_execution(session, "p")
    store.is_failing = False
    with trio.CancelScope() as scope:
        scope.cancel()
        await books.save()
    assert await store.contents() == {"s": {"p": 0}}
    await books.save()
    (record,) = await store.load_all()
    assert (record.last_used, record.programs["p"].execution_count) == (1005.0, 2)
    assert record.programs["p"].last_executed == 1005.0


@pytest.mark.trio
async def test_session_that_nothing_was_kept_of_goes_with_its_last_user() -> None:
    """Who leaves last ends what never began; one that has ended already is told by the same answer."""
    books = make_books(MemorySessionStore())
    session = books.begin("s")
    for _ in range(2):
        books.enter(session)
    assert books.leave(session) is False
    assert books.leave(session) is True
    assert books.table.ids() == []
    old = await begin(books)
    books.enter(old)
    await books.end("s")
    new = await begin(books)
    assert books.leave(old) is False, "another session of its id lives"
    books.enter(new)
    await books.end("s")
    assert books.leave(new) is True


@pytest.mark.trio
async def test_closing_saves_what_it_can_and_closes_the_store(caplog: pytest.LogCaptureFixture) -> None:
    """Cancelled or refused, the store is closed; what is lost is in the log, and no error hides another."""
    for is_failing in (False, True):
        store = GatedStore()
        books = make_books(store)
        session = await begin(books)
        books.count_execution(session, "p")
        store.is_failing = is_failing
        with trio.CancelScope() as scope:
            scope.cancel()
            await books.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await store.load_all()
        assert ("the disk is full" in caplog.text) is is_failing


@pytest.mark.trio
async def test_change_that_meets_a_closed_store_says_that_the_pool_is_closed() -> None:
    """Who was about to change a session when the pool ended hears of that, and not of the store's state."""
    store = GatedStore()
    books = make_books(store)
    session = await begin(books)
    await books.aclose()
    changes: list[tuple[Callable[..., Awaitable[object]], tuple[object, ...]]] = [
        (books.commit, (session, "create_program", NEW | {"id": "q"})),
        (books.commit, (session, "configure_lm", {"model": "m/1"})),
        (books.delete_program, (session, "p")),
        (books.end, ("s",)),
    ]
    for change, args in changes:
        with pytest.raises(PoolClosedError, match="before the change was made"):
            await change(*args)
    assert (list(session.record.programs), session.record.lm) == (["p"], None)


@pytest.mark.trio
async def test_books_take_over_what_the_store_has_kept() -> None:
    """Sessions of an earlier pool live on, with counts and settings, and may be in the store for long."""
    store = MemorySessionStore()
    session = await begin(make_books(store))
    books = make_books(store, max_sessions=1)
    await books.load()
    found = books.find("s", "create_program", books.now())
    assert found is not None
    assert (found.is_kept, found.revision, found.record) == (True, 1, session.record)


@pytest.mark.trio
async def test_saving_beside_an_overwriting_counts_no_run_of_the_old_program() -> None:
    """The old one's total came to the store behind the new program, and stayed, as totals never fall."""
    store = GatedStore()
    books = make_books(store)
    session = await begin(books)
    for _ in range(5):
        books.count_execution(session, "p")
    store.shut()
    async with trio.open_nursery() as nursery:
        new = {"program_id": "p", "definition": {"signature": "a -> c"}}
        nursery.start_soon(books.commit, session, "load_program", new)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(books.save)
        await trio.testing.wait_all_tasks_blocked()
        store.open_gate()
    assert await store.contents() == {"s": {"p": 0}}
    books.count_execution(session, "p")
    await books.save()
    assert await store.contents() == {"s": {"p": 1}}
