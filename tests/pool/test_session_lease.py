"""Commands in lent workers: models, keys, tries, timeouts and affinity."""

from __future__ import annotations

import json
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
    SessionBusyError,
    SessionLostError,
    WorkerDiedError,
)
from dspex_pool.session_store import MemorySessionStore
from dspex_testkit.plan import Plan
from tests.bounded_waits import until
from tests.pool.sessions import Workers, instead_of, open_sessions
from tests.session_workers import CREATE, EventLog, all_idle, execute, hold, only, run_on

if TYPE_CHECKING:
    from dspex_pool.session_pool import SessionPool
    from dspex_testkit.ports.run import MakePool

pytestmark = pytest.mark.ports("all")


async def test_language_model_reaches_present_future_and_replacement_workers(
    make_pool: MakePool,
) -> None:
    """Whatever worker runs a program, it runs on its session's model, or else on the one set last for all."""
    workers = Workers(make_pool)
    async with open_sessions(workers) as pool:

        async def models() -> set[tuple[str, ...]]:
            found: set[tuple[str, ...]] = set()
            for worker in pool.workers.workers():
                for session_id in ("own", "s"):
                    async with only(pool, worker.worker_id):
                        await execute(pool, session_id)
                models = [await workers.model_of(pool, worker.worker_id, name) for name in ("own", "s")]
                found.add((worker.worker_id, *models))
            return found

        await pool.execute_anonymous("configure_lm", {"model": "m/first"})
        await pool.execute_in_session("own", "configure_lm", {"model": "m/own"})
        for session_id in ("own", "s"):
            await pool.execute_in_session(session_id, *CREATE)
        assert await models() == {("w-1", "m/own", "m/first"), ("w-2", "m/own", "m/first")}
        await pool.execute_anonymous("configure_lm", {"model": "m/second"})
        await workers.kill_all()
        pool.workers.resize(3)
        await all_idle(pool, 3)
        assert await models() == {(f"w-{number}", "m/own", "m/second") for number in (1, 2, 3)}
        with pytest.raises(InvalidArgumentError, match="model"):
            await pool.execute_in_session("own", "configure_lm", {"temperature": 1.0})
        await pool.execute_in_session("own", "configure_lm", {"model": "m/new"})
        processes = [port.incarnation for port in workers.live]
        assert await models() == {(f"w-{number}", "m/new", "m/second") for number in (1, 2, 3)}
        assert [port.incarnation for port in workers.live] == processes
        assert workers.heard.count("w-1 cleanup_session") == 0


async def test_model_set_while_a_worker_is_told_the_old_one_wins(make_pool: MakePool) -> None:
    """A worker that was being told one model is told the next as well; one left in doubt is replaced."""
    workers = Workers(make_pool)
    async with open_sessions(workers) as pool:
        await pool.execute_anonymous("configure_lm", {"model": "m/1"})
        await pool.execute_in_session("s", *CREATE)
        await workers.kill_all()
        await all_idle(pool, 2)
        workers.dawdle("configure_lm", 10.0)
        async with trio.open_nursery() as nursery:
            async with hold(pool, "w-2"):
                nursery.start_soon(execute, pool, "s")
                await until(lambda: workers.heard[-1] == "w-1 configure_lm", "w-1 is being told")
                await until(lambda: workers.happened, "it dawdles")
            workers.behave()
            await pool.execute_anonymous("configure_lm", {"model": "m/2"})
            assert workers.heard[-1] == "w-2 configure_lm"
        for worker_id in ("w-1", "w-2"):
            await run_on(pool, worker_id)
            assert await workers.model_of(pool, worker_id, "s") == "m/2"
        workers.dawdle("configure_lm")
        with trio.move_on_after(0.5 * make_pool.unit):
            await pool.execute_anonymous("configure_lm", {"model": "m/3"})
        workers.behave()
        for worker_id in ("w-1", "w-2"):
            await all_idle(pool, 2)
            await run_on(pool, worker_id)
            assert await workers.model_of(pool, worker_id, "s") == "m/2"


