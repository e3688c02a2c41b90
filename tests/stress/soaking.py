"""The soak as a program: in a process where nothing else is, so that what grows is the pool's.

In a process of pytest the leak gate notes each worker that is started, and what earlier tests have freed would be
filled, unseen, by what leaks.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from dspex_pool import PythonPool
from dspex_testkit.load.page import write_load_page
from dspex_testkit.load.profile import Closed, Profile
from dspex_testkit.load.run import run_load
from dspex_testkit.load.samples import FIGURES
from dspex_testkit.ports.waiting import until
from tests.stress.loads import ECHO

if TYPE_CHECKING:
    from dspex_testkit.load.result import LoadResult

__all__: list[str] = []

#: Memory above which a worker is replaced, and what it is made to hold now and then: a worker begins with 20 MiB.
MOST_BYTES: Final = 48 * 1024 * 1024
BURST_BYTES: Final = 8 * 1024 * 1024
BURST_CALLS: Final = 20
#: Seconds between two bursts.
PAUSE: Final = 15.0
#: Share of the time that still counts as warm-up: allocators take their last pages late.
SKIP: Final = 0.2


def profile_of(options: argparse.Namespace) -> Profile:
    """Return the load."""
    return Profile(
        name="soak",
        doc="Sixteen callers in fifty sessions; workers are replaced after 1000 uses, or above 48 MiB.",
        load=Closed(callers=16),
        seconds=options.seconds,
        # Long enough for the monitor, which keeps 4096 samples of two figures.
        warmup_calls=100_000,
        warmup_seconds=options.warmup,
        sessions=50,
        collect=True,
        look_every=max(0.5, options.seconds / 240),
        settings={
            "handler": ECHO,
            "pool_size": 4,
            "max_uses": 1000,
            "max_rss_bytes": MOST_BYTES,
            "monitor_interval": 1.0,
        },
    )


async def soak(options: argparse.Namespace) -> LoadResult:
    """Put the load on a pool; in the end all workers are back."""
    profile = profile_of(options)
    async with PythonPool.open(**profile.settings) as pool:
        if options.leak:
            leak(pool, options.leak)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill_workers, pool)
            result = await run_load(pool, profile, seed=options.seed)
            nursery.cancel_scope.cancel()
        await until(lambda: pool.statistics().idle == 4, "all workers are back")
    return result


async def fill_workers(pool: PythonPool) -> None:
    """Have workers hold more than they may, again and again, for ever."""
    while True:
        await trio.sleep(PAUSE)
        for _ in range(BURST_CALLS):
            await pool.sessions.execute_anonymous("hold_memory", {"bytes": BURST_BYTES})


def leak(pool: PythonPool, size: int) -> None:
    """Have the pool keep so many bytes of each call."""
    kept: list[bytearray] = []
    execute: Any = pool.sessions.execute_in_session

    async def leaking(*args: Any, **options: Any) -> Any:
        kept.append(bytearray(size))
        return await execute(*args, **options)

    pool.sessions.execute_in_session = leaking  # type: ignore[method-assign]  # a bug is planted


def problem_with(result: LoadResult) -> AssertionError | None:
    """Return what is not as it should be, or ``None``."""
    try:
        result.check()
        for name in FIGURES:
            print(f"{name}: {result.check_flat(name, skip=SKIP)}")
    except AssertionError as error:
        return error
    return None


def main() -> int:
    """Soak, say what came of it, and return 1 if anything is not as it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--warmup", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--leak", type=int, default=0, metavar="BYTES")
    parser.add_argument("--report", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    result = trio.run(soak, options)
    said = ", ".join(f"{count} workers left by {reason}" for reason, count in result.retired.items())
    print(f"{result.answered} calls in {result.seconds:.0f} s, {result.per_second:.0f} a second; {said}")
    print(f"latency {dict(result.latency.percentiles())}")
    error = problem_with(result)
    if options.report is not None:
        print(write_load_page(result, options.report, test="soak", error=error))
    if error is not None:
        print(f"{type(error).__name__}: {error}")
    return 1 if error is not None else 0


if __name__ == "__main__":
    sys.exit(main())
