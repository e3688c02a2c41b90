"""The journal: an append-only file that knows which rows are done, whatever happens to the process.

The first line is the header with the fingerprint of input, program and language model; every other line is
one finished row. A line reaches the operating system before the row counts as finished, so that ``kill -9``
loses nothing, and the disk a moment later, with the others of its batch. A later line about the same row
replaces the earlier one. A last line that was torn is cut off; damage anywhere else is refused, because rows
would be run, and paid for, twice.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from dspex_pool.cli.problems import CliError
from dspex_pool.cli.records import Entry, Fingerprint, Header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Journal", "Mark", "open_journal", "part_of", "write_output"]

VERSION = 1

# What every journal begins with; also one whose first line was torn, as far as it goes.
_BEGINNING = b'{"dspex_pool_journal"'

_encode = msgspec.json.Encoder().encode
_decode_header = msgspec.json.Decoder(Header).decode


class _Recorded(msgspec.Struct):
    # The answer itself stays bytes: the output gets them as they were written.
    line: int
    match: bool | None
    row: msgspec.Raw


class _Outcome(msgspec.Struct):
    error: msgspec.Raw
    attempts: int


_decode_recorded = msgspec.json.Decoder(_Recorded).decode
_decode_outcome = msgspec.json.Decoder(_Outcome).decode


class Mark(NamedTuple):
    """What is remembered of a recorded row."""

    #: Where its line begins in the journal, in bytes.
    offset: int
    #: Whether it failed.
    failed: bool
    #: Whether its answer matches; ``None`` if nothing was expected.
    match: bool | None
    #: How often it was handed to a worker.
    attempts: int


@dataclass
class Journal:
    """An open journal. Made by ``open_journal``, which also closes it."""

    #: Where it is.
    path: str
    #: Its descriptor, locked against other runs.
    fd: int
    #: Recorded rows by line of the input.
    marks: dict[int, Mark]
    #: Length of the file in bytes: where the next line goes.
    end: int = 0
    #: Whether lines were written that may not have reached the disk.
    is_dirty: bool = False
    #: What a run is about to do that forgets an earlier one; ``None`` once the earlier one is forgotten.
    replacing: Fingerprint | None = None

    def append(self, entry: Entry) -> None:
        """Record one finished row. When this returns, the end of the process cannot lose it.

        Only now is an earlier run forgotten that is to be replaced.

        Raises:
            CliError: The file cannot be written.
        """
        if self.replacing is not None:
            self.start(self.replacing)
        offset = self.end
        self._write(_encode(entry) + b"\n")
        row = entry.row
        self.marks[entry.line] = Mark(offset, row.error is not None, entry.match, row.attempts)

    def sync(self) -> None:
        """Wait until everything recorded so far is on the disk. Blocks; safe in another thread.

        Raises:
            CliError: The disk refuses.
        """
        if not self.is_dirty:
            return
        self.is_dirty = False
        try:
            os.fsync(self.fd)
        except OSError as error:
            raise CliError(f"cannot write the journal {self.path!r}: {error.strerror}") from error

    def answers(self, lines: Iterable[int] | None = None) -> Iterator[bytes]:
        """Yield recorded answers as lines of JSON, in the order of the input, each row once.

        Args:
            lines: The rows, by their lines in the input; all if not given.
        """
        with Path(self.path).open("rb") as file:
            for line in sorted(self.marks if lines is None else lines):
                file.seek(self.marks[line].offset)
                yield bytes(_decode_recorded(file.readline()).row) + b"\n"

    def start(self, fingerprint: Fingerprint) -> None:
        """Forget everything and write the header of a new run."""
        self.replacing = None
        os.ftruncate(self.fd, 0)
        self.marks.clear()
        self.end = 0
        self._write(_encode(Header(VERSION, fingerprint, datetime.now(UTC).isoformat())) + b"\n")
        self.sync()
        _sync_directory(self.path)

    def discard(self) -> None:
        """Remove the file: a run that did nothing leaves nothing, but for an earlier run that it was to replace."""
        if self.replacing is not None:
            return
        _remove(Path(self.path))

    def recall(self, fingerprint: Fingerprint) -> None:
        """Read what an earlier run recorded and cut off a torn last line.

        Raises:
            CliError: It belongs to another input, program or language model, or it is damaged.
        """
        with Path(self.path).open("rb") as file:
            header = _header_of(file.readline(), self.path)
            _refuse_other(header.fingerprint, fingerprint, self.path)
            self.end = file.tell()
            for number, raw in enumerate(file, start=2):
                if not raw.endswith(b"\n"):
                    break
                self._recall_line(raw, number)
        os.ftruncate(self.fd, self.end)

    def _recall_line(self, raw: bytes, number: int) -> None:
        try:
            recorded = _decode_recorded(raw)
            outcome = _decode_outcome(recorded.row)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CliError(
                f"the journal {self.path!r} is damaged in line {number} ({error}); "
                "start anew with --overwrite, or remove the line"
            ) from error
        failed = bytes(outcome.error) != b"null"
        self.marks[recorded.line] = Mark(self.end, failed, recorded.match, outcome.attempts)
        self.end += len(raw)

    def _write(self, data: bytes) -> None:
        rest, end = memoryview(data), self.end
        try:
            while rest:
                written = os.pwrite(self.fd, rest, end)
                rest = rest[written:]
                end += written
        except OSError as error:
            raise CliError(f"cannot write the journal {self.path!r}: {error.strerror}") from error
        # Only now: rows that finish before the run ends write over what was torn, so that nothing follows it.
        self.end = end
        self.is_dirty = True


@contextmanager
def open_journal(
    path: str, fingerprint: Fingerprint, *, go_on: bool, overwrite: bool = False
) -> Iterator[Journal]:
    """Open the journal of one run and keep other runs out of it.

    Args:
        path: The file; it and its directories are made if they are missing.
        fingerprint: What the run is about to do.
        go_on: Whether to go on with what an earlier run recorded.
        overwrite: Whether what an earlier run recorded may be forgotten, with the first row that is recorded.

    Raises:
        CliError: Another run uses it, it is no journal, it belongs to something else, or it would be lost.
    """
    with ExitStack() as stack:
        fd = _open(path)
        stack.callback(os.close, fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CliError(f"the journal {path!r} is no regular file; name another with --journal")
        _lock(fd, path)
        journal = Journal(path, fd, {})
        if _has_rows(path):
            if go_on:
                journal.recall(fingerprint)
            elif overwrite:
                # A run that cannot even begin, for want of a pool say, must not cost what is there.
                journal.replacing = fingerprint
            else:
                raise CliError(
                    f"the journal {path!r} of an earlier run exists: go on with --resume, "
                    "or start anew with --overwrite"
                )
        else:
            journal.start(fingerprint)
        stack.callback(journal.sync)
        yield journal


def part_of(output: str) -> str:
    """Return the file in which an output is written before it takes its place; that of a link is where it points."""
    return f"{os.path.realpath(output)}.part"


def write_output(journal: Journal, path: str) -> None:
    """Write the output from the journal: all at once, so that nobody ever reads half of it.

    Raises:
        CliError: It cannot be written.
    """
    target, beside = os.path.realpath(path), Path(part_of(path))
    with ExitStack() as stack:
        try:
            with beside.open("wb") as file:
                # A full disk has better use for its room, and the journal has it all.
                stack.callback(_remove, beside)
                for answer in journal.answers():
                    file.write(answer)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
            _sync_directory(target)
        except OSError as error:
            raise CliError(
                f"cannot write the output {path!r}: {error.strerror}; the answers are in the journal "
                f"{journal.path!r}, from which the same command with --resume writes it"
            ) from error
        stack.pop_all()


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _open(path: str) -> int:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise CliError(f"cannot open the journal {path!r}: {error.strerror}") from error


def _lock(fd: int, path: str) -> None:
    # The lock ends with the process, however it ends.
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise CliError(
            f"the journal {path!r} is in use by another run; name another with --journal"
        ) from error


def _has_rows(path: str) -> bool:
    """Tell whether an earlier run recorded anything; a file that is none of ours is refused."""
    with Path(path).open("rb") as file:
        first, second = file.readline(), file.readline()
    # A run that died while it wrote the header, or before its first row, has done nothing yet.
    if not first.endswith(b"\n") and first[: len(_BEGINNING)] == _BEGINNING[: len(first)]:
        return False
    _header_of(first, path)
    return second.endswith(b"\n")


def _header_of(raw: bytes, path: str) -> Header:
    try:
        header = _decode_header(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CliError(f"{path!r} is no journal of dspex-pool; name another with --journal") from error
    if header.dspex_pool_journal != VERSION:
        raise CliError(
            f"the journal {path!r} has version {header.dspex_pool_journal}, this program knows {VERSION}"
        )
    return header


def _refuse_other(recorded: Fingerprint, wanted: Fingerprint, path: str) -> None:
    words = {"input": "input", "program": "program", "lm": "language model"}
    other = [word for name, word in words.items() if getattr(recorded, name) != getattr(wanted, name)]
    if other:
        raise CliError(
            f"the journal {path!r} belongs to another {' and '.join(other)}: "
            "run what it belongs to, start anew with --overwrite, or name another with --journal"
        )


def _sync_directory(path: str) -> None:
    # The name of a new file is on the disk only once its directory is.
    fd = os.open(Path(path).parent, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
