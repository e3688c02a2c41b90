"""A conversation with echo workers that is kept as a recording, and how it was had."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.errors import ProgramError, WorkerDiedError
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.recordings.recorder import Recorder, RecordingPortFactory

if TYPE_CHECKING:
    from dspex_pool.transport.port import PortFactory

__all__ = ["RECORDING", "record", "talk_to_echo"]

#: What real workers said. Made by ``python -m tests.recorded``.
RECORDING = Path(__file__).with_name("recordings") / "echo.jsonl"


async def talk_to_echo(ports: PortFactory) -> list[Any]:
    """Have a pool of one worker echo, fail, die and be replaced; return what was heard."""
    heard: list[Any] = []
    pool = WorkerPool(ports, pool_size=1, health_check_interval=None, backoff_min=0.01)
    with trio.fail_after(60):
        async with pool:
            async with pool.checkout() as lease:
                heard.append(await lease.request("echo", {"n": 1}))
                heard.append(await _failure(lease))
                heard.append(await lease.request("echo", {"n": 2}))
                heard.append(await _death(lease))
            async with pool.checkout() as lease:
                heard.append(await lease.request("echo", {"n": 3}))
    return heard


async def _failure(lease: Any) -> str:
    try:
        await lease.request("raise_error", {"type": "ValueError", "message": "as asked"})
    except ProgramError as error:
        return error.message
    raise AssertionError("no error")


async def _death(lease: Any) -> str:
    try:
        await lease.request("crash")
    except WorkerDiedError as error:
        return f"killed by signal {error.signal}"
    raise AssertionError("no death")


async def record(path: Path) -> list[Any]:
    """Have the conversation with real workers, and record it; return what was heard."""
    from dspex_pool.transport.subprocess import SubprocessOptions, SubprocessPortFactory

    handler = "dspex_testkit.children.echo:EchoHandler"
    ports = SubprocessPortFactory(SubprocessOptions(handler=handler))
    # Tracebacks hold paths of this machine.
    with Recorder(path, secret_names=frozenset({"traceback"})) as recorder:
        return await talk_to_echo(RecordingPortFactory(ports, recorder))


if __name__ == "__main__":
    trio.run(record, RECORDING)
