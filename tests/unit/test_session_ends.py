"""How sessions end: every worker forgets them, the store has what was committed, and nothing else is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from dspex_pool.errors import (
    InvalidArgumentError,
    SessionExpiredError,
    SessionLimitError,
    SessionNotFoundError,
    SessionStoreError,
)
from dspex_pool.session_store import MemorySessionStore
from dspex_testkit.plan import Plan
from tests.session_workers import (
    CREATE,
    CannedWorkers,
    EventLog,
    execute,
    expect_error,
    hold,
    instead_of,
    only,
    open_sessions,
    run_on,
    slow,
)

if TYPE_CHECKING:
    from trio.testing import MockClock


class FailingStore(MemorySessionStore):
    """Refuses changes while it is told to."""

    is_failing = False

    async def _begin(self) -> None:
        await super()._begin()
        if self.is_failing:
            raise SessionStoreError("the disk is full")


@pytest.mark.trio
async def test_ended_session_is_forgotten_by_every_worker(autojump_clock: MockClock) -> None:
    """Idle workers forget at once, a busy one before its next command, one that was just being told likewise."""
    workers = CannedWorkers()
    async with open_sessions(workers, pool_size=3) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.keep_house)
        async with hold(pool, "w-3"):
            await pool.execute_in_session("s", *CREATE)
        for worker_id in ("w-1", "w-2"):
            assert await run_on(pool, worker_id) == {"b"}
        await pool.execute_in_session("other", *CREATE)
        workers.intercept = slow("load_program")
        async with hold(pool, "w-2"):
            async with hold(pool, "w-1"):
                nursery.start_soon(expect_error, SessionNotFoundError, execute, pool, "s")
                await trio.sleep(0.5)
            ended = await pool.end_session("s")
            assert ended == {"status": "cleaned", "session_id": "s", "programs_removed": 1}
            await trio.sleep(0.1)
            assert workers.holding("s") == ["w-2", "w-3"], "w-1 is cleaned at once"
        async with hold(pool, "w-1"):
            await execute(pool, "other", timeout=9.0)
        assert "w-2 cleanup_session" in workers.heard
        await trio.sleep(2 * pool.config.monitor_interval)
        assert workers.holding("s") == []
        assert pool.workers.statistics().bound_sessions == 1
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_command_of_a_session_that_ended_in_line_is_not_sent(autojump_clock: MockClock) -> None:
    """Who waited for a worker while the session was ended is told so, and no worker hears of it."""
    workers = CannedWorkers()
    async with open_sessions(workers, pool_size=1) as pool:
        await pool.execute_in_session("s", *CREATE)
        workers.heard.clear()
        async with trio.open_nursery() as nursery, only(pool, "none of them"):
            for _ in range(2):
                nursery.start_soon(expect_error, SessionNotFoundError, execute, pool, "s")
            await trio.testing.wait_all_tasks_blocked()
            await pool.end_session("s")
        assert workers.heard == []
        assert pool.workers.statistics().bound_sessions == 0
        async with trio.open_nursery() as nursery, only(pool, "none of them"):
            nursery.start_soon(expect_error, SessionNotFoundError, pool.execute_in_session, "new", *CREATE)
            await trio.testing.wait_all_tasks_blocked()
            assert (await pool.end_session("new"))["programs_removed"] == 0
        assert workers.holding("new") == pool.session_ids() == []


@pytest.mark.trio
async def test_session_expires_when_it_is_not_used(autojump_clock: MockClock) -> None:
    """Time runs from the end of the last use, however long that took; expiry is told to store and workers.

    [property 102]
    """
    workers, store, log = CannedWorkers(), MemorySessionStore(), EventLog()
    settings: dict[str, Any] = {"session_ttl": 10.0, "max_sessions": 2, "pool_size": 1}
    async with open_sessions(workers, store=store, telemetry=log.telemetry, **settings) as pool:
        for session_id in ("s", "busy"):
            await pool.execute_in_session(session_id, *CREATE)
        processes = [port.incarnation for port in workers.live]
        workers.intercept = slow("execute_program", 60.0)
        assert await execute(pool, "busy") == {"b"}
        workers.intercept = lambda port, request: None
        await trio.sleep(9)
        with pytest.raises(SessionExpiredError, match="after 69 s") as info:
            await execute(pool, "s")
        assert info.value.idle == pytest.approx(69)
        assert await execute(pool, "busy") == {"b"}
        with pytest.raises(SessionExpiredError):
            await pool.execute_in_session("s", "list_programs")
        assert workers.holding("s") == [], "it was cleaned before the next command"
        await pool.execute_in_session("s", "create_program", {"id": "p", "signature": "a -> c"})
        assert await execute(pool, "s") == {"c"}
        with pytest.raises(SessionLimitError, match="2 sessions live already"):
            await pool.execute_in_session("third", "configure_lm", {"model": "m/1"})
        assert [port.incarnation for port in workers.live] == processes
        assert len(log.of("session_expired")) == 1
        await trio.sleep(11)
        await pool.execute_in_session("third", "configure_lm", {"model": "m/1"})
        with trio.move_on_after(1.5 * pool.config.monitor_interval):
            await pool.keep_house()
        assert [record.id for record in await store.load_all()] == ["third"]
    assert log.problems == []


@pytest.mark.trio
async def test_session_whose_first_command_fails_has_never_begun(autojump_clock: MockClock) -> None:
    """Refused, lost or cancelled, it takes no place from others and leaves nothing on a worker."""
    workers, log = CannedWorkers(), EventLog()
    async with open_sessions(workers, max_sessions=1, pool_size=1, telemetry=log.telemetry) as pool:
        for first in ({"id": "p", "signature": "nonsense"}, {"id": "p"}, {"signature": "a -> b"}):
            with pytest.raises(InvalidArgumentError):
                await pool.execute_in_session("bad", "create_program", first)
        assert pool.session_ids() == []
        workers.intercept = lambda port, request: Plan().after(5)
        with trio.move_on_after(1):
            await pool.execute_in_session("gone", "configure_lm", {"model": "m/1"})
        workers.intercept = lambda port, request: None
        await pool.execute_in_session("good", *CREATE)
        assert pool.session_ids() == ["good"]
        assert [event["session"] for event in log.of("session_started")] == ["good"]
        assert pool.workers.statistics().bound_sessions == 1
    assert log.problems == []


@pytest.mark.trio
async def test_worker_that_cannot_forget_is_replaced(autojump_clock: MockClock) -> None:
    """Cleaning up after a session hurts nobody else: the worker goes, housekeeping and callers go on."""
    workers, log = CannedWorkers(), EventLog()
    refusals = [Plan().fail("no"), Plan().garbage(), Plan().die(), Plan().stall(deaf=True)]
    async with open_sessions(workers, pool_size=1, telemetry=log.telemetry) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.keep_house)
            for number, plan in enumerate(refusals):
                workers.intercept = instead_of("cleanup_session", plan)
                await pool.execute_in_session(f"s{number}", "configure_lm", {"model": "m/1"})
                await pool.end_session(f"s{number}")
                await trio.sleep(30)
            nursery.cancel_scope.cancel()
        reasons = [event["reason"] for event in log.of("worker_retiring")]
        assert len(reasons) == len(refusals)
        for session_id in ("a", "b"):
            await pool.execute_in_session(session_id, *CREATE)
        workers.intercept = instead_of("cleanup_session", Plan().fail("no"))
        await pool.end_session("a")
        assert await execute(pool, "b") == {"b"}, "the one after it does not pay for it"
        assert log.of("worker_retiring")[-1]["reason"] == "cannot_forget"
        await pool.workers.wait_ready()
        unknown = Plan().fail("Unknown command", type="UnknownCommand")
        workers.intercept = instead_of("cleanup_session", unknown)
        await execute(pool, "b")
        retired = len(log.of("worker_retiring"))
        await pool.end_session("b")
        await pool.execute_anonymous("ping")
        assert len(log.of("worker_retiring")) == retired, "a worker without sessions has nothing to forget"


@pytest.mark.trio
async def test_what_the_store_refuses_has_not_happened(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A change that cannot be committed is an error to its caller and to nobody else; later it can be made.

    What the pool saves by itself is saved later, and the pool serves on meanwhile.
    """
    workers, store = CannedWorkers(), FailingStore()
    async with open_sessions(workers, store=store) as pool:
        await pool.execute_in_session("s", *CREATE)
        store.is_failing = True
        changes: list[tuple[str, dict[str, Any]]] = [
            ("create_program", {"id": "q", "signature": "a -> b"}),
            ("load_program", {"program_id": "p", "definition": {"signature": "a -> c"}}),
            ("configure_lm", {"model": "m/1"}),
            ("delete_program", {"program_id": "p"}),
            ("cleanup_session", {}),
        ]
        for session_id in ("s", "new"):
            for command, args in changes[: 5 if session_id == "s" else 3]:
                with pytest.raises(SessionStoreError, match="disk is full"):
                    await pool.execute_in_session(session_id, command, args)
        assert pool.session_ids() == ["s"]
        for worker_id in ("w-1", "w-2"):
            assert await run_on(pool, worker_id) == {"b"}
            assert workers.bridge(worker_id).model_of("s") is None
        listed = (await pool.execute_in_session("s", "list_programs")).result["programs"]
        assert [(each["id"], each["execution_count"]) for each in listed] == [("p", 2)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.keep_house)
            await trio.sleep(10 * pool.config.monitor_interval)
            assert caplog.text.count("cannot be saved now") == 1, "it is told once"
            store.is_failing = False
            for session_id in ("s", "new"):
                await pool.execute_in_session(session_id, *changes[0])
            await trio.sleep(1.5 * pool.config.monitor_interval)
            nursery.cancel_scope.cancel()
        (kept,) = [record.programs["p"] for record in await store.load_all() if record.id == "s"]
        assert kept.execution_count == 2, "what could not be saved before was saved later"
        await execute(pool, "s")
        store.is_failing = True
    assert "the last uses of sessions are not in the store" in caplog.text
