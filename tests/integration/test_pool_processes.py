"""The pool over real processes: deaths, hangs and hygiene while it serves."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import trio

from dspex_pool.errors import CallTimeoutError, RemoteProtocolError, WorkerDiedError
from tests.bounded_waits import has_ended, until
from tests.integration.worker_pools import is_gone, open_pool

if TYPE_CHECKING:
    from pathlib import Path

    from dspex_pool.worker_pool import WorkerPool

pytestmark = [pytest.mark.integration, pytest.mark.trio]


async def ask(pool: WorkerPool, command: str, args: dict[str, Any] | None = None, **options: Any) -> Any:
    """Run one command on any worker."""
    async with pool.checkout() as lease:
        return await lease.request(command, args, **options)


async def pid_of_any(pool: WorkerPool) -> int:
    """Return the process id of the worker that is lent next."""
    pid: int = (await ask(pool, "process"))["pid"]
    return pid


def steady(pool: WorkerPool, size: int) -> bool:
    """Tell whether all workers are idle."""
    return pool.statistics().idle == size and pool.statistics().processes == size


# --- parallelism --------------------------------------------------------------------------------------------


async def test_callers_share_the_workers_without_losing_time() -> None:
    """64 callers with commands of 50 ms on 4 workers take within 10 % of the ideal."""
    # Measuring coverage slows down what is measured, on both sides of the pipe.
    most = 1.10 if "coverage" not in sys.modules else 2.0
    tries = []
    async with open_pool(pool_size=4) as pool:
        await pool.wait_ready(4)
        # The machine may be busy with other things; what the pool adds is in every try.
        for _ in range(5):
            began = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for _ in range(64):
                    nursery.start_soon(ask, pool, "sleep", {"seconds": 0.05})
            tries.append((time.perf_counter() - began) / (64 / 4 * 0.05))
            if tries[-1] <= most:
                return
    pytest.fail(f"times the ideal: {tries}")


async def test_slow_command_delays_nobody_on_other_workers() -> None:
    """One command of 5 s does not stand at the head of anybody's line."""
    async with open_pool(pool_size=2) as pool:
        await pool.wait_ready(2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, pool, "sleep", {"seconds": 5})
            await until(lambda: pool.statistics().leased == 1, "the slow command began")
            with trio.fail_after(4.0):
                for number in range(100):
                    assert await ask(pool, "echo", {"n": number}) == {"n": number}
            nursery.cancel_scope.cancel()


# --- time-outs and cancellation -----------------------------------------------------------------------------


async def test_timeout_frees_the_caller_at_once_and_keeps_the_worker() -> None:
    """A command that sleeps 60 s in Python is stopped; the same process serves again at once. [property 50]"""
    async with open_pool() as pool:
        pid = await pid_of_any(pool)
        began = time.perf_counter()
        with pytest.raises(CallTimeoutError):
            await ask(pool, "sleep", {"seconds": 60}, timeout=0.5)
        assert time.perf_counter() - began < 0.6
        freed = time.perf_counter()
        assert await pid_of_any(pool) == pid
        assert time.perf_counter() - freed < 0.5


async def test_worker_that_cannot_be_interrupted_is_replaced() -> None:
    """A command that hears no signal, because it is stuck in C, costs its worker, not the caller. [property 9]"""
    async with open_pool(cancel_grace=0.3) as pool:
        pid = await pid_of_any(pool)
        with pytest.raises(CallTimeoutError):
            await ask(pool, "hang_in_c", timeout=0.2)
        assert await pid_of_any(pool) != pid
        assert is_gone(pid)


async def test_stopped_process_holds_no_caller() -> None:
    """A cancelled caller leaves a stopped process at once; the process is replaced. [property 9]"""
    async with open_pool(cancel_grace=0.3) as pool:
        pid = await pid_of_any(pool)
        began = time.perf_counter()
        with trio.move_on_after(0.2):
            async with pool.checkout() as lease:
                os.kill(pid, signal.SIGSTOP)
                await lease.request("echo", {})
        assert time.perf_counter() - began < 1.0
        assert await pid_of_any(pool) != pid


