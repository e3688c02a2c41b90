"""The simulated pool keeps its promises, and the simulation finds it when a pool does not."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_testkit.chaos import catalogue
from dspex_testkit.simulation import shrink
from dspex_testkit.simulation.explore import Explorer, NotDeterministicError, VacuousError, explore
from dspex_testkit.simulation.faults import GRID, Deaf, FailStart, Kill, swarm
from dspex_testkit.simulation.outcomes import BrokenPromiseError, Outcome, Outcomes
from dspex_testkit.simulation.run import Setup
from dspex_testkit.simulation.schedulers import PORTFOLIO, Schedule
from dspex_testkit.simulation.sessions import SessionWorld
from dspex_testkit.simulation.shrink import Shrinker
from dspex_testkit.simulation.steady import simulate_hours
from dspex_testkit.simulation.workload import Call, Case, Workload, of_token
from dspex_testkit.simulation.world import World
from tests.bugbench.catalogue import BUGS, planted
from tests.search_profiles import depth

if TYPE_CHECKING:
    from dspex_testkit.fuzz.hunter import Hunter
    from dspex_testkit.simulation.faults import Fault
    from dspex_testkit.simulation.run import Run

pytestmark = pytest.mark.chaos


@dataclass
class Asked:
    """What pytest would ask an exploration for."""

    nodeid: str = "tests/test_x.py::test_x"
    from_here: str = "tests/test_x.py::test_x"
    token: str | None = None
    seed: int = 0
    hunter: Hunter | None = None
    told: list[str] = field(default_factory=list)

    def tell(self, what: str) -> None:
        """Keep ``what``."""
        self.told.append(what)


async def serve(world: World) -> None:
    """Ask the pool for as much as it can do, and for more."""
    await world.run(clients=8, calls=60)


def failure_of(setup: Setup, *, seeds: int = 200, token: str | None = None) -> BaseException:
    """Explore until something fails, shrink it however slow the machine is, and return it."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever it is, the callers look at it
        Explorer(setup, range(seeds), shrink_seconds=60.0).run(Asked(token=token))
    return caught.value


def token_of(error: BaseException) -> str:
    """Return the token in the replay line of a failure."""
    return error.__notes__[-1].rpartition("--dspex-replay=")[2]


@explore(seeds=depth(40, 2_000), faults=swarm(), cancel="everywhere", pool_size=2)
async def test_pool_keeps_its_promises_whatever_happens(world: World) -> None:
    """Under faults, cancellations and odd schedules each call ends lawfully, and the pool is whole again."""
    await world.run(clients=8, calls=60)


@explore(
    seeds=depth(12, 1_000),
    faults=swarm(),
    cancel="everywhere",
    pool_size=3,
    max_overflow=2,
    lazy=True,
    max_uses=7,
    max_lifetime=(20.0, 30.0),
)
async def test_pool_that_grows_and_renews_itself_keeps_them_too(world: World) -> None:
    """Overflow, lazy starts and workers that are replaced by age and use change nothing of that, twice in a row."""
    await world.run(clients=8, calls=30)
    await trio.sleep(20 * GRID)
    await world.run(clients=4, calls=20)


@explore(seeds=depth(15, 1_000), faults=swarm(), cancel="everywhere", pool_size=2, world=SessionWorld)
async def test_sessions_keep_their_promises_too(world: World) -> None:
    """Supervisor, sessions and monitor above the workers: each call ends in its own answer or says why."""
    await world.run(clients=8, calls=40)


#: Bugs that only a simulated pool shows, or shows best; the quick ones are found and shrunk in a second or so.
QUICK = ("leak_on_cancel", "any_answer_is_mine", "one_too_many", "no_pause_after_failure")
SLOW = (
    "newest_waiter_first",
    "gap_before_the_block",
    "ghost_in_line",
    "unproven_reuse",
    "timer_sleeps_through",
)


