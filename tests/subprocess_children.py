"""Small worker programs for the tests of the subprocess port, and a port that runs one of them.

The programs know nothing of the package, start in some milliseconds, and leave when stdin ends unless
they say otherwise. ``READY`` sends the frame ``ready``.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.transport.subprocess import SubprocessOptions, SubprocessPort, SubprocessPortFactory
from dspex_pool.transport.template import TemplatePortFactory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from dspex_pool.transport.port import ExitStatus

__all__ = [
    "ECHO",
    "READY",
    "SLEEP",
    "START_METHODS",
    "WAIT",
    "attend_shielded",
    "child_command",
    "end",
    "open_port",
    "running",
]

#: Sends back each byte, and so each frame.
ECHO = """
import os
while data := os.read(0, 65536):
    while data:
        data = data[os.write(1, data):]
"""

#: First lines of a program: sends the frame ``ready``.
READY = """
import os, signal, sys, time
def send(payload):
    frame = len(payload).to_bytes(4, "big") + payload
    while frame:
        frame = frame[os.write(1, frame):]
send(b"ready")
"""

#: A program that reads nothing and answers nothing.
SLEEP = """
import time
time.sleep(600)
"""

#: Last lines of a program: waits for the end of stdin.
WAIT = """
while os.read(0, 65536):
    pass
"""

# Generous, because several test processes may share few cores; nothing waits that long when all is well.
_BOUND = 20.0


def child_command(source: str, *arguments: str) -> list[str]:
    """Return a command that runs ``source`` without the site module, which makes it start fast."""
    return [sys.executable, "-I", "-S", "-c", source, *arguments]


async def open_port(
    source: str, *, on_stderr_line: Callable[[str, str], None] | None = None, **options: Any
) -> SubprocessPort:
    """Start ``source``; the caller attends.

    Cancellation:
        As of the factory.
    """
    settings = SubprocessOptions(command=child_command(source), **options)
    factory = SubprocessPortFactory(settings, on_stderr_line=on_stderr_line)
    return await factory.open(worker_id="w-1", incarnation=1)


async def attend_shielded(port: SubprocessPort) -> None:
    """Attend a port until its process is reaped, whatever happens around.

    Cancellation:
        None is seen; somebody has to kill the process.
    """
    with trio.CancelScope(shield=True):
        await port.attend()


async def end(port: SubprocessPort) -> ExitStatus | None:
    """Kill and reap a worker, and return how it ended.

    Cancellation: None is seen.
    """
    port.kill()
    await attend_shielded(port)
    return port.exit_status


#: How ``running`` starts programs: ``spawn`` or ``template``. Set by a fixture.
START_METHODS = ["spawn"]


@asynccontextmanager
async def running(
    source: str, *, on_stderr_line: Callable[[str, str], None] | None = None, **options: Any
) -> AsyncIterator[SubprocessPort]:
    """Run ``source`` behind a port that is attended. At the end it is killed and reaped.

    Cancellation:
        Ends the process.
    """
    if START_METHODS[-1] == "template":
        settings = SubprocessOptions(env={"FORKED_SOURCE": source}, **options)
        async with TemplatePortFactory(settings, on_stderr_line=on_stderr_line) as ports:
            async with _attended(await ports.open(worker_id="w-1", incarnation=1)) as port:
                yield port
    else:
        async with _attended(await open_port(source, on_stderr_line=on_stderr_line, **options)) as port:
            yield port


@asynccontextmanager
async def _attended(port: SubprocessPort) -> AsyncIterator[SubprocessPort]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(attend_shielded, port)
        try:
            with trio.fail_after(_BOUND):
                yield port
        finally:
            port.kill()
