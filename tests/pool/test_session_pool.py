"""Sessions on a pool: they survive every death, cancellation and race."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from dspex_pool.errors import (
    InvalidArgumentError,
    PoolClosedError,
    ProgramError,
    ProgramExistsError,
    ProgramNotFoundError,
)
from dspex_pool.session_answers import USING
from dspex_pool.session_store import MemorySessionStore
from dspex_pool.telemetry import PREFIX
from dspex_testkit.plan import Plan
from tests.bounded_waits import until
from tests.pool.sessions import Workers, instead_of, open_sessions
from tests.session_workers import CREATE, EventLog, execute, expect_error, hold, only, run_on

if TYPE_CHECKING:
    from dspex_pool.session_pool import SessionPool
    from dspex_testkit.ports.run import MakePool

pytestmark = pytest.mark.ports("all")

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


async def test_session_survives_the_death_of_all_workers_between_any_two_commands(
    make_pool: MakePool,
) -> None:
    """Whenever every worker is killed, the next command finds the session whole, at its first try."""
    workers = Workers(make_pool)
    async with open_sessions(workers, pool_size=1) as pool:
        for moment in range(len(STORY)):
            for number, (command, args, is_right) in enumerate(STORY):
                if number == moment:
                    await workers.kill_all()
                reply = await pool.execute_in_session(f"s{moment}", command, args)
                assert is_right(reply.result), (moment, command, reply)
                assert reply.attempts == 1


async def test_session_survives_a_worker_that_dies_over_any_request(make_pool: MakePool) -> None:
    """Whichever request kills its worker, also one sent ahead, the story goes on with one more try."""
    workers = Workers(make_pool)
    async with open_sessions(workers, retries=1) as pool:
        workers.forget()
        await tell_story(pool, "s", idempotent=True)
        commands = [line.split()[1] for line in workers.heard if not line.endswith("cleanup_session")]
        assert len(commands) >= 6, "the story sends at least six requests"
        for number, command in enumerate(commands):
            before = commands[:number].count(command)
            spared = workers.ports.order(command, Plan().after(0.0), times=before)
            workers.behave(instead_of(command, Plan().die(signal=9), times=1))
            attempts = await tell_story(pool, f"s{number}", idempotent=True)
            assert (workers.happened, sorted(attempts)[-2:]) == (1, [1, 2])
            spared.withdraw()


async def test_new_worker_is_told_all_it_lacks_in_the_lease_of_the_command(make_pool: MakePool) -> None:
    """Language model and program go ahead of the command, on the same worker, and only what is missing."""
    workers = Workers(make_pool)
    async with open_sessions(workers, pool_size=1) as pool:
        await pool.execute_anonymous("configure_lm", {"model": "m/default"})
        for command, args, _ in STORY[:2]:
            await pool.execute_in_session("own", command, args)
        await pool.execute_in_session("plain", *STORY[1][:2])
        await workers.kill_all()
        workers.forget()
        granted = pool.workers.statistics().counters.granted
        for session_id in ("own", "plain", "own", "plain"):
            await pool.execute_in_session(session_id, *STORY[2][:2])
        assert [line.split()[1] for line in workers.heard] == [
            *("configure_lm", "load_program", "execute_program"),
            *("configure_lm", "load_program", "execute_program"),
            *("execute_program", "execute_program"),
        ]
        assert pool.workers.statistics().counters.granted == granted + 4
        assert await workers.model_of(pool, "w-1", "own") == "m/1"
        assert await workers.model_of(pool, "w-1", "plain") == "m/default"


async def test_model_of_nobody_is_that_of_all_whatever_session_is_named(make_pool: MakePool) -> None:
    """The id went along: the worker set the model of that session alone, where nobody knew of it."""
    workers = Workers(make_pool)
    async with open_sessions(workers, pool_size=1) as pool:
        await pool.execute_anonymous("configure_lm", {"model": "m/default", "session_id": "x"})
        for session_id in ("x", "y"):
            await pool.execute_in_session(session_id, *STORY[1][:2])
            assert await workers.model_of(pool, "w-1", session_id) == "m/default"
        await pool.execute_anonymous("configure_lm", {"model": "m/later", "session_id": "x"})
        assert await workers.model_of(pool, "w-1", "x") == "m/later"
        assert await workers.model_of(pool, "w-1", "y") == "m/later"


@pytest.mark.parametrize("result", [[1, None], "text", None])
async def test_result_may_be_any_json(result: Any, make_pool: MakePool) -> None:
    """Handlers of others answer as they like; only an object can tell what was used."""
    workers = Workers(make_pool)
    async with open_sessions(workers, pool_size=1) as pool:
        await pool.execute_in_session("s", *CREATE)
        workers.behave(instead_of("execute_program", Plan().reply(result)))
        args = {"program_id": "p", "inputs": {"a": "x"}}
        reply = await pool.execute_in_session("s", "execute_program", args)
        assert (reply.result, reply.usage) == (result, None)


async def test_one_of_two_concurrent_creators_wins_everywhere(make_pool: MakePool) -> None:
    """Two tasks create one id at once: one is refused, and every worker runs the other's program."""
    workers = Workers(make_pool)
    workers.dawdle("create_program")
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


