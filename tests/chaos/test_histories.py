"""Several clients at several sessions while workers are killed: the whole history stands every check."""

from __future__ import annotations

import random as random_module
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from dspex_pool.adapters.python_pool import PythonPool
from dspex_pool.config import PoolConfig
from dspex_pool.session_books import SessionBooks
from dspex_testkit.children.pool_host import MOCK_WORKER
from dspex_testkit.history.checkers import check_history, default_checkers, not_vacuous
from dspex_testkit.history.record import History, Outcome
from dspex_testkit.history.verdict import Violation
from dspex_testkit.plan import Plan
from tests.bounded_waits import until
from tests.bugbench.catalogue import BUGS
from tests.bugbench.planting import Planting
from tests.chaos.fire import BOUND, Killer, watched_pool
from tests.session_workers import CannedWorkers, open_sessions

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_pool.core.records import PoolStatistics
    from dspex_pool.session_pool import SessionPool

pytestmark = pytest.mark.chaos

SESSIONS, CLIENTS, ACTS = 3, 9, 25
PROGRAMS = ("p", "q", "r")

#: What a client may hear while workers are killed, and callers of one session are in each other's way.
LAWFUL = (
    "Cancelled",
    "WorkerDiedError",
    "ProgramExistsError",
    "ProgramNotFoundError",
    "SessionNotFoundError",
)

#: Two workers that take ten milliseconds for whatever they are asked, so that clients wait in line.
CONFIG = PoolConfig(
    pool_size=2,
    command=(*MOCK_WORKER, "--delay", "*=0.01"),
    backoff_min=0.05,
    backoff_max=0.2,
    cancel_grace=1.0,
)


class Client:
    """One of several clients of a session, which does whatever comes to its mind.

    Args:
        pool: The pool.
        history: Where it writes what it does.
        number: Its number.
        random: Its mind.
    """

    def __init__(
        self, pool: PythonPool | SimulatedPool, history: History, number: int, random: random_module.Random
    ) -> None:
        self._pool = pool
        self._history = history
        self._name, self._session = f"client-{number}", f"tenant-{number % SESSIONS}"
        self._random = random
        self._turn = 0

    async def run(self, acts: int) -> None:
        """Do one thing after the other; leave some of them before they are done."""
        for self._turn in range(acts):
            command, args = self._act()
            impatient = self._random.random() < 0.1
            with trio.move_on_after(self._random.uniform(0, 0.03) if impatient else BOUND):
                await self._history.call(self._pool, self._session, command, args, client=self._name)
            self._history.sample(self._pool.statistics())

    def _act(self) -> tuple[str, dict[str, Any]]:
        program, mark = self._random.choice(PROGRAMS), f"{self._name}_{self._turn}".replace("-", "_")
        signature = f"question -> {mark}"
        acts: list[tuple[int, str, dict[str, Any]]] = [
            (4, "create_program", {"id": program, "signature": signature}),
            (3, "load_program", {"program_id": program, "definition": {"signature": signature}}),
            (3, "delete_program", {"program_id": program}),
            (8, "execute_program", {"program_id": program, "inputs": {"question": mark}}),
            (2, "get_program_info", {"program_id": program}),
            (2, "list_programs", {}),
            (1, "cleanup_session", {}),
        ]
        ((_, command, args),) = self._random.choices(acts, [weight for weight, *_ in acts])
        return command, args


def own_outputs(history: History) -> list[Violation]:
    """Check that who ran a program was answered his own question."""
    return [
        Violation("an answer to somebody else's question", (operation,))
        for operation in history.operations
        if operation.command == "execute_program" and operation.outcome is Outcome.OK
        for output in operation.value["outputs"].values()
        if not output.endswith(f": {operation.args['inputs']['question']}")
    ]


async def storm(
    pool: PythonPool | SimulatedPool, history: History, random: random_module.Random, *, acts: int = ACTS
) -> None:
    """Let all clients do their acts at the same time."""
    history.attend(pool)
    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(Client(pool, history, number, random).run, acts)


async def killed_storm(random: random_module.Random, *, acts: int, pause: tuple[float, float]) -> History:
    """Return the history of a storm in which workers were killed, of which every check was passed."""
    history = History()
    async with watched_pool(CONFIG) as (pool, _):
        killer = Killer(pool, random)
        await pool.wait_ready(2)
        async with trio.open_nursery() as rage:
            rage.start_soon(lambda: killer.rage(pause=pause, spare=1))
            await storm(pool, history, random, acts=acts)
            rage.cancel_scope.cancel()
        await killer.wait_reaped()
        for number in range(SESSIONS):
            await history.call(pool, f"tenant-{number}", "list_programs", client="the end")
        await until(lambda: pool.statistics().idle == 2, "the pool is whole")
    killer.check_proof()
    check_history(history, own_outputs, errors=LAWFUL, faults=len(killer.victims))
    return history


