"""The outages that the README lists, one after the other, seen by a caller of the public API on real workers."""

from __future__ import annotations

import itertools
import logging
import math
import os
import signal
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool import PoolOptions, SubprocessOptions, SubprocessPortFactory, SyncPool, WorkerPool
from dspex_pool.errors import (
    CallTimeoutError,
    CircuitOpenError,
    InvalidArgumentError,
    LocalFrameTooLargeError,
    PoolSaturatedError,
    ProgramError,
    RemoteProtocolError,
    SessionExpiredError,
    SessionLimitError,
    SessionLostError,
    UseAfterReturnError,
    WorkerDiedError,
    WorkerError,
    WorkerStartError,
)
from dspex_testkit.canned_bridge import CannedBridge
from dspex_testkit.mock_port import MockPortFactory
from tests.bounded_waits import has_ended, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_pool import PythonPool, Reply

pytestmark = pytest.mark.integration

ECHO = "dspex_testkit.children.echo:EchoHandler"
RATE_LIMITED = "dspex_testkit.children.dspy_programs"
SIGNATURE = "context, question -> answer"
MEGABYTE = 1024 * 1024


def echo_pool(**settings: Any) -> SyncPool:
    """Return a pool of one worker without DSPy, not open yet."""
    return SyncPool(**{"pool_size": 1, "handler": ECHO, **settings})


def mock_pool(**settings: Any) -> SyncPool:
    """Return a pool of one mock worker with canned programs, for what needs no process."""
    ports = MockPortFactory(lambda port: port.answer_rest(CannedBridge().plan))
    return SyncPool(ports=ports, **{"pool_size": 1, **settings})


def ask(pool: SyncPool, command: str, args: Mapping[str, Any] | None = None, **options: Any) -> Any:
    """Run a command on any worker and return its result."""
    return pool.execute_anonymous(command, args, **options).result


def pid_of(pool: SyncPool) -> int:
    """Return the process id of a worker."""
    return int(ask(pool, "process")["pid"])


async def _pids(pool: PythonPool) -> list[int]:
    pids = [worker.port.pid for worker in pool.sessions.workers.workers()]
    return [pid for pid in pids if pid is not None]


def begin(threads: ThreadPoolExecutor, pool: SyncPool, *call: Any, **options: Any) -> Future[Reply]:
    """Run a command in a thread, and return when a worker has it."""
    future = threads.submit(pool.execute_anonymous, *call, **options)
    wait_until(lambda: pool.statistics().leased, "a worker is lent")
    time.sleep(0.05)  # from the lease to the worker
    return future


# --- workers that end --------------------------------------------------------------------------------------


def test_worker_killed_in_a_call_is_told_and_replaced() -> None:
    """``kill -9``, and the kernel's OOM killer, end one call, with the signal; the next call is answered."""
    with echo_pool() as pool, ThreadPoolExecutor(1) as threads:
        pid = pid_of(pool)
        call = begin(threads, pool, "sleep", {"seconds": 60})
        os.kill(pid, signal.SIGKILL)
        error = call.exception(5)
        assert isinstance(error, WorkerDiedError)
        assert (error.signal, error.pid, error.request_sent) == (signal.SIGKILL, pid, True)
        assert pid_of(pool) != pid
        assert pool.snapshot().restarts == {"died": 1}


def test_call_of_a_killed_worker_is_run_again_when_that_does_no_harm() -> None:
    """A call that is said to be idempotent moves to another worker; its answer says how often it was tried."""
    with echo_pool() as pool, ThreadPoolExecutor(1) as threads:
        pid = pid_of(pool)
        call = begin(threads, pool, "sleep", {"seconds": 0.4}, retries=1, idempotent=True)
        os.kill(pid, signal.SIGKILL)
        assert call.result(8).attempts == 2


def test_worker_killed_while_idle_is_replaced_before_anybody_asks() -> None:
    """The pool sees the end of a worker that nobody uses, and fills the gap."""
    with echo_pool() as pool:
        pid = pid_of(pool)
        os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: pool.run(_pids) not in ([pid], []) and pool.statistics().idle == 1, "it is replaced"
        )
        assert ask(pool, "echo", {"a": 1}) == {"a": 1}


