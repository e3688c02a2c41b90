"""Load for minutes: no call is lost, workers are recycled all the while, and the parent does not grow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import trio

from dspex_pool import PythonPool
from dspex_testkit.load.profile import Closed, Profile
from dspex_testkit.load.samples import FIGURES
from tests.bounded_waits import until
from tests.stress.loads import ECHO, MINUTES

if TYPE_CHECKING:
    from dspex_testkit.load.result import LoadResult
    from tests.stress.loads import PutLoad

pytestmark = pytest.mark.stress

#: Seconds that are measured. A short run shares its minutes with the other tests; ten are for the soak alone.
SECONDS: Final = 60 * MINUTES if MINUTES >= 10 else 30 * MINUTES
#: Memory above which a worker is replaced, and what it is made to hold now and then: a worker begins with 20 MiB.
MOST_BYTES: Final = 48 * 1024 * 1024
BURST_BYTES: Final = 8 * 1024 * 1024
BURST_CALLS: Final = 20

SOAK: Final = Profile(
    name="soak",
    doc="Sixteen callers in fifty sessions; workers are replaced after 1000 uses, or above 48 MiB.",
    load=Closed(callers=16),
    seconds=SECONDS,
    # Long enough for the monitor, which keeps 4096 samples of two figures, and for the allocator's first pages.
    warmup_calls=40_000,
    warmup_seconds=90.0,
    sessions=50,
    collect=True,
    look_every=max(0.25, SECONDS / 240),
    settings={
        "handler": ECHO,
        "pool_size": 4,
        "max_uses": 1000,
        "max_rss_bytes": MOST_BYTES,
        "monitor_interval": 1.0,
    },
)


# A pool that nobody watches: what the test kit keeps of a run would be taken for growth.
@pytest.mark.trio
async def test_soak_loses_no_call_and_leaves_the_parent_as_it_was(load: PutLoad) -> None:
    """Sixteen callers in fifty sessions, workers recycled by uses and by memory: every call is answered with its
    own answer, and memory, descriptors and processes of the parent stay flat."""
    async with PythonPool.open(**SOAK.settings) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill_workers, pool)
            result = await load(pool, SOAK)
            nursery.cancel_scope.cancel()
        await until(lambda: pool.statistics().idle == 4, "all workers are back")
    report(result)
    result.check()
    for name in FIGURES:
        result.check_flat(name)
    assert set(result.retired) == {"max_uses", "max_rss"}


async def fill_workers(pool: PythonPool) -> None:
    """Have workers hold more than they may, every fifteen seconds, for ever."""
    while True:
        for _ in range(BURST_CALLS):
            await pool.sessions.execute_anonymous("hold_memory", {"bytes": BURST_BYTES})
        await trio.sleep(15.0)


def report(result: LoadResult) -> None:
    """Print what a soak of this length has proven."""
    print(f"\n{result.answered} calls in {result.seconds:.0f} s, {result.per_second:.0f} a second")
    print(f"left: {dict(result.retired)}, latency {result.latency.percentiles()}")
    for name, slope in result.slopes().items():
        print(f"{name}: {slope}, mean {slope.mean:.6g}")


@pytest.mark.trio
async def test_leak_of_a_hundred_bytes_a_call_fails_a_soak(
    load: PutLoad, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Growth that a user would meet after a week is found within seconds, so a soak that passes says something."""
    leaked: list[bytearray] = []
    async with PythonPool.open(handler=ECHO, pool_size=4) as pool:
        execute = pool.sessions.execute_in_session

        async def leaking(*args: object, **options: object) -> object:
            leaked.append(bytearray(100))
            return await execute(*args, **options)  # type: ignore[arg-type]  # handed on as they are

        monkeypatch.setattr(pool.sessions, "execute_in_session", leaking)
        profile = Profile(name="leak", load=Closed(16), seconds=5.0, sessions=8, look_every=0.1)
        result = await load(pool, profile)
    result.check()
    with pytest.raises(AssertionError, match="blocks grows"):
        result.check_flat("blocks")
