"""The pool over real processes where two troubles meet: killed while starting, stuck while closing, nested, noisy."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import trio
import trio.testing

from dspex_pool.errors import WorkerDiedError, WorkerStartError
from dspex_pool.worker_pool import WorkerPool
from tests.bounded_waits import has_ended, until
from tests.integration.worker_pools import ECHO, echo_ports, is_gone, open_pool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dspex_pool.worker import PoolWorker

pytestmark = pytest.mark.integration


def pid_of(worker: PoolWorker) -> int:
    """Return the process id of a worker."""
    assert worker.port.pid is not None
    return worker.port.pid


def steady(pool: WorkerPool, size: int) -> bool:
    """Tell whether all workers are idle."""
    return pool.statistics().idle == size and pool.statistics().processes == size


class Reasons:
    """Remembers why the pool has taken workers out of service."""

    def __init__(self, pool: WorkerPool) -> None:
        self.told: list[tuple[str, object]] = []
        pool.telemetry.attach((), self)

    def __call__(self, event: tuple[str, ...], _: object, metadata: Mapping[str, Any]) -> None:
        if event[-1] in ("checkout_declined", "worker_retiring"):
            self.told.append((event[-1], metadata["reason"]))


# --- killed at a bad moment -------------------------------------------------------------------------------


@pytest.mark.trio
async def test_worker_killed_while_it_starts_is_replaced() -> None:
    """A process that dies before its first answer is reaped; the pool fills up all the same. [property 35]"""
    async with open_pool(pool_size=2) as pool:
        await until(lambda: bool(pool.workers()), "a process exists")
        first = pid_of(pool.workers()[0])
        assert pool.statistics().ready == 0
        os.kill(first, signal.SIGKILL)
        await until(lambda: is_gone(first) and steady(pool, 2), "the pool is whole")
        assert pool.statistics().counters.start_failures == 1


@pytest.mark.trio
@pytest.mark.skipif(sys.platform != "linux", reason="descriptors of other processes are seen in /proc")
async def test_workers_share_no_pipe() -> None:
    """No process but the parent has an end of a worker's pipes, whoever started beside it. [property 104]"""
    async with open_pool(pool_size=4, max_starting=4) as pool:
        await pool.wait_ready(4)
        pipes = [pipes_of(pid_of(worker)) for worker in pool.workers()]
    assert min(map(len, pipes)) >= 3
    assert len(set().union(*pipes)) == sum(map(len, pipes)), "two processes have an end of one pipe"


def pipes_of(pid: int) -> set[str]:
    """Return the names of the pipes that a process has open."""
    names = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    return {name for name in names if name.startswith("pipe:")}


# --- noise ------------------------------------------------------------------------------------------------

#: An honest worker, until it gets SIGUSR1: then it says something that nobody asked for.
TALKATIVE = """
import json, os, signal, struct
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"by the way"))
def read(size):
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            raise SystemExit
        data += more
    return data
while True:
    request = json.loads(read(struct.unpack(">I", read(4))[0]))
    answer = json.dumps({"id": request["id"], "success": True, "result": {}, "timestamp": 0}).encode()
    os.write(1, struct.pack(">I", len(answer)) + answer)
"""


@pytest.mark.trio
@pytest.mark.parametrize("pings", [False, True])
async def test_stray_bytes_of_an_idle_worker_retire_it_and_are_reported(pings: bool) -> None:
    """Whether a caller or a health check meets them, the worker goes, with the reason. [property 59]"""
    settings = {"health_check_interval": 0.2 if pings else None}
    async with open_pool(command=[sys.executable, "-ISc", TALKATIVE], **settings) as pool:
        reasons = Reasons(pool)
        await pool.wait_ready()
        worker = pool.workers()[0]
        os.kill(pid_of(worker), signal.SIGUSR1)
        await until(worker.port.has_unread, "the worker spoke")
        if pings:
            await until(lambda: pool.statistics().counters.reaped == 1, "the worker is retired")
            assert reasons.told[0] in [
                ("worker_retiring", "ping_failed"),
                ("worker_retiring", "protocol_error"),
            ]
        async with pool.checkout() as lease:
            assert lease.worker is not worker
            assert await lease.request("echo", {"n": 1}) == {}
        if not pings:
            assert reasons.told == [
                ("checkout_declined", "unread_bytes"),
                ("worker_retiring", "unread_bytes"),
            ]