def test_worker_that_exits_is_told_with_its_status_and_last_words() -> None:
    """A library that calls ``exit`` deep inside ends the worker; status and stderr are in the error."""
    with echo_pool() as pool:
        ask(pool, "print_python", {"text": "licence expired"})
        with pytest.raises(WorkerDiedError, match="licence expired") as info:
            ask(pool, "exit", {"code": 3})
        assert info.value.exit_status == 3


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process need Linux")
def test_allocation_beyond_the_limit_costs_the_call_and_not_the_worker() -> None:
    """With ``limit_address_space`` a runaway allocation is a MemoryError in the worker, not an OOM on the host."""
    with echo_pool(limit_address_space=1024 * MEGABYTE) as pool:
        pid = pid_of(pool)
        with pytest.raises(ProgramError, match="MemoryError"):
            ask(pool, "hold_memory", {"bytes": 2048 * MEGABYTE})
        assert pid_of(pool) == pid


def test_worker_that_grows_is_replaced_between_two_calls() -> None:
    """Above ``max_rss_bytes`` a worker leaves when its call is done; nobody's call is lost to it."""
    with echo_pool(max_rss_bytes=120 * MEGABYTE) as pool:
        pid = pid_of(pool)
        ask(pool, "hold_memory", {"bytes": 160 * MEGABYTE})
        assert pid_of(pool) != pid
        assert pool.snapshot().restarts == {"max_rss": 1}


def test_what_a_worker_started_ends_with_it() -> None:
    """Processes that a program started are in its worker's group, and go when it goes, SIGTERM or not."""
    with echo_pool() as pool:
        child = ask(pool, "spawn_grandchild", {"stubborn": True})["pid"]
        assert not has_ended(child)
    wait_until(lambda: has_ended(child), "the grandchild is gone", seconds=2)


# --- programs that misbehave -------------------------------------------------------------------------------


def test_exception_of_a_program_comes_with_its_traceback() -> None:
    """Type, text and traceback of the worker reach the caller; the worker stays."""
    with echo_pool() as pool:
        pid = pid_of(pool)
        with pytest.raises(ProgramError, match="no such city") as info:
            ask(pool, "raise_error", {"type": "LookupError", "message": "no such city"})
        assert info.value.type == "LookupError"
        assert "in raise_error" in str(info.value.remote_traceback)
        assert pid_of(pool) == pid


def test_prints_from_python_and_c_spoil_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    """What is printed in a worker goes to the log with the worker's name; results arrive as they should."""
    caplog.set_level(logging.INFO, logger="dspex_pool.worker.stderr")
    texts = [f"w-1: from {where}" for where in ("Python", "C", "a grandchild")]
    with echo_pool() as pool:
        ask(pool, "print_python", {"text": "from Python"})
        ask(pool, "print_c", {"text": "from C"})
        ask(pool, "spawn_grandchild", {"text": "from a grandchild\n", "seconds": 0})
        assert ask(pool, "echo", {"a": 1}) == {"a": 1}
        wait_until(lambda: all(text in caplog.text for text in texts), "all is in the log")


def test_flood_on_stderr_blocks_nothing_and_leaves_its_tail_in_the_error() -> None:
    """Ten megabytes are read and thrown away but for the last of them."""
    with echo_pool() as pool:
        ask(pool, "flood_stderr", {"bytes": 10 * MEGABYTE}, timeout=8)
        with pytest.raises(WorkerDiedError) as info:
            ask(pool, "crash")
        assert 1000 < len(info.value.stderr_tail) <= MEGABYTE // 8


def test_late_answer_reaches_nobody_else() -> None:
    """Callers that give up leave answers behind; each of the next callers reads its own and no other."""
    with echo_pool() as pool:
        for number in range(10):
            with pytest.raises(CallTimeoutError):
                ask(pool, "swallow", {"seconds": 60}, timeout=0.01)
            assert ask(pool, "echo", {"number": number}) == {"number": number}


# --- workers that do not start ------------------------------------------------------------------------------


def test_start_that_hangs_is_ended_and_reported() -> None:
    """A worker that says nothing is killed after ``spawn_timeout``; who waits for the pool hears why."""
    with echo_pool(handler=None, command=("sleep", "60"), spawn_timeout=0.2) as pool:
        with pytest.raises(WorkerStartError, match=r"within 0\.2"):
            pool.wait_ready(fail_fast=True)
        assert pool.statistics().counters.start_failures >= 1


