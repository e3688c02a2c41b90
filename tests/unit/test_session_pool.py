"""Sessions on a pool: they survive every death, cancellation and race, and leave nothing behind."""

from __future__ import annotations

import contextlib
import itertools
import math
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from dspex_pool.errors import (
    CallTimeoutError,
    DspexPoolError,
    InvalidArgumentError,
    LocalProtocolError,
    ProgramError,
    ProgramExistsError,
    ProgramNotFoundError,
    SessionBusyError,
    SessionExpiredError,
    SessionLimitError,
    SessionLostError,
    SessionNotFoundError,
    SessionStoreError,
    WorkerDiedError,
)
from dspex_pool.session_books import USING
from dspex_pool.session_store import MemorySessionStore
from dspex_testkit.plan import Plan
from tests.cancel_at_step import CancelAtStep
from tests.session_workers import CannedWorkers, EventLog, instead_of, open_sessions, slow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio.testing import MockClock

    from dspex_pool.protocol.messages import Request
    from dspex_pool.session_pool import SessionPool
    from dspex_testkit.mock_port import MockPort

#: One life of a session: each command with what it must answer, as a test of the result.
STORY: list[tuple[str, dict[str, Any], Any]] = [
    ("configure_lm", {"model": "m/1"}, lambda result: result["model"] == "m/1"),
    ("create_program", {"id": "p", "signature": "a -> b"}, lambda result: result["status"] == "created"),
    (
        "execute_program",
        {"program_id": "p", "inputs": {"a": "x"}},
        lambda result: "x" in result["outputs"]["b"],
    ),
    ("dump_program", {"program_id": "p"}, lambda result: result["definition"]["signature"] == "a -> b"),
    ("delete_program", {"program_id": "p"}, lambda result: result["status"] == "deleted"),
    (
        "load_program",
        {"program_id": "p", "definition": {"signature": "a -> c"}},
        lambda result: result["status"] == "loaded",
    ),
    (
        "execute_program",
        {"program_id": "p", "inputs": {"a": "y"}},
        lambda result: "y" in result["outputs"]["c"],
    ),
    ("list_programs", {}, lambda result: [each["execution_count"] for each in result["programs"]] == [1]),
    ("cleanup_session", {}, lambda result: result["programs_removed"] == 1),
    ("list_programs", {}, lambda result: result["total_count"] == 0),
]


async def tell_story(pool: SessionPool, session_id: str, **options: Any) -> list[int]:
    """Live through the story and return how often each command was tried."""
    attempts = []
    for command, args, is_right in STORY:
        reply = await pool.execute_in_session(session_id, command, args, **options)
        assert is_right(reply.result), (session_id, command, reply)
        attempts.append(reply.attempts)
    return attempts


async def execute(pool: SessionPool, session_id: str, **options: Any) -> set[str]:
    """Run the session's program ``p`` and return the names of its outputs."""
    args = {"program_id": "p", "inputs": {"a": "x"}}
    reply = await pool.execute_in_session(session_id, "execute_program", args, **options)
    return set(reply.result["outputs"])


async def expect_error(kind: type[Exception], call: Callable[..., Awaitable[object]], *args: Any) -> None:
    """Call, in a task of its own, what must raise."""
    with pytest.raises(kind):
        await call(*args)


@contextlib.asynccontextmanager
async def hold(pool: SessionPool, *worker_ids: str) -> AsyncIterator[None]:
    """Have these workers busy."""
    async with contextlib.AsyncExitStack() as stack:
        for worker in pool.workers.workers():
            if worker.worker_id in worker_ids:
                claim = pool.workers.claim(worker)
                assert claim is not None, f"{worker} is not idle"
                await stack.enter_async_context(claim)
        yield


def only(pool: SessionPool, worker_id: str) -> contextlib.AbstractAsyncContextManager[None]:
    """Have all workers busy but one, so that it serves whatever is asked."""
    others = (worker.worker_id for worker in pool.workers.workers() if worker.worker_id != worker_id)
    return hold(pool, *others)


