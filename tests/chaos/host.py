"""A program with a pool, to be killed: ``python -m tests.chaos.host MOMENT [STORE]``.

It brings its workers into a state, says ``ready`` in a line of stdout, and stays there until it is killed.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import trio

from dspex_pool.adapters.python_pool import PythonPool
from dspex_pool.config import PoolConfig
from tests.chaos.fire import light

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["MOCK_WORKER", "MOMENTS"]

SIZE = 3

#: A worker that knows programs and starts without DSPy.
MOCK_WORKER = (
    *(sys.executable, "-m", "dspex_testkit.bridge_mock_server"),
    *("--mode", "pool-worker", "--worker-id", "{worker_id}"),
)


def say(text: str) -> None:
    """Print one line at once; it is out when this returns."""
    os.write(1, f"{text}\n".encode())


async def starting(pool: PythonPool) -> None:
    """Stop where workers have been started and none has said a word."""
    while not pool.sessions.workers.workers():
        await trio.lowlevel.checkpoint()
    say("ready")


async def idle(pool: PythonPool) -> None:
    """Stop where all workers wait for work."""
    await pool.wait_ready(SIZE)
    say("ready")


async def occupied(pool: PythonPool, command: str) -> None:
    """Have all workers run ``command`` at the same time, and stop there."""
    await pool.wait_ready(SIZE)
    async with trio.open_nursery() as nursery:
        for number in range(SIZE):
            nursery.start_soon(pool.call, f"tenant-{number}", command, {"seconds": 60})
        while pool.statistics().leased < SIZE:
            await trio.lowlevel.checkpoint()
        say("ready")


async def sleeping(pool: PythonPool) -> None:
    """Stop where all workers sleep in C."""
    await occupied(pool, "sleep_in_c")


async def computing(pool: PythonPool) -> None:
    """Stop where all workers compute in Python."""
    await occupied(pool, "spin")


async def with_grandchildren(pool: PythonPool) -> None:
    """Stop where workers have processes of their own, which ignore SIGTERM."""
    for number in range(SIZE):
        await pool.call(f"tenant-{number}", "spawn_grandchild", {"stubborn": True})
    await occupied(pool, "sleep")


async def closing(pool: PythonPool) -> None:
    """Stop in the middle of closing, which workers that ignore all signals hold up."""
    for number in range(SIZE):
        await pool.call(f"tenant-{number}", "block_signals")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(occupied, pool, "sleep_in_c")
        while pool.statistics().leased < SIZE:
            await trio.lowlevel.checkpoint()
        await pool.sessions.workers.aclose()


MOMENTS: dict[str, Callable[[PythonPool], Awaitable[None]]] = {
    "starting": starting,
    "idle": idle,
    "sleeping": sleeping,
    "computing": computing,
    "with_grandchildren": with_grandchildren,
    "closing": closing,
}


async def make_programs(pool: PythonPool) -> None:
    """Make program after program in five sessions at once; say which ones the pool has acknowledged."""

    async def tenant(session_id: str) -> None:
        adapter = pool.session_adapter(session_id)
        known = {program["id"] for program in (await adapter.list_programs())["programs"]}
        for number in range(len(known), 100_000):
            await adapter.create_program(f"p-{number}", "question -> answer")
            say(f"{session_id} p-{number}")
            await adapter.execute_program(f"p-{number}", {"question": "?"})

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(tenant, f"tenant-{number}")


async def main(moment: str, store: str = "") -> None:
    """Open the pool and go to the moment."""
    if store:
        config = PoolConfig(pool_size=2, command=MOCK_WORKER, session_store=f"sqlite:{store}")
        async with PythonPool.open(config) as pool:
            await make_programs(pool)
    else:
        async with PythonPool.open(light(pool_size=SIZE, terminate_grace=60.0, close_timeout=90.0)) as pool:
            await MOMENTS[moment](pool)
            await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(lambda: main(*sys.argv[1:]))