async def test_worker_is_replaced_only_if_nobody_can_tell_what_it_holds(make_pool: MakePool) -> None:
    """A model for all, or a reset, left half done costs the worker; a refusal, or a session's model, none."""
    workers = Workers(make_pool)
    async with open_sessions(workers, pool_size=1) as pool:

        async def leave(command: str, args: dict[str, Any], session_id: str | None = None) -> int:
            workers.dawdle(command)
            with trio.move_on_after(0.5 * make_pool.unit):
                if session_id is None:
                    await pool.execute_anonymous(command, args)
                else:
                    await pool.execute_in_session(session_id, command, args)
            workers.behave()
            await all_idle(pool, 1)
            return workers.started

        await pool.execute_in_session("s", *CREATE)
        assert await leave("configure_lm", {"model": "m/half"}) == 2
        assert await execute(pool, "s") == {"b"}
        assert await workers.model_of(pool, "w-1", "s") is None
        assert await leave("reset_state", {}) == 3
        assert await execute(pool, "s") == {"b"}
        assert await leave("configure_lm", {"model": "m/half"}, "s") == 3
        assert await execute(pool, "s") == {"b"}
        assert await workers.model_of(pool, "w-1", "s") is None
        await pool.execute_in_session("s", "configure_lm", {"model": "m/1"})
        await pool.execute_anonymous("configure_lm", {"model": "m/2"})
        workers.forget()
        for refused in (pool.execute_in_session("s", "configure_lm"), pool.execute_anonymous("configure_lm")):
            with pytest.raises(InvalidArgumentError, match="model"):
                await refused
        await execute(pool, "s")
        assert [line.split()[1] for line in workers.heard] == [
            "configure_lm",
            "configure_lm",
            "execute_program",
        ]
        assert workers.started == 3


async def test_worker_whose_model_came_too_late_is_replaced(make_pool: MakePool) -> None:
    """A time that is up proves no more of what it holds than a caller who has left."""
    workers = Workers(make_pool)
    async with open_sessions(workers, pool_size=1) as pool:
        workers.dawdle("configure_lm")
        with pytest.raises(CallTimeoutError):
            await pool.execute_anonymous("configure_lm", {"model": "m/late"}, timeout=0.5 * make_pool.unit)
        workers.behave()
        await all_idle(pool, 1)
        assert workers.started == 2


def keys_sent(workers: Workers) -> list[str]:
    """Return the keys that workers were told, in order."""
    sent = [json.loads(payload) for port in workers.ports.ports for payload in port.payloads]
    return [request["args"]["api_key"] for request in sent if request["command"] == "configure_lm"]


async def test_keys_go_to_workers_and_nowhere_else(
    make_pool: MakePool, caplog: pytest.LogCaptureFixture
) -> None:
    """A key is in no store, log record, error, event or answer, whatever happens; every worker gets it."""
    workers, store, log = Workers(make_pool), MemorySessionStore(), EventLog()
    settings = {"model": "m/1", "api_key": "sk-secret"}
    said: list[object] = []
    caplog.set_level("DEBUG")
    async with open_sessions(workers, store=store, telemetry=log.telemetry, cancel_grace=0.2) as pool:
        said.append(await pool.execute_anonymous("configure_lm", settings))
        said.append(await pool.execute_in_session("s", "configure_lm", settings))
        await pool.execute_in_session("s", *CREATE)
        await workers.kill_all()
        await execute(pool, "s")
        assert keys_sent(workers) == ["sk-secret"] * 3
        ends = [Plan().die(signal=9), Plan().garbage(), Plan().stall(deaf=True), Plan().fail("no")]
        for plan in ends:
            workers.behave(instead_of("configure_lm", plan))
            with pytest.raises(DspexPoolError) as info:
                await pool.execute_in_session("s", "configure_lm", settings, timeout=1.0 * make_pool.unit)
            said += [repr(info.value), info.value.facts(), str(info.value.__cause__)]
            await all_idle(pool, 2)
        workers.behave()
        for bad in ({"api_key": "sk-secret"}, settings | {"temperature": math.nan}):
            with pytest.raises((InvalidArgumentError, LocalProtocolError)) as refusal:
                await pool.execute_in_session("s", "configure_lm", bad)
            said.append(repr(refusal.value))
        said.append(await store.load_all())
    assert "sk-secret" not in repr([said, log.events, caplog.text])
    assert "m/1" in repr(said)


async def test_model_whose_key_is_lost_is_not_asked_with_somebody_elses(make_pool: MakePool) -> None:
    """A key given by value ends with its pool. The next pool told workers the model without it.

    DSPy then took the key of the workers' environment: a tenant's calls were paid by the operator, whose key went to
    the address that the tenant had named.
    """
    store, kept = MemorySessionStore(), MemorySessionStore()
    settings = {"model": "m/1", "api_key": "sk-secret"}
    async with open_sessions(Workers(make_pool), store=store) as pool:
        await pool.execute_in_session("s", "configure_lm", settings)
        await pool.execute_in_session("s", *CREATE)
        await execute(pool, "s")
        for record in await store.load_all():
            await kept.put_session(record)
    workers = Workers(make_pool)
    async with open_sessions(workers, store=kept) as pool:
        with pytest.raises(InvalidArgumentError, match=r"session 's'.*configure_lm.*api_key_env") as info:
            await execute(pool, "s")
        assert (info.value.argument, workers.heard) == ("api_key", [])
        await pool.execute_in_session("s", "configure_lm", settings)
        await execute(pool, "s")
        await pool.execute_in_session("s", "configure_lm", {"model": "m/2", "api_key_env": "PATH"})
        (record,) = await kept.load_all()
        assert record.lm == {"model": "m/2", "api_key_env": "PATH"}