@pytest.mark.trio
async def test_last_words_after_a_flood_are_in_the_error() -> None:
    """Of megabytes on stderr the error of a death carries the end, and only so much. [property 106]"""
    async with open_pool() as pool, pool.checkout() as lease:
        await lease.request("flood_stderr", {"bytes": 5_000_000})
        await lease.request("print_fd", {"text": "out of paper\n"})
        with pytest.raises(WorkerDiedError) as caught:
            await lease.request("crash")
    assert caught.value.stderr_tail.endswith("e\nout of paper\n")
    assert len(caught.value.stderr_tail) <= 65_536
    assert "its last words: out of paper" in caught.value.message


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Let this process open no further file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.trio
async def test_worker_comes_back_where_its_memory_cannot_be_measured() -> None:
    """Without a descriptor to read it by, the check-in raised, and the worker stayed lent for ever."""
    async with open_pool(pool_size=1, max_rss_bytes=2**40) as pool:
        await pool.wait_ready()
        with no_descriptor_left():
            async with pool.checkout() as lease:
                assert await lease.request("echo", {"n": 1}) == {"n": 1}
            assert pool.statistics().idle == 1
            assert pool.measure_memory() == {}
        assert list(pool.measure_memory()) == ["w-1"]


@pytest.mark.trio
async def test_worker_that_dies_where_no_descriptor_is_left_gives_its_own_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its pipes were never closed: a module to ask them was imported only then, and could not be opened."""
    async with open_pool(pool_size=1, backoff_min=0.05, backoff_max=0.1) as pool:
        await pool.wait_ready()
        (worker,) = pool.workers()
        before = psutil.Process().num_fds()
        for name in ("fcntl", "termios"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        with no_descriptor_left():
            worker.port.kill()
            with trio.fail_after(5):
                await worker.exited.wait()
        await until(lambda: pool.workers() not in ([], [worker]) and steady(pool, 1), "there is another")
        assert psutil.Process().num_fds() == before


@pytest.mark.trio
async def test_worker_that_outgrows_its_limit_is_replaced_after_its_lease() -> None:
    """The memory of a real process is seen when it comes back, and costs it its place."""
    async with open_pool(max_rss_bytes=150_000_000) as pool:
        reasons = Reasons(pool)
        async with pool.checkout() as lease:
            pid = pid_of(lease.worker)
            await lease.request("hold_memory", {"bytes": 200_000_000})
        await until(lambda: is_gone(pid) and steady(pool, 1), "the worker is replaced")
    assert reasons.told[0] == ("worker_retiring", "max_rss")


# --- nested and interrupted ---------------------------------------------------------------------------------

NESTED = f"""
import sys, trio
from dspex_pool import SubprocessOptions, SubprocessPortFactory, WorkerPool

