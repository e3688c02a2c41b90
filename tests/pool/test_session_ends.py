"""How sessions end: every worker forgets them, the store has what was committed, and nothing else is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from dspex_pool.errors import (
    InvalidArgumentError,
    SessionNotFoundError,
    SessionStoreError,
)
from dspex_pool.session_store import MemorySessionStore
from dspex_testkit.plan import Plan
from tests.bounded_waits import until
from tests.pool.sessions import Workers, instead_of, open_sessions
from tests.session_workers import CREATE, EventLog, all_idle, execute, expect_error, hold, only, run_on

if TYPE_CHECKING:
    from dspex_testkit.ports.run import MakePool

pytestmark = pytest.mark.ports("all")

BRISK: dict[str, Any] = {"cancel_grace": 0.2, "terminate_grace": 0.2, "ping_timeout": 0.3}


class FailingStore(MemorySessionStore):
    """Refuses changes while it is told to."""

    is_failing = False

    async def _begin(self) -> None:
        await super()._begin()
        if self.is_failing:
            raise SessionStoreError("the disk is full")


async def test_ended_session_is_forgotten_by_every_worker(make_pool: MakePool) -> None:
    """Idle workers forget at once, a busy one before its next command, one that was just being told likewise."""
    workers = Workers(make_pool)
    async with open_sessions(workers, pool_size=3) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.keep_house)
        async with hold(pool, "w-3"):
            await pool.execute_in_session("s", *CREATE)
        for worker_id in ("w-1", "w-2"):
            assert await run_on(pool, worker_id) == {"b"}
        await pool.execute_in_session("other", *CREATE)
        workers.dawdle("load_program", 10.0)
        async with hold(pool, "w-2"):
            async with hold(pool, "w-1"):
                nursery.start_soon(expect_error, SessionNotFoundError, execute, pool, "s")
                await until(lambda: workers.happened, "w-3 is being told")
            ended = await pool.end_session("s")
            assert ended == {"status": "cleaned", "session_id": "s", "programs_removed": 1}
            await until(lambda: "w-1 cleanup_session" in workers.heard, "w-1 is cleaned at once")
            assert "w-2 cleanup_session" not in workers.heard
        async with hold(pool, "w-1"):
            await execute(pool, "other")
        await until(lambda: "w-2 cleanup_session" in workers.heard, "w-2 is cleaned")
        await until(lambda: "w-3 cleanup_session" in workers.heard, "w-3 is cleaned")
        await all_idle(pool, 3)
        assert await workers.holding(pool, "s") == []
        assert pool.workers.statistics().bound_sessions == 1
        nursery.cancel_scope.cancel()


async def test_ended_session_is_forgotten_also_where_it_had_no_program(make_pool: MakePool) -> None:
    """Who knows what any other command of it has left in a worker."""
    workers = Workers(make_pool)
    async with open_sessions(workers) as pool:
        async with only(pool, "w-1"):
            await pool.execute_in_session("s", *CREATE)
        async with only(pool, "w-2"):
            await pool.execute_in_session("s", "get_stats")
        await pool.end_session("s")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.keep_house)
            await until(lambda: "w-2 cleanup_session" in workers.heard, "w-2 is told")
            nursery.cancel_scope.cancel()


async def test_command_of_a_session_that_ended_in_line_is_not_sent(make_pool: MakePool) -> None:
    """Who waited for a worker while the session was ended is told so, and no worker hears of it."""
    workers, log = Workers(make_pool), EventLog()
    async with open_sessions(workers, pool_size=1, telemetry=log.telemetry) as pool:
        await pool.execute_in_session("s", *CREATE)
        workers.forget()
        async with trio.open_nursery() as nursery, only(pool, "none of them"):
            for _ in range(2):
                nursery.start_soon(expect_error, SessionNotFoundError, execute, pool, "s")
            await trio.testing.wait_all_tasks_blocked()
            await pool.end_session("s")
        assert workers.heard == []
        assert pool.workers.statistics().bound_sessions == 0
        await pool.execute_in_session("s", *CREATE)
        async with trio.open_nursery() as nursery, only(pool, "none of them"):
            nursery.start_soon(expect_error, SessionNotFoundError, execute, pool, "s")
            await trio.testing.wait_all_tasks_blocked()
            await pool.execute_in_session("s", "delete_program", {"program_id": "p"})
            await pool.end_session("s")
        async with trio.open_nursery() as nursery, only(pool, "none of them"):
            nursery.start_soon(expect_error, SessionNotFoundError, pool.execute_in_session, "new", *CREATE)
            await trio.testing.wait_all_tasks_blocked()
            assert (await pool.end_session("new"))["programs_removed"] == 0
        assert await workers.holding(pool, "new") == pool.session_ids() == []
        await pool.end_session("nobody")
    assert [event["session"] for event in log.of("session_ended")] == ["s", "s"], "others have never begun"


async def test_session_whose_first_command_fails_has_never_begun(make_pool: MakePool) -> None:
    """Refused, lost or cancelled, it takes no place from others and leaves nothing on a worker."""
    workers, log = Workers(make_pool), EventLog()
    async with open_sessions(workers, max_sessions=1, pool_size=1, telemetry=log.telemetry) as pool:
        for first in ({"id": "p", "signature": "nonsense"}, {"id": "p"}, {"signature": "a -> b"}):
            with pytest.raises(InvalidArgumentError):
                await pool.execute_in_session("bad", "create_program", first)
        assert pool.session_ids() == []
        workers.behave(instead_of("configure_lm", Plan().stall()))
        with trio.move_on_after(make_pool.unit):
            await pool.execute_in_session("gone", "configure_lm", {"model": "m/1"})
        workers.behave()
        await pool.execute_in_session("good", *CREATE)
        assert pool.session_ids() == ["good"]
        assert [event["session"] for event in log.of("session_started")] == ["good"]
        assert pool.workers.statistics().bound_sessions == 1
    assert log.problems == []


async def replaced(log: EventLog, before: int) -> None:
    """Wait until one worker more than that is being replaced."""
    await until(lambda: len(log.of("worker_retiring")) > before, "the worker is replaced")


async def test_session_never_runs_on_what_a_worker_could_not_forget(make_pool: MakePool) -> None:
    """A worker that refused to forget a session served a new one of the same id, with what the old one had left."""
    workers = Workers(make_pool)
    async with open_sessions(workers, pool_size=1, **BRISK) as pool:
        await pool.execute_in_session("s", *CREATE)
        await pool.end_session("s")
        workers.behave(instead_of("cleanup_session", Plan().fail("no"), times=1))
        reply = await pool.execute_in_session("s", *CREATE)
        assert (reply.result["status"], reply.attempts) == ("created", 2)
        assert workers.heard == ["w-1 create_program", "w-1 cleanup_session", "w-1 create_program"]
        workers.behave(instead_of("cleanup_session", Plan().fail("no"), times=1))
        await pool.end_session("s")
        assert (await pool.execute_in_session("other", *CREATE)).attempts == 1
        assert workers.heard[3:] == ["w-1 cleanup_session", "w-1 create_program"], (
            "others are served all the same"
        )


async def test_worker_that_cannot_forget_is_replaced(make_pool: MakePool) -> None:
    """Cleaning up after a session hurts nobody else: the worker goes, housekeeping and callers go on."""
    workers, log = Workers(make_pool), EventLog()
    refusals = [Plan().fail("no"), Plan().garbage(), Plan().die(), Plan().stall(deaf=True)]
    async with open_sessions(workers, pool_size=1, telemetry=log.telemetry, **BRISK) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.keep_house)
            for number, plan in enumerate(refusals):
                workers.behave(instead_of("cleanup_session", plan))
                await pool.execute_in_session(f"s{number}", "configure_lm", {"model": "m/1"})
                await pool.end_session(f"s{number}")
                await replaced(log, number)
                await all_idle(pool, 1)
            nursery.cancel_scope.cancel()
        reasons = [event["reason"] for event in log.of("worker_retiring")]
        assert len(reasons) == len(refusals)
        await pool.execute_in_session("b", *CREATE)
        for session_id, kind in (("a", "Exception"), ("c", "InvalidArgument")):
            await pool.execute_in_session(session_id, *CREATE)
            workers.behave(instead_of("cleanup_session", Plan().fail("no", type=kind)))
            await pool.end_session(session_id)
            assert await execute(pool, "b") == {"b"}, "the one after it does not pay for it"
            assert log.of("worker_retiring")[-1]["reason"] == "cannot_forget"
            await pool.workers.wait_ready()
        unknown = Plan().fail("Unknown command", type="UnknownCommand")
        workers.behave(instead_of("cleanup_session", unknown))
        await execute(pool, "b")
        retired = len(log.of("worker_retiring"))
        await pool.end_session("b")
        await pool.execute_anonymous("ping")
        assert len(log.of("worker_retiring")) == retired, "a worker without sessions has nothing to forget"


async def test_what_the_store_refuses_has_not_happened(
    make_pool: MakePool, caplog: pytest.LogCaptureFixture
) -> None:
    """A change that cannot be committed is an error to its caller and to nobody else; later it can be made.

    What the pool saves by itself is saved later, and the pool serves on meanwhile.
    """
    workers, store = Workers(make_pool), FailingStore()
    async with open_sessions(workers, store=store, monitor_interval=0.05) as pool:
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
        assert (await pool.end_session("nobody"))["programs_removed"] == 0, "of whom the store knows nothing"
        for worker_id in ("w-1", "w-2"):
            assert await run_on(pool, worker_id) == {"b"}
            assert await workers.model_of(pool, worker_id, "s") is None
        listed = (await pool.execute_in_session("s", "list_programs")).result["programs"]
        assert [(each["id"], each["execution_count"]) for each in listed] == [("p", 2)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.keep_house)
            await until(lambda: "cannot be saved now" in caplog.text, "it is told")
            await trio.sleep(3 * pool.config.monitor_interval)
            assert caplog.text.count("cannot be saved now") == 1, "it is told once"
            store.is_failing = False
            for session_id in ("s", "new"):
                await pool.execute_in_session(session_id, *changes[0])
            await trio.sleep(3 * pool.config.monitor_interval)
            nursery.cancel_scope.cancel()
        (kept,) = [record.programs["p"] for record in await store.load_all() if record.id == "s"]
        assert kept.execution_count == 2, "what could not be saved before was saved later"
        await execute(pool, "s")
        store.is_failing = True
    assert "the last uses of sessions are not in the store" in caplog.text