async def all_idle(pool: SessionPool, count: int) -> None:
    """Wait until ``count`` workers are idle, and no others are there."""
    with trio.fail_after(60):
        while (numbers := pool.workers.statistics()).idle < count or numbers.processes > count:
            await trio.sleep(0.1)


async def run_on(pool: SessionPool, worker_id: str) -> set[str]:
    """Run program ``p`` of session ``s`` on a certain worker."""
    async with only(pool, worker_id):
        return await execute(pool, "s")


@pytest.mark.trio
async def test_session_survives_the_death_of_all_workers_between_any_two_commands(
    autojump_clock: MockClock,
) -> None:
    """Whenever every worker is killed, the next command finds the session whole, at its first try."""
    workers = CannedWorkers()
    async with open_sessions(workers) as pool:
        for moment in range(len(STORY)):
            for number, (command, args, is_right) in enumerate(STORY):
                if number == moment:
                    workers.kill_all()
                reply = await pool.execute_in_session(f"s{moment}", command, args)
                assert is_right(reply.result), (moment, command, reply)
                assert reply.attempts == 1


@pytest.mark.trio
async def test_session_survives_a_worker_that_dies_over_any_request(autojump_clock: MockClock) -> None:
    """Whichever request kills its worker, also one sent ahead, the story goes on with one more try."""
    workers = CannedWorkers()
    fatal = -1

    def die_over_one(port: MockPort, request: Request) -> Plan | None:
        return Plan().die(signal=9) if len(workers.heard) == fatal else None

    workers.intercept = die_over_one
    async with open_sessions(workers, retries=1) as pool:
        for number in range(1, 20):
            workers.heard.clear()
            fatal = number
            attempts = await tell_story(pool, f"s{number}", idempotent=True)
            if len(workers.heard) < fatal:
                break
            assert sorted(attempts)[-2:] == [1, 2]
        assert number > 6, "the story sends at least six requests"


@pytest.mark.trio
async def test_new_worker_is_told_all_it_lacks_in_the_lease_of_the_command(autojump_clock: MockClock) -> None:
    """Language model and program go ahead of the command, on the same worker, and only what is missing."""
    workers = CannedWorkers()
    async with open_sessions(workers, pool_size=1) as pool:
        await pool.execute_anonymous("configure_lm", {"model": "m/default"})
        for command, args, _ in STORY[:2]:
            await pool.execute_in_session("own", command, args)
        await pool.execute_in_session("plain", *STORY[1][:2])
        workers.kill_all()
        workers.heard.clear()
        granted = pool.workers.statistics().counters.granted
        for session_id in ("own", "plain", "own", "plain"):
            await pool.execute_in_session(session_id, *STORY[2][:2])
        assert [line.split()[1] for line in workers.heard] == [
            *("configure_lm", "load_program", "execute_program"),
            *("configure_lm", "load_program", "execute_program"),
            *("execute_program", "execute_program"),
        ]
        assert pool.workers.statistics().counters.granted == granted + 4
        assert workers.bridge("w-1").model_of("own") == "m/1"
        assert workers.bridge("w-1").model_of("plain") == "m/default"


@pytest.mark.trio
async def test_one_of_two_concurrent_creators_wins_everywhere(autojump_clock: MockClock) -> None:
    """Two tasks create one id at once: one is refused, and every worker runs the other's program."""
    workers = CannedWorkers()
    workers.intercept = slow("create_program")
    refused: list[str] = []
    async with open_sessions(workers) as pool:

        async def create(signature: str) -> None:
            try:
                await pool.execute_in_session("s", "create_program", {"id": "p", "signature": signature})
            except ProgramExistsError:
                refused.append(signature)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(create, "a -> b")
            nursery.start_soon(create, "a -> c")
        assert workers.heard == ["w-1 create_program", "w-2 create_program"] or workers.heard == [
            "w-2 create_program",
            "w-1 create_program",
        ]
        (loser,) = refused
        winner = {"a -> b": "c", "a -> c": "b"}[loser]
        for worker_id in ("w-1", "w-2"):
            assert await run_on(pool, worker_id) == {winner}
        assert pool.session_ids() == ["s"]


