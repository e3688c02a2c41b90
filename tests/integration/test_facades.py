"""The facades on real workers: cancellation, timeouts, threads, Ctrl-C, forks, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dspex_pool.errors import (
    CallTimeoutError,
    CheckoutTimeoutError,
    PoolClosedError,
    ProgramError,
    WorkerDiedError,
    WorkerStartError,
)
from dspex_pool.facades import AsyncioPool, SyncPool
from tests.bounded_waits import has_ended, wait_until

pytestmark = pytest.mark.integration

LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="Linux alone forks templates and adopts orphans at will"
)

ROOT = Path(__file__).resolve().parents[2]
ECHO = "dspex_testkit.children.echo:EchoHandler"
FACTS = "The Nile flows north through eleven countries. It reaches the sea in Egypt."


def sync_pool(**settings: Any) -> SyncPool:
    """Return a pool of two workers without DSPy, not open yet."""
    return SyncPool(**{"pool_size": 2, "handler": ECHO, **settings})


def asyncio_pool(**settings: Any) -> AsyncioPool:
    """Return the same for asyncio."""
    return AsyncioPool(**{"pool_size": 2, "handler": ECHO, **settings})


def pid_of(pool: SyncPool) -> int:
    """Return the process id of a worker."""
    return int(pool.execute_anonymous("process").result["pid"])


# --- the blocking facade ---------------------------------------------------------------------------------


def test_sync_pool_runs_dspy_programs() -> None:
    """A program of one session answers on a real DSPy worker."""
    with SyncPool(pool_size=1) as pool:
        tenant = pool.session_adapter("tenant")
        tenant.configure_lm(model="dspex/extractive")
        tenant.create_program("qa", "context, question -> answer")
        reply = tenant.execute_program("qa", {"context": FACTS, "question": "Where does it reach the sea?"})
        assert reply["outputs"] == {"answer": "It reaches the sea in Egypt."}


def test_call_that_times_out_keeps_its_worker() -> None:
    """The caller is free when its time is over; the same process answers the next call."""
    with sync_pool(pool_size=1) as pool:
        pid = pid_of(pool)
        began = time.monotonic()
        with pytest.raises(CallTimeoutError, match=r"'sleep' within 0\.2 s"):
            pool.execute_anonymous("sleep", {"seconds": 60}, timeout=0.2)
        assert time.monotonic() - began < 1.0
        assert pid_of(pool) == pid


def test_many_threads_share_few_workers() -> None:
    """Sixteen threads on two workers: every thread reads its own answers, and the work is shared."""
    with sync_pool() as pool, ThreadPoolExecutor(16) as threads:
        pool.wait_ready(2)

        def ask(number: int) -> int:
            reply = pool.execute_anonymous("echo", {"number": number})
            assert reply.result["number"] == number
            return number

        assert list(threads.map(ask, range(200))) == list(range(200))
        sleeps = [
            threads.submit(pool.execute_anonymous, "sleep", {"seconds": 0.3}, timeout=5) for _ in range(4)
        ]
        began = time.monotonic()
        assert {sleep.result().worker_id for sleep in sleeps} == {"w-1", "w-2"}
        assert time.monotonic() - began < 1.1


def test_worker_that_dies_is_told_to_its_caller_and_replaced() -> None:
    """A segmentation fault costs one call; the next one is answered."""
    with sync_pool(pool_size=1) as pool:
        with pytest.raises(WorkerDiedError) as info:
            pool.execute_anonymous("crash", {"signal": "SIGSEGV"})
        assert info.value.signal == signal.SIGSEGV
        assert pool.execute_anonymous("echo", {"a": 1}).result == {"a": 1}
        with pytest.raises(ProgramError, match="as asked"):
            pool.execute_anonymous("raise_error")


def test_pool_that_is_busy_says_who_holds_it() -> None:
    """A thread that waits in vain hears which worker was held, and for how long."""
    with sync_pool(pool_size=1, checkout_timeout=0.2) as pool, ThreadPoolExecutor(1) as threads:
        pool.wait_ready()
        busy = threads.submit(pool.execute_anonymous, "sleep", {"seconds": 0.8})
        while not pool.statistics().leased:
            time.sleep(0.01)
        with pytest.raises(CheckoutTimeoutError, match="all workers busy") as info:
            pool.ping()
        assert "w-1" in info.value.holders[0]
        busy.result()


def test_workers_that_cannot_start_are_reported_when_the_caller_asks() -> None:
    """A command that does not exist is an error with its name, and nothing is left."""
    with (
        sync_pool(handler=None, command=("no-such-program",)) as pool,
        pytest.raises(WorkerStartError) as info,
    ):
        pool.wait_ready(fail_fast=True)
    assert "no-such-program" in str(info.value)


def test_closing_ends_the_call_of_another_thread() -> None:
    """A thread whose worker never comes back does not keep the pool from closing, and hears of it."""
    with ThreadPoolExecutor(1) as threads:
        with sync_pool(pool_size=1, terminate_grace=0.2) as pool:
            pid = pid_of(pool)
            stuck = threads.submit(pool.execute_anonymous, "sleep", {"seconds": 60})
            while not pool.statistics().leased:
                time.sleep(0.01)
        assert isinstance(stuck.exception(5), (WorkerDiedError, PoolClosedError))
        assert has_ended(pid)


#: Prints its workers, then waits in a call until it is interrupted, and goes on.
INTERRUPTED = f"""
from dspex_pool import SyncPool