@pytest.mark.parametrize("way", ["delete", "end"])
async def test_program_made_anew_never_runs_as_the_old_one(make_pool: MakePool, way: str) -> None:
    """Both workers hold the old program of an id; made anew with another definition, it runs as such on both."""
    workers = Workers(make_pool)
    async with open_sessions(workers) as pool:
        await pool.execute_in_session("s", *CREATE)
        for worker_id in ("w-1", "w-2"):
            assert await run_on(pool, worker_id) == {"b"}
        if way == "delete":
            await pool.execute_in_session("s", "delete_program", {"program_id": "p"})
        else:
            await pool.end_session("s")
        await pool.execute_in_session("s", "create_program", {"id": "p", "signature": "a -> c"})
        for worker_id in ("w-2", "w-1", "w-2"):
            assert await run_on(pool, worker_id) == {"c"}


async def test_program_changed_while_a_worker_is_told_the_old_one_is_told_again(
    make_pool: MakePool,
) -> None:
    """What a worker is known to hold is what it was sent, not what has become of it meanwhile."""
    workers = Workers(make_pool)
    async with open_sessions(workers) as pool:
        async with only(pool, "w-1"):
            await pool.execute_in_session("s", *CREATE)
        workers.dawdle("load_program", 10.0)
        async with trio.open_nursery() as nursery:
            async with hold(pool, "w-1"):
                nursery.start_soon(execute, pool, "s")
                await until(lambda: workers.heard[-1] == "w-2 load_program", "the worker is being told")
            workers.behave()
            definition = {"signature": "a -> c"}
            await pool.execute_in_session("s", "load_program", {"program_id": "p", "definition": definition})
        assert await run_on(pool, "w-2") == {"c"}


async def test_program_deleted_in_line_does_not_run_as_an_older_one(make_pool: MakePool) -> None:
    """It is not found; what ran was a copy in that worker, replaced long ago."""
    workers = Workers(make_pool)
    async with open_sessions(workers) as pool:
        async with only(pool, "w-1"):
            await pool.execute_in_session("s", *CREATE)
        async with only(pool, "w-2"):
            definition = {"signature": "a -> c"}
            await pool.execute_in_session("s", "load_program", {"program_id": "p", "definition": definition})
        workers.forget()
        async with trio.open_nursery() as nursery, hold(pool, "w-2"), hold(pool, "w-1"):
            nursery.start_soon(expect_error, ProgramNotFoundError, execute, pool, "s")
            await until(lambda: pool.workers.statistics().waiting, "somebody waits")
            await pool.execute_in_session("s", "delete_program", {"program_id": "p"})
        assert workers.heard == []