@pytest.mark.parametrize("name", QUICK)
def test_planted_bug_is_found_and_shrunk(name: str) -> None:
    """A bug of a real pool shows within 200 runs, and shrinks to at most four calls, two faults and three turns."""
    check_found(name)


@pytest.mark.parametrize("name", SLOW)
def test_soak_planted_bug_is_found_and_shrunk(name: str) -> None:
    """The same of bugs that take longer to shrink."""
    check_found(name)


def check_found(name: str) -> None:
    """Plant a bug, and see that it is found and told in a few words."""
    setup = Setup(serve, {"pool_size": 2}, swarm(), "everywhere")
    with planted(BUGS[name]):
        case = of_token(token_of(failure_of(setup)))
    assert case.calls <= 4
    assert case.faults <= 2
    assert len(case.schedule.turns) <= 3


async def race(world: World) -> None:
    """Fail in an order that is far from the plain one: of two tasks, one does all between the other's steps."""
    await world.run(clients=2, calls=2)
    steps: list[str] = []

    async def act(name: str) -> None:
        for _ in range(3):
            steps.append(name)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(act, "a")
        nursery.start_soon(act, "b")
    assert "abbba" not in "".join(steps)


def test_schedule_is_shrunk_to_the_turns_that_matter() -> None:
    """A race that needs a task to be held back is told in few turns."""
    case = of_token(token_of(failure_of(Setup(race))))
    assert case.calls <= 2
    assert 1 <= len(case.schedule.turns) <= 3


