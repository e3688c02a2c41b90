"""What must go on for each fault to have something to happen to, for the tests of the catalogue."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from dspex_pool.errors import DspexPoolError
from dspex_testkit.chaos import catalogue as of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dspex_testkit.chaos.fault import Fault
    from dspex_testkit.chaos.injection import Injection
    from dspex_testkit.ports.handle import PoolHandle

__all__ = ["CASES", "Case"]

Work: TypeAlias = "Callable[[PoolHandle, Injection], Awaitable[None]]"


@dataclass(frozen=True)
class Case:
    """One fault, with what it needs."""

    fault: Fault
    work: Work
    #: How often it must happen; ``None`` for at least once.
    times: int | None = 1

    async def idle_work(self, pool: PoolHandle, injection: Injection) -> None:
        """Do the same work where nothing is injected."""
        if self.work is end_a_worker:
            pool.kill(0)
            await pool.steady()
        else:
            await self.work(pool, injection)


#: Units that a call waits for an answer that may be slow, and for one that is not to come.
PATIENT, IMPATIENT = 100.0, 3.0


def call(command: str = "echo", *, count: int = 1, patience: float = PATIENT, **args: Any) -> Work:
    """Return work that is one call after the other, whatever becomes of them."""

    async def work(pool: PoolHandle, _: Injection) -> None:
        for number in range(count):
            with contextlib.suppress(DspexPoolError):
                await pool.call(command, {"n": number, **args}, timeout=patience * pool.unit)

    return work


async def end_a_worker(pool: PoolHandle, injection: Injection) -> None:
    """Have a worker started, and wait until that has gone wrong."""
    pool.kill(0)
    with contextlib.suppress(AssertionError):
        await injection.until_happened(within=PATIENT * pool.unit)


async def nothing(pool: PoolHandle, _: Injection) -> None:
    """Look on for a moment."""
    await trio.sleep(0.2 * pool.unit)


async def two_frames(pool: PoolHandle, _: Injection) -> None:
    """Have one call that is answered by two frames."""
    with contextlib.suppress(DspexPoolError):
        await pool.call(
            "emit", {"event": "progress", "data": {}}, on_event=print, timeout=PATIENT * pool.unit
        )


#: One case for each fault of pools, with times for a unit of one second.
CASES: tuple[Case, ...] = (
    Case(of.Kill(), nothing),
    Case(of.KillGroup(), nothing),
    Case(of.Terminate(), nothing),
    Case(of.ExitWith(code=7), call()),
    Case(of.ExitAfterReply(), call()),
    Case(of.Stop(seconds=1.0), nothing),
    Case(of.Hang(is_deaf=True), call(patience=IMPATIENT)),
    Case(of.IgnoreSigterm(), call()),
    Case(of.IgnoreInterrupts(), call()),
    Case(of.Grandchild(), call()),
    Case(of.SlowStart(seconds=1.0), end_a_worker),
    Case(of.FailStart(), end_a_worker),
    Case(of.HangStart(seconds=1.0), end_a_worker),
    Case(of.FailHandshake(), end_a_worker),
    Case(of.Latency(seconds=0.5), call()),
    Case(of.Jitter(seconds=0.5), call()),
    Case(of.Bandwidth(bytes_per_second=200.0), call(), times=1),
    Case(of.Slice(size=3), call()),
    Case(of.Coalesce(), two_frames),
    Case(of.LateReply(seconds=2.0), call(patience=IMPATIENT)),
    Case(of.LateRequest(seconds=0.5), call()),
    Case(of.Truncate(size=10), call()),
    Case(of.LostTail(size=3), call(patience=IMPATIENT)),
    Case(of.Drop(), call(patience=IMPATIENT)),
    Case(of.Corrupt(bits=3), call(patience=IMPATIENT)),
    Case(of.CorruptRequest(bits=3), call(patience=IMPATIENT)),
    Case(of.Duplicate(), call(count=2)),
    Case(of.DuplicateRequest(), call(count=2)),
    Case(of.Reorder(), two_frames),
    Case(of.WrongId(), call()),
    Case(of.Oversize(), call()),
    Case(of.NegativeLength(), call()),
    Case(of.ZeroLength(), call()),
    Case(of.WrongLength(size=-1), call(patience=IMPATIENT)),
    Case(of.Garbage(size=16), call(patience=IMPATIENT)),
    Case(of.StdoutText(), call()),
    Case(of.HalfClose(), call(count=2)),
    Case(of.ClosedStdin(), nothing),
    Case(of.ClosedStdout(), call()),
    Case(of.Misspeak(how="garbage"), call(patience=IMPATIENT)),
    Case(of.Misspeak(how="partial"), call()),
    Case(of.Misspeak(how="oversize"), call()),
    Case(of.Misspeak(how="duplicate"), call()),
    Case(of.Misspeak(how="wrong_id"), call()),
    Case(of.StderrFlood(), call()),
    Case(of.MemoryExhaustion(), call("hold_memory", bytes=2**27)),
    Case(of.MemoryLeak(), call()),
    Case(of.DescriptorExhaustion(), call()),
    Case(of.FileTooLarge(), call("write_file", bytes=100, folder=tempfile.gettempdir())),
    Case(of.DiskFull(), call()),
    Case(of.CpuStarvation(), nothing),
    Case(of.ClockJump(seconds=5.0), nothing),
)