@pytest.mark.trio
async def test_history_of_a_killed_pool_stands_every_check(dspex_random: random_module.Random) -> None:
    """Nine clients at three sessions, two workers, kills and impatience: every answer has an explanation."""
    history = await killed_storm(dspex_random, acts=ACTS, pause=(0.05, 0.15))
    assert any(event.name == "closed" for event in history.events)
    assert any(event.name == "checkout" and event.about["queued"] for event in history.events)
    assert {lease.told_by for lease in history.leases} == {"pool", "caller"}


@pytest.mark.trio
async def test_histories_of_killed_pools_stand_every_check_in_a_soak(
    dspex_random: random_module.Random,
) -> None:
    """Ten times as long, a kill about every tenth of a second."""
    await killed_storm(dspex_random, acts=10 * ACTS, pause=(0.05, 0.15))


# --- in simulated time ---------------------------------------------------------------------------------------------


async def simulated_storm(random: random_module.Random, affinity: str) -> tuple[History, int]:
    """Return the history of a storm on simulated workers of chance speed, and how many of them were killed."""
    history, workers, killed = History(), CannedWorkers(), 0
    workers.intercept = lambda _port, _request: Plan().after(random.choice([0, 0.001, 0.005, 0.02]))

    async def rage() -> None:
        nonlocal killed
        while True:
            await trio.sleep(random.uniform(0, 0.1))
            if workers.live:
                random.choice(list(workers.live)).die(signal=9)
                killed += 1

    async with open_sessions(workers, pool_size=2, cancel_grace=0.05, affinity=affinity) as sessions:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rage)
            await storm(SimulatedPool(sessions), history, random, acts=15)
            nursery.cancel_scope.cancel()
    return history, killed


class SimulatedPool:
    """A session pool as a history wants it.

    Args:
        sessions: The session pool.
    """

    def __init__(self, sessions: SessionPool) -> None:
        self.sessions = sessions

    def statistics(self) -> PoolStatistics:
        """Return gauges and counters."""
        return self.sessions.workers.statistics()


def check_simulated(random: random_module.Random, count: int) -> None:
    """Check the histories of so many simulated storms, half of them with strict sessions."""
    affected = killed = 0
    for number in range(count):
        affinity = ("hint", "strict")[number % 2]
        clock = trio.testing.MockClock(autojump_threshold=0)
        own = random_module.Random(random.random())
        history, kills = trio.run(simulated_storm, own, affinity, clock=clock)
        check_history(history, own_outputs, errors=(*LAWFUL, "SessionLostError"))
        killed += kills
        affected += not not_vacuous(kills)(history)
    assert killed
    assert affected


def test_histories_of_simulated_storms_stand_every_check(dspex_random: random_module.Random) -> None:
    """After such storms a program was missing, or ran as an older one."""
    check_simulated(dspex_random, 10)


def test_histories_of_simulated_storms_stand_every_check_in_a_soak(
    dspex_random: random_module.Random,
) -> None:
    """The same three hundred times."""
    check_simulated(dspex_random, 300)


# --- that it could have failed -------------------------------------------------------------------------------------


def forget_to_delete(planting: Planting) -> None:
    """Say that a program is deleted, and keep it."""

    async def delete_program(self: SessionBooks, session: object, program_id: str) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        return {"program_id": program_id, "status": "deleted"}

    planting.replace(SessionBooks, "delete_program", delete_program)


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (forget_to_delete, "no order explains these answers"),
        (BUGS["program_on_another_worker"].plant, "no order explains these answers"),
        (BUGS["newest_waiter_first"].plant, "overtaken in line"),
        (BUGS["one_too_many"].plant, "a start at"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.trio
async def test_planted_bug_is_seen_in_the_history(
    plant: Callable[[Planting], None], told: str, dspex_random: random_module.Random
) -> None:
    """A pool that deletes nothing, mixes programs up, serves the last first, or starts too many is found out.

    One storm in some twenty does not happen to meet the bug, so there are up to ten.
    """
    found: list[str] = []
    for _ in range(10):
        history, planting = History(), Planting()
        try:
            plant(planting)
            with trio.fail_after(BOUND):
                async with PythonPool.open(CONFIG) as pool:
                    await storm(pool, history, dspex_random, acts=12)
        finally:
            planting.undo()
        assert any(operation.outcome is Outcome.OK for operation in history.operations)
        checks = (checker(history) for checker in default_checkers(errors=LAWFUL))
        found = [violation.text for violations in checks for violation in violations]
        if any(told in text for text in found):
            return
    raise AssertionError(f"nothing says {told!r} in the last of ten storms: {found}")