async def main():
    ports = SubprocessPortFactory(SubprocessOptions(handler={ECHO!r}))
    async with WorkerPool(ports, pool_size=1) as pool:
        await pool.wait_ready()
        print("nested", pool.workers()[0].port.pid, file=sys.stderr, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.trio
async def test_worker_whose_import_starts_a_pool_is_bounded_and_leaves_nothing(tmp_path: Path) -> None:
    """It never answers, so it is ended at ``spawn_timeout``; the error quotes it, its workers end. [property 108]"""
    (tmp_path / "nested.py").write_text(NESTED)
    ports = echo_ports(handler="nested:Handler", env={"PYTHONPATH": str(tmp_path)})
    with (
        trio.fail_after(20),
        pytest.raises(WorkerStartError, match=r"within 4.* s.*Its last words: ") as caught,
    ):
        async with WorkerPool(ports, pool_size=1, spawn_timeout=4.0) as pool:
            await pool.wait_ready(fail_fast=True)
    found = re.search(r"^nested (\d+)$", caught.value.stderr_tail, re.MULTILINE)
    assert found is not None, caught.value.stderr_tail
    await until(lambda: has_ended(int(found[1])), "the nested worker ended")


HOST = f"""
import trio
from dspex_pool import SubprocessOptions, SubprocessPortFactory, WorkerPool

async def main():
    ports = SubprocessPortFactory(SubprocessOptions(handler={ECHO!r}))
    async with WorkerPool(ports, pool_size=2) as pool:
        await pool.wait_ready(2)
        async with pool.checkout() as lease:
            await lease.request("block_signals", {{}})
            print(*[worker.port.pid for worker in pool.workers()], flush=True)
            await lease.request("sleep", {{"seconds": 60}})

trio.run(main)
"""


def test_interrupted_host_ends_its_workers_before_itself() -> None:
    """Ctrl-C closes the pool, also while a command runs that ignores it; nothing is left behind. [property 11]"""
    host = subprocess.Popen(
        [sys.executable, "-c", HOST], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert host.stdout is not None
        pids = [int(pid) for pid in host.stdout.readline().split()]
        host.send_signal(signal.SIGINT)
        _, said = host.communicate(timeout=15)
    finally:
        host.kill()
        host.wait()
    assert len(pids) == 2
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert host.returncode in (1, 130, -signal.SIGINT)
    assert all(map(has_ended, pids))


# --- closing ------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_close_ends_stubborn_grandchildren_of_a_stopped_worker() -> None:
    """What a worker has started goes with it, though it ignores SIGTERM and its parent is stopped. [property 85]"""
    async with open_pool(terminate_grace=0.4) as pool:
        async with pool.checkout() as lease:
            grandchild = (await lease.request("spawn_grandchild", {"stubborn": True}))["pid"]
            await until(lambda: "ready" in lease.worker.port.stderr_tail, "the grandchild runs")
        os.kill(pid_of(pool.workers()[0]), signal.SIGSTOP)
    await until(lambda: has_ended(grandchild), "the grandchild ended")


#: A handler that starts what leaves its group and keeps its stderr.
LEAVING = """
import subprocess
from dspex_pool.bridge.handler import command
from dspex_testkit.children.echo import EchoHandler
class Leaving(EchoHandler):
    @command
    def leave(self, args):
        return {"pid": subprocess.Popen(["sleep", "600"], start_new_session=True).pid}
"""


@pytest.mark.trio
async def test_daemon_that_keeps_stderr_hides_nothing_of_the_end(tmp_path: Path) -> None:
    """Who waited for the news of the end gave up a moment before they came: nobody knew if the request was read."""
    (tmp_path / "leaving.py").write_text(LEAVING)
    ports = echo_ports(handler="leaving:Leaving", cwd=str(tmp_path))
    async with WorkerPool(ports, pool_size=1, health_check_interval=None) as pool, pool.checkout() as lease:
        daemon = (await lease.request("leave"))["pid"]
        try:
            (worker,) = pool.workers()
            os.kill(pid_of(worker), signal.SIGSTOP)
            os.waitid(os.P_PID, pid_of(worker), os.WSTOPPED | os.WNOWAIT)
            with trio.fail_after(15):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_kill_soon, pid_of(worker))
                    with pytest.raises(WorkerDiedError) as caught:
                        await lease.request("echo", {"n": 1})
        finally:
            os.kill(daemon, signal.SIGKILL)
    error = caught.value
    assert (error.signal, error.request_sent, error.request_read) == (signal.SIGKILL, True, False)


async def _kill_soon(pid: int) -> None:
    await trio.testing.wait_all_tasks_blocked()
    os.kill(pid, signal.SIGKILL)
