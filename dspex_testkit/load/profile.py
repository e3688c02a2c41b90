"""Profiles of load as data: what is called, by whom, how often, on which pool, and what is expected of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from dspex_testkit.load.arrivals import Constant, Poisson, Ramp, Spike
from dspex_testkit.ports.names import ECHO_HANDLER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_testkit.load.arrivals import Arrivals

__all__ = ["PROFILES", "Closed", "Load", "Open", "Profile"]


@dataclass(frozen=True, slots=True)
class Closed:
    """A number of callers, each of whom calls again when it is answered: a slow pool is asked less."""

    callers: int
    #: Calls of all of them together after which the load ends; ``None``: time alone ends it.
    calls: int | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """Calls that come when they come, whatever has become of those before: a slow pool is not spared."""

    arrivals: Arrivals
    #: Calls under way at the same time beyond which further ones are not made, but counted as ``NotMade``. So a
    #: pool that has stopped answering does not fill the memory with callers.
    most_under_way: int = 10_000


Load: TypeAlias = Closed | Open


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One kind of load, and the pool that it is meant for."""

    name: str
    #: One sentence.
    doc: str = ""
    load: Load
    #: Seconds that the load lasts, warm-up left out.
    seconds: float = 10.0
    #: Calls and seconds of warm-up, whichever is over first; it is not measured.
    warmup_calls: int = 200
    warmup_seconds: float = 5.0
    #: What is called, with which arguments.
    command: str = "echo"
    args: Mapping[str, Any] = field(default_factory=dict)
    #: Bytes of text that are sent besides.
    payload_bytes: int = 0
    #: Whether the command answers with its arguments. Then each call has a number, and its answer must have it too.
    is_echo: bool = True
    #: Sessions among which the calls are dealt out; 0: calls of nobody in particular.
    sessions: int = 0
    #: Settings of the pool.
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: Seconds between two looks at memory, descriptors and processes.
    look_every: float = 1.0
    #: Whether the garbage collector runs before each look; see ``Samples``.
    collect: bool = False
    #: Seconds that p95 is expected not to exceed, and calls per second that are expected at least; ``None``: any.
    p95: float | None = None
    per_second: float | None = None


def _profile(name: str, doc: str, load: Load, **more: Any) -> Profile:
    """Return a profile for a pool of echo workers."""
    settings = {"handler": ECHO_HANDLER, **more.pop("settings", {})}
    return Profile(name=name, doc=doc, load=load, settings=settings, **more)


_STANDARD: Final = (
    _profile(
        "single_operation_latency",
        "One caller: what a call takes when nobody else is there.",
        Closed(callers=1, calls=500),
        seconds=30.0,
        warmup_calls=50,
        settings={"pool_size": 4, "max_overflow": 2},
        p95=1.0,
        per_second=10.0,
    ),
    _profile(
        "concurrent_throughput",
        "Ten callers on eight workers: how much a pool carries.",
        Closed(callers=10, calls=1000),
        seconds=60.0,
        warmup_calls=100,
        settings={"pool_size": 8, "max_overflow": 4},
        p95=2.0,
        per_second=50.0,
    ),
    _profile(
        "sustained_load",
        "Twenty callers for minutes: whether it stays as it was.",
        Closed(callers=20),
        seconds=300.0,
        warmup_calls=200,
        settings={"pool_size": 6, "max_overflow": 3},
        p95=3.0,
        per_second=30.0,
    ),
    _profile(
        "session_affinity_performance",
        "Eight callers in eight sessions that keep to their workers.",
        Closed(callers=8, calls=1000),
        seconds=45.0,
        warmup_calls=100,
        sessions=8,
        settings={"pool_size": 4, "max_overflow": 2, "affinity": "hint"},
        p95=1.5,
        per_second=20.0,
    ),
)

#: Five thousandths of a second of work that needs no processor: what a worker does that asks a language model.
_WORK: Final = MappingProxyType({"seconds": 0.005})

_FURTHER: Final = (
    _profile(
        "echo",
        "Sixteen callers on four workers that do nothing: what the pool itself costs.",
        Closed(callers=16),
        settings={"pool_size": 4},
    ),
    _profile(
        "steady",
        "Calls of 5 ms at even distances.",
        Open(Constant(200.0)),
        command="sleep",
        args=_WORK,
        settings={"pool_size": 4},
    ),
    _profile(
        "crowd",
        "Calls of 5 ms by many who know nothing of each other.",
        Open(Poisson(200.0)),
        command="sleep",
        args=_WORK,
        settings={"pool_size": 4},
    ),
    _profile(
        "spike",
        "Calls of 5 ms, and for two seconds six times as many.",
        Open(Spike(100.0, 600.0, at=4.0, lasting=2.0)),
        command="sleep",
        args=_WORK,
        settings={"pool_size": 4},
    ),
    _profile(
        "ramp",
        "Calls of 5 ms, more and more of them.",
        Open(Ramp(20.0, 600.0, lasting=10.0)),
        command="sleep",
        args=_WORK,
        settings={"pool_size": 4},
    ),
    _profile(
        "soak",
        "Sixteen callers in fifty sessions for ten minutes; workers are replaced after 2000 uses.",
        Closed(callers=16),
        seconds=600.0,
        warmup_calls=100_000,
        warmup_seconds=60.0,
        sessions=50,
        collect=True,
        settings={"pool_size": 4, "max_uses": 2000},
    ),
)

#: Every profile by its name. The first four are the standard benchmarks of the pool's ancestor, with its sizes and
#: its bounds, save one: where it allowed that of a hundred calls five or fifteen fail, none may.
PROFILES: Final[Mapping[str, Profile]] = {profile.name: profile for profile in (*_STANDARD, *_FURTHER)}