async def test_caller_cannot_change_a_program_by_changing_its_arguments(make_pool: MakePool) -> None:
    """What was given is what every worker gets, whatever becomes of the caller's objects."""
    workers = Workers(make_pool)
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
        assert await workers.model_of(pool, "w-2", "s") == "m/1"


async def test_restarted_pool_finds_its_sessions(make_pool: MakePool) -> None:
    """Another pool on what a store has kept serves the same programs, on the same language model."""
    store, kept = MemorySessionStore(), MemorySessionStore()
    async with open_sessions(Workers(make_pool), store=store) as pool:
        for command, args, _ in STORY[:3]:
            await pool.execute_in_session("s", command, args)
        await pool._books.save()
        for record in await store.load_all():
            await kept.put_session(record)
    workers = Workers(make_pool)
    async with open_sessions(workers, store=kept) as pool:
        info = await pool.execute_in_session("s", "get_program_info", {"program_id": "p"})
        assert (info.result["signature"], info.result["execution_count"]) == ("a -> b", 1)
        assert await run_on(pool, "w-2") == {"b"}
        assert await workers.model_of(pool, "w-2", "s") == "m/1"
        with pytest.raises(ProgramExistsError):
            await pool.execute_in_session("s", *STORY[1][:2])


async def test_state_that_a_store_cannot_give_back_is_refused(make_pool: MakePool) -> None:
    """What is no object was kept if the worker took it, and no pool could be opened on that store any more."""
    store = MemorySessionStore()
    async with open_sessions(Workers(make_pool), store=store) as pool:
        create = {"id": "p", "signature": "a -> b", "state": []}
        load = {"program_id": "p", "definition": {"signature": "a -> b"}, "state": []}
        for command, args in (("create_program", create), ("load_program", load)):
            with pytest.raises(InvalidArgumentError, match=f"{command}.*'state'.*got list") as info:
                await pool.execute_in_session("s", command, args)
            assert info.value.argument == "state"
            await pool.execute_in_session("s", command, args | {"state": None})
        assert len(await store.load_all()) == 1


async def test_what_the_pool_knows_needs_no_worker(make_pool: MakePool) -> None:
    """Lists, descriptions, deletions and refusals are answered while no worker can be had."""
    workers = Workers(make_pool)
    async with open_sessions(workers, pool_size=1) as pool:
        await pool.execute_in_session("s", *CREATE)
        workers.ports.hang_starts = 9
        await workers.kill_all()
        workers.forget()
        ask = pool.execute_in_session
        with trio.testing.assert_checkpoints():
            reply = await ask("s", "list_programs")
        assert (reply.worker_id, reply.attempts, reply.result["total_count"]) == (None, 1, 1)
        assert (await ask("s", "get_program_info", {"program_id": "p"})).result["signature"] == "a -> b"
        assert (await ask("nobody", "list_programs")).result == {"programs": [], "total_count": 0}
        with pytest.raises(ProgramExistsError, match="'p' already exists"):
            await ask("s", *CREATE)
        for session_id, command in itertools.product(("s", "nobody"), sorted(USING)):
            with pytest.raises(ProgramNotFoundError, match="Program not found: q"):
                await ask(session_id, command, {"program_id": "q"})
        with pytest.raises(InvalidArgumentError, match="definition"):
            await ask("s", "load_program", {"program_id": "q"})
        for wrong in ({"affinity": "loose"}, {"retries": "2"}, {"on_event": trio.sleep}):
            with pytest.raises(InvalidArgumentError, match=f"{next(iter(wrong))} (is|are) .*; got"):
                await ask("s", "echo", **wrong)
        for given in (5, ["p"], "p"):
            with pytest.raises(InvalidArgumentError, match=r"of 'echo' are a mapping.*got (int|list|str)"):
                await ask("s", "echo", given)  # type: ignore[arg-type] # wrong on purpose
            with pytest.raises(InvalidArgumentError, match="of 'list_programs' are a mapping"):
                await ask("s", "list_programs", given)  # type: ignore[arg-type] # wrong on purpose
            with pytest.raises(InvalidArgumentError, match="of 'configure_lm' are a mapping"):
                await pool.execute_anonymous("configure_lm", given)  # type: ignore[arg-type] # wrong on purpose
        for timeout in (-1.0, math.nan, "1"):
            with pytest.raises(InvalidArgumentError, match="timeout"):
                await ask("s", "echo", timeout=timeout)  # type: ignore[arg-type] # wrong on purpose
        with pytest.raises(InvalidArgumentError, match=r"10485760 bytes long"):
            await ask("x" * 10_485_760, "list_programs")
        assert (await ask("s", "delete_program", {"program_id": "p"})).result["status"] == "deleted"
        assert (await ask("s", "cleanup_session")).result["programs_removed"] == 0
        assert workers.heard == []
        assert pool.session_ids() == []