def test_crash_loop_is_slowed_down_and_refused_with_the_reason() -> None:
    """Starts that fail are spaced out; after ``breaker_after`` callers are refused at once, with the last words."""
    code = "import sys; sys.exit('no such database')"
    settings = {"backoff_min": 0.05, "backoff_max": 0.1, "breaker_after": 0.3}
    with echo_pool(handler=None, command=(sys.executable, "-S", "-c", code), **settings) as pool:
        wait_until(lambda: pool.statistics().circuit_open, "the breaker opens")
        assert pool.statistics().counters.starts < 20
        began = time.monotonic()
        with pytest.raises(CircuitOpenError, match="no such database") as info:
            pool.ping()
        assert time.monotonic() - began < 0.2
        assert isinstance(info.value.last_start_error, WorkerStartError)


def test_program_that_speaks_no_protocol_is_named_by_its_first_words() -> None:
    """A worker that prints at its start is told from one that is slow: the error shows what it printed."""
    code = "print('Welcome to my worker!', flush=True); input()"
    with echo_pool(handler=None, command=(sys.executable, "-S", "-c", code)) as pool:
        with pytest.raises((WorkerStartError, RemoteProtocolError), match="Welc"):
            pool.wait_ready(fail_fast=True)


# --- load -----------------------------------------------------------------------------------------------------


def test_full_line_refuses_at_once() -> None:
    """With ``max_waiting`` a caller too many is told at once, and told who holds the workers."""
    with echo_pool(max_waiting=0) as pool, ThreadPoolExecutor(1) as threads:
        pool.wait_ready()
        busy = begin(threads, pool, "sleep", {"seconds": 0.5})
        began = time.monotonic()
        with pytest.raises(PoolSaturatedError) as info:
            pool.ping()
        assert time.monotonic() - began < 0.2
        assert info.value.statistics.leased == 1
        busy.result(5)


@pytest.mark.trio
async def test_lease_that_is_forgotten_is_reported_and_then_taken_away() -> None:
    """A borrower that does not come back is named after ``leak_warning_after``; then its worker is killed."""
    ports = SubprocessPortFactory(SubprocessOptions(handler=ECHO))
    options = PoolOptions(pool_size=1, leak_warning_after=0.1, lease_timeout=0.3)
    heard: list[tuple[str, Mapping[str, Any]]] = []
    async with WorkerPool(ports, options) as pool:
        pool.telemetry.attach((), lambda event, _, metadata: heard.append((event[-1], metadata)))
        async with pool.checkout() as lease:
            await lease.request("echo")
            while not lease.is_ended and not any(name == "lease_expired" for name, _ in heard):
                await trio.sleep(0.02)
            with pytest.raises((UseAfterReturnError, WorkerError)):
                await lease.request("echo")
        async with pool.checkout() as lease:
            assert await lease.request("echo", {"a": 1}) == {"a": 1}
    reports = [(name, metadata["worker_id"]) for name, metadata in heard if name.startswith("lea")]
    assert reports == [("leak_suspected", "w-1"), ("lease_expired", "w-1")]
    assert "test_lease_that_is_forgotten" in str(dict(heard)["leak_suspected"]["holder"])


# --- sessions --------------------------------------------------------------------------------------------------


def test_session_outlives_its_workers() -> None:
    """Programs and language model of a session are there again on whatever worker comes next."""
    with SyncPool(pool_size=1) as pool:
        tenant = pool.session_adapter("tenant")
        tenant.configure_lm(model="dspex/extractive")
        tenant.create_program("qa", SIGNATURE)
        for pid in pool.run(_pids):
            os.kill(pid, signal.SIGKILL)
        inputs = {"context": "Paris is the capital of France.", "question": "What is the capital of France?"}
        assert "Paris" in tenant.execute_program("qa", inputs)["outputs"]["answer"]


def test_tenants_never_meet() -> None:
    """The same name in two sessions is two programs, whichever worker runs them, in whatever order."""
    with SyncPool(pool_size=2) as pool, ThreadPoolExecutor(4) as threads:
        pool.configure_lm(model="dspex/extractive")
        tenants = [pool.session_adapter(f"tenant {number}") for number in range(4)]
        for number, tenant in enumerate(tenants):
            tenant.create_program("same", f"context, question -> secret_{number}")

        def outputs(number: int) -> tuple[int, dict[str, Any]]:
            tenant = number % 4
            inputs = {"context": f"The word of tenant {tenant} is word{tenant}.", "question": "Which word?"}
            return tenant, tenants[tenant].execute_program("same", inputs)["outputs"]

        for number, found in threads.map(outputs, range(24)):
            assert list(found) == [f"secret_{number}"]
            assert f"word{number}" in found[f"secret_{number}"]