with SyncPool(pool_size=2, handler={ECHO!r}) as pool:
    pool.wait_ready(2)
    before = pool.execute_anonymous("process").result["pid"]
    print("ready", flush=True)
    try:
        told = lambda event: print("asleep", flush=True)
        pool.execute_anonymous("announce_and_sleep", {{"seconds": 60}}, on_event=told)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    while pool.statistics().draining:
        pass
    print("ready again:", pool.statistics().ready, "replaced:", pool.statistics().counters.reaped)
"""


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a program of its own that can import the pool."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def test_ctrl_c_leaves_the_call_and_not_the_pool() -> None:
    """SIGINT to the program raises KeyboardInterrupt in the waiting call; the workers stay as they are."""
    with python(INTERRUPTED) as program:
        assert program.stdout is not None
        assert [program.stdout.readline() for _ in range(2)] == ["ready\n", "asleep\n"]
        program.send_signal(signal.SIGINT)
        output, errors = program.communicate(timeout=10)
    assert output.splitlines() == ["interrupted", "ready again: 2 replaced: 0"], errors
    assert (program.returncode, errors) == (0, "")


#: Opens a pool, never closes it, and ends as it is told to.
UNCLOSED = f"""
import os, sys
from dspex_pool import SyncPool


async def pids(pool):
    return [worker.port.pid for worker in pool.sessions.workers.workers()]


