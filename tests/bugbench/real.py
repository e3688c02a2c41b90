"""Finder: real processes, for what only they show."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import pytest
import trio

from dspex_pool.errors import DspexPoolError, WorkerDiedError
from dspex_pool.transport.subprocess import SubprocessOptions, SubprocessPortFactory
from dspex_pool.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TRIES", "play"]

TRIES: Final = 1
COMMAND: Final = (
    sys.executable, "-m", "dspex_pool.bridge", "--handler", "dspex_testkit.children.echo:EchoHandler",
)  # fmt: skip
#: Seconds for the whole story; the longest part of it is a worker that does not want to leave.
PATIENCE: Final = 20.0


def play(number: int) -> int:
    """Play the story once; raises what is wrong, and leaves no process."""
    with _nothing_left():
        trio.run(_story)
    return 1


@contextlib.contextmanager
def _nothing_left() -> Iterator[None]:
    own = psutil.Process()
    before, files = set(own.children(recursive=True)), len([*Path("/proc/self/fd").iterdir()])
    strays: list[psutil.Process] = []
    _STARTED.clear()
    try:
        yield
        left = [*(set(own.children(recursive=True)) - before), *filter(_is_alive, _STARTED)]
        assert not left, f"processes are left: {left}"
        open_files = len([*Path("/proc/self/fd").iterdir()])
        assert open_files <= files, f"{open_files - files} descriptors are left open"
    finally:
        strays = list(set(own.children(recursive=True)) - before)
        strays += [psutil.Process(pid) for pid in _STARTED if _is_alive(pid)]
        for stray in strays:
            with contextlib.suppress(psutil.Error):
                stray.kill()
        psutil.wait_procs(strays, timeout=1.0)


def _is_alive(pid: int) -> bool:
    try:
        # An orphan that has ended is reaped by whoever took it over, when that one likes.
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


#: Grandchildren that the story has had started.
_STARTED: Final[list[int]] = []


async def _story() -> None:
    ports = SubprocessPortFactory(SubprocessOptions(command=COMMAND))
    pool = WorkerPool(
        ports, pool_size=2, max_starting=2, terminate_grace=1.0, close_timeout=8.0, cancel_grace=1.0
    )
    with trio.fail_after(PATIENCE):
        async with pool:
            await pool.wait_ready(2)
            await _ask(pool, "echo", {"a": 1}, {"a": 1})
            await _ask(pool, "big", {"bytes": 300_000}, {"data": "x" * 300_000})
            await _ask(pool, "flood_stderr", {"bytes": 400_000}, None)
            await _die_while_lent(pool)
            await _die_idle(pool)
            await _grandchild(pool)
            await _be_stubborn(pool)
            began = trio.current_time()
        assert trio.current_time() - began < 6.0, "closing took too long"


async def _ask(pool: WorkerPool, command: str, args: dict[str, Any], answer: object) -> None:
    async with pool.checkout() as lease:
        got = await lease.request(command, args, timeout=5.0)
        assert got == answer, f"{command} is answered by {str(got)[:80]}"


async def _die_while_lent(pool: WorkerPool) -> None:
    async with pool.checkout() as lease:
        await lease.request("flood_stderr", {"bytes": 100}, timeout=5.0)
        with pytest.raises(WorkerDiedError) as caught:
            await lease.request("crash", {}, timeout=5.0)
    died = caught.value
    assert died.signal == signal.SIGKILL, f"killed, it is said to have ended by {died.signal}"
    assert died.stderr_tail, "its last words are lost"
    await pool.wait_ready(2)


async def _die_idle(pool: WorkerPool) -> None:
    pid = pool.workers()[0].port.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with trio.fail_after(5.0):
        while any(worker.port.pid == pid for worker in pool.workers()):
            await trio.sleep(0.01)
        await pool.wait_ready(2)
    assert not Path(f"/proc/{pid}").exists(), "the dead worker is a zombie"


async def _grandchild(pool: WorkerPool) -> None:
    async with pool.checkout() as lease:
        _STARTED.append(
            (await lease.request("spawn_grandchild", {"text": "", "seconds": 60}, timeout=5.0))["pid"]
        )


async def _be_stubborn(pool: WorkerPool) -> None:
    """Have a worker that hears no signal and is busy when the pool closes."""
    with contextlib.suppress(DspexPoolError):
        async with pool.checkout() as lease:
            await lease.request("block_signals", {}, timeout=5.0)
            await lease.request("hang_in_c", {}, timeout=0.2)
