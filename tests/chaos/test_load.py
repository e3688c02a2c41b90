"""Load on a pool: arrivals, percentiles and slopes by themselves, and whole loads in virtual time."""

from __future__ import annotations

import itertools
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.config import PoolConfig
from dspex_testkit.load.arrivals import Constant, Poisson, Ramp, Spike
from dspex_testkit.load.histogram import Latencies
from dspex_testkit.load.profile import PROFILES, Closed, Open, Profile
from dspex_testkit.load.result import LoadResult
from dspex_testkit.load.run import run_load
from dspex_testkit.load.samples import Samples
from dspex_testkit.load.slope import slope_of
from dspex_testkit.load.tally import NOT_MADE, WRONG_ANSWER, Tally
from dspex_testkit.ports.names import ECHO_HANDLER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspex_testkit.load.arrivals import Arrivals
    from dspex_testkit.load.profile import Load
    from dspex_testkit.ports.handle import PoolHandle
    from dspex_testkit.ports.run import MakePool

pytestmark = pytest.mark.ports("sim")


def slow_calls(load: Load, *, seconds: float) -> Profile:
    """Return a load of calls that take a second each, in virtual time."""
    return Profile(
        name="x", load=load, seconds=seconds, command="sleep", args={"seconds": 1.0}, warmup_calls=0
    )


@pytest.mark.parametrize(
    "arrivals",
    [Constant(50.0), Poisson(50.0), Spike(20.0, 200.0, at=2.0, lasting=1.0), Ramp(0.0, 100.0, 10.0)],
)
def test_arrivals_come_in_order_at_their_rate_and_again_by_their_seed(arrivals: Arrivals) -> None:
    """A schedule is drawn from its seed alone, in order, within its time, and as dense as it says."""
    times = list(arrivals.times(10.0, Random(7)))
    assert times == list(arrivals.times(10.0, Random(7)))
    assert all(0 <= before <= after < 10.0 for before, after in itertools.pairwise(times))
    # Every schedule here is meant to have some 400 to 500 arrivals; five standard deviations are 112.
    assert 280 < len(times) < 620


def test_even_arrivals_go_on_to_the_end() -> None:
    """The last call of a second that is not whole was left out, and all calls of a rate below one in the time."""
    assert list(Constant(2.0).times(2.25, Random(0))) == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert list(Constant(0.3).times(3.0, Random(0))) == [0.0]
    # As floats, 100 times 0.29 is less than 29.
    assert len(list(Constant(100.0).times(0.29, Random(0)))) == 29


def test_spike_is_where_it_is_said_to_be() -> None:
    """Of a spike's calls nearly all come while it lasts."""
    times = list(Spike(1.0, 1000.0, at=3.0, lasting=1.0).times(10.0, Random(1)))
    within = [at for at in times if 3.0 <= at < 4.0]
    assert len(within) > 800
    assert len(times) - len(within) < 40


def test_percentiles_keep_three_digits_from_a_microsecond_to_an_hour() -> None:
    """A percentile is off by a thousandth at the most, whatever its size."""
    latencies = Latencies()
    for size in (1e-6, 1e-3, 1.0, 3000.0):
        latencies.clear()
        for number in range(1, 1001):
            latencies.record(number * size / 1000)
        assert latencies.percentile(50) == pytest.approx(size / 2, rel=2e-3, abs=1e-6)
        assert latencies.longest == pytest.approx(size, rel=2e-3, abs=1e-6)


def test_slope_tells_growth_from_noise() -> None:
    """The range holds the slope of what grows, and holds zero for what only trembles."""
    random, times = Random(3), [float(second) for second in range(600)]
    grows = slope_of(times, [1e6 + second + random.gauss(0, 20) for second in times])
    trembles = slope_of(times, [1e6 + random.gauss(0, 20) for _ in times])
    assert grows.low < 3600 / grows.mean < grows.high
    assert trembles.low < 0 < trembles.high < 1e-4


def test_slope_is_not_moved_by_a_few_odd_samples() -> None:
    """A moment at which something large was held is no growth."""
    times = [float(second) for second in range(200)]
    assert slope_of(times, [1e6 if second != 150 else 9e6 for second in times]).high == 0.0


def test_slope_of_three_looks_is_refused() -> None:
    """So little tells nothing, and says so."""
    with pytest.raises(ValueError, match="at least 4"):
        slope_of([0.0, 1.0, 2.0], [1.0, 1.0, 1.0])


def test_slope_of_no_figure_is_refused() -> None:
    """A slip of the pen was a bare KeyError, which says nothing of what there is."""
    with pytest.raises(ValueError, match="no figure 'memry', only memory, blocks"):
        result_of([1.0] * 60, seconds=600.0).check_flat("memry")


def result_of(memory: list[float], *, seconds: float) -> LoadResult:
    """Return what a load came to in which resident memory was seen to be so, at even distances."""
    samples = Samples(len(memory))
    for number, size in enumerate(memory):
        samples.put(seconds * number / len(memory), size, 1000.0, 20.0, 4.0)
    return LoadResult(Profile(name="x", load=Closed(1)), 0, seconds, Tally(seconds), samples, {})