@pytest.mark.trio
async def test_create_cancelled_at_any_step_is_whole_or_not_at_all(autojump_clock: MockClock) -> None:
    """Wherever its caller was cancelled, a program is in the store or nowhere, and the id serves the next one."""
    workers, store = CannedWorkers(), MemorySessionStore()
    workers.intercept = slow("create_program")
    async with open_sessions(workers, store=store, pool_size=1) as pool:
        made = 0
        for step in itertools.count(1):
            session_id = f"s{step}"
            if step % 2:
                workers.kill_all()
            with trio.CancelScope() as scope:
                instrument = CancelAtStep(step, scope)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await pool.execute_in_session(
                        session_id, "create_program", {"id": "p", "signature": "a -> b"}
                    )
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            kept = {record.id: list(record.programs) for record in await store.load_all()}.get(session_id, [])
            listed = (await pool.execute_in_session(session_id, "list_programs")).result["programs"]
            assert [each["id"] for each in listed] == kept
            assert (session_id in pool.session_ids()) == bool(kept)
            if kept:
                made += 1
                await pool.execute_in_session(session_id, "delete_program", {"program_id": "p"})
            await pool.execute_in_session(session_id, "create_program", {"id": "p", "signature": "a -> c"})
            assert await execute(pool, session_id) == {"c"}
            if not scope.cancel_called:
                break
        assert 0 < made < step
    workers.assert_drained()


@pytest.mark.trio
@pytest.mark.parametrize("way", ["delete", "end"])
async def test_program_made_anew_never_runs_as_the_old_one(autojump_clock: MockClock, way: str) -> None:
    """Both workers hold the old program of an id; made anew with another definition, it runs as such on both."""
    workers = CannedWorkers()
    async with open_sessions(workers) as pool:
        await pool.execute_in_session("s", "create_program", {"id": "p", "signature": "a -> b"})
        for worker_id in ("w-1", "w-2"):
            assert await run_on(pool, worker_id) == {"b"}
        if way == "delete":
            await pool.execute_in_session("s", "delete_program", {"program_id": "p"})
        else:
            await pool.end_session("s")
        await pool.execute_in_session("s", "create_program", {"id": "p", "signature": "a -> c"})
        for worker_id in ("w-2", "w-1", "w-2"):
            assert await run_on(pool, worker_id) == {"c"}


@pytest.mark.trio
async def test_program_changed_while_a_worker_is_told_the_old_one_is_told_again(
    autojump_clock: MockClock,
) -> None:
    """What a worker is known to hold is what it was sent, not what has become of it meanwhile."""
    workers = CannedWorkers()
    async with open_sessions(workers) as pool:
        async with only(pool, "w-1"):
            await pool.execute_in_session("s", "create_program", {"id": "p", "signature": "a -> b"})
        workers.intercept = slow("load_program")
        async with trio.open_nursery() as nursery:
            async with hold(pool, "w-1"):
                nursery.start_soon(execute, pool, "s")
                await trio.sleep(0.5)
            assert workers.heard[-1] == "w-2 load_program"
            workers.intercept = lambda port, request: None
            definition = {"signature": "a -> c"}
            await pool.execute_in_session("s", "load_program", {"program_id": "p", "definition": definition})
        assert await run_on(pool, "w-2") == {"c"}


# --- the end of sessions -------------------------------------------------------------------------------