async def test_cancelled_callers_never_read_anothers_answer() -> None:
    """After any mix of cancelled calls, each answer belongs to its own request. [property 50]"""
    async with open_pool(pool_size=2) as pool:

        async def caller(number: int) -> None:
            with trio.move_on_after(0.002 * (number % 5) or 10):
                assert await ask(pool, "echo", {"n": number, "pad": "x" * 1000}) == {
                    "n": number,
                    "pad": "x" * 1000,
                }

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(caller, number)
        await until(lambda: steady(pool, 2), "all workers came back")


async def test_caller_cancelled_within_a_frame_costs_the_worker() -> None:
    """Half a frame can never be made whole: the worker is retired and replaced. [property 49]"""
    async with open_pool() as pool:
        pid = await pid_of_any(pool)
        os.kill(pid, signal.SIGSTOP)
        with trio.move_on_after(0.2):
            # Far more than a pipe holds, to a process that does not read.
            await ask(pool, "echo", {"data": "x" * (16 * 1024 * 1024)})
        assert await pid_of_any(pool) != pid


# --- deaths -----------------------------------------------------------------------------------------------


async def test_death_during_a_call_is_told_with_its_cause_and_not_retried() -> None:
    """The caller hears of the signal and that the request was sent; nobody runs it again. [property 56]"""
    async with open_pool() as pool:
        with pytest.raises(WorkerDiedError) as caught:
            await ask(pool, "crash", {"signal": "SIGSEGV"})
        assert caught.value.signal == signal.SIGSEGV
        assert caught.value.request_sent is True
        assert caught.value.request_read in (True, None)
        assert await ask(pool, "echo", {"a": 1}) == {"a": 1}
        assert pool.statistics().counters.granted == 2


async def test_death_while_idle_is_noticed_whoever_used_it_last() -> None:
    """An idle worker that is killed is reaped and replaced without any traffic. [property 57]"""
    async with open_pool(pool_size=2) as pool:
        await pool.wait_ready(2)
        pid = await pid_of_any(pool)
        os.kill(pid, signal.SIGKILL)
        # Before the pool has noticed anything, all is steady as well.
        await until(lambda: pool.statistics().counters.reaped == 1, "the dead worker was noticed")
        await until(lambda: is_gone(pid) and steady(pool, 2), "the dead worker was replaced")


@pytest.mark.parametrize("state", ["idle", "leased", "draining"])
async def test_pool_is_whole_again_after_a_kill(state: str) -> None:
    """A worker killed in any state is replaced; nothing is counted twice or lost. [property 35]"""
    async with open_pool(pool_size=2, cancel_grace=5.0) as pool:
        await pool.wait_ready(2)
        pid = await pid_of_any(pool)
        if state == "draining":
            with pytest.raises(CallTimeoutError):
                await ask(pool, "shielded", {"seconds": 30}, timeout=0.1)
        if state == "leased":
            async with pool.checkout() as lease:
                os.kill(pid, signal.SIGKILL)
                with pytest.raises(WorkerDiedError):
                    await lease.request("sleep", {"seconds": 30})
        else:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: pool.statistics().counters.reaped == 1, "the dead worker was noticed")
        await until(lambda: is_gone(pid) and steady(pool, 2), "the pool was whole again")


async def test_kill_of_one_worker_blocks_no_other() -> None:
    """Workers share no pipe and no lock: one killed in the middle of an answer hurts nobody. [property 104]"""
    async with open_pool(pool_size=2) as pool:
        await pool.wait_ready(2)
        async with pool.checkout() as victim, pool.checkout() as other, trio.open_nursery() as nursery:
            pid = victim.worker.port.pid
            assert pid is not None

            async def work() -> None:
                while True:
                    await victim.request("big", {"bytes": 4_000_000})

            async def be_killed() -> None:
                with pytest.raises(WorkerDiedError):
                    await work()

            nursery.start_soon(be_killed)
            for number in range(50):
                assert await other.request("echo", {"n": number}) == {"n": number}
            os.kill(pid, signal.SIGKILL)
            for number in range(50):
                assert await other.request("echo", {"n": number}) == {"n": number}