def test_growth_of_two_per_cent_an_hour_fails_after_ten_minutes_and_trembling_does_not() -> None:
    """What grows is told with its slope; what goes up and down by a thousandth is flat."""
    random = Random(5)
    grows = result_of([5e7 * (1 + 0.02 * second / 3600) for second in range(600)], seconds=600.0)
    with pytest.raises(AssertionError, match=r"memory grows: \+2.00% of the mean an hour"):
        grows.check_flat("memory")
    trembles = result_of([5e7 + random.choice((0.0, 4096.0)) for _ in range(600)], seconds=600.0)
    assert trembles.check_flat("memory").high < 0.01
    assert trembles.check_flat("descriptors").high == 0.0


def test_short_run_is_not_blamed_for_less_than_a_thousandth() -> None:
    """Ten pages more in ten seconds would be thirty per cent an hour, and mean nothing."""
    pages = result_of([5e7 + 4096.0 * second for second in range(10)], seconds=10.0)
    assert pages.check_flat("memory").low > 0.2


def test_growth_that_comes_to_rest_is_no_leak() -> None:
    """What allocators took late in a soak of four minutes was called a leak, although it had stopped by its end."""
    settles = [5e7 * (1 + 0.003 * min(1.0, second / 130)) for second in range(240)]
    assert result_of(settles, seconds=240.0).check_flat("memory").low > 0.015
    leaks = [5e7 * (1 + 0.003 * second / 240) for second in range(240)]
    with pytest.raises(AssertionError, match=r"memory grows: \+4.49% of the mean an hour"):
        result_of(leaks, seconds=240.0).check_flat("memory")


def test_tally_takes_no_memory_for_each_call() -> None:
    """What is kept of a million calls is what is kept of a thousand."""
    tally = Tally(100.0)
    for number in range(1000):
        tally.answered(number / 10, 0.001)
    tally.finish(100.0)
    assert [stretch.answered for stretch in tally.stretches()] == [10] * 100
    assert [len(column) for column in tally._columns] == [102] * 7


async def test_open_load_counts_the_wait_that_a_slow_pool_causes(make_pool: MakePool) -> None:
    """Two calls a second on a worker that does one: each waits longer than the one before, from its arrival on."""
    pool = await make_pool(pool_size=1)
    result = await run_load(pool, slow_calls(Open(Constant(2.0)), seconds=10.0))
    assert result.answered == 20
    # The twentieth arrives at 9.5 s and is answered at 20 s.
    assert result.latency.longest == pytest.approx(10.5, rel=0.01)
    assert result.seconds == pytest.approx(20.0, rel=0.01)


async def test_closed_load_asks_as_fast_as_it_is_answered(make_pool: MakePool) -> None:
    """Two callers on one worker: each waits for the other, and nobody longer, so queueing is hidden."""
    pool = await make_pool(pool_size=1)
    result = await run_load(pool, slow_calls(Closed(2), seconds=10.0))
    assert result.latency.longest == pytest.approx(2.0, rel=0.01)
    assert [stretch.answered for stretch in result.stretches][:5] == [0, 1, 1, 1, 1]


async def test_open_load_does_not_pile_up_callers_without_bound(make_pool: MakePool) -> None:
    """Calls beyond those that may be under way are counted and not made."""
    pool = await make_pool(pool_size=1)
    load = Open(Constant(10.0), most_under_way=5)
    result = await run_load(pool, slow_calls(load, seconds=2.0))
    assert result.outcomes[NOT_MADE] == 20 - result.answered
    assert result.answered == 6
    with pytest.raises(AssertionError, match="14 calls ended with NotMade"):
        result.check()


async def test_refused_calls_are_counted_by_their_error(make_pool: MakePool) -> None:
    """Who finds the line full is refused at once, and counts apart from who was answered."""
    pool = await make_pool(pool_size=1, max_waiting=1)
    result = await run_load(pool, slow_calls(Open(Constant(10.0)), seconds=2.0))
    assert result.outcomes["PoolSaturatedError"] == result.others == 17
    assert result.latency_of("PoolSaturatedError").longest == pytest.approx(0.0, abs=1e-5)
    result.check(allowed=frozenset({"PoolSaturatedError"}))


async def test_answer_to_another_call_is_no_answer(make_pool: MakePool) -> None:
    """An echo without the number of its call counts as wrong."""
    pool = await make_pool(pool_size=1, commands={"echo": lambda args: {**args, "number": 3}})
    result = await run_load(pool, Profile(name="x", load=Closed(1, calls=5), warmup_calls=0))
    assert result.outcomes == {"answer": 1, WRONG_ANSWER: 4}


async def test_answer_that_is_no_object_is_no_answer(make_pool: MakePool) -> None:
    """It ended the whole load with an AttributeError of the load's own."""
    answers: Iterator[Any] = itertools.cycle(["a text", None, [3]])
    pool = await make_pool(pool_size=1, commands={"echo": lambda args: next(answers)})
    result = await run_load(pool, Profile(name="x", load=Closed(1, calls=3), warmup_calls=0))
    assert result.outcomes == {WRONG_ANSWER: 3}


async def test_load_ends_with_its_caller(pool: PoolHandle) -> None:
    """A load that is cancelled leaves no caller behind."""
    with trio.move_on_after(3.5):
        await run_load(pool, slow_calls(Closed(4), seconds=1000.0))
    await pool.steady(within=20)


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_named_profile_asks_for_a_pool_that_exists(name: str) -> None:
    """The settings of a profile are settings of a pool, and it is called what it is called."""
    profile = PROFILES[name]
    assert profile.name == name
    assert PoolConfig(**profile.settings).handler == ECHO_HANDLER