@pytest.mark.trio
async def test_ended_session_is_forgotten_by_every_worker(autojump_clock: MockClock) -> None:
    """Idle workers forget at once, a busy one before its next command, one that was just being told likewise."""
    workers = CannedWorkers()
    async with open_sessions(workers, pool_size=3) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.keep_house)
        async with hold(pool, "w-3"):
            await pool.execute_in_session("s", "create_program", {"id": "p", "signature": "a -> b"})
        for worker_id in ("w-1", "w-2"):
            assert await run_on(pool, worker_id) == {"b"}
        await pool.execute_in_session("other", "create_program", {"id": "p", "signature": "a -> b"})
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
        await pool.execute_in_session("s", "create_program", {"id": "p", "signature": "a -> b"})
        workers.heard.clear()
        async with trio.open_nursery() as nursery, only(pool, "none of them"):
            for _ in range(2):
                nursery.start_soon(expect_error, SessionNotFoundError, execute, pool, "s")
            await trio.testing.wait_all_tasks_blocked()
            await pool.end_session("s")
        assert workers.heard == []
        assert pool.workers.statistics().bound_sessions == 0
        async with trio.open_nursery() as nursery, only(pool, "none of them"):
            create = ("create_program", {"id": "p", "signature": "a -> b"})
            nursery.start_soon(expect_error, SessionNotFoundError, pool.execute_in_session, "new", *create)
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
            await pool.execute_in_session(session_id, "create_program", {"id": "p", "signature": "a -> b"})
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
        await pool.execute_in_session("good", "create_program", {"id": "p", "signature": "a -> b"})
        assert pool.session_ids() == ["good"]
        assert [event["session"] for event in log.of("session_started")] == ["good"]
        assert pool.workers.statistics().bound_sessions == 1
    assert log.problems == []


# --- language models ----------------------------------------------------------------------------------


@pytest.mark.trio
async def test_language_model_reaches_present_future_and_replacement_workers(
    autojump_clock: MockClock,
) -> None:
    """Whatever worker runs a program, it runs on its session's model, or else on the one set last for all."""
    workers = CannedWorkers()
    async with open_sessions(workers) as pool:

        async def models() -> set[tuple[str, str | None, str | None]]:
            found = set()
            for worker in pool.workers.workers():
                for session_id in ("own", "s"):
                    async with only(pool, worker.worker_id):
                        await execute(pool, session_id)
                bridge = workers.bridge(worker.worker_id)
                found.add((worker.worker_id, bridge.model_of("own"), bridge.model_of("s")))
            return found

        await pool.execute_anonymous("configure_lm", {"model": "m/first"})
        await pool.execute_in_session("own", "configure_lm", {"model": "m/own"})
        for session_id in ("own", "s"):
            await pool.execute_in_session(session_id, "create_program", {"id": "p", "signature": "a -> b"})
        assert await models() == {("w-1", "m/own", "m/first"), ("w-2", "m/own", "m/first")}
        await pool.execute_anonymous("configure_lm", {"model": "m/second"})
        workers.kill_all()
        pool.workers.resize(3)
        await trio.sleep(1)
        await all_idle(pool, 3)
        assert await models() == {(f"w-{number}", "m/own", "m/second") for number in (1, 2, 3)}
        with pytest.raises(InvalidArgumentError, match="model"):
            await pool.execute_in_session("own", "configure_lm", {"temperature": 1.0})
        await pool.execute_in_session("own", "configure_lm", {"model": "m/new"})
        processes = [port.incarnation for port in workers.live]
        assert await models() == {(f"w-{number}", "m/new", "m/second") for number in (1, 2, 3)}
        assert [port.incarnation for port in workers.live] == processes
        assert workers.heard.count("w-1 cleanup_session") == 0