def test_shrinking_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a detour goes on. It once played every call of the run anew after the end: minutes, in a long one."""
    setup = Setup(serve, {"pool_size": 2})
    run, now, plays = setup.play(Case(1)), 0.0, list[Case]()
    monkeypatch.setattr(shrink, "time", SimpleNamespace(process_time=lambda: now))

    def play(case: Case) -> Run:
        nonlocal now
        now += 0.4
        plays.append(case)
        return run

    assert Shrinker(play, run, seconds=1.0).shrink() is run
    assert len(plays) == 3


@pytest.mark.parametrize("policy", ["fair", "hold-back", "hold-long", "pct"])
def test_every_policy_finds_its_own_orders(policy: str) -> None:
    """Each policy tells its runs apart, and each run can be had again from its turns."""
    setup = Setup(serve, {"pool_size": 2})
    runs = [setup.play(Case(1, Schedule(policy, seed))) for seed in range(3)]
    assert len({run.case.schedule for run in runs}) == 3
    assert all(run.error is None and not setup.play(run.case).difference(run) for run in runs)


def test_failure_is_repeated_by_its_token_alone() -> None:
    """What failed fails again in the same way, from nothing but the token."""

    async def fail(world: World) -> None:
        outcomes = await world.run(clients=8, calls=40)
        assert outcomes.count("WorkerDiedError") < 2

    setup = Setup(fail, {"pool_size": 2}, swarm(Kill))
    first = failure_of(setup)
    again = failure_of(setup, token=token_of(first))
    assert (type(again), str(again), token_of(again)) == (type(first), str(first), token_of(first))


def test_mended_bug_is_told_from_a_replay() -> None:
    """A replay that passes fails the test, for it has not shown what it was asked for."""

    async def fail(world: World) -> None:
        await world.run(clients=2, calls=4)
        assert False  # noqa: B011, PT015 - the bug that is about to be mended

    token = token_of(failure_of(Setup(fail)))
    assert "the replayed run passes" in str(failure_of(Setup(serve), token=token))


def test_body_that_draws_by_itself_is_found_out() -> None:
    """A test that is not the same twice is blamed, not the pool."""
    runs = 0

    async def waver(world: World) -> None:
        nonlocal runs
        runs += 1
        await trio.sleep(runs)
        await world.run(clients=2, calls=4)

    error = failure_of(Setup(waver))
    assert isinstance(error, NotDeterministicError)
    assert "no fault of the pool" in str(error)


@pytest.mark.parametrize("kind", [FailStart])
def test_faults_that_never_happen_fail_the_exploration(kind: type[Fault]) -> None:
    """Faults of later starts, of which a pool without losses has none, are called vacuous."""
    error = failure_of(Setup(serve, {"pool_size": 2}, (kind,)), seeds=12)
    assert isinstance(error, VacuousError)
    assert kind.__name__ in str(error)


def test_exploration_tells_what_it_has_seen() -> None:
    """The report of a test that passed says how much of what was drawn has happened."""
    asked = Asked()
    Explorer(Setup(serve, {"pool_size": 2}, swarm(Kill)), range(4)).run(asked)
    (told,) = asked.told
    assert told.startswith("4 runs, 0 of them vacuous, 1 played twice")


def test_simulated_hour_keeps_full_parallelism() -> None:
    """4 workers, 2 calls a second, a kill a minute, health checks: after it, exactly 4 calls run at a time."""
    run = simulate_hours()
    assert run.met["Kill"] == 60
    assert len(run.outcomes) == 7200
    lost = run.outcomes.count("WorkerDiedError")
    assert run.outcomes.count("answer") == 7200 - lost
    assert lost <= 60


@pytest.mark.parametrize("kind", swarm(), ids=lambda kind: kind.__name__)
def test_every_kind_of_fault_happens_and_the_pool_survives_it(kind: type[Fault]) -> None:
    """Each fault of the catalogue strikes, together with a few kills that make room for later starts."""
    setup = Setup(serve, {"pool_size": 2}, (kind, Kill))
    met = 0
    for seed in range(8):
        case: Case = of_case(seed)
        run = setup.play(case)
        assert run.error is None, run.error
        met += run.met[kind.__name__]
    assert met


def of_case(seed: int) -> Case:
    """Return a case in a schedule of its own."""
    return Case(seed, Schedule(PORTFOLIO[seed % len(PORTFOLIO)], seed))


def test_overtaking_is_a_fault_unless_a_grant_was_undone() -> None:
    """Who was granted a worker that died before he could run is served next; who was served meanwhile is no thief.

    Once in thousands of runs the dead worker's replacement was lent to the next in line at that very moment.
    """
    first = Outcome(Call(1), 0.0, granted=3.0, asked=3.0, ended=3.0, kind="answer")
    second = Outcome(Call(2, at=1), 0.5, granted=2.5, asked=2.5, ended=2.5, kind="answer")
    outcomes = Outcomes([second, first])
    outcomes.check(patience=30.0, hit=(), starts_failed=False, declines={2.5})
    with pytest.raises(BrokenPromiseError, match="overtaken in line"):
        outcomes.check(patience=30.0, hit=(), starts_failed=False, declines={3.0})


def test_coarse_call_that_waited_out_its_patience_is_lawful_whatever_was_rounded() -> None:
    """Of 30 s from 52.87570542926674 s on, subtracting leaves a little less, which was taken for a broken promise."""
    outcome = Outcome(Call(1, timeout=1), 52.87570542926674, ended=82.87570542926673, is_coarse=True)
    outcome.kind = "CheckoutTimeoutError"
    Outcomes([outcome]).check(patience=30.0, hit=(), starts_failed=False)
    with pytest.raises(BrokenPromiseError, match="unlawfully"):
        Outcomes([outcome]).check(patience=30.1, hit=(), starts_failed=False)


def test_fresh_exploration_draws_from_the_seed_of_the_run() -> None:
    """With ``fresh`` the seed that pytest shows decides what is explored, and brings it back."""

    def drawn(seed: int) -> list[str]:
        asked = Asked(seed=seed)
        Explorer(Setup(serve, {"pool_size": 2}, swarm()), range(2), fresh=True).run(asked)
        return asked.told

    assert drawn(1) == drawn(1) != drawn(2)


def test_worker_that_was_deaf_hears_again_when_the_faults_are_over() -> None:
    """It leaves at once when its uses are served, so the beats at the end accuse nobody.

    A deaf worker took ``terminate_grace`` to leave between two beats, and the pool was called too narrow.
    """
    calls = (Call(1, at=1, keep=1), Call(2, at=1), Call(3, at=1))
    case = Case(1, workloads=(Workload(calls, (Deaf(at=1, worker=1),)),))
    run = Setup(serve, {"pool_size": 3, "max_uses": 3, "terminate_grace": 4.0}).play(case)
    assert run.met["Deaf"] == 1
    assert run.error is None, run.error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seeds": 0}, "without seeds"),
        ({"policies": ()}, "needs a policy; there are fair"),
        ({"policies": ("luck",)}, "no such policies: luck"),
        ({"cancel": "never"}, "not 'never'"),
    ],
)
def test_exploration_that_can_play_nothing_is_refused_where_it_is_made(
    options: dict[str, Any], said: str
) -> None:
    """One without policies ended in a division by zero, when it was run."""
    with pytest.raises(ValueError, match=said):
        explore(**options)


@pytest.mark.parametrize("kinds", [("x",), (catalogue.Kill,), (Kill(at=1, worker=1),)])
def test_what_is_no_kind_of_fault_is_refused_where_it_is_named(kinds: Any) -> None:
    """A run ended with an error out of the depth, if it drew the kind; faults of chaos tests have the same names."""
    with pytest.raises(TypeError, match=r"is no kind of fault; import them from dspex_testkit\.simulation"):
        explore(faults=swarm(*kinds))


def test_body_that_is_no_coroutine_function_is_refused_where_it_is_decorated() -> None:
    """It was played, and blamed for an await that it does not have."""

    def body(world: World) -> None: ...

    with pytest.raises(TypeError, match=r"body.* is no coroutine function"):
        explore()(body)  # type: ignore[arg-type] # that is what is tested


@pytest.mark.parametrize("load", [{"clients": 0, "calls": 3}, {"calls": 0}, {"calls": -1}])
def test_run_that_asks_for_nothing_is_refused(load: dict[str, int]) -> None:
    """It passed, or ended within the drawing of faults, which blamed an empty range."""

    async def idle(world: World) -> None:
        await world.run(**load)

    error = failure_of(Setup(idle, {"pool_size": 2}, swarm()))
    assert str(error).endswith("calls show nothing: both must be at least 1")


@pytest.mark.parametrize("world", [World, SessionWorld])
def test_exploration_that_asks_nothing_of_the_pool_is_vacuous(world: type[World]) -> None:
    """A body that forgot to run anything passed: no call was answered, but none was made either."""

    async def asks_nothing(world: World) -> None:
        await trio.sleep(60)

    with pytest.raises(VacuousError, match="nothing was ever asked of the pool"):
        Explorer(Setup(asks_nothing, {"pool_size": 2}, world=world), range(2)).run(Asked())


@pytest.mark.parametrize("world", [World, SessionWorld])
def test_exploration_may_ask_the_pool_itself(world: type[World]) -> None:
    """A body without a workload that borrows a worker, or ends one, has done something."""

    async def borrows(world: World) -> None:
        async with world.pool.checkout() as lease:
            await lease.request("work", {"ask": 0})

    async def kills(world: World) -> None:
        await world.pool.wait_ready(2)
        world.workers.live[0].die(signal=9)
        await trio.sleep(60)

    for body in (borrows, kills):
        Explorer(Setup(body, {"pool_size": 2}, world=world), range(2)).run(Asked())


class TestInAClass:
    """Explored tests may be methods; the first parameter, which is no world there, was taken for one."""

    size = 2

    @pytest.mark.parametrize("clients", [1, 2])
    @explore(seeds=2, pool_size=2)
    async def test_method_is_explored_as_a_function_is(self, world: World, clients: int) -> None:
        """It has its object, its world and its fixtures."""
        assert (self.size, clients in (1, 2)) == (2, True)
        outcomes = await world.run(clients=clients, calls=4)
        assert outcomes.count("answer") > 0
