"""What the storms of the catalogue draw: for each scenario the strikes of so many seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dspex_testkit.chaos import catalogue as of
from dspex_testkit.scenarios.acts import DrainPool, ResizePool, SuspendPool
from dspex_testkit.scenarios.plan import Strike
from dspex_testkit.scenarios.targets import All, BoundTo, LeaseHolder, One, Some

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator

    from dspex_testkit.chaos.fault import Fault

__all__ = [
    "cascade",
    "corrupt_stream",
    "crash_storm",
    "everything",
    "half_the_workers",
    "memory_leak",
    "resizes",
    "saturation",
    "single_death",
    "slow_worker",
    "thundering_herd",
]

#: Seconds between two strikes of the crash storm.
_STORM_PERIOD: Final = 0.025


def single_death(numbers: random.Random, seconds: float) -> Iterator[Strike]:
    """Kill one worker at work."""
    yield Strike(at=_middle(numbers, seconds), fault=of.Kill(), target=LeaseHolder())


def half_the_workers(numbers: random.Random, seconds: float) -> Iterator[Strike]:
    """Kill half of them at once."""
    yield Strike(at=_middle(numbers, seconds), fault=of.Kill(), target=Some(share=0.5))


def cascade(numbers: random.Random, seconds: float) -> Iterator[Strike]:
    """Kill one, and the next in half the time, as if each died of the load, or the client, of those before."""
    at, pause = 0.1 * seconds, numbers.uniform(0.2, 0.4) * seconds
    for _ in range(4):
        target = numbers.choice((LeaseHolder(), BoundTo("client-0")))
        yield Strike(at=at, fault=of.Kill(), target=target)
        at, pause = at + pause, pause / 2


def crash_storm(_: random.Random, seconds: float) -> Iterator[Strike]:
    """Kill two every 25 milliseconds."""
    for number in range(1, round(seconds / _STORM_PERIOD) + 1):
        # More than a machine starts: who finds nobody alive does not wait for the next.
        yield Strike(at=number * _STORM_PERIOD, fault=of.Kill(), target=Some(count=2), patience=0.0)


def thundering_herd(numbers: random.Random, seconds: float) -> Iterator[Strike]:
    """Kill all workers at once, and have starts take long, so that everybody waits for the first."""
    at = _middle(numbers, seconds)
    yield Strike(at=0.9 * at, fault=of.SlowStart(seconds=0.3))
    yield Strike(at=at, fault=of.Kill(), target=All())


def slow_worker(numbers: random.Random, seconds: float) -> Iterator[Strike]:
    """Have one worker answer late all the time, and another stand still for a while."""
    yield Strike(at=0.1 * seconds, fault=of.Latency(seconds=0.1), target=One())
    yield Strike(at=_middle(numbers, seconds), fault=of.Stop(seconds=0.3), target=LeaseHolder())


def saturation(numbers: random.Random, seconds: float) -> Iterator[Strike]:
    """Have all workers stand still under more clients than may wait."""
    yield Strike(at=numbers.uniform(0.1, 0.3) * seconds, fault=of.Stop(seconds=0.4), target=All())


def memory_leak(numbers: random.Random, seconds: float) -> Iterator[Strike]:
    """Have workers keep more memory than they may."""
    for _ in range(2):
        yield Strike(at=_middle(numbers, seconds), fault=of.MemoryLeak(size=96 * 2**20), target=One())


#: What garbles the stream of answers, so that it is seen: bits that turn over within a text are seen by nobody.
_GARBLING: Final[tuple[Callable[[random.Random], Fault], ...]] = (
    lambda _: of.Garbage(size=16),
    lambda _: of.StdoutText(),
    lambda numbers: of.Truncate(size=numbers.randint(1, 30)),
    lambda numbers: of.LostTail(size=numbers.randint(1, 10)),
    lambda numbers: of.WrongLength(size=numbers.choice((-2, -1, 1, 2))),
    lambda _: of.NegativeLength(),
    lambda _: of.Oversize(),
    lambda _: of.ZeroLength(),
    lambda _: of.WrongId(),
    lambda _: of.Duplicate(),
)


def corrupt_stream(numbers: random.Random, seconds: float) -> Iterator[Strike]:
    """Garble answers in half of all ways, one after the other."""
    ways = len(_GARBLING) // 2
    for number, make in enumerate(numbers.sample(_GARBLING, ways)):
        yield Strike(at=(number + 0.5) / ways * seconds, fault=make(numbers), target=One())


def resizes(numbers: random.Random, seconds: float) -> Iterator[Strike]:
    """Shrink, grow, suspend, replace and shrink the pool, each at a moment within its fifth of the time."""
    grown = numbers.randint(3, 5)
    acts = (ResizePool(size=1), ResizePool(size=grown), SuspendPool(), DrainPool(), ResizePool(size=1))
    for number, act in enumerate(acts):
        lasting = 0.05 if isinstance(act, SuspendPool) else None
        yield Strike(at=(number + numbers.uniform(0.2, 0.8)) / 5 * seconds, fault=act, lasting=lasting)


def everything(numbers: random.Random, seconds: float) -> Iterator[Strike]:
    """Draw eight times a second, at least five times, from all that can be together."""
    for _ in range(max(5, round(8 * seconds))):
        yield from numbers.choice(_TOGETHER)(numbers, numbers.uniform(0.05, 0.95) * seconds)


def _slow_restart(_: random.Random, at: float) -> Iterator[Strike]:
    # Without a death there may be no start that could be slow.
    yield Strike(at=at, fault=of.SlowStart(seconds=0.1))
    yield Strike(at=at + 0.01, fault=of.Kill(), target=One())


_TOGETHER: Final[tuple[Callable[[random.Random, float], Iterable[Strike]], ...]] = (
    lambda _, at: (Strike(at=at, fault=of.Kill(), target=LeaseHolder()),),
    lambda _, at: (Strike(at=at, fault=of.Kill(), target=Some(share=0.5)),),
    lambda _, at: (Strike(at=at, fault=of.Terminate(), target=One()),),
    lambda _, at: (Strike(at=at, fault=of.Stop(seconds=0.3), target=One()),),
    lambda _, at: (Strike(at=at, fault=of.Latency(seconds=0.05), target=One(), lasting=0.2),),
    _slow_restart,
    lambda _, at: (Strike(at=at, fault=ResizePool(size=5)),),
    lambda _, at: (Strike(at=at, fault=SuspendPool(), lasting=0.05),),
    lambda numbers, at: (Strike(at=at, fault=numbers.choice(_GARBLING)(numbers), target=One()),),
)


def _middle(numbers: random.Random, seconds: float) -> float:
    return numbers.uniform(0.2, 0.8) * seconds