@pytest.mark.trio
async def test_model_set_while_a_worker_is_told_the_old_one_wins(autojump_clock: MockClock) -> None:
    """A worker that was being told one model is told the next as well; one left in doubt is replaced."""
    workers = CannedWorkers()
    async with open_sessions(workers) as pool:
        await pool.execute_anonymous("configure_lm", {"model": "m/1"})
        await pool.execute_in_session("s", "create_program", {"id": "p", "signature": "a -> b"})
        workers.kill_all()
        await trio.sleep(1)
        await all_idle(pool, 2)
        workers.intercept = slow("configure_lm")
        async with trio.open_nursery() as nursery:
            async with hold(pool, "w-2"):
                nursery.start_soon(execute, pool, "s")
                await trio.sleep(0.5)
            assert workers.heard[-1] == "w-1 configure_lm"
            workers.intercept = lambda port, request: None
            await pool.execute_anonymous("configure_lm", {"model": "m/2"})
            assert workers.heard[-1] == "w-2 configure_lm"
        for worker_id in ("w-1", "w-2"):
            await run_on(pool, worker_id)
            assert workers.bridge(worker_id).model_of("s") == "m/2"
        workers.intercept = slow("configure_lm")
        with trio.move_on_after(0.5):
            await pool.execute_anonymous("configure_lm", {"model": "m/3"})
        workers.intercept = lambda port, request: None
        for worker_id in ("w-1", "w-2"):
            await all_idle(pool, 2)
            await run_on(pool, worker_id)
            assert workers.bridge(worker_id).model_of("s") == "m/2"