def dead() -> Plan:
    """A worker that is killed over its command."""
    return Plan().die(signal=9)


def busy(**info: Any) -> Plan:
    """A provider that wants to be asked again."""
    return Plan().fail("come back", type="RateLimited", retryable=True, **info)


@pytest.mark.parametrize(
    ("plans", "options", "outcome"),
    [
        ([dead()], {}, ("WorkerDiedError", 1)),
        ([dead()], {"retries": 5}, ("WorkerDiedError", 1)),
        ([dead(), dead()], {"retries": 1, "idempotent": True}, ("WorkerDiedError", 2)),
        ([dead(), dead()], {"retries": 2, "idempotent": True}, ("ok", 3)),
        ([Plan().garbage()], {"retries": 1}, ("RemoteFrameTooLargeError", 1)),
        ([Plan().garbage()], {"retries": 1, "idempotent": True}, ("ok", 2)),
        ([busy(retry_after_s=0.3)], {"retries": 1}, ("ProgramError", 1)),
        ([busy(retry_after_s=0.3)], {"retries": 1, "idempotent": True}, ("ok", 2)),
        ([Plan().fail("wrong")], {"retries": 1, "idempotent": True}, ("ProgramError", 1)),
        ([Plan().stall()], {"retries": 1, "idempotent": True, "timeout": 0.1}, ("CallTimeoutError", 1)),
    ],
)
async def test_only_what_is_safe_is_tried_again(
    make_pool: MakePool, plans: list[Plan], options: dict[str, Any], outcome: tuple[str, int]
) -> None:
    """Without leave a command that may have begun is not repeated; with leave as often as is allowed.

    [property 56]
    """
    workers, log = Workers(make_pool), EventLog()
    async with open_sessions(workers, pool_size=1, telemetry=log.telemetry) as pool:
        await pool.execute_in_session("s", *CREATE)
        orders = [workers.ports.order("execute_program", plan, times=1) for plan in plans]
        began = trio.current_time()
        args = {"program_id": "p", "inputs": {"a": "x"}}
        try:
            reply = await pool.execute_in_session("s", "execute_program", args, **options)
            found = ("ok", reply.attempts)
        except DspexPoolError as error:
            found = (type(error).__name__, error.attempts or 0)
        assert found == outcome
        if "retry_after_s" in repr(plans) and found[0] == "ok":
            assert trio.current_time() - began >= 0.3
        assert orders[0].happened == 1
        assert len(log.of("call_retry")) == outcome[1] - 1
    assert log.problems == []


async def execute_past_a_death(workers: Workers, pool: SessionPool) -> None:
    """Run the session's program; the one worker there is dies before it reads the command."""
    (port,) = workers.live
    async with trio.open_nursery() as nursery:
        before = port.bytes_sent
        workers.ports.stop()
        nursery.start_soon(execute, pool, "s")
        await until(lambda: port.bytes_sent > before, "the command lies in the pipe")
        workers.ports.kill()


async def test_command_that_no_worker_had_moves_for_free(make_pool: MakePool) -> None:
    """A worker that dies before it reads the command costs a try, and no leave is needed for the next."""
    workers, log = Workers(make_pool), EventLog()
    async with open_sessions(workers, pool_size=1, telemetry=log.telemetry) as pool:
        await pool.execute_in_session("s", *CREATE)
        await execute_past_a_death(workers, pool)
        assert log.of("call_stop")[-1]["attempts"] == 2
        assert log.of("call_retry")[0]["reason"] == "WorkerDiedError"


async def test_command_that_a_further_try_did_not_come_to_is_tried_again(make_pool: MakePool) -> None:
    """No worker had it: the first died before it read it, the second gave garbage to what was sent ahead."""
    workers = Workers(make_pool)
    async with open_sessions(workers, pool_size=1, retries=2) as pool:
        await pool.execute_in_session("s", *CREATE)
        workers.behave(instead_of("load_program", Plan().garbage(), times=1))
        await execute_past_a_death(workers, pool)
        assert workers.happened == 1
        assert [line.split()[1] for line in workers.heard[-3:]] == [
            "load_program",
            "load_program",
            "execute_program",
        ]


async def test_model_that_is_being_set_needs_no_other_before_it(make_pool: MakePool) -> None:
    """A worker that is given a session's model is not told that of all sessions first."""
    workers = Workers(make_pool)
    async with open_sessions(workers, pool_size=1) as pool:
        await pool.execute_anonymous("configure_lm", {"model": "m/default"})
        await workers.kill_all()
        await pool.workers.wait_ready()
        workers.forget()
        await pool.execute_in_session("own", "configure_lm", {"model": "m/own"})
        assert workers.heard == ["w-1 configure_lm"]


