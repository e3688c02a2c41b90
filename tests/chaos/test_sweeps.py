"""The six operations that a pool lives by, each cancelled and bereft of its worker at every step, in four orders."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.errors import ProgramNotFoundError, SessionNotFoundError, WorkerDiedError
from dspex_testkit.mock_port import MockPortFactory
from dspex_testkit.plan import Plan
from dspex_testkit.sweep import Stage, Swept, echo, python_pool, sweep, worker_pool
from tests.search_profiles import depth

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from dspex_pool.adapters.base import Adapter
    from dspex_pool.worker import PoolWorker
    from dspex_pool.worker_pool import WorkerPool
    from dspex_testkit.mock_port import MockPort

pytestmark = pytest.mark.chaos

#: Points that all sweeps together have at least, and CPU seconds that they may take by day.
MIN_POINTS = 200
MAX_CPU = 10.0


async def checkout(pool: WorkerPool) -> None:
    """Wait in line behind somebody, and use what comes."""
    async with pool.checkout() as lease:
        assert await lease.request("slow", {"mine": 1}) == {"mine": 1}
        await trio.lowlevel.checkpoint()


async def leave_early(pool: WorkerPool) -> None:
    """Return a worker that still owes an answer, and must be reset."""
    with trio.move_on_after(1.0):
        async with pool.checkout() as lease:
            await lease.request("late")
    await trio.lowlevel.checkpoint()


async def reset(worker: PoolWorker) -> None:
    """Clean a worker up, in two steps."""
    await worker.request("reset", {})
    await trio.sleep(0.5)


def late(port: MockPort) -> None:
    """Have ``late`` answered in three seconds, whoever interrupts."""
    echo(port)
    port.answer("late", lambda _: Plan().late_reply("too late", after=3.0))


def leaving_slowly(port: MockPort) -> None:
    """Have a worker take a second to leave."""
    echo(port)
    port.reactions.eof = 1.0


def shaking_hands_slowly(port: MockPort) -> None:
    """Have a worker take a second for its handshake."""
    echo(port)
    port.answer_handshake(Plan().after(1.0).reply({"status": "ok"}))


@contextlib.asynccontextmanager
async def session(stage: Stage) -> AsyncIterator[Adapter]:
    """Open the session of somebody who has a program already, known to one worker of two."""
    async with python_pool(pool_size=2)(stage) as adapter:
        of_tenant = adapter.session_adapter("tenant")
        await of_tenant.create_program("p", "question -> answer")
        yield of_tenant
        await stage.ended.wait()
        await check_whole_or_gone(of_tenant)


async def check_whole_or_gone(adapter: Adapter) -> None:
    """Check that every program that the session lists can be run, and no other."""
    listed = {program["id"] for program in (await adapter.list_programs())["programs"]}
    for program_id in ("p", "q"):
        try:
            await adapter.execute_program(program_id, {"question": "why?"})
        except ProgramNotFoundError:
            assert program_id not in listed
        else:
            assert program_id in listed


async def call(adapter: Adapter) -> None:
    """Make a program and run it, each in a lease of its own."""
    await adapter.load_program("q", {"signature": "question -> answer"})
    outputs = await adapter.execute_program("q", {"question": "why?"})
    assert outputs["outputs"] == {"answer": "answer: why?"}


async def end_session(adapter: Adapter) -> None:
    """End the session while its program runs; it is gone at once."""
    assert (await adapter.cleanup_session())["programs_removed"] == 1
    with pytest.raises(ProgramNotFoundError):
        await adapter.execute_program("p", {"question": "why?"})


async def run_on(adapter: Adapter) -> None:
    """Run the session's program for as long as there is one."""
    with contextlib.suppress(SessionNotFoundError, ProgramNotFoundError):
        for _ in range(3):
            await adapter.execute_program("p", {"question": "why?"})


async def hold(pool: WorkerPool) -> None:
    """Use a worker for as long as the pool lets one."""
    with contextlib.suppress(WorkerDiedError):
        await checkout(pool)


@contextlib.asynccontextmanager
async def lent(stage: Stage) -> AsyncIterator[WorkerPool]:
    """Open a pool, one of whose two workers is in somebody's hands."""
    async with worker_pool(pool_size=2, terminate_grace=4.0)(stage) as pool:
        stage.start_witness(hold, pool)
        await trio.testing.wait_all_tasks_blocked()
        yield pool


@contextlib.asynccontextmanager
async def starting(stage: Stage) -> AsyncIterator[WorkerPool]:
    """Open a pool whose workers take their time to come."""
    stage.ports.start_delay = 1.0
    async with worker_pool(is_ready=False, pool_size=2, lazy=True, min_idle=0)(stage) as pool:
        yield pool


async def start(pool: WorkerPool) -> None:
    """Have two workers started, and wait for them."""
    await pool.wait_ready(2)


def ports_of(behaviour: Callable[[MockPort], object]) -> Callable[[], MockPortFactory]:
    """Return what gives workers of one behaviour for each run."""
    return lambda: MockPortFactory(behaviour)


async def close(pool: WorkerPool) -> None:
    """Close the pool."""
    await pool.aclose()


OPERATIONS: dict[str, Callable[..., Swept]] = {
    "checkout": functools.partial(sweep, checkout, beside=checkout),
    "call": functools.partial(sweep, call, on=session, beside=run_on),
    "checkin": functools.partial(sweep, leave_early, ports=ports_of(late), reset=reset, cancel_grace=5.0),
    "end_session": functools.partial(sweep, end_session, on=session, beside=run_on, may_complete=True),
    "aclose": functools.partial(sweep, close, on=lent, ports=ports_of(leaving_slowly)),
    "worker start": functools.partial(sweep, start, on=starting, ports=ports_of(shaking_hands_slowly)),
}


def test_every_operation_may_be_disturbed_at_every_step(record_property: Callable[[str, Any], None]) -> None:
    """Whatever is cancelled or killed wherever: books agree, nobody is forgotten, the pool is whole, nothing is left.

    [property 7, 10, 35, 81]
    """
    began = time.process_time()
    points = {}
    for name, swept in OPERATIONS.items():
        points[name] = swept(seeds=range(depth(4, 20))).points
        print(f"{name}: {points[name]} points, {time.process_time() - began:.2f} CPU s so far")
    record_property("sweep_points", points)
    assert min(points.values()) >= 8
    assert sum(points.values()) >= MIN_POINTS
    # Measuring coverage makes each step several times as long.
    most = MAX_CPU * depth(1, 5) * (5 if "coverage" in sys.modules else 1)
    assert time.process_time() - began < most