pool = SyncPool(pool_size=2, handler={ECHO!r}).open()
pool.wait_ready(2)
print(*pool.run(pids), flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("end", ["falls off its end", "killed"])
def test_program_that_never_closes_its_pool_leaves_no_worker(end: str) -> None:
    """The pool's thread keeps no program alive, and no worker outlives it."""
    with python(UNCLOSED, end) as program:
        assert program.stdout is not None
        pids = [int(pid) for pid in program.stdout.readline().split()]
        program.communicate(timeout=10)
    assert program.returncode == (-signal.SIGKILL if end == "killed" else 0)
    assert len(pids) == 2
    wait_until(lambda: all(map(has_ended, pids)), "no worker is left")


#: Forks while a pool is open; the child uses the parent's pool, then one of its own.
FORKED = f"""
import os, sys, warnings
from dspex_pool import SyncPool
from dspex_pool.errors import PoolClosedError

warnings.simplefilter("ignore", DeprecationWarning)
with SyncPool(pool_size=1, handler={ECHO!r}) as pool:
    pool.wait_ready()
    child = os.fork()
    if child == 0:
        try:
            pool.ping()
        except PoolClosedError as error:
            print("child:", error, flush=True)
        pool.close()
        with SyncPool(pool_size=1, handler={ECHO!r}) as own:
            print("child:", own.ping()["status"], flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print("parent:", pool.ping()["status"])
"""


def test_forked_child_is_refused_and_does_no_harm() -> None:
    """In a forked child the pool says whose it is; closing it there closes nothing, and a new one works."""
    with python(FORKED) as program:
        output, errors = program.communicate(timeout=15)
    lines = output.splitlines()
    assert f"belongs to process {program.pid}" in lines[0], errors
    assert lines[1:] == ["child: ok", "parent: ok"]
    assert (program.returncode, errors) == (0, "")


#: Is killed while a process that ``multiprocessing`` has forked from it runs on.
KILLED_BESIDE_A_FORK = f"""
import multiprocessing, os, psutil, sys, time, warnings
from dspex_pool import SyncPool

warnings.simplefilter("ignore", DeprecationWarning)
pool = SyncPool(pool_size=2, handler={ECHO!r}, start_method=sys.argv[1]).open()
pool.wait_ready(2)
started = psutil.Process().children(recursive=True)
fork = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
fork.start()
print(fork.pid, *[process.pid for process in started], flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("start_method", ["spawn", pytest.param("template", marks=LINUX)])
def test_fork_that_outlives_the_program_keeps_no_worker_alive(start_method: str) -> None:
    """Workers leave with their program also while a fork of it runs on.

    The fork held the pool's ends of their pipes, so their stdin never ended: they stayed as long as the fork did.
    """
    with python(KILLED_BESIDE_A_FORK, start_method) as program:
        assert program.stdout is not None
        fork, *pids = [int(pid) for pid in program.stdout.readline().split()]
        try:
            program.wait(timeout=10)
            assert len(pids) == (2 if start_method == "spawn" else 3)
            wait_until(lambda: all(map(has_ended, pids)), "no worker and no template is left")
            assert not has_ended(fork)
        finally:
            os.kill(fork, signal.SIGKILL)


#: Uses a handler that lies beside it.
WITH_A_NEIGHBOUR = """
import sys
from dspex_pool import SyncPool

with SyncPool(pool_size=1, handler="neighbour:Neighbour", start_method=sys.argv[1]) as pool:
    pool.wait_ready(fail_fast=True)
    print(pool.execute_anonymous("greet").result, pool.execute_anonymous("variables").result)
"""

NEIGHBOUR = """
import os
from dspex_pool.bridge.handler import Handler, command


class Neighbour(Handler):
    @command
    def greet(self, args):
        return "good day"

    @command
    def variables(self, args):
        return [name for name in os.environ if name.startswith("DSPEX_WORKER_")]
"""


@pytest.mark.parametrize("start_method", ["spawn", pytest.param("template", marks=LINUX)])
def test_workers_find_what_their_program_finds(start_method: str, tmp_path: Path) -> None:
    """A handler beside the program's own file is found from any folder, as ``multiprocessing`` would find it.

    Workers looked in their working directory, not in that of the program's file.
    """
    program, elsewhere = tmp_path / "program.py", tmp_path / "elsewhere"
    program.write_text(WITH_A_NEIGHBOUR)
    (tmp_path / "neighbour.py").write_text(NEIGHBOUR)
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(program), start_method]
    ran = subprocess.run(
        command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.stdout, ran.stderr) == ("good day []\n", "")


#: Adopts orphans, as the first process of a container does; loses a worker and, last, the rest of the pool.
ADOPTING = f"""
import ctypes, psutil, sys
from dspex_pool import SyncPool
from dspex_pool.errors import WorkerDiedError

PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
own = psutil.Process()
with SyncPool(pool_size=1, handler={ECHO!r}, start_method=sys.argv[1]) as pool:
    for lives in range(2):
        started = [pool.execute_anonymous("spawn_grandchild", dict(stubborn=True)).result["pid"] for _ in range(2)]
        if lives:
            break
        if sys.argv[1] == "template":
            psutil.Process(own.children()[0].pid).kill()
        try:
            pool.execute_anonymous("exit", dict(status=3))
        except WorkerDiedError:
            pool.wait_ready()
        print([child.pid for child in own.children() if child.pid in started], flush=True)
print([(child.name(), child.status()) for child in own.children(recursive=True)], flush=True)
"""


@LINUX
@pytest.mark.parametrize("start_method", ["spawn", "template"])
def test_program_that_adopts_orphans_keeps_no_zombie(start_method: str) -> None:
    """In a container whose first process has the pool, what workers leave behind is reaped too.

    It was killed with the group of its worker, became a child of the pool's process, and stayed a zombie for ever.
    """
    with python(ADOPTING, start_method) as program:
        output, errors = program.communicate(timeout=60)
    assert output.splitlines() == ["[]", "[]"], errors


#: Blocks every signal and ignores SIGCHLD, as it hands on to what it starts; has a call time out, and a worker end.
DEAF = f"""
import signal, sys
from dspex_pool import SyncPool
from dspex_pool.errors import CallTimeoutError, WorkerDiedError

signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
with SyncPool(pool_size=1, handler={ECHO!r}, start_method=sys.argv[1]) as pool:
    before = pool.execute_anonymous("process").result["pid"]
    try:
        pool.execute_anonymous("sleep", dict(seconds=60), timeout=0.2)
    except CallTimeoutError:
        print("same worker:", pool.execute_anonymous("process").result["pid"] == before)
    try:
        pool.execute_anonymous("exit", dict(code=3))
    except WorkerDiedError as error:
        print(error.exit_status)
"""


@pytest.mark.parametrize(
    ("start_method", "told"), [("spawn", None), pytest.param("template", 3, marks=LINUX)]
)
def test_workers_hear_the_signals_that_their_program_does_not(start_method: str, told: int | None) -> None:
    """Each call that was stopped cost its worker; a template could not tell how its workers had ended.

    A program that ignores SIGCHLD itself is told nothing of its own children.
    """
    with python(DEAF, start_method) as program:
        output, errors = program.communicate(timeout=60)
    assert output.splitlines() == ["same worker: True", str(told)], errors


# --- asyncio -----------------------------------------------------------------------------------------------


def test_asyncio_pool_runs_dspy_programs() -> None:
    """Programs of two sessions run side by side on real DSPy workers."""

    async def main() -> list[str]:
        async with AsyncioPool(pool_size=2) as pool:
            await pool.configure_lm(model="dspex/extractive")
            tenants = [pool.session_adapter(name) for name in ("a", "b")]
            for tenant in tenants:
                await tenant.create_program("qa", "context, question -> answer")
            inputs = {"context": FACTS, "question": "Where does it reach the sea?"}
            replies = await asyncio.gather(*(tenant.execute_program("qa", inputs) for tenant in tenants))
            return [reply["outputs"]["answer"] for reply in replies]

    assert asyncio.run(main()) == ["It reaches the sea in Egypt."] * 2


def test_cancelled_task_leaves_its_worker_in_the_pools_care() -> None:
    """A task that gives up is free at once; the same process, asked to stop, answers the next call."""

    async def main() -> None:
        async with asyncio_pool(pool_size=1) as pool:
            pid = (await pool.execute_anonymous("process")).result["pid"]
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await pool.execute_anonymous("sleep", {"seconds": 60})
            assert time.monotonic() - began < 0.6
            assert (await pool.execute_anonymous("process")).result["pid"] == pid

    asyncio.run(main())


def test_command_that_blocks_every_signal_is_replaced() -> None:
    """A task may leave a command that hangs in C; its worker is killed after the grace, and another one serves."""

    async def main() -> None:
        async with asyncio_pool(pool_size=1, cancel_grace=0.2) as pool:
            pid = (await pool.execute_anonymous("process")).result["pid"]
            with pytest.raises(CallTimeoutError):
                await pool.execute_anonymous("hang_in_c", timeout=0.2)
            assert (await pool.execute_anonymous("process")).result["pid"] != pid
            assert has_ended(pid)

    asyncio.run(main())


def test_asyncio_loop_turns_while_calls_wait() -> None:
    """Waiting for the pool costs the loop no time: other tasks run meanwhile."""

    async def main() -> int:
        turns = 0
        async with asyncio_pool() as pool:
            call = asyncio.create_task(pool.execute_anonymous("sleep", {"seconds": 0.3}))
            while not call.done():
                turns += 1
                await asyncio.sleep(0.01)
        return turns

    cpu = time.process_time()
    assert asyncio.run(main()) > 10
    assert time.process_time() - cpu < 0.5


def test_loop_that_ends_cancels_its_calls_and_not_the_pool() -> None:
    """A loop that is closed with a call under way takes nothing along: the next loop is served."""

    async def abandon(pool: AsyncioPool) -> None:
        task = asyncio.create_task(pool.execute_anonymous("sleep", {"seconds": 60}))
        while not (await pool.statistics()).leased:
            await asyncio.sleep(0.01)
        assert not task.done()

    pool = asyncio_pool(pool_size=1)
    asyncio.run(pool.open())
    try:
        asyncio.run(abandon(pool))
        assert asyncio.run(pool.ping(timeout=5))["status"] == "ok"
    finally:
        asyncio.run(pool.aclose())
