"""Where finished rows go: the journal first, then the books, then whoever reads the standard output."""

from __future__ import annotations

import select
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import trio

from dspex_pool.cli.problems import CliError, ExitCode, printing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dspex_pool.cli.journal import Journal
    from dspex_pool.cli.records import Entry
    from dspex_pool.cli.summary import Tally

__all__ = ["Recorder", "sync_journal", "write_lines", "write_stdout"]

#: Seconds between two waits for the disk: what a loss of power can cost.
SYNC_PERIOD = 0.5

_encode = msgspec.json.Encoder().encode


@dataclass
class Recorder:
    """Takes finished rows."""

    #: The books.
    tally: Tally
    #: The journal; ``None`` for a run that cannot be resumed.
    journal: Journal | None = None
    #: Takes the lines of the standard output; ``None`` if the output is a file.
    lines: trio.MemorySendChannel[bytes] | None = None

    async def record(self, entry: Entry) -> None:
        """Take one finished row.

        Raises:
            CliError: The journal cannot be written.

        Cancellation:
            The row is in journal and books in any case; its line may be missing on the standard output.
        """
        # No checkpoint before this: a row that was answered, and paid for, is never lost to a cancellation.
        if self.journal is not None:
            self.journal.append(entry)
        self.tally.add(entry)
        if self.lines is not None:
            await self.lines.send(_encode(entry.row) + b"\n")


async def sync_journal(journal: Journal) -> None:
    """Bring what was recorded to the disk, again and again. Runs until it is cancelled.

    Raises:
        CliError: The disk refuses.

    Cancellation:
        Waits for the disk first; whoever closes the journal syncs it once more.
    """
    while True:
        await trio.sleep(SYNC_PERIOD)
        if journal.is_dirty:
            await trio.to_thread.run_sync(journal.sync)


async def write_stdout(lines: trio.MemoryReceiveChannel[bytes]) -> None:
    """Write ``lines`` to the standard output until their channel is closed.

    Raises:
        CliError: Nobody reads any more (code ``BROKEN_PIPE``), or it cannot be written.

    Cancellation:
        Leaves at once, even if the reader has stopped reading.
    """
    async with lines:
        async for line in lines:
            await trio.to_thread.run_sync(write_lines, [line], abandon_on_cancel=True)


def write_lines(lines: Iterable[bytes]) -> None:
    """Write lines to the standard output. Blocks as long as its reader does not read.

    Raises:
        CliError: Nobody reads any more (code ``BROKEN_PIPE``), or it cannot be written.
    """
    try:
        with printing():
            for line in lines:
                _write(line)
            _flush()
    except BrokenPipeError as error:
        raise CliError("nobody reads the standard output any more", ExitCode.BROKEN_PIPE) from error


def _write(line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        try:
            rest = rest[sys.stdout.buffer.write(rest) :]
        except BlockingIOError as error:
            rest = rest[error.characters_written :]
            _wait_writable()


def _flush() -> None:
    while True:
        try:
            sys.stdout.buffer.flush()
        except BlockingIOError:
            _wait_writable()
        else:
            return


def _wait_writable() -> None:
    # Whoever shares the pipe may have made it non-blocking; then it is full, not broken.
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    poll.poll()
