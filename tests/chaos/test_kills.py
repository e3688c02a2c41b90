"""``kill -9`` of workers while callers use them: each costs the call it hits and nothing else."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import trio

from dspex_pool.config import PoolConfig
from dspex_pool.errors import WorkerDiedError
from tests.bounded_waits import until
from tests.chaos.fire import Killer, Outcomes, check_whole, light, watched_pool

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from dspex_pool.adapters.python_pool import PythonPool
    from dspex_pool.session_call import Reply
    from dspex_pool.worker_pool import WorkerPool

pytestmark = pytest.mark.chaos

CALLERS = 16

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="templates take what Linux has")
FORKED = pytest.param("template", marks=LINUX)
FORKED_SOAK = pytest.param("template", marks=LINUX, id="template-soak")


def noting(
    pool: PythonPool, session_id: str, nonce: str, path: Path, seconds: float
) -> Callable[[], Awaitable[Reply]]:
    """Return a call that leaves a line behind each time a worker runs it."""
    args = {"path": str(path), "nonce": nonce, "seconds": seconds}
    return lambda: pool.call(session_id, "note", args)


def check_outcomes(outcomes: Outcomes, killer: Killer, path: Path) -> None:
    """See that every answer is its caller's own, every error a kill's, and that no command ran twice.

    Vacuous if the kills hit no call, or spared none.
    """
    runs = Counter(path.read_text(encoding="ascii").split())
    assert outcomes.good, "no call succeeded"
    assert outcomes.bad, "no call was hit"
    for nonce, reply in outcomes.good.items():
        assert reply.result["nonce"] == nonce
        assert reply.result["session_id"] == f"tenant-{nonce.partition('-')[0]}"
        assert runs[nonce] == 1, f"{nonce} ran {runs[nonce]} times"
    for nonce, error in outcomes.bad.items():
        assert isinstance(error, WorkerDiedError), f"{nonce} ended in {error!r}"
        assert error.pid in killer.pids
        assert error.signal == signal.SIGKILL
        assert runs[nonce] <= (0 if error.request_read is False else 1), f"{nonce} ran {runs[nonce]} times"


async def storm(
    pool: PythonPool,
    random: random.Random,
    path: Path,
    *,
    turns: int,
    longest: float,
    until_hit: bool = False,
) -> Outcomes:
    """Let 16 callers with a session each make ``turns`` calls of up to ``longest`` seconds.

    With ``until_hit`` they go on until a kill has hit a call, for up to ten times as many.
    """
    outcomes = Outcomes()

    async def caller(number: int) -> None:
        for turn in range(10 * turns if until_hit else turns):
            if turn >= turns and outcomes.bad:
                return
            nonce = f"{number}-{turn}"
            call = noting(pool, f"tenant-{number}", nonce, path, random.uniform(0, longest))
            await outcomes.keep(nonce, call)

    async with trio.open_nursery() as nursery:
        for number in range(CALLERS):
            nursery.start_soon(caller, number)
    assert len(outcomes.of) >= CALLERS * turns
    return outcomes


@pytest.mark.trio
@pytest.mark.parametrize("start_method", ["spawn", FORKED])
async def test_kills_cost_only_the_calls_they_hit(
    start_method: str, dspex_random: random.Random, tmp_path: Path
) -> None:
    """Sixteen callers, four workers, a kill every 0.2 s: own answers, honest errors, no command twice, whole again.

    [property 35, 50, 56, 104, 107]
    """
    notes = tmp_path / "notes"
    async with watched_pool(light(pool_size=4, start_method=start_method)) as (pool, _):
        # Where starts are slow, all kills would else be spent on workers that have not served yet.
        await pool.wait_ready(4)
        killer = Killer(pool, dspex_random)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: killer.rage(pause=(0.1, 0.3), spare=1, most=12))
            outcomes = await storm(pool, dspex_random, notes, turns=20, longest=0.03, until_hit=True)
            nursery.cancel_scope.cancel()
        await killer.wait_reaped()
        await check_whole(pool, 4)
    killer.check_proof()
    check_outcomes(outcomes, killer, notes)


@pytest.mark.trio
@pytest.mark.parametrize("start_method", ["spawn", FORKED_SOAK])
async def test_crash_storm_ends_with_a_full_pool(
    start_method: str, dspex_random: random.Random, tmp_path: Path
) -> None:
    """Eight workers, two killed every 25 milliseconds for 1.5 s under 16 callers; then eight serve again."""
    notes = tmp_path / "notes"
    outcomes = Outcomes()
    async with watched_pool(light(pool_size=8, start_method=start_method)) as (pool, ledger):
        killer = Killer(pool, dspex_random)

        async def caller(number: int) -> None:
            turn = 0
            # One more after the last kill: whoever waited through the storm is served.
            is_last = False
            while not is_last:
                is_last = is_over.is_set()
                nonce = f"{number}-{turn}"
                await outcomes.keep(nonce, noting(pool, f"tenant-{number}", nonce, notes, 0.01))
                turn += 1

        is_over = trio.Event()
        await pool.wait_ready(8)
        async with trio.open_nursery() as nursery:
            for number in range(CALLERS):
                nursery.start_soon(caller, number)
            with trio.move_on_after(1.5):
                await killer.rage(count=2, pause=(0.025, 0.025))
            # A busy machine has not started so many workers by then, or those that were hit were idle or starting.
            while len(killer.victims) <= 16 or not outcomes.bad:
                with trio.move_on_after(0.2):
                    await killer.rage(count=2, pause=(0.025, 0.025))
            is_over.set()
        await killer.wait_reaped()
        await check_whole(pool, 8)
    killer.check_proof()
    check_outcomes(outcomes, killer, notes)
    assert len(killer.victims) > 16, "more than two kills for each worker"
    assert ledger.events["breaker_opened"] == 0


@pytest.mark.trio
@pytest.mark.parametrize("start_method", ["spawn", FORKED_SOAK])
async def test_kills_during_start_delay_callers_and_lose_none(
    start_method: str, dspex_random: random.Random
) -> None:
    """Workers that die before their first word cost time: every caller waits on and gets its answer."""
    outcomes = Outcomes()
    async with watched_pool(light(pool_size=2, lazy=True, start_method=start_method)) as (pool, ledger):
        killer = Killer(pool, dspex_random)

        async def strike_starting() -> None:
            for _ in range(6):
                await until(lambda: bool(killer.targets()), "a worker is being started")
                killer.strike()

        async def caller(number: int) -> None:
            await outcomes.keep(str(number), lambda: pool.call(f"tenant-{number}", "echo", {"n": number}))

        async with trio.open_nursery() as nursery:
            for number in range(CALLERS):
                nursery.start_soon(caller, number)
            await strike_starting()
    killer.check_proof()
    assert ledger.counters["start_failures"] >= 1, "no kill came before the handshake"
    assert len(outcomes.of) == CALLERS
    assert outcomes.good
    # A kill may come after the start too, in the middle of a call.
    strange = [error for error in outcomes.bad.values() if error.pid not in killer.pids]
    assert not strange
    for name, reply in outcomes.good.items():
        assert reply.result["n"] == int(name)


# --- templates -------------------------------------------------------------------------------------------


async def kill_templates(workers: WorkerPool, count: int) -> None:
    """Kill the template, the one child of this process, as often as said; each time a worker more is wanted."""
    for _ in range(count):
        (template,) = psutil.Process().children()
        template.kill()
        workers.resize(3)
        await until(lambda: workers.statistics().ready == 3, "another template has forked a worker")
        workers.resize(2)
        await until(lambda: workers.statistics().processes == 2, "the third has left")


@LINUX
@pytest.mark.trio
@pytest.mark.parametrize("rounds", [3, pytest.param(12, id="12-soak")])
async def test_death_of_a_template_costs_no_call(
    rounds: int, dspex_random: random.Random, tmp_path: Path
) -> None:
    """It is killed again and again, under sixteen callers: its workers serve on, the next one forks others."""
    async with watched_pool(light(pool_size=2, start_method="template")) as (pool, _):
        await pool.wait_ready(2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_templates, pool.sessions.workers, rounds)
            outcomes = await storm(pool, dspex_random, tmp_path / "notes", turns=10 * rounds, longest=0.01)
        assert outcomes.good
        assert not outcomes.bad
        await check_whole(pool, 2)


# --- DSPy ------------------------------------------------------------------------------------------------

COLOURS = ["red", "blue", "green", "white"]


def room(number: int) -> dict[str, Any]:
    """Return inputs whose answer belongs to one caller alone."""
    context = f"The harbour has two cranes. Room {number} is painted {COLOURS[number % 4]}. It rains today."
    return {"context": context, "question": f"Which colour is room {number} painted?"}


async def ask_for_rooms(pool: PythonPool, outcomes: Outcomes, turns: int) -> None:
    """Let 16 callers ask for their own room in their own session."""

    async def caller(number: int) -> None:
        adapter = pool.session_adapter(f"tenant-{number}")
        for turn in range(turns):
            await outcomes.keep(f"{number}-{turn}", lambda: adapter.execute_program("qa", room(number)))

    async with trio.open_nursery() as nursery:
        for number in range(CALLERS):
            nursery.start_soon(caller, number)


def check_rooms(outcomes: Outcomes, killer: Killer) -> None:
    """See that every answer is its caller's own and every error a kill's."""
    for name, reply in outcomes.good.items():
        number = int(name.partition("-")[0])
        assert reply["outputs"]["answer"] == f"Room {number} is painted {COLOURS[number % 4]}."
    for error in outcomes.bad.values():
        assert isinstance(error, WorkerDiedError)
        assert error.pid in killer.pids
    assert outcomes.good, "no call succeeded"


async def dspy_under_kills(
    random: random.Random, *, size: int, turns: int, kills: int, **settings: Any
) -> None:
    """Ask real DSPy programs in 16 sessions while workers that are at work are killed."""
    outcomes = Outcomes()
    config = PoolConfig(pool_size=size, backoff_min=0.05, backoff_max=0.2, **settings)
    async with watched_pool(config) as (pool, ledger):
        killer = Killer(pool, random)
        await pool.configure_lm(model="dspex/extractive", engine="extractive")
        async with trio.open_nursery() as nursery:
            for number in range(CALLERS):
                adapter = pool.session_adapter(f"tenant-{number}")
                nursery.start_soon(adapter.create_program, "qa", "context, question -> answer")

        def was_hit() -> bool:
            return bool(outcomes.bad) or ledger.events["call_retry"] > 0

        async def strike_at_work() -> None:
            # A worker may be hit between two calls. So it goes on until a call was hit, as long as there are any.
            while len(outcomes.of) < CALLERS * turns and (len(killer.victims) < kills or not was_hit()):
                awaited = min(len(outcomes.of) + 5, CALLERS * turns)
                await until(lambda: len(outcomes.of) >= awaited, "calls are answered")  # noqa: B023 - awaited here
                if awaited < CALLERS * turns:
                    killer.strike()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_for_rooms, pool, outcomes, turns)
            nursery.start_soon(strike_at_work)
        assert len(outcomes.of) == CALLERS * turns
        # No session is lost with a worker: each has its program, and is answered.
        again = Outcomes()
        await ask_for_rooms(pool, again, 1)
        assert not again.bad
        for number in range(CALLERS):
            listed = await pool.session_adapter(f"tenant-{number}").list_programs()
            assert [program["id"] for program in listed["programs"]] == ["qa"]
        await killer.wait_reaped()
        await until(lambda: pool.statistics().idle == size, "the pool is whole")
    killer.check_proof()
    check_rooms(outcomes, killer)
    assert was_hit(), "no call was hit"


@pytest.mark.trio
async def test_dspy_programs_outlive_the_workers_they_run_on(dspex_random: random.Random) -> None:
    """Sixteen tenants with a program each on two DSPy workers, both killed at work: own answers, no session lost."""
    await dspy_under_kills(dspex_random, size=2, turns=6, kills=2)


@pytest.mark.trio
@pytest.mark.parametrize("start_method", ["spawn", FORKED])
async def test_dspy_programs_outlive_their_workers_in_a_soak(
    start_method: str, dspex_random: random.Random
) -> None:
    """The same with four workers and a dozen kills."""
    await dspy_under_kills(dspex_random, size=4, turns=60, kills=12, start_method=start_method)