@pytest.mark.trio
async def test_keys_go_to_workers_and_nowhere_else(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A key is in no store, log record, error, event or answer, whatever happens; every worker gets it."""
    workers, store, log = CannedWorkers(), MemorySessionStore(), EventLog()
    settings = {"model": "m/1", "api_key": "sk-secret"}
    said: list[object] = []
    caplog.set_level("DEBUG")
    async with open_sessions(workers, store=store, telemetry=log.telemetry) as pool:
        said.append(await pool.execute_anonymous("configure_lm", settings))
        said.append(await pool.execute_in_session("s", "configure_lm", settings))
        await pool.execute_in_session("s", "create_program", {"id": "p", "signature": "a -> b"})
        workers.kill_all()
        await execute(pool, "s")
        keys = [
            request.args["api_key"]
            for port in workers.ports
            for request in port.received
            if request.command == "configure_lm"
        ]
        assert keys == ["sk-secret"] * 3
        ends: list[Plan] = [
            Plan().die(signal=9),
            Plan().garbage(),
            Plan().stall(deaf=True),
            Plan().fail("no"),
        ]
        for plan in ends:
            workers.intercept = instead_of("configure_lm", plan)
            with pytest.raises(DspexPoolError) as info:
                await pool.execute_in_session("s", "configure_lm", settings, timeout=1.0)
            said += [repr(info.value), info.value.facts(), str(info.value.__cause__)]
            await trio.sleep(30)
        for bad in ({"api_key": "sk-secret"}, settings | {"temperature": float("nan")}):
            workers.intercept = lambda port, request: None
            with pytest.raises((InvalidArgumentError, LocalProtocolError)) as refusal:
                await pool.execute_in_session("s", "configure_lm", bad)
            said.append(repr(refusal.value))
        said.append(await store.load_all())
    said += [log.events, caplog.text]
    assert "sk-secret" not in repr(said)
    assert "m/1" in repr(said)


# --- tries, timeouts, affinity --------------------------------------------------------------------------


@pytest.mark.trio
async def test_only_what_is_safe_is_tried_again(autojump_clock: MockClock) -> None:
    """Without leave a command moves only if its worker never had it; with leave as often as is allowed.

    [property 56]
    """
    workers, log = CannedWorkers(), EventLog()
    async with open_sessions(workers, pool_size=1, telemetry=log.telemetry) as pool:
        await pool.execute_in_session("s", "create_program", {"id": "p", "signature": "a -> b"})

        async def result_of(*plans: Plan, **options: Any) -> tuple[str, int | None]:
            left = list(plans)
            workers.intercept = lambda port, request: (
                left.pop(0) if left and request.command == "execute_program" else None
            )
            args = {"program_id": "p", "inputs": {"a": "x"}}
            try:
                reply = await pool.execute_in_session("s", "execute_program", args, **options)
            except DspexPoolError as error:
                return type(error).__name__, error.attempts
            return "ok", reply.attempts

        def dead() -> Plan:
            return Plan().die(signal=9)

        def busy(**info: Any) -> Plan:
            return Plan().fail("come back", type="RateLimited", retryable=True, **info)

        assert await result_of(dead()) == ("WorkerDiedError", 1)
        assert await result_of(dead(), retries=5) == ("WorkerDiedError", 1)
        assert await result_of(dead(), dead(), retries=1, idempotent=True) == ("WorkerDiedError", 2)
        assert await result_of(dead(), dead(), retries=2, idempotent=True) == ("ok", 3)
        assert await result_of(Plan().garbage(), retries=1) == ("RemoteFrameTooLargeError", 1)
        assert await result_of(Plan().garbage(), retries=1, idempotent=True) == ("ok", 2)
        began = trio.current_time()
        assert await result_of(busy(retry_after_s=7.0), retries=1, idempotent=True) == ("ok", 2)
        assert trio.current_time() - began == pytest.approx(7.0, abs=0.1)
        assert await result_of(busy(retry_after_s=7.0), retries=1) == ("ProgramError", 1)
        assert await result_of(Plan().fail("wrong"), retries=1, idempotent=True) == ("ProgramError", 1)
        assert await result_of(Plan().after(9), retries=1, idempotent=True, timeout=1.0) == (
            "CallTimeoutError",
            1,
        )
        (port,) = workers.live
        async with trio.open_nursery() as nursery:
            port.stop_reading()
            nursery.start_soon(execute, pool, "s")
            await trio.testing.wait_all_tasks_blocked()
            port.die(signal=9)
        assert log.of("call_stop")[-1]["attempts"] == 2
        assert [event["reason"] for event in log.of("call_retry")] == [
            *["WorkerDiedError"] * 3,
            "RemoteFrameTooLargeError",
            "ProgramError",
            "WorkerDiedError",
        ]
    assert log.problems == []


@pytest.mark.trio
async def test_timeout_covers_what_a_worker_must_be_told_first(autojump_clock: MockClock) -> None:
    """One deadline for all that happens in the lease; a death meanwhile is told as not having begun."""
    workers = CannedWorkers()
    async with open_sessions(workers, pool_size=1) as pool:
        await pool.execute_in_session("s", "create_program", {"id": "p", "signature": "a -> b"})
        workers.kill_all()
        workers.intercept = lambda port, request: Plan().after(2)
        began = trio.current_time()
        with pytest.raises(CallTimeoutError, match="execute_program"):
            await execute(pool, "s", timeout=3.0)
        assert trio.current_time() - began == pytest.approx(3.0, abs=0.1)
        await trio.sleep(5)
        assert await execute(pool, "s", timeout=math.inf) == {"b"}
        workers.kill_all()
        workers.intercept = lambda port, request: Plan().die(signal=9)
        with pytest.raises(WorkerDiedError, match="'execute_program' was not sent") as info:
            await execute(pool, "s")
        assert (info.value.request_sent, info.value.attempts) == (False, 3)


@pytest.mark.trio
async def test_strict_session_keeps_to_its_worker_and_hears_of_its_loss(autojump_clock: MockClock) -> None:
    """Strict affinity holds for every command of a session; its end undoes the loss.

    [property 98, 101]
    """
    workers, log = CannedWorkers({"echo": lambda args: args["text"]}), EventLog()
    async with open_sessions(workers, affinity="strict", telemetry=log.telemetry) as pool:

        async def echo(session_id: str, **options: Any) -> str | None:
            return (await pool.execute_in_session(session_id, "echo", {"text": "x"}, **options)).worker_id

        await pool.execute_in_session("s", "create_program", {"id": "p", "signature": "a -> b"})
        home = await echo("s")
        assert home is not None
        async with only(pool, home):
            assert await echo("no programs") == home
        async with hold(pool, home):
            for session_id in ("s", "no programs"):
                with pytest.raises(SessionBusyError):
                    await echo(session_id, affinity="strict_nowait")
            assert await execute(pool, "s", affinity="hint") == {"b"}
        workers.port(home).die(signal=9)
        for _ in range(2):
            with pytest.raises(SessionLostError) as info:
                await execute(pool, "s")
            assert info.value.attempts == 1
        assert log.of("session_lost")[0]["session"] in ("s", "no programs")
        assert (await pool.execute_in_session("s", "list_programs")).result["total_count"] == 1
        await pool.end_session("s")
        await pool.execute_in_session("s", "create_program", {"id": "p", "signature": "a -> b"})
        assert await execute(pool, "s") == {"b"}


# --- the store, and what needs no worker ----------------------------------------------------------------


class FailingStore(MemorySessionStore):
    """Refuses changes while it is told to."""

    is_failing = False

    async def _begin(self) -> None:
        await super()._begin()
        if self.is_failing:
            raise SessionStoreError("the disk is full")


@pytest.mark.trio
async def test_what_the_store_refuses_has_not_happened(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A change that cannot be committed is an error to its caller and to nobody else; later it can be made."""
    workers, store = CannedWorkers(), FailingStore()
    async with open_sessions(workers, store=store) as pool:
        await pool.execute_in_session("s", "create_program", {"id": "p", "signature": "a -> b"})
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
        with pytest.raises(SessionStoreError):
            await pool.keep_house()
        store.is_failing = False
        for session_id in ("s", "new"):
            await pool.execute_in_session(session_id, *changes[0])
        with trio.move_on_after(1.5 * pool.config.monitor_interval):
            await pool.keep_house()
        (kept,) = [record.programs["p"] for record in await store.load_all() if record.id == "s"]
        assert kept.execution_count == 2, "what could not be saved before was saved later"
        await execute(pool, "s")
        store.is_failing = True
    assert "the last uses of sessions are not in the store" in caplog.text


@pytest.mark.trio
async def test_restarted_pool_finds_its_sessions(autojump_clock: MockClock) -> None:
    """Another pool on what a store has kept serves the same programs, on the same language model."""
    store, kept = MemorySessionStore(), MemorySessionStore()
    async with open_sessions(CannedWorkers(), store=store) as pool:
        for command, args, _ in STORY[:3]:
            await pool.execute_in_session("s", command, args)
        await pool._books.save()
        for record in await store.load_all():
            await kept.put_session(record)
    workers = CannedWorkers()
    async with open_sessions(workers, store=kept) as pool:
        info = await pool.execute_in_session("s", "get_program_info", {"program_id": "p"})
        assert (info.result["signature"], info.result["execution_count"]) == ("a -> b", 1)
        assert await run_on(pool, "w-2") == {"b"}
        assert workers.bridge("w-2").model_of("s") == "m/1"
        with pytest.raises(ProgramExistsError):
            await pool.execute_in_session("s", *STORY[1][:2])


@pytest.mark.trio
async def test_what_the_pool_knows_needs_no_worker(autojump_clock: MockClock) -> None:
    """Lists, descriptions, deletions and refusals are answered while no worker can be had."""
    workers = CannedWorkers()
    async with open_sessions(workers, pool_size=1) as pool:
        await pool.execute_in_session("s", "create_program", {"id": "p", "signature": "a -> b"})
        workers.hang_starts = 9
        workers.kill_all()
        workers.heard.clear()
        ask = pool.execute_in_session
        reply = await ask("s", "list_programs")
        assert (reply.worker_id, reply.attempts, reply.result["total_count"]) == (None, 1, 1)
        assert (await ask("s", "get_program_info", {"program_id": "p"})).result["signature"] == "a -> b"
        assert (await ask("nobody", "list_programs")).result == {"programs": [], "total_count": 0}
        with pytest.raises(ProgramExistsError, match="'p' already exists"):
            await ask("s", "create_program", {"id": "p", "signature": "a -> b"})
        for session_id, command in itertools.product(("s", "nobody"), sorted(USING)):
            with pytest.raises(ProgramNotFoundError, match="Program not found: q"):
                await ask(session_id, command, {"program_id": "q"})
        with pytest.raises(InvalidArgumentError, match="definition"):
            await ask("s", "load_program", {"program_id": "q"})
        with pytest.raises(InvalidArgumentError, match="affinity is one of"):
            await ask("s", "echo", affinity="loose")
        for timeout in (-1.0, math.nan, "1"):
            with pytest.raises(InvalidArgumentError, match="timeout"):
                await ask("s", "echo", timeout=timeout)  # type: ignore[arg-type] # wrong on purpose
        with pytest.raises(InvalidArgumentError, match=r"10485760 bytes long"):
            await ask("x" * 10_485_760, "list_programs")
        assert (await ask("s", "delete_program", {"program_id": "p"})).result["status"] == "deleted"
        assert (await ask("s", "cleanup_session")).result["programs_removed"] == 0
        assert workers.heard == []
        assert pool.session_ids() == []


@pytest.mark.trio
async def test_anonymous_commands_run_anywhere(autojump_clock: MockClock) -> None:
    """Programs without a session share one that has no home; other commands have none at all."""
    workers = CannedWorkers({"echo": lambda args: args})
    async with open_sessions(workers) as pool:
        await pool.execute_anonymous("create_program", {"id": "p", "signature": "a -> b"})
        args = {"program_id": "p", "inputs": {"a": "x"}}
        for worker_id in ("w-1", "w-2"):
            async with only(pool, worker_id):
                reply = await pool.execute_anonymous("execute_program", args)
                assert (reply.worker_id, reply.result["outputs"]) == (worker_id, {"b": "b: x"})
        assert (await pool.execute_anonymous("echo", {"text": 1})).result == {"text": 1}
        assert pool.session_ids() == ["anonymous"]
        assert pool.workers.statistics().bound_sessions == 0
        await pool.execute_anonymous("reset_state")
        for worker_id in ("w-1", "w-2"):
            async with only(pool, worker_id):
                assert (await pool.execute_anonymous("execute_program", args)).result["outputs"] == {
                    "b": "b: x"
                }
        await pool.execute_anonymous("cleanup_session")
        assert pool.session_ids() == []


@pytest.mark.trio
async def test_caller_cannot_change_a_program_by_changing_its_arguments(autojump_clock: MockClock) -> None:
    """What was given is what every worker gets, whatever becomes of the caller's objects."""
    workers = CannedWorkers()
    signature: dict[str, Any] = {"inputs": [{"name": "a"}], "outputs": [{"name": "b"}]}
    definition = {"signature": signature}
    model = {"model": "m/1"}
    async with open_sessions(workers) as pool:
        await pool.execute_anonymous("configure_lm", model)
        async with only(pool, "w-1"):
            await pool.execute_in_session("s", "load_program", {"program_id": "p", "definition": definition})
        signature["outputs"][0]["name"] = "changed"
        model["model"] = "m/changed"
        assert await run_on(pool, "w-2") == {"b"}
        assert workers.bridge("w-2").model_of("s") == "m/1"


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
            await pool.execute_in_session(session_id, "create_program", {"id": "p", "signature": "a -> b"})
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
async def test_life_of_a_session_is_told_by_events(autojump_clock: MockClock) -> None:
    """Each call begins and ends once, sessions begin and end once, and the catalogue knows all of it."""
    workers, log = CannedWorkers({"fail": lambda args: Plan().fail("on purpose")}), EventLog()
    async with open_sessions(workers, pool_size=1, telemetry=log.telemetry) as pool:
        await tell_story(pool, "s")
        with pytest.raises(ProgramError, match="on purpose"):
            await pool.execute_in_session("s", "fail")
        told = [name for name in log.names if name.startswith(("call_", "session_"))]
        call = ["call_start", "call_stop"]
        assert told == [
            *("session_bound", *call, "session_started", *call * 5, "session_ended"),
            *("session_bound", "call_start", "call_exception"),
        ]
        failed = log.of("call_exception")[0]
        assert (failed["error"], failed["reason"], failed["attempts"]) == ("ProgramError", "on purpose", 1)
        assert all(event["worker_id"] == "w-1" for event in log.of("call_stop"))
    assert log.problems == []
