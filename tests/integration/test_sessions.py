"""Sessions on real DSPy workers: killed, restarted, reconfigured, ended, and drowned in noise."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.adapters import PythonPool
from dspex_pool.config import PoolConfig
from dspex_pool.errors import DspexPoolError, InvalidArgumentError, SessionLostError
from dspex_testkit.children import noisy_programs
from tests.bounded_waits import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from dspex_pool.checkout import Checkout
    from dspex_pool.session_call import Reply
    from dspex_pool.worker import PoolWorker

EXTRACTIVE: dict[str, Any] = {"engine": "extractive", "model": "dspex/extractive"}
SIGNATURE = "context, question -> answer"
INPUTS = {"context": "Paris is the capital of France.", "question": "What is the capital of France?"}
PROGRAMS = "dspex_testkit.children.dspy_programs"


@contextlib.asynccontextmanager
async def open_pool(**settings: Any) -> AsyncIterator[PythonPool]:
    """Open a pool of real workers that nothing else has configured."""
    async with PythonPool.open(PoolConfig(**settings)) as pool:
        yield pool


def worker_named(pool: PythonPool, worker_id: str | None) -> PoolWorker:
    """Return the worker of a name."""
    return next(worker for worker in pool.sessions.workers.workers() if worker.worker_id == worker_id)


def kill(pool: PythonPool, worker_id: str | None) -> None:
    """Send SIGKILL to a worker's process."""
    pid = worker_named(pool, worker_id).port.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def only(pool: PythonPool, worker_id: str) -> AsyncIterator[None]:
    """Have all workers busy but one, so that it serves whatever is asked."""
    async with contextlib.AsyncExitStack() as stack:
        for worker in pool.sessions.workers.workers():
            if worker.worker_id != worker_id:
                await stack.enter_async_context(await claimed(pool, worker))
        yield


async def claimed(pool: PythonPool, worker: PoolWorker) -> Checkout:
    """Take one worker out of service, as soon as the pool's own housekeeping lets go of it."""
    found: list[Checkout] = []

    def is_free() -> bool:
        found.extend(filter(None, [pool.sessions.workers.claim(worker)]))
        return bool(found)

    await until(is_free, f"{worker} is idle")
    return found[0]


#: One life of a session: each command, and whether its result is right.
STORY: list[tuple[str, dict[str, Any], Callable[[Any], bool]]] = [
    ("configure_lm", EXTRACTIVE, lambda result: result["status"] == "configured"),
    ("create_program", {"id": "p", "signature": SIGNATURE}, lambda result: result["status"] == "created"),
    (
        "execute_program",
        {"program_id": "p", "inputs": INPUTS},
        lambda result: "Paris" in result["outputs"]["answer"],
    ),
    ("dump_program", {"program_id": "p"}, lambda result: result["definition"]["signature"] == SIGNATURE),
    (
        "load_program",
        {"program_id": "q", "definition": {"signature": SIGNATURE, "program_type": "chain_of_thought"}},
        lambda result: result["status"] == "loaded",
    ),
    ("delete_program", {"program_id": "p"}, lambda result: result["status"] == "deleted"),
    (
        "execute_program",
        {"program_id": "q", "inputs": INPUTS},
        lambda result: "reasoning" in result["outputs"],
    ),
    ("list_programs", {}, lambda result: [each["id"] for each in result["programs"]] == ["q"]),
]


@pytest.mark.trio
async def test_session_survives_sigkill_between_any_two_commands_and_the_end_of_the_pool(
    tmp_path: Path,
) -> None:
    """The worker that served a command is killed before the next one; another pool finds what was kept."""
    store = f"sqlite:{tmp_path / 'sessions.db'}"
    killed = 0
    async with open_pool(pool_size=2, session_store=store) as pool:
        for command, args, is_right in STORY:
            reply = await pool.call("tenant", command, args)
            assert is_right(reply.result), (command, reply)
            assert reply.attempts <= 2, "two, if it was sent before the news of the death came"
            if reply.worker_id is not None:
                kill(pool, reply.worker_id)
                killed += 1
    assert killed == 6
    async with open_pool(pool_size=1, session_store=store) as pool:
        tenant = pool.session_adapter("tenant")
        info = await tenant.get_program_info("q")
        assert (info["signature"], info["execution_count"]) == (SIGNATURE, 1)
        assert "Paris" in (await tenant.execute_program("q", INPUTS))["outputs"]["answer"]
        await tenant.cleanup_session()
    async with open_pool(pool_size=1, session_store=store, lazy=True) as pool:
        assert (await pool.session_adapter("tenant").list_programs())["total_count"] == 0


@pytest.mark.trio
async def test_what_was_created_is_executed_hundreds_of_times_without_a_retry() -> None:
    """Create and execute in one session meet on a pool of four, whichever workers serve them.

    The ancestor lost most of these calls, because they met on different workers, and hid it behind retries.
    """
    errors: list[DspexPoolError] = []
    served: dict[str | None, int] = {}

    async def live(pool: PythonPool, session_id: str) -> None:
        calls: list[tuple[str, dict[str, Any]]] = [
            ("create_program", {"id": "p", "factory": f"{PROGRAMS}:shouter"}),
            ("execute_program", {"program_id": "p", "inputs": {"text": session_id}}),
        ]
        replies: list[Reply] = []
        try:
            for command, args in calls:
                replies.append(await pool.call(session_id, command, args))
        except DspexPoolError as error:
            errors.append(error)
            return
        assert replies[-1].result["outputs"] == {"loud": session_id.upper()}
        assert [reply.attempts for reply in replies] == [1, 1]
        served[replies[-1].worker_id] = served.get(replies[-1].worker_id, 0) + 1

    async def live_often(pool: PythonPool, tenant: int) -> None:
        for number in range(50):
            await live(pool, f"tenant {tenant} session {number}")

    async with open_pool(pool_size=4, allow=(PROGRAMS,)) as pool:
        async with trio.open_nursery() as nursery:
            for tenant in range(8):
                nursery.start_soon(live_often, pool, tenant)
        assert pool.monitor.snapshot().restarts == {}
    assert errors == []
    assert sum(served.values()) == 400
    assert len(served) == 4


