"""Finder: operations that are cancelled, or bereft of their worker, at every step."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dspex_pool.errors import CallTimeoutError, DspexPoolError, UseAfterReturnError
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.mock_port import MockPortFactory
from dspex_testkit.plan import Plan
from dspex_testkit.stage import Stage, cancel, canned, echo, kill_worker
from dspex_testkit.sweep import python_pool, sweep_scenario
from tests.chaos.test_sweeps import OPERATIONS
from tests.chaos.test_swept_pool import open_and_close, with_slow_reader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dspex_pool.lease import Lease
    from dspex_testkit.mock_port import MockPort

__all__ = ["TRIES", "play"]


async def borrow(pool: WorkerPool) -> None:
    """Use a worker once, and find that it is gone afterwards."""
    async with pool.checkout() as lease:
        await lease.request("echo", {"a": 1})
    sent = lease.worker.port.bytes_sent
    try:
        await lease.request("echo", {"a": 2})
    except UseAfterReturnError:
        assert lease.worker.port.bytes_sent == sent
    else:
        raise AssertionError("a lease that has ended still works")
    await trio.lowlevel.checkpoint()


async def in_turn(stage: Stage) -> None:
    """Borrow one worker, then again."""
    async with stage.pool() as pool:
        stage.start(borrow, pool)


async def set_up(lease: Lease) -> None:
    """Prepare a lease, at some length."""
    await lease.request("prepare")
    await trio.sleep(1.0)


async def with_set_up(stage: Stage) -> None:
    """Borrow a worker that has to be set up, with somebody behind in line."""
    async with stage.pool(setup=set_up) as pool:
        stage.start(borrow, pool)
        await wait_all_tasks_blocked()
        stage.start_witness(borrow, pool)


def greeting_slowly(port: MockPort) -> None:
    """Have a worker take a second for its handshake."""
    echo(port)
    port.answer_handshake(Plan().after(1.0).reply({"status": "ok"}))


async def on_demand(stage: Stage) -> None:
    """Borrow from a pool that has no worker yet, with somebody behind in line."""
    stage.ports.behaviour = greeting_slowly
    async with stage.pool(is_ready=False, lazy=True, min_idle=0, pool_size=2) as pool:
        stage.start(borrow, pool)
        await wait_all_tasks_blocked()
        stage.start_witness(borrow, pool)


async def open_and_close_stubborn(stage: Stage) -> None:
    """Open and close a pool whose workers end only when they are killed."""

    def stubborn(port: MockPort) -> None:
        port.reactions.eof = port.reactions.terminate = None

    stage.ports.behaviour = stubborn
    await open_and_close(stage)


def close_over_a_holder(_: int) -> None:
    """Close a pool while somebody holds a worker that never answers."""

    async def hold(pool: WorkerPool) -> None:
        with contextlib.suppress(DspexPoolError):
            async with pool.checkout() as lease:
                await lease.request("hang")

    async def story() -> None:
        ports = MockPortFactory(lambda port: port.answer("hang", Plan().stall(deaf=True)))
        async with trio.open_nursery() as nursery:
            with trio.fail_after(30.0):
                async with WorkerPool(ports, pool_size=1, terminate_grace=2.0) as pool:
                    await pool.wait_ready()
                    nursery.start_soon(hold, pool)
                    await wait_all_tasks_blocked()
            assert not ports.live

    trio.run(story, clock=MockClock(autojump_threshold=0))


def one_worker(behaviour: Callable[[WorkerPool, MockPort], Awaitable[None]]) -> Callable[[int], None]:
    """Return what plays ``behaviour`` on a pool of one worker, which never answers ``hang``."""

    async def story() -> None:
        ports = MockPortFactory(lambda port: port.answer("hang", Plan().stall(deaf=True)))
        with trio.fail_after(30.0):
            async with WorkerPool(ports, pool_size=1, health_check_interval=None) as pool:
                await pool.wait_ready()
                await behaviour(pool, ports.live[0])

    return lambda _: trio.run(story, clock=MockClock(autojump_threshold=0))


async def die_idle(pool: WorkerPool, port: MockPort) -> None:
    """Kill a worker that nobody uses: it is replaced although nobody asks."""
    port.die(signal=9)
    await trio.sleep(1.0)
    assert [worker.port for worker in pool.workers()] != [port], "nobody has heard of the worker's end"


async def ask_in_time(pool: WorkerPool, _: MockPort) -> None:
    """Ask a worker that never answers: the caller hears so at its time."""
    async with pool.checkout() as lease:
        with contextlib.suppress(CallTimeoutError):
            await lease.request("hang", timeout=2.0)
        assert trio.current_time() == 2.0


def run_elsewhere(_: int) -> None:
    """Run a program while the worker that has it is busy: another one must be told of it first."""

    async def story() -> None:
        async with python_pool(pool_size=2)(Stage(cancel, None, MockPortFactory(canned))) as adapter:
            mine = adapter.session_adapter("tenant")
            await mine.create_program("p", "question -> answer")
            async with adapter.sessions.workers.checkout(session="tenant"):
                await mine.execute_program("p", {"question": "why?"})

    trio.run(story, clock=MockClock(autojump_threshold=0))


_SCENARIOS: Final = (
    (in_turn, cancel),
    (in_turn, kill_worker),
    (with_set_up, cancel),
    (with_slow_reader, cancel),
    (on_demand, cancel),
    (open_and_close, cancel),
    (open_and_close_stubborn, cancel),
)
#: The operations that are swept elsewhere as well, in the order of their price.
_CHEAP_FIRST: Final = ("checkin", "checkout", "end_session", "worker start", "aclose", "call")
_PLAYS: Final[list[Callable[[int], object]]] = [
    close_over_a_holder,
    run_elsewhere,
    one_worker(die_idle),
    one_worker(ask_in_time),
    *(
        lambda seed, scenario=scenario, act=act: sweep_scenario(scenario, act=act, seeds=[seed])
        for scenario, act in _SCENARIOS
    ),
    *(lambda seed, swept=OPERATIONS[name]: swept(seeds=[seed]) for name in _CHEAP_FIRST),
]
SEEDS: Final = 2
TRIES: Final = len(_PLAYS) * SEEDS


def play(number: int) -> int:
    """Play one sweep of one order of tasks; raises what is wrong."""
    _PLAYS[number % len(_PLAYS)](number // len(_PLAYS))
    return 1
