"""Open load: what users meet when a pool is nearly full, overfull, or suddenly asked for much more.

Service times are fixed, so that the queue is what is measured: sixteen workers that take 20 ms each carry 800 calls
a second, which costs the parent half of a processor at the most. With such calls an ideal pool at 80 % of its
capacity has a p99 of 1.5 times p50. A bare echo would measure the machine: it queues for one processor, and there the
ideal is 4.9 times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from dspex_pool import PythonPool
from dspex_testkit.load.arrivals import Constant, Poisson, Spike
from dspex_testkit.load.profile import Closed, Open, Profile
from tests.stress.loads import ECHO

if TYPE_CHECKING:
    from dspex_testkit.load.result import LoadResult
    from tests.stress.loads import PutLoad

pytestmark = pytest.mark.stress

#: What one call takes in a worker, in seconds.
SERVICE: Final = 0.02
WORKERS: Final = 16
#: Workers of a pool whose load is to be doubled without the load itself becoming late.
FEW: Final = 4
#: Each measures the capacity anew. What else the machine does can only make a tail longer, so one of them decides.
ROUNDS: Final = 5

REFUSED: Final = "PoolSaturatedError"


def slow_calls(name: str, load: Closed | Open, *, seconds: float, **more: Any) -> Profile:
    """Return a load of calls that take 20 ms in a worker each."""
    return Profile(name=name, load=load, seconds=seconds, command="sleep", args={"seconds": SERVICE}, **more)


@pytest.mark.trio
async def test_tail_is_short_at_four_fifths_of_the_capacity(load: PutLoad) -> None:
    """At 80 % of what the pool carries, of a hundred users one waits five times as long as the median, not longer."""
    met: list[LoadResult] = []
    async with PythonPool.open(handler=ECHO, pool_size=WORKERS, max_starting=4) as pool:
        for turn in range(1, ROUNDS + 1):
            full = await load(pool, slow_calls(f"capacity-{turn}", Closed(2 * WORKERS), seconds=4.0))
            full.check()
            capacity = full.per_second
            profile = slow_calls(f"four-fifths-{turn}", Open(Poisson(0.8 * capacity)), seconds=8.0)
            met.append(await load(pool, profile))
            met[-1].check()
            said = met[-1].latency.percentiles()
            print(f"\ncapacity {capacity:.0f} a second, asked {0.8 * capacity:.0f}: {said}")
            if is_short(met[-1]):
                break
    assert any(is_short(result) for result in met), [result.latency.percentiles() for result in met]


def is_short(result: LoadResult) -> bool:
    """Tell whether p99 is below five times p50; of a queue that grows, as its median shows, it says nothing."""
    p50, p99 = result.latency.at(50, 99)
    return p50 < 3 * SERVICE and p99 < 5 * p50


@pytest.mark.trio
async def test_load_that_cannot_be_carried_is_refused_at_once(load: PutLoad) -> None:
    """At twice the capacity those who find the line full get PoolSaturatedError long before anybody is served."""
    async with PythonPool.open(handler=ECHO, pool_size=FEW, max_waiting=FEW) as pool:
        full = await load(pool, slow_calls("capacity", Closed(FEW), seconds=2.0, warmup_calls=FEW))
        result = await load(pool, slow_calls("twice", Open(Constant(2 * full.per_second)), seconds=5.0))
    full.check()
    result.check(allowed=frozenset({REFUSED}))
    assert result.outcomes[REFUSED] > result.answered / 10, "hardly anybody was refused"
    refused = result.latency_of(REFUSED)
    print(f"\n{dict(result.outcomes)}, refused within {refused.percentiles()}")
    assert refused.percentile(50) < SERVICE / 2
    assert refused.percentile(99) < result.latency.percentile(50)


@pytest.mark.trio
async def test_spike_is_answered_and_forgotten(load: PutLoad) -> None:
    """More calls than can be carried, for half a second: all are answered, and in the end all is as before."""
    async with PythonPool.open(handler=ECHO, pool_size=8, max_starting=4) as pool:
        arrivals = Spike(rate=40.0, peak=800.0, at=3.0, lasting=0.5)
        result = await load(pool, slow_calls("spike", Open(arrivals), seconds=12.0))
    result.check()
    stretches = result.stretches
    assert max(stretch.longest for stretch in stretches[3:6]) > 3 * stretches[1].median, "there was no queue"
    assert stretches[-1].median < 3 * stretches[1].median