def test_session_that_was_idle_for_too_long_says_so() -> None:
    """After ``session_ttl`` the session is gone, and its next use says since when."""
    with mock_pool(session_ttl=0.05, monitor_interval=0.02) as pool:
        tenant = pool.session_adapter("tenant")
        tenant.create_program("qa", SIGNATURE)
        wait_until(lambda: pool.snapshot().active_sessions == 0, "the session has expired")
        with pytest.raises(SessionExpiredError, match="tenant"):
            tenant.execute_program("qa", {"context": "c", "question": "q"})


def test_session_too_many_is_refused_and_harms_no_other() -> None:
    """Beyond ``max_sessions`` a new session is refused by name; those that live go on."""
    with mock_pool(max_sessions=1) as pool:
        first, second = pool.session_adapter("first"), pool.session_adapter("second")
        first.create_program("qa", SIGNATURE)
        with pytest.raises(SessionLimitError):
            second.create_program("qa", SIGNATURE)
        assert first.list_programs()["total_count"] == 1


def test_strict_session_hears_that_its_worker_is_gone() -> None:
    """What keeps state in the worker's memory is told of its loss, and is never sent to an empty process."""
    with echo_pool() as pool:

        def strict_pid() -> int:
            return int(pool.call("tenant", "process", affinity="strict").result["pid"])

        pid = strict_pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pool.run(_pids) not in ([pid], []), "another worker is there")
        with pytest.raises(SessionLostError, match="tenant"):
            strict_pid()
        pool.session_adapter("tenant").cleanup_session()
        assert strict_pid() != pid


# --- what is sent and what comes back ---------------------------------------------------------------------------


def test_rate_limit_of_a_provider_is_told_and_waited_for() -> None:
    """Status, code and the provider's own delay are facts of the error; an idempotent call waits and tries again."""
    with SyncPool(pool_size=1, allow=(RATE_LIMITED,)) as pool:
        tenant = pool.session_adapter("tenant")
        tenant.configure_lm(model="script/limited", engine=f"{RATE_LIMITED}:RateLimitedEngine")
        tenant.create_program("qa", "question -> answer")
        args = {"program_id": "qa", "inputs": {"question": "?"}}
        with pytest.raises(ProgramError, match="slow down") as info:
            pool.call("tenant", "execute_program", args, retries=2, idempotent=True)
        error = info.value
        assert (error.status, error.code, error.retryable) == (429, "rate_limit", True)
        assert (error.retry_after, error.attempts) == (0.01, 3)


def test_message_too_large_is_refused_on_its_side_and_harms_no_worker() -> None:
    """A request over ``max_frame_bytes`` is not written; an answer over it is a failure with both sizes."""
    with echo_pool(max_frame_bytes=10_000) as pool:
        pid = pid_of(pool)
        with pytest.raises(LocalFrameTooLargeError, match="10000"):
            ask(pool, "echo", {"text": "x" * 20_000})
        with pytest.raises(ProgramError, match="10000"):
            ask(pool, "big", {"bytes": 20_000})
        assert pid_of(pool) == pid


def test_number_that_json_does_not_have_is_named_by_its_place() -> None:
    """NaN in an input is refused before it is sent; NaN in a result is a failure of the program."""
    with mock_pool() as pool:
        pool.create_program("qa", SIGNATURE)
        with pytest.raises(InvalidArgumentError, match=r"inputs\.question is NaN"):
            pool.execute_program("qa", {"context": "c", "question": math.nan})
    with echo_pool() as pool, pytest.raises(ProgramError, match="value is NaN"):
        ask(pool, "nan")


def test_calls_that_fail_in_every_way_leave_a_pool_that_serves() -> None:
    """One outage after the other on the same pool, and after each of them it answers."""
    outages: list[tuple[str, dict[str, Any]]] = [
        ("crash", {"signal": "SIGSEGV"}),
        ("exit", {"code": 1}),
        ("raise_error", {}),
        ("nan", {}),
        ("sleep", {"seconds": 60}),
        ("no_such_command", {}),
    ]
    with echo_pool(pool_size=2) as pool:
        for number, (command, args) in zip(itertools.count(), outages, strict=False):
            with pytest.raises((WorkerError, ProgramError, InvalidArgumentError)):
                ask(pool, command, args, timeout=0.2)
            assert ask(pool, "echo", {"number": number}) == {"number": number}