async def test_execution_that_fails_in_the_worker_is_counted(make_pool: MakePool) -> None:
    """The program ran, whatever came of it; a call that no worker had is no execution."""
    workers = Workers(make_pool)
    async with open_sessions(workers, pool_size=1) as pool:
        await pool.execute_in_session("s", *CREATE)
        workers.behave(instead_of("execute_program", Plan().fail("no"), times=1))
        with pytest.raises(ProgramError):
            await execute(pool, "s")
        pool.workers.refuse_all()
        with pytest.raises(PoolClosedError):
            await execute(pool, "s")
        session = pool._books.table.peek("s")
        assert session is not None
        assert session.record.programs["p"].execution_count == 1


async def test_reply_tells_how_long_the_call_took_from_its_beginning(make_pool: MakePool) -> None:
    """The wait for a worker is part of it."""
    workers, replies = Workers(make_pool), []
    async with open_sessions(workers, pool_size=1) as pool, trio.open_nursery() as nursery:

        async def ask() -> None:
            replies.append(await pool.execute_in_session("s", *CREATE))

        async with hold(pool, "w-1"):
            nursery.start_soon(ask)
            await until(lambda: pool.workers.statistics().waiting == 1, "the call waits")
            await trio.sleep(2 * make_pool.unit)
    assert replies[0].duration_s >= 2 * make_pool.unit


async def test_anonymous_commands_run_anywhere(make_pool: MakePool) -> None:
    """Programs without a session share one that has no home; other commands have none at all."""
    workers = Workers(make_pool)
    async with open_sessions(workers) as pool:
        await pool.execute_anonymous(*CREATE)
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


async def test_life_of_a_session_is_told_by_events(make_pool: MakePool) -> None:
    """Each call begins and ends once, sessions begin and end once, and the catalogue knows all of it."""
    workers, log = Workers(make_pool), EventLog()
    async with open_sessions(workers, pool_size=1, telemetry=log.telemetry) as pool:
        await tell_story(pool, "s")
        with pytest.raises(ProgramError, match="on purpose"):
            await pool.execute_in_session("s", "raise_error", {"message": "on purpose"})
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


async def test_call_that_its_caller_gives_up_is_told_as_cancelled(make_pool: MakePool) -> None:
    """The reason is a word, and no description of the caller's task.

    It held the address of a task and so was another in each run, which the fuzzer's second runs found.
    """
    workers, log = Workers(make_pool), EventLog()
    scope = trio.CancelScope()
    with log.telemetry.attach((*PREFIX, "call_start"), lambda *_: scope.cancel()):
        async with open_sessions(workers, pool_size=1, telemetry=log.telemetry) as pool:
            with scope:
                await pool.execute_in_session("s", "echo", {"text": 1})
            assert scope.cancelled_caught
    (told,) = log.of("call_exception")
    assert (told["error"], told["reason"]) == ("Cancelled", "cancelled")
