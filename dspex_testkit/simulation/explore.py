"""Explore what a pool can come to: many simulated runs of one test, each with a workload and a schedule of its own.

    @explore(seeds=200, faults=swarm(), cancel="everywhere", pool_size=2)
    async def test_pool_is_a_pool(world: World) -> None:
        await world.run(clients=8, calls=60)

A run that fails is shrunk, and its error carries one line that repeats it anywhere: the whole run is in the line.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from dspex_testkit.report.carried import carry
from dspex_testkit.seeds import random_of
from dspex_testkit.simulation.picture import timeline_of
from dspex_testkit.simulation.run import Body, Setup
from dspex_testkit.simulation.schedulers import PORTFOLIO, Schedule
from dspex_testkit.simulation.shrink import Shrinker
from dspex_testkit.simulation.telling import describe, replay_line
from dspex_testkit.simulation.workload import Case, of_token, to_token
from dspex_testkit.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dspex_testkit.simulation.faults import Fault
    from dspex_testkit.simulation.run import Run

__all__ = ["Explored", "Explorer", "NotDeterministicError", "VacuousError", "explore"]

#: A coroutine function of a world and of fixtures, or a method of them.
Explorable: TypeAlias = Callable[..., Awaitable[object]]
#: Draws of a kind of fault after which it must have happened at least once: of rare ones one in seven does.
ENOUGH_DRAWS: Final = 50


class NotDeterministicError(AssertionError):
    """Two runs of one case differ: an error of the simulation, or of a test that draws or reads the time itself."""


class VacuousError(AssertionError):
    """An exploration has shown nothing: nothing was asked, faults never happened, or no call was answered."""


class Asked(Protocol):
    """What an exploration is asked for by the test that runs it."""

    #: Name of the test as pytest is given it.
    nodeid: str
    #: The same from the folder that pytest was called in.
    from_here: str
    #: The one case that is to be played, or ``None``.
    token: str | None
    #: Seed of this pytest run.
    seed: int

    @property
    def hunter(self) -> Callable[[Explorer, Asked], Explored] | None:
        """What plays the test in the place of its own seeds, if there is anything."""

    def tell(self, what: str) -> None:
        """Keep a line about the test for the report."""


@dataclass
class Explored:
    """What an exploration has seen."""

    #: Runs, those that were played twice counted once.
    runs: int = 0
    #: Runs in which faults were drawn and none happened.
    vacuous: int = 0
    #: Runs in which the body had the pool do something.
    used: int = 0
    #: Runs that were played twice and compared.
    compared: int = 0
    #: Calls by how they ended.
    outcomes: Counter[str] = field(default_factory=Counter)
    #: Faults by kind: how many were drawn, and how many happened.
    drawn: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)

    def add(self, run: Run) -> None:
        """Count ``run``."""
        self.runs += 1
        self.vacuous += run.is_vacuous
        self.used += run.is_used
        self.outcomes += run.outcomes.kinds
        self.drawn += run.drawn
        self.met += run.met

    def check(self) -> None:
        """Check that something was shown.

        Raises:
            VacuousError: With what was not.
        """
        if self.runs and not self.used:
            raise VacuousError(
                f"nothing was ever asked of the pool, by await world.run(), world.pool or else; {self}"
            )
        never = [kind for kind, count in self.drawn.items() if count >= ENOUGH_DRAWS and not self.met[kind]]
        if never or (self.drawn and not self.met):
            raise VacuousError(
                f"faults were drawn that never happened: {never or dict(self.drawn)}; leave them out of faults, "
                f"or let more calls run into them; {self}"
            )
        if self.outcomes and not self.outcomes["answer"]:
            raise VacuousError(f"no call was ever answered; {self}")

    def __str__(self) -> str:
        return (
            f"{self.runs} runs, {self.vacuous} of them vacuous, {self.compared} played twice; "
            f"{self.met.total()} of {self.drawn.total()} faults happened; calls: {dict(self.outcomes)}"
        )


@dataclass(frozen=True)
class Explorer:
    """Plays one test's body many times.

    Args:
        setup: What all its runs share.
        seeds: A seed for each run.
        policies: How the runs order their tasks, in turn.
        compare_every: Of so many runs one is played twice and compared; 0 for none.
        shrink_seconds: CPU seconds that may be spent on making a failure small.
        fresh: Whether the seeds of ``seeds`` are mixed with that of the pytest run, so that each explores new ground.
    """

    setup: Setup
    seeds: Sequence[int]
    policies: tuple[str, ...] = PORTFOLIO
    compare_every: int = 20
    shrink_seconds: float = 10.0
    fresh: bool = False

    def run(self, asked: Asked) -> Explored:
        """Play all cases, or the one that is asked for.

        Raises:
            NotDeterministicError: Two runs of one case differ.
            VacuousError: All runs together have shown nothing.
            BaseException: What a run ended with, shrunk, with the line that repeats it.
        """
        explored = Explored()
        if asked.hunter is not None:
            return asked.hunter(self, asked)
        if asked.token is not None:
            self._replay(asked.token, asked)
            return explored
        for number, seed in enumerate(self.seeds):
            case = self.case(number, seed, asked.nodeid, asked.seed if self.fresh else None)
            run = self.setup.play(case)
            explored.add(run)
            if self.compare_every and number % self.compare_every == 0:
                self._compare(run, self.setup.play(case))
                explored.compared += 1
            if run.error is not None:
                self._fail(run, seed, asked)
        explored.check()
        asked.tell(str(explored))
        return explored

    def case(self, number: int, seed: int, nodeid: str, mixed: int | None = None) -> Case:
        """Return a case.

        Args:
            number: Which it is, for the order of its tasks.
            seed: What it is drawn from.
            nodeid: Name of the test.
            mixed: A seed that is mixed with ``seed`` and the test's name.
        """
        if mixed is not None:
            seed = random_of(mixed, f"{nodeid} {seed}").getrandbits(32)
        return Case(seed, Schedule(self.policies[number % len(self.policies)], seed))

    def _compare(self, run: Run, again: Run) -> None:
        difference = run.difference(again)
        if difference:
            raise NotDeterministicError(
                f"the simulation is not deterministic, which is no fault of the pool: of two runs with seed "
                f"{run.case.seed}, {difference}. Does the test itself draw numbers, read the real time, or "
                "look at the order of a set?"
            )

    def _fail(self, run: Run, seed: int, asked: Asked) -> None:
        """Raise what ``run`` ended with, shrunk."""
        again = self.setup.play(run.case)
        if again.failure != run.failure:
            raise NotDeterministicError(
                f"the run with seed {seed} ended with {run.error!r}, and its recording with {again.error!r}"
            ) from run.error
        shrinker = Shrinker(self.setup.play, again, seconds=self.shrink_seconds)
        best = shrinker.shrink()
        from_ = f"seed {seed}, shrunk in {shrinker.runs} runs from {describe(run.case)[0]}"
        self._raise(best, [from_, *describe(best.case)], asked)

    def _replay(self, token: str, asked: Asked) -> None:
        run = self.setup.play(of_token(token))
        if run.error is None:
            raise AssertionError(
                "the replayed run passes: the bug is mended, or the token is another test's, or the test has changed"
            )
        self._raise(run, ["replayed", *describe(run.case)], asked)

    @staticmethod
    def _raise(run: Run, story: list[str], asked: Asked) -> None:
        assert run.error is not None
        line = replay_line(asked.from_here, to_token(run.case))
        if run.is_vacuous:
            story = [*story, "none of the faults has happened"]
        run.error.add_note("\n".join(("simulated: " + story[0], *story[1:])))
        run.error.add_note(line)
        carry(run.error, functools.partial(timeline_of, run, asked.nodeid, replay=line, notes=story))
        raise run.error


def explore(
    *,
    seeds: int | Sequence[int] = 50,
    faults: Sequence[type[Fault]] = (),
    cancel: str = "",
    policies: Sequence[str] = PORTFOLIO,
    compare_every: int = 20,
    shrink_seconds: float = 10.0,
    fresh: bool = False,
    world: type[World] = World,
    **settings: Any,
) -> Callable[[Explorable], Callable[..., None]]:
    """Turn a coroutine function of a ``World`` into a test that plays it in many simulated runs.

    Args:
        seeds: How many runs, or a seed for each.
        faults: Kinds of faults that runs draw from; ``swarm()`` for all there are.
        cancel: ``ticks`` cancels callers at moments, ``everywhere`` also at steps of their tasks.
        policies: Who decides the order of tasks, in turn; names of ``POLICIES``.
        compare_every: Of so many runs one is played twice and compared; 0 for none.
        shrink_seconds: CPU seconds that may be spent on making a failure small.
        fresh: Whether each pytest run draws other runs, from its own seed.
        world: ``World`` for a ``WorkerPool``, ``SessionWorld`` for a ``PythonPool`` with all that is in it.
        settings: Settings of the pool, as for ``WorkerPool``.

    Raises:
        TypeError: A kind of fault is none of the simulation, or the function is no coroutine function of a world.
        ValueError: There is no such policy or way to cancel, or there are no seeds or no policies.
    """
    numbers = range(seeds) if isinstance(seeds, int) else tuple(seeds)
    _check(numbers, cancel, policies)
    _check_faults(faults)

    def decorate(body: Explorable) -> Callable[..., None]:
        @functools.wraps(body)
        def test(*owner: Any, dspex_replay: Asked, **arguments: Any) -> None:
            bound: Body = functools.partial(body, *owner, **arguments)
            setup = Setup(bound, settings, tuple(faults), cancel, world)
            Explorer(setup, numbers, tuple(policies), compare_every, shrink_seconds, fresh).run(dspex_replay)

        test.__signature__ = _signature(body)  # type: ignore[attr-defined]  # pytest reads it
        del test.__wrapped__  # or plugins would take it for a coroutine
        return test

    return decorate


def _check(seeds: Sequence[int], cancel: str, policies: Sequence[str]) -> None:
    from dspex_testkit.simulation.schedulers import POLICIES

    if not seeds:
        raise ValueError("an exploration without seeds shows nothing")
    if not policies:
        raise ValueError(f"an exploration needs a policy; there are {', '.join(POLICIES)}")
    if cancel not in ("", "ticks", "everywhere"):
        raise ValueError(f"cancel is 'ticks' or 'everywhere', not {cancel!r}")
    if unknown := [name for name in policies if name not in POLICIES]:
        raise ValueError(f"no such policies: {', '.join(unknown)}; there are {', '.join(POLICIES)}")


def _check_faults(kinds: Sequence[type[Fault]]) -> None:
    from dspex_testkit.simulation.faults import Fault

    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Fault)):
            raise TypeError(f"{kind!r} is no kind of fault; import them from dspex_testkit.simulation.faults")


def _signature(body: Explorable) -> inspect.Signature:
    """Return the signature of the test: in the place of the world, the fixture that knows what is asked for."""
    if not inspect.iscoroutinefunction(body):
        raise TypeError(f"{body} is no coroutine function; an explored test is one of a world")
    parameters = list(inspect.signature(body).parameters.values())
    at = 1 if parameters and parameters[0].name == "self" else 0
    if not parameters[at:]:
        raise TypeError(f"{body} takes no world; an explored test is a coroutine function of one")
    parameters[at] = parameters[at].replace(name="dspex_replay", annotation=Any)
    return inspect.Signature(parameters)
