"""One process that plays for the fuzzer: pytest with a plugin, what it tells, and how it ended."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

import msgspec
import trio

from dspex_testkit.fuzz.messages import ORDER_VARIABLE, STUCK, decode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from dspex_testkit.fuzz.messages import Message, Order

__all__ = ["WORLDS", "Ended", "play"]

#: What is played if nothing is named.
WORLDS: Final = ("--pyargs", "dspex_testkit.fuzz.worlds")
#: What a project may have set for its tests is kept, but what would only be in the way.
_PYTEST: Final = (
    "-q", "-p", "dspex_testkit.plugin.fuzzing", "-p", "no:cacheprovider", "-p", "no:faker",
    "-m", "", "-o", "dspex_enforce_budgets=",
)  # fmt: skip
#: The fuzzer itself deals cases out to processes.
_NO_XDIST: Final = ("-n0",) if importlib.util.find_spec("xdist") else ()
#: Exit statuses of a process that has done its work, or in which one case never ended.
_WELL: Final = (0, STUCK)
#: pytest found no test.
_NO_TESTS: Final = 5
#: pytest was asked for what is not there, or cannot be.
_USAGE: Final = 4
#: Bytes of what the process printed that are told.
_TAIL: Final = 4000


@dataclass(frozen=True, slots=True)
class Ended:
    """How a playing process ended."""

    status: int
    #: The end of what it printed.
    output: str

    @property
    def is_well(self) -> bool:
        """Whether it has done its work."""
        return self.status in _WELL

    @property
    def has_no_tests(self) -> bool:
        """Whether there was nothing to play."""
        return self.status == _NO_TESTS

    @property
    def complaint(self) -> str:
        """What pytest says is wrong with what it was asked for; empty if nothing is."""
        return self.output.partition("ERROR: ")[2].strip() if self.status == _USAGE else ""


async def play(
    tests: Sequence[str], order: Order, on_message: Callable[[Message], object], *, patience: float
) -> Ended:
    """Have ``tests`` played, and hand on what is told.

    Args:
        tests: As for pytest.
        order: What to play; its descriptor is set here.
        on_message: Called with each message.
        patience: Seconds after the end of its time after which the process is ended.

    Cancellation:
        The process and all of its group are killed and reaped.
    """
    reader, writer = os.pipe()
    stream = trio.lowlevel.FdStream(reader)
    with tempfile.TemporaryFile() as output:
        async with stream:
            order = msgspec.structs.replace(order, descriptor=writer)
            async with _started(tests, order, output) as process:
                with trio.move_on_at(trio.current_time() + _left(order) + patience) as scope:
                    await _hear(stream, on_message)
                    await process.wait()
        if scope.cancelled_caught:
            return Ended(
                -signal.SIGKILL, f"it did not end within {patience:g} s after its time\n{_end_of(output)}"
            )
        assert process.returncode is not None
        return Ended(process.returncode, _end_of(output))


def _left(order: Order) -> float:
    return max(0.0, order.until - time.time())


@asynccontextmanager
async def _started(tests: Sequence[str], order: Order, output: IO[bytes]) -> AsyncIterator[trio.Process]:
    command = [sys.executable, "-m", "pytest", *_PYTEST, *_NO_XDIST, *(tests or WORLDS)]
    # In a group of its own, so that Ctrl-C reaches us alone and we end it without a word of its own.
    try:
        process = await trio.lowlevel.open_process(
            command,
            env=os.environ | {ORDER_VARIABLE: msgspec.json.encode(order).decode()},
            stdin=subprocess.DEVNULL,
            stdout=output.fileno(),
            stderr=subprocess.STDOUT,
            pass_fds=[order.descriptor],
            process_group=0,
        )
    finally:
        os.close(order.descriptor)
    try:
        yield process
    finally:
        # Once it is reaped its number may be another's.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await process.wait()


async def _hear(stream: trio.lowlevel.FdStream, on_message: Callable[[Message], object]) -> None:
    buffered = b""
    async for chunk in stream:
        *lines, buffered = (buffered + chunk).split(b"\n")
        for line in lines:
            on_message(decode(line))


def _end_of(output: IO[bytes]) -> str:
    output.seek(0, os.SEEK_END)
    output.seek(max(0, output.tell() - _TAIL))
    return output.read().decode(errors="replace").strip()
