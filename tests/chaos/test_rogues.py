"""Workers that break the protocol, refuse to leave, flood, or leave something behind: the pool goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.errors import DspexPoolError, RemoteProtocolError, WorkerDiedError
from dspex_pool.telemetry import PREFIX
from dspex_testkit.children.rogue import FOUL_PLAY
from tests.bounded_waits import until
from tests.chaos.fire import Outcomes, check_whole, light, watched_pool

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from dspex_pool.adapters.python_pool import PythonPool

pytestmark = pytest.mark.chaos

CALLERS, TURNS = 8, 12

#: Commands after which the next callers of the worker may find it dead or garbled.
POISON = {"leave_soon", "leave_after_answer", "answer_twice"}


class History:
    """What every process was asked to do; attach it to the pool's events."""

    def __init__(self, pool: PythonPool) -> None:
        #: Commands by process id.
        self.of: dict[int | None, list[str]] = {}
        self._pool = pool

    def __call__(
        self, event: tuple[str, ...], _measured: Mapping[str, float], about: Mapping[str, Any]
    ) -> None:
        if event[-1] == "call_start":
            workers = {worker.worker_id: worker for worker in self._pool.sessions.workers.workers()}
            pid = workers[about["worker_id"]].port.pid
            self.of.setdefault(pid, []).append(about["command"])


@pytest.mark.trio
@pytest.mark.parametrize("command", FOUL_PLAY)
async def test_foul_play_costs_its_own_call_and_worker(command: str) -> None:
    """Each kind alone: its caller hears of it, the next is served, the pool is whole. [property 51, 58, 59, 85]"""
    async with watched_pool(light(pool_size=1, cancel_grace=0.2, terminate_grace=0.4)) as (pool, ledger):
        first = (await pool.call("a", "process")).result["pid"]
        outcomes = Outcomes()
        await outcomes.keep(command, lambda: pool.call("a", command, FOUL_PLAY[command], timeout=0.5))
        if command == "answer_twice":
            assert outcomes.good
            worker = pool.sessions.workers.workers()[0]
            await until(lambda: worker.port.has_unread() or worker.exited.is_set(), "it speaks again")
        else:
            assert [error.pid for error in outcomes.bad.values()] == [first]
        assert (await pool.call("b", "process")).result["pid"] != first
        await check_whole(pool, 1)
    assert ledger.retired_by_reason.total() == 2, "one more than the last, which closing retires"


def draw_plans(random: random.Random) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return a command with its args for each call; two of three are honest."""
    fouls: list[tuple[str, dict[str, Any]]] = [*FOUL_PLAY.items(), ("leave_after_answer", {})]
    fouls += [("leave_soon", {"seconds": random.uniform(0, 0.02)}) for _ in range(2)]
    fouls += [("flood_stderr", {"bytes": 5_000_000}), ("spawn_grandchild", {"stubborn": True})]
    honest: tuple[str, dict[str, Any]] = ("echo", {})
    return {
        f"{caller}-{turn}": random.choice(fouls) if random.random() < 1 / 3 else honest
        for caller in range(CALLERS)
        for turn in range(TURNS)
    }


async def play(pool: PythonPool, plans: dict[str, tuple[str, dict[str, Any]]], outcomes: Outcomes) -> None:
    """Let some callers play what is planned, each in its session."""

    async def caller(number: int) -> None:
        for turn in range(TURNS):
            name = f"{number}-{turn}"
            command, args = plans[name]
            # Who plays foul may hang; who is honest waits for its answer, however busy the machine is.
            timeout = 0.3 if command in FOUL_PLAY else None
            said = args | {"nonce": name}
            await outcomes.keep(
                name,
                lambda: pool.call(f"tenant-{number}", command, said, timeout=timeout),  # noqa: B023 - awaited
            )

    async with trio.open_nursery() as nursery:
        for number in range(CALLERS):
            nursery.start_soon(caller, number)


def check_honest(plans: dict[str, tuple[str, dict[str, Any]]], outcomes: Outcomes, history: History) -> None:
    """See that honest calls are answered, or hear of foul play on their worker before them."""
    for name, (command, _) in plans.items():
        outcome = outcomes.of[name]
        if command != "echo":
            continue
        if not isinstance(outcome, DspexPoolError):
            assert outcome.result["nonce"] == name
            continue
        assert isinstance(outcome, WorkerDiedError | RemoteProtocolError), f"{name}: {outcome!r}"
        assert POISON & set(history.of[outcome.pid]), f"{name}: {outcome!r}"


@pytest.mark.trio
async def test_rogues_harm_only_who_meets_them(dspex_random: random.Random) -> None:
    """Eight callers play foul in a third of their calls: the others get their answers, and the pool gets whole."""
    plans, outcomes = draw_plans(dspex_random), Outcomes()
    config = light(pool_size=4, cancel_grace=0.1, terminate_grace=0.3)
    async with watched_pool(config) as (pool, ledger):
        history = History(pool)
        with pool.telemetry.attach(PREFIX, history):
            await play(pool, plans, outcomes)
        await check_whole(pool, 4)
    assert outcomes.of.keys() == plans.keys()
    check_honest(plans, outcomes, history)
    assert any(plans[name][0] == "echo" for name in outcomes.good), "no honest call was answered"
    assert ledger.retired_by_reason.total() > 4, "no rogue was retired"
