"""Bugs of the end: of a pool, of a process, and of what hangs on them."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import trio

from dspex_pool import worker_life
from dspex_pool.lifecycle import WorkerState
from dspex_pool.pool_state import PoolState
from dspex_pool.transport.pipes import PipeReader
from dspex_pool.transport.process import WorkerProcess
from dspex_pool.transport.stderr_drain import StderrDrain
from dspex_pool.transport.subprocess import SubprocessPort
from dspex_pool.worker_life import WorkerLife
from dspex_pool.worker_pool import WorkerPool
from tests.bugbench.planting import bug
from tests.bugbench.starting_bugs import without_reason

if TYPE_CHECKING:
    from dspex_pool.transport.port import ExitStatus, Port
    from dspex_pool.worker import PoolWorker
    from tests.bugbench.planting import Planting


@bug("property 78; puddle 1.1.1, 2.0.1, HikariCP 2.4.3, D16")
def close_forgets_starts_in_flight(planting: Planting) -> None:
    """Close, and let those that are just starting come up all the same."""

    def close(self: PoolState, now: float) -> None:
        starting = {n: one for n, one in self.workers.items() if one.state is WorkerState.STARTING}
        self.workers = {n: one for n, one in self.workers.items() if n not in starting}
        original(self, now)
        self.workers |= starting

    def close_now(self: PoolState, now: float) -> None:
        self.close(now)
        for record in list(self.workers.values()):
            if record.state not in (WorkerState.RETIRING, WorkerState.STARTING):
                self._retire(record, "closed", now, polite=False)

    original = planting.replace(PoolState, "close", close)
    planting.replace(PoolState, "close_now", close_now)
    without_reason(planting, "closed")


@bug("property 79; wool #214, asyncpg #290, #299")
def close_waits_for_the_lent(planting: Planting) -> None:
    """Wait at the close until every caller has returned its worker."""

    async def end_all(self: WorkerPool, deadline: float) -> None:
        await self._runner.until(self._is_empty)

    planting.replace(WorkerPool, "_end_all", end_all)


@bug("D20, property 10, 81; asyncpg close, psycopg_pool #784")
def cancelled_close_ends_nobody(planting: Planting) -> None:
    """Give up closing when the caller is cancelled."""

    async def end_all(self: WorkerPool, deadline: float) -> None:
        await trio.lowlevel.checkpoint()
        await original(self, deadline)

    async def kill(self: WorkerLife, worker: PoolWorker) -> None:
        await trio.lowlevel.checkpoint()

    async def end_process(port: Port, exited: trio.Event, *, grace: float) -> None:
        for ask in (port.send_eof, port.terminate, port.kill):
            ask()
            with trio.move_on_after(grace / 2):
                await exited.wait()

    original = planting.replace(WorkerPool, "_end_all", end_all)
    planting.replace(WorkerLife, "_kill", kill)
    planting.replace(worker_life, "end_process", end_process)


@bug("R43, R45, R80; Snakepit 0.13.0, pebble")
def stop_never_escalates(planting: Planting) -> None:
    """Ask a process to leave, and wait for it however long it takes."""

    async def end_process(port: Port, exited: trio.Event, *, grace: float) -> None:
        port.send_eof()
        port.terminate()
        await exited.wait()

    planting.replace(worker_life, "end_process", end_process)


@bug("property 29; D5, PNIO #444")
def end_told_to_nobody(planting: Planting) -> None:
    """Decide that a worker must go, and leave its process running."""

    def end(self: WorkerLife, *, polite: bool) -> None:
        self.care.cancel()

    planting.replace(WorkerLife, "end", end)


@bug("R57, R86, property 85; Snakepit 0.7.6, loky")
def grandchildren_survive(planting: Planting) -> None:
    """Signal the worker alone, and not what it has started."""

    def signal_group(self: WorkerProcess, number: int) -> None:
        self.signal_leader(number)

    planting.replace(WorkerProcess, "signal_group", signal_group)


@bug("R95, property 107; trio-parallel #436, Snakepit 0.9.1")
def zombies_remain(planting: Planting) -> None:
    """Learn that a process has ended, and never reap it."""
    from dspex_pool.transport.port import ExitStatus as Ended

    def end_group_and_reap(self: WorkerProcess) -> ExitStatus:
        if self.exit_status is None:
            self._popen.returncode = 0
            self.exit_status = Ended(code=0)
            os.kill(self.pid, signal.SIGKILL)
        return self.exit_status

    planting.replace(WorkerProcess, "end_group_and_reap", end_group_and_reap)


@bug("R106, property 106; subprocess pipes, npm and git hooks")
def stderr_is_not_read(planting: Planting) -> None:
    """Leave a worker's stderr unread until its pipe is full."""

    async def drain(self: StderrDrain) -> None:
        await trio.sleep_forever()

    planting.replace(StderrDrain, "drain", drain)


@bug("property 77; D10, psycopg_pool #784, D4")
def descriptors_stay_open(planting: Planting) -> None:
    """Keep a dead worker's pipes open."""

    def close(self: SubprocessPort) -> None:
        self._decoder.feed(self._stdout.read_now() or b"")
        self._decoder.feed_eof()
        self._process.close()

    planting.replace(SubprocessPort, "_close", close)


@bug("R107; Snakepit 0.7.6")
def last_words_are_lost(planting: Planting) -> None:
    """Say that a worker died, and not what it wrote before."""

    def take(self: StderrDrain, data: bytes) -> None:
        return None

    planting.replace(StderrDrain, "_take", take)


@bug("R52, property 49; short reads of long answers")
def long_answers_are_cut(planting: Planting) -> None:
    """Take no more of a long answer than one read gives."""

    def read_into_now(self: PipeReader, room: memoryview) -> None:
        original(self, room)

    original = planting.replace(PipeReader, "read_into_now", read_into_now)