@pytest.mark.parametrize("step", ["configure_lm", "load_program"])
async def test_worker_that_refuses_what_it_must_be_told_first_is_kept(step: str, make_pool: MakePool) -> None:
    """The caller hears what was refused, and the worker is asked again. The program was counted as having run."""
    workers, log = Workers(make_pool), EventLog()
    async with open_sessions(workers, pool_size=1, telemetry=log.telemetry) as pool:
        await pool.execute_in_session("s", "configure_lm", {"model": "m/1"})
        await pool.execute_in_session("s", *CREATE)
        await workers.kill_all()
        await pool.workers.wait_ready()
        workers.behave(instead_of(step, Plan().fail("no room", type="MemoryError")))
        with pytest.raises(ProgramError, match="no room") as info:
            await execute(pool, "s", retries=2)
        assert (info.value.type, info.value.worker_survives, info.value.attempts) == ("MemoryError", True, 1)
        workers.behave()
        assert await execute(pool, "s") == {"b"}
        (told,) = (await pool.execute_in_session("s", "list_programs")).result["programs"]
        assert told["execution_count"] == 1
    assert [event["reason"] for event in log.of("worker_retiring")][1:] == ["closed"]


async def test_timeout_covers_what_a_worker_must_be_told_first(make_pool: MakePool) -> None:
    """One deadline for all that happens in the lease; a death meanwhile is told as not having begun."""
    workers = Workers(make_pool)
    async with open_sessions(workers, pool_size=1) as pool:
        await pool.execute_in_session("s", "configure_lm", {"model": "m/1"})
        await pool.execute_in_session("s", *CREATE)
        for slow in ("load_program", "execute_program"):
            await workers.kill_all()
            await pool.workers.wait_ready()
            workers.behave(instead_of(slow, Plan().stall()))
            began = trio.current_time()
            with pytest.raises(CallTimeoutError, match=slow):
                await execute(pool, "s", timeout=2 * make_pool.unit)
            assert trio.current_time() - began >= 1.9 * make_pool.unit
        await workers.kill_all()
        await pool.workers.wait_ready()
        workers.forget()
        workers.dawdle("load_program")
        await execute(pool, "s", timeout=3 * make_pool.unit)
        asked = json.loads(workers.port("w-1").payloads[-1])
        assert (asked["command"], asked["timeout_s"] <= 2 * make_pool.unit) == ("execute_program", True)
        workers.behave()
        assert await execute(pool, "s", timeout=math.inf) == {"b"}
        await workers.kill_all()
        workers.behave(instead_of("*", Plan().die(signal=9)))
        with pytest.raises(WorkerDiedError, match="'execute_program' was not sent") as info:
            await execute(pool, "s")
        assert (info.value.request_sent, info.value.request_read, info.value.attempts) == (False, False, 3)


async def test_strict_session_keeps_to_its_worker_and_hears_of_its_loss(make_pool: MakePool) -> None:
    """Strict affinity holds for every command of a session; its end undoes the loss.

    [property 98, 101]
    """
    workers, log = Workers(make_pool), EventLog()
    async with open_sessions(workers, affinity="strict", telemetry=log.telemetry) as pool:

        async def echo(session_id: str, **options: Any) -> str | None:
            return (await pool.execute_in_session(session_id, "echo", {"text": "x"}, **options)).worker_id

        await pool.execute_in_session("s", *CREATE)
        home = await echo("s")
        assert home is not None
        async with only(pool, home):
            assert await echo("no programs") == home
        async with hold(pool, home):
            for session_id in ("s", "no programs"):
                with pytest.raises(SessionBusyError):
                    await echo(session_id, affinity="strict_nowait")
            assert await execute(pool, "s", affinity="hint") == {"b"}
        await workers.kill(home)
        for _ in range(2):
            with pytest.raises(SessionLostError) as info:
                await execute(pool, "s")
            assert info.value.attempts == 1
        assert log.of("session_lost")[0]["session"] in ("s", "no programs")
        assert (await pool.execute_in_session("s", "list_programs")).result["total_count"] == 1
        await pool.end_session("s")
        await pool.execute_in_session("s", *CREATE)
        assert await execute(pool, "s") == {"b"}


async def test_first_commands_of_a_strict_session_end_on_one_worker(make_pool: MakePool) -> None:
    """However many begin a session at once, one worker serves them all, one after the other."""
    workers = Workers(make_pool)
    workers.dawdle("create_program")
    async with open_sessions(workers, affinity="strict", pool_size=4) as pool, trio.open_nursery() as nursery:
        for number in range(4):
            args = {"id": f"p{number}", "signature": "a -> b"}
            nursery.start_soon(pool.execute_in_session, "s", "create_program", args)
    assert len(set(workers.heard)) == 1, workers.heard
    assert len(workers.heard) == 4
