"""The pool over real processes: starting, health checks, closing, and the death of the parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import trio

from dspex_pool.errors import CheckoutTimeoutError, PoolClosedError, WorkerStartError
from dspex_pool.worker_pool import WorkerPool
from tests.bounded_waits import has_ended, until
from tests.integration.worker_pools import ECHO, echo_ports, is_gone

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


def children() -> set[int]:
    """Return the process ids of this process's children, zombies included."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


# --- starting ---------------------------------------------------------------------------------------------

BAD_STARTS = {
    "no such program": ["/nowhere/worker"],
    "exits at once": [sys.executable, "-c", "import sys; sys.exit('no licence')"],
    "answers rubbish": [sys.executable, "-c", "print('hello, I am a worker')"],
}


@pytest.mark.trio
@pytest.mark.parametrize("how", BAD_STARTS)
async def test_failed_start_is_told_and_leaves_no_process(how: str) -> None:
    """Whatever goes wrong before the first answer, the process is reaped and the error says what. [property 40]"""
    before = children()
    with trio.fail_after(20), pytest.raises(WorkerStartError) as caught:
        async with WorkerPool(echo_ports(command=BAD_STARTS[how]), pool_size=2) as pool:
            await pool.wait_ready(1, fail_fast=True)
    assert children() <= before
    if how == "exits at once":
        assert "no licence" in str(caught.value)
        assert caught.value.exit_status == 1


@pytest.mark.trio
async def test_block_that_fails_at_its_start_leaves_nothing() -> None:
    """A pool whose first worker cannot start is left without a child and without a task. [property 41]"""
    before = children()
    tasks = trio.lowlevel.current_statistics().tasks_living
    for _ in range(3):
        with pytest.raises(WorkerStartError):
            async with WorkerPool(echo_ports(command=["/nowhere/worker"]), pool_size=1) as pool:
                await pool.wait_ready(1, fail_fast=True)
    assert children() <= before
    assert trio.lowlevel.current_statistics().tasks_living == tasks


@pytest.mark.trio
async def test_start_that_hangs_is_bounded_and_reported_with_its_last_words() -> None:
    """A worker whose import hangs is ended at spawn_timeout; its waiter hears of it. [property 38, 39, 108]"""
    hangs = [
        sys.executable,
        "-c",
        "import sys, time; print('loading', file=sys.stderr, flush=True); time.sleep(60)",
    ]
    before = children()
    async with WorkerPool(echo_ports(command=hangs), pool_size=1, spawn_timeout=0.5, backoff_min=5.0) as pool:
        with pytest.raises(CheckoutTimeoutError) as caught:
            async with pool.checkout(timeout=1.5):
                pass
    assert isinstance(caught.value.last_start_error, WorkerStartError)
    assert "did not answer its first ping within 0.5" in str(caught.value)
    assert "last words: loading" in str(caught.value)
    assert caught.value.last_start_error.stderr_tail == "loading\n"
    assert children() <= before


@pytest.mark.trio
async def test_opening_cancelled_at_any_moment_leaves_no_process() -> None:
    """However far the starts have come when the pool is cancelled, no process survives it. [property 10, 78]"""
    before = children()
    for number in range(12):
        with trio.move_on_after(0.012 * number):
            async with WorkerPool(echo_ports(), pool_size=2) as pool:
                await pool.wait_ready(2)
        assert children() <= before


# --- closing ------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_close_leaves_no_process_pipe_or_task() -> None:
    """After close there is no child, descriptor or task of the pool's. [property 77]"""
    before = children()
    descriptors = psutil.Process().num_fds()
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with WorkerPool(echo_ports(), pool_size=3) as pool:
        await pool.wait_ready(3)
        async with pool.checkout() as lease:
            await lease.request("echo", {})
    assert children() <= before
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert psutil.Process().num_fds() == descriptors
    with pytest.raises(PoolClosedError):
        async with pool.checkout():
            pass


@pytest.mark.trio
@pytest.mark.parametrize("stubborn", ["ignores SIGTERM", "is stopped", "has children", "does not read"])
async def test_close_ends_a_stubborn_worker_and_its_children(stubborn: str) -> None:
    """Whatever a worker does about leaving, it is gone after close, children included. [property 85, 86]"""
    before = children()
    grandchild = 0
    async with WorkerPool(echo_ports(), pool_size=1, terminate_grace=0.6) as pool:
        async with pool.checkout() as lease:
            pid = lease.worker.port.pid
            assert pid is not None
            if stubborn == "has children":
                grandchild = (await lease.request("spawn_grandchild", {"text": "here"}))["pid"]
            await lease.request("block_signals", {})
        if stubborn in ("is stopped", "does not read"):
            os.kill(pid, signal.SIGSTOP)
        if stubborn == "does not read":
            with trio.move_on_after(0.2):
                async with pool.checkout() as lease:
                    await lease.request("echo", {"data": "x" * 8_000_000})
        began = time.perf_counter()
    assert time.perf_counter() - began < 5.0
    assert children() <= before
    await until(lambda: grandchild == 0 or has_ended(grandchild), "the grandchild ended too")


# --- the death of the parent ----------------------------------------------------------------------------------

HOST = f"""
import sys, trio
from dspex_pool import SubprocessOptions, SubprocessPortFactory, WorkerPool

async def use(pool, command, args):
    async with pool.checkout() as lease:
        print(lease.worker.port.pid, flush=True)
        if command == "sleep":
            print((await lease.request("spawn_grandchild", {{"text": "x"}}))["pid"], flush=True)
        await lease.request(command, args)

async def main():
    ports = SubprocessPortFactory(SubprocessOptions(handler={ECHO!r}))
    async with WorkerPool(ports, pool_size=3) as pool, trio.open_nursery() as nursery:
        await pool.wait_ready(3)
        nursery.start_soon(use, pool, "sleep", {{"seconds": 60}})
        nursery.start_soon(use, pool, "hang_in_c", {{}})
        nursery.start_soon(use, pool, "spin", {{"seconds": 60}})

trio.run(main)
"""


def test_workers_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    """kill -9 of the parent ends every worker within 2 s, also one stuck in C, and its grandchildren."""
    script = tmp_path / "host.py"
    script.write_text(HOST)
    host = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    pids: list[int] = []
    try:
        assert host.stdout is not None
        pids = [int(host.stdout.readline()) for _ in range(4)]
        assert not any(is_gone(pid) for pid in pids)
    finally:
        host.kill()
        host.communicate()
    deadline = time.monotonic() + 2.0
    while not all(map(has_ended, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    left: list[Any] = [pid for pid in pids if not has_ended(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []
