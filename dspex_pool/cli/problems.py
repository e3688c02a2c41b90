"""How a command ends: exit codes, and one line on stderr for everything that goes wrong."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import TYPE_CHECKING

from dspex_pool.errors import (
    DspexPoolError,
    InvalidArgumentError,
    InvalidConfigError,
    LocalProtocolError,
    WorkerError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "CliError",
    "ExitCode",
    "describe_problem",
    "exit_code_of",
    "one_line",
    "printing",
    "reporting",
    "say_error",
    "writing",
]

#: Longest error line, in characters. A worker's message may hold a whole prompt.
MAX_LINE_CHARS = 2000


class ExitCode(IntEnum):
    """What a command's exit status means."""

    #: Everything was done and went well.
    OK = 0
    #: Rows failed or are still missing (``run``), or a check failed (``doctor``).
    FAILED = 1
    #: The command line, a file or a setting is wrong, or a file cannot be read or written.
    USAGE = 2
    #: The pool could not start, or lost all its workers for good.
    NO_POOL = 3
    #: A defect of this program.
    DEFECT = 70
    #: Stopped by Ctrl-C; a run with a journal can be resumed.
    INTERRUPTED = 130
    #: Whoever read the standard output has gone.
    BROKEN_PIPE = 141
    #: Stopped by SIGTERM; a run with a journal can be resumed.
    TERMINATED = 143


class CliError(Exception):
    """Something that the user can put right. The text says what happened, where, and what to change.

    Args:
        message: One line.
        code: The command's exit status.
    """

    def __init__(self, message: str, code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(message)
        self.code = code


def one_line(text: str, limit: int = MAX_LINE_CHARS) -> str:
    """Fold ``text`` into one line of at most ``limit`` characters that any terminal can print."""
    folded = " ".join(text.split()).encode("utf-8", "replace").decode("utf-8")
    return folded if len(folded) <= limit else f"{folded[: limit - 1]}…"


def leaves(error: BaseException) -> list[BaseException]:
    """Return what nested exception groups hold, in order; an ordinary exception holds itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def main_problem(error: BaseException) -> BaseException:
    """Return the exception to report of a group: the first that is not a mere consequence of another."""
    found = leaves(error)
    explained = [leaf for leaf in found if isinstance(leaf, (CliError, DspexPoolError, OSError))]
    return (explained or found)[0]


#: What to do about an error of the system that no file and no argument explains.
_ADVICE: dict[int | None, str] = {
    errno.EMFILE: ". Raise the limit on open files (ulimit -n).",
    errno.ENFILE: ". The whole system has no descriptor left (fs.file-max).",
}


def describe_problem(error: BaseException) -> str:
    """Say in one line what ``error`` means to the user."""
    error = main_problem(error)
    if isinstance(error, WorkerError):
        return one_line(_with_last_words(error))
    if isinstance(error, OSError) and not isinstance(error, DspexPoolError):
        place = f"{error.filename}: " if error.filename else ""
        advice = _ADVICE.get(error.errno, "")
        return one_line(f"{place}{error.strerror or error}{advice}")
    if isinstance(error, (CliError, DspexPoolError)):
        return one_line(str(error) or type(error).__name__)
    return one_line(f"unexpected {type(error).__name__}: {error} (--verbose shows where)")


def _with_last_words(error: WorkerError) -> str:
    lines = [line.strip() for line in error.stderr_tail.splitlines() if line.strip()]
    if not lines or lines[-1] in str(error):
        return str(error)
    return f"{str(error).rstrip('.')}. Its last line on stderr: {lines[-1]}"


def exit_code_of(error: BaseException) -> ExitCode:
    """Choose the exit status that tells a script what kind of problem ``error`` is."""
    error = main_problem(error)
    if isinstance(error, CliError):
        return error.code
    if isinstance(error, BrokenPipeError):
        return ExitCode.BROKEN_PIPE
    if isinstance(error, (InvalidConfigError, InvalidArgumentError, LocalProtocolError)):
        return ExitCode.USAGE
    if isinstance(error, DspexPoolError):
        return ExitCode.NO_POOL
    return ExitCode.USAGE if isinstance(error, OSError) else ExitCode.DEFECT


def say_error(text: str) -> None:
    """Write the one line ``error: …`` to stderr; a closed stderr is nobody's problem."""
    with suppress(OSError, ValueError):
        print(f"error: {text}", file=sys.stderr, flush=True)


@contextmanager
def reporting(*, verbose: bool) -> Iterator[None]:
    """Turn every exception of the block into one line on stderr and the exit status for it.

    Args:
        verbose: Print the traceback before the line.

    Raises:
        SystemExit: Something went wrong; the code is one of ``ExitCode``.
    """
    try:
        yield
    except Exception as error:
        code = exit_code_of(error)
        if code == ExitCode.BROKEN_PIPE:
            raise SystemExit(code) from None
        if verbose:
            with suppress(OSError):
                traceback.print_exception(error)
        say_error(describe_problem(error))
        raise SystemExit(code) from None


@contextmanager
def writing(place: object) -> Iterator[None]:
    """Name ``place`` if it cannot be written in the block: a full disk says no more than that it is full.

    Raises:
        CliError: It cannot.
        BrokenPipeError: Whoever read it has gone.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CliError(f"cannot write {error.filename or place}: {error.strerror or error}") from error


@contextmanager
def printing() -> Iterator[None]:
    """Bring what the block prints to the standard output, which is named if it cannot be written.

    Raises:
        CliError: It cannot, and is given up.
        BrokenPipeError: Whoever read it has gone.
    """
    with writing("the standard output"):
        try:
            yield
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError:
            _forget_stdout()
            raise


def _forget_stdout() -> None:
    # The interpreter flushes stdout once more when it ends and would complain about the same pipe.
    with suppress(OSError, ValueError):
        stdout = sys.stdout.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stdout)
        os.close(null)