async def test_slot_is_free_only_when_its_process_is_reaped() -> None:
    """While an old process takes its time to leave, no new one is started beside it. [property 27]"""
    most = 0
    async with open_pool(pool_size=2, terminate_grace=1.0) as pool:

        def look(*_: object) -> None:
            nonlocal most
            alive = [worker for worker in pool.workers() if not is_gone(worker.port.pid or 0)]
            most = max(most, len(alive))

        pool.telemetry.attach((), look)
        await pool.wait_ready(2)
        for _ in range(2):
            async with pool.checkout() as lease:
                await lease.request("block_signals", {})
                lease.retire()
        await until(lambda: steady(pool, 2), "both workers were replaced")
    assert most == 2


# --- hygiene ----------------------------------------------------------------------------------------------


async def test_output_of_any_kind_never_reaches_the_frames() -> None:
    """Prints of Python, of C and of a grandchild go to stderr; answers stay whole. [property 59]"""
    async with open_pool() as pool, pool.checkout() as lease:
        for command in ("print_python", "print_c", "print_fd"):
            await lease.request(command, {"text": f"by {command}"})
        grandchild = (await lease.request("spawn_grandchild", {"text": "by a grandchild"}))["pid"]
        assert await lease.request("echo", {"a": 1}) == {"a": 1}
        await until(lambda: "by a grandchild" in lease.worker.port.stderr_tail, "the grandchild printed")
        for command in ("print_python", "print_fd"):
            assert f"by {command}" in lease.worker.port.stderr_tail
    await until(lambda: has_ended(grandchild), "the grandchild ended with its worker")


async def test_stderr_flood_neither_blocks_nor_fills_memory() -> None:
    """100 MB of stderr pass by; the tail is kept, memory is not. [property 106]"""
    async with open_pool() as pool, pool.checkout() as lease:
        before = psutil.Process().memory_info().rss
        await lease.request("flood_stderr", {"bytes": 100_000_000})
        assert psutil.Process().memory_info().rss - before < 30_000_000
        assert 0 < len(lease.worker.port.stderr_tail) <= 70_000


WRONG_STREAMS = {
    "not JSON": "b'\\0\\0\\0\\4oops'",
    "over the limit": "b'Traceback (most recent call last)'",
    "cut short": "b'\\0\\0\\1\\0half'",
}


@pytest.mark.parametrize("wrong", WRONG_STREAMS)
async def test_broken_stream_is_reported_and_the_pool_goes_on(wrong: str, tmp_path: Path) -> None:
    """A frame that is cut, too long or no JSON costs one call and one worker, which is named. [property 58]"""
    script = tmp_path / "worker.py"
    script.write_text(_WORKER_THAT_GOES_WRONG.replace("WRONG", WRONG_STREAMS[wrong]))
    flag = tmp_path / "went_wrong"
    async with open_pool(command=[sys.executable, "-I", str(script), str(flag)]) as pool:
        with pytest.raises((RemoteProtocolError, WorkerDiedError)) as caught:
            await ask(pool, "echo", {"a": 1})
        assert caught.value.worker_id == "w-1"
        assert await ask(pool, "echo", {"a": 2}) == {"a": 2}


#: A worker of the standard library alone. The first of its kind answers its first command with rubbish.
_WORKER_THAT_GOES_WRONG = """
import json, os, struct, sys
flag = sys.argv[1]
def read(n):
    data = b""
    while len(data) < n:
        more = os.read(0, n - len(data))
        if not more:
            sys.exit(0)
        data += more
    return data
while True:
    request = json.loads(read(struct.unpack(">I", read(4))[0]))
    if request["command"] == "echo" and not os.path.exists(flag):
        open(flag, "w").close()
        os.write(1, WRONG)
        sys.exit(0)
    result = request["args"] if request["command"] == "echo" else {"status": "ok"}
    answer = json.dumps({"id": request["id"], "success": True, "result": result, "timestamp": 0}).encode()
    os.write(1, struct.pack(">I", len(answer)) + answer)
"""


async def test_every_exit_is_reaped_while_the_pool_lives_on() -> None:
    """No zombie stays behind, however a worker ends. [property 107]"""
    async with open_pool() as pool:
        for code in (0, 3):
            with pytest.raises(WorkerDiedError):
                await ask(pool, "exit", {"code": code})
        await until(lambda: steady(pool, 1), "the worker was replaced")
        zombies = [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE]
        assert zombies == []
