"""A program with a pool, to be killed: ``python -m dspex_testkit.children.pool_host MOMENT [STORE SEED]``.

It brings its workers into a state, says ``ready`` in a line of stdout, and stays there until it is killed. With a
store it works on sessions instead, and tells what it does, a line each. Workers are forked from a template where the
moment begins with ``template/``.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import random as random_module
import signal
import sys
from typing import TYPE_CHECKING, Any

import psutil
import trio

from dspex_pool.adapters.python_pool import PythonPool
from dspex_pool.bridge.handler import Handler
from dspex_pool.config import PoolConfig
from dspex_pool.errors import ProgramExistsError, ProgramNotFoundError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["MOCK_WORKER", "MOMENTS", "TENANTS", "WARMING", "SlowToImport"]

#: Workers of the pool that is brought into a state.
SIZE = 3
_ROGUE = "dspex_testkit.children.rogue:RogueHandler"

#: Sessions of the program that has a store: ``tenant-0`` and so on.
TENANTS = 5

#: A worker that knows programs and starts without DSPy.
MOCK_WORKER = (
    *(sys.executable, "-m", "dspex_testkit.bridge_mock_server"),
    *("--mode", "pool-worker", "--worker-id", "{worker_id}"),
)


def _say(text: str) -> None:
    """Print one line at once; it is out when this returns."""
    os.write(1, f"{text}\n".encode())


def _say_json(thing: dict[str, Any]) -> None:
    """Print a thing as one line of JSON."""
    _say(json.dumps(thing))


async def _starting(pool: PythonPool) -> None:
    """Stop where workers have been started and none has said a word."""
    while not pool.sessions.workers.workers():
        await trio.lowlevel.checkpoint()
    _say("ready")


#: A moment of templates alone: the first one is still importing, and will be for a minute.
WARMING = "warming"


class SlowToImport(Handler):
    """A handler whose template is busy for a minute, in C, where no Python code runs."""

    @classmethod
    def warm_up(cls) -> None:
        """Sleep."""
        ctypes.CDLL(None).sleep(60)


async def _warming(pool: PythonPool) -> None:
    """Stop where a template has been started."""
    while not psutil.Process().children():
        await trio.lowlevel.checkpoint()
    _say("ready")


async def _idle(pool: PythonPool) -> None:
    """Stop where all workers wait for work."""
    await pool.wait_ready(SIZE)
    _say("ready")


async def _occupied(pool: PythonPool, command: str, *, says: str = "") -> None:
    """Have all workers run ``command`` at the same time, and stop where each has said on stderr what it ``says``."""
    await pool.wait_ready(SIZE)
    workers = pool.sessions.workers.workers()
    async with trio.open_nursery() as nursery:
        for number in range(SIZE):
            nursery.start_soon(pool.call, f"tenant-{number}", command, {"seconds": 60})
        while pool.statistics().leased < SIZE or not all(says in one.port.stderr_tail for one in workers):
            await trio.lowlevel.checkpoint()
        _say("ready")


async def _sleeping(pool: PythonPool) -> None:
    """Stop where all workers sleep in C."""
    await _occupied(pool, "sleep_in_c")


async def _computing(pool: PythonPool) -> None:
    """Stop where all workers compute in Python."""
    await _occupied(pool, "spin")


async def _frozen(pool: PythonPool) -> None:
    """Stop where all workers are in C code that holds the interpreter's lock, so that no thread of theirs runs."""
    await _occupied(pool, "hold_gil", says="holding")


async def _stopped(pool: PythonPool) -> None:
    """Stop where all workers are stopped."""
    await pool.wait_ready(SIZE)
    for worker in pool.sessions.workers.workers():
        assert worker.port.pid is not None
        os.kill(worker.port.pid, signal.SIGSTOP)
    _say("ready")


async def _with_grandchildren(pool: PythonPool) -> None:
    """Stop where workers have processes of their own, which ignore SIGTERM."""
    for number in range(SIZE):
        await pool.call(f"tenant-{number}", "spawn_grandchild", {"stubborn": True})
    await _occupied(pool, "sleep")


async def _closing(pool: PythonPool) -> None:
    """Stop in the middle of closing, which workers that ignore all signals hold up."""
    for number in range(SIZE):
        await pool.call(f"tenant-{number}", "block_signals")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_occupied, pool, "sleep_in_c")
        while pool.statistics().leased < SIZE:
            await trio.lowlevel.checkpoint()
        await pool.sessions.workers.aclose()


MOMENTS: dict[str, Callable[[PythonPool], Awaitable[None]]] = {
    "starting": _starting,
    "idle": _idle,
    "sleeping": _sleeping,
    "computing": _computing,
    "frozen": _frozen,
    "stopped": _stopped,
    "with_grandchildren": _with_grandchildren,
    "closing": _closing,
}


async def _change_programs(pool: PythonPool, random: random_module.Random) -> None:
    """Change and run programs in five sessions; tell of each command before it is called and when it is answered."""
    numbers, life = itertools.count(), os.getpid()

    async def tenant(session_id: str) -> None:
        for number in numbers:
            command, args = _draw_command(random, f"a{life}_{number}")
            _say_json({"call": number, "session": session_id, "command": command, "args": args})
            try:
                reply = await pool.call(session_id, command, args)
                _say_json({"answer": number, "value": reply.result})
            except (ProgramExistsError, ProgramNotFoundError) as error:
                _say_json({"answer": number, "error": type(error).__name__})

    async with trio.open_nursery() as nursery:
        for number in range(TENANTS):
            nursery.start_soon(tenant, f"tenant-{number}")


def _draw_command(random: random_module.Random, field: str) -> tuple[str, dict[str, Any]]:
    """Draw a command on one of a few programs; one that defines a program has it answer in ``field``."""
    program, signature = f"p-{random.randrange(6)}", f"question -> {field}"
    commands: dict[str, dict[str, Any]] = {
        "create_program": {"id": program, "signature": signature},
        "load_program": {"program_id": program, "definition": {"signature": signature}},
        "delete_program": {"program_id": program},
        "execute_program": {"program_id": program, "inputs": {"question": "?"}},
        "cleanup_session": {},
    }
    (command,) = random.choices(list(commands), [8, 6, 4, 6, 1])
    return command, commands[command]


async def _main(moment: str, store: str = "", seed: str = "0") -> None:
    """Open the pool and go to the moment."""
    if store:
        config = PoolConfig(pool_size=2, command=MOCK_WORKER, session_store=f"sqlite:{store}")
        async with PythonPool.open(config) as pool:
            await _change_programs(pool, random_module.Random(seed))
    else:
        patient = PoolConfig(handler=_ROGUE, pool_size=SIZE, terminate_grace=60.0, close_timeout=90.0)
        *forked, moment = moment.split("/")
        if forked:
            patient = patient.replace(start_method="template")
        if moment == WARMING:
            patient = patient.replace(handler="dspex_testkit.children.pool_host:SlowToImport")
        async with PythonPool.open(patient) as pool:
            await (_warming if moment == WARMING else MOMENTS[moment])(pool)
            await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(lambda: _main(*sys.argv[1:]))