@pytest.mark.trio
async def test_configuration_reaches_every_worker_and_a_refusal_is_an_error() -> None:
    """Present, replacement and future workers run on the model that was set last, and on no refused one."""
    async with open_pool(pool_size=2) as pool:
        await pool.wait_ready(2)
        await pool.configure_lm(**EXTRACTIVE)
        with pytest.raises(InvalidArgumentError, match="NO_SUCH_KEY"):
            await pool.configure_lm(model="openai/gpt", api_key_env="NO_SUCH_KEY")
        tenant = pool.session_adapter("tenant")
        await tenant.create_program("p", SIGNATURE)

        async def answers_on(worker_id: str) -> None:
            async with only(pool, worker_id):
                answer = (await tenant.execute_program("p", INPUTS))["outputs"]["answer"]
            assert "Paris" in answer

        for worker_id in ("w-1", "w-2"):
            await answers_on(worker_id)
        old = worker_named(pool, "w-1")
        kill(pool, "w-1")
        with trio.fail_after(10):
            await old.exited.wait()
            pool.sessions.workers.resize(3)
            await pool.wait_ready(3)
        for worker_id in ("w-1", "w-3"):
            await answers_on(worker_id)


@pytest.mark.trio
async def test_ended_session_leaves_no_program_in_any_worker() -> None:
    """Workers that are idle, busy, or just started hold nothing of it soon afterwards."""
    async with open_pool(pool_size=2, monitor_interval=0.2, allow=(PROGRAMS,)) as pool:
        await pool.wait_ready(2)
        tenant, other = pool.session_adapter("tenant"), pool.session_adapter("other")
        await tenant.create_program("p", factory=f"{PROGRAMS}:shouter")
        await other.create_program("p", factory=f"{PROGRAMS}:patient")
        for worker_id in ("w-1", "w-2"):
            async with only(pool, worker_id):
                await tenant.execute_program("p", {"text": "x"})

        async def programs() -> int:
            return sum(
                [(await ask_all(pool, "get_stats"))[name]["programs_count"] for name in ("w-1", "w-2")]
            )

        held = await programs()
        assert held >= 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.execute_program, "p", {"seconds": 0.5})
            await trio.sleep(0.2)
            assert (await tenant.cleanup_session())["programs_removed"] == 1
        with trio.fail_after(5):
            while await programs() > held - 2:
                await trio.sleep(0.1)
        assert (await tenant.list_programs())["total_count"] == 0
        assert (await other.list_programs())["total_count"] == 1


async def ask_all(pool: PythonPool, command: str) -> dict[str, Any]:
    """Ask every worker, past all sessions, and return the answers by name."""
    answers = {}
    for worker in pool.sessions.workers.workers():
        async with only(pool, worker.worker_id), pool.sessions.workers.checkout() as lease:
            answers[lease.worker_id] = await lease.request(command)
    return answers


@pytest.mark.trio
async def test_strict_session_hears_that_its_process_is_gone() -> None:
    """After a SIGKILL no other process answers for it; its end, and it may begin anew.

    [property 98]
    """
    async with open_pool(pool_size=2, affinity="strict", allow=(PROGRAMS,)) as pool:
        create = ("create_program", {"id": "p", "factory": f"{PROGRAMS}:shouter"})
        home = (await pool.call("tenant", *create)).worker_id
        kill(pool, home)
        for _ in range(2):
            with pytest.raises(SessionLostError):
                await pool.call("tenant", "dump_program", {"program_id": "p"})
        await pool.session_adapter("tenant").cleanup_session()
        assert (await pool.call("tenant", *create)).result["status"] == "created"


@pytest.mark.trio
async def test_noise_of_a_program_is_in_the_logs_and_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    """Prints from Python, C and grandchildren and 10 MB on stderr disturb no answer; all of it is in the logs."""
    caplog.set_level("INFO", logger="dspex_pool.worker")
    noisy = noisy_programs.__name__
    async with open_pool(pool_size=2, allow=(noisy,)) as pool:
        tenant = pool.session_adapter("tenant")
        await tenant.create_program("p", factory=f"{noisy}:noisy")
        with trio.fail_after(8):
            for text, flood_lines in (("first", 10_000), ("second", 0)):
                inputs = {"text": text, "flood_lines": flood_lines}
                assert (await tenant.execute_program("p", inputs))["outputs"] == {"loud": text.upper()}
            while "a grandchild prints second late" not in caplog.text:
                await trio.sleep(0.05)
        assert pool.monitor.snapshot().restarts == {}
    printed = [record for record in caplog.records if record.name == "dspex_pool.worker.stderr"]
    said = {record.getMessage().partition(": ")[2] for record in printed}
    for text in ("first", "second"):
        assert {
            f"python prints {text}",
            f"python complains about {text}",
            f"C prints {text}",
            f"a grandchild prints {text}",
            f"a grandchild prints {text} late",
        } <= said
    assert sum(noisy_programs.FLOOD_LINE in record.getMessage() for record in printed) == 10_000
    logged = [record for record in caplog.records if record.name == "dspex_pool.worker"]
    records = [record for record in logged if "a record about first" in record.getMessage()]
    assert [(record.__dict__["session_id"], record.__dict__["remote_logger"]) for record in records] == [
        ("tenant", "noisy")
    ]
