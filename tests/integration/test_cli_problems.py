"""Every problem ends in one line on stderr and in the exit status that is documented for it."""

from __future__ import annotations

import errno
import sys

import pytest

from dspex_pool.cli.problems import (
    CliError,
    ExitCode,
    describe_problem,
    exit_code_of,
    one_line,
    reporting,
    say_error,
)
from dspex_pool.errors import (
    CheckoutTimeoutError,
    CircuitOpenError,
    InvalidConfigError,
    PoolClosedError,
    WorkerStartError,
)
from tests.cases import case

pytestmark = pytest.mark.integration


def test_exit_code_tells_what_kind_of_problem_it_was() -> None:
    """A script can tell a slip of the pen from a pool that does not start and from a defect."""
    cases: list[tuple[Exception, ExitCode]] = [
        (CliError("x"), ExitCode.USAGE),
        (CliError("x", ExitCode.BROKEN_PIPE), ExitCode.BROKEN_PIPE),
        (InvalidConfigError("x"), ExitCode.USAGE),
        (WorkerStartError("x"), ExitCode.NO_POOL),
        (CircuitOpenError("x"), ExitCode.NO_POOL),
        (PoolClosedError("x"), ExitCode.NO_POOL),
        (CheckoutTimeoutError("x"), ExitCode.NO_POOL),
        (PermissionError(13, "Permission denied", "f"), ExitCode.USAGE),
        (BrokenPipeError(), ExitCode.BROKEN_PIPE),
        (KeyError("x"), ExitCode.DEFECT),
        (ExceptionGroup("g", [ValueError("y"), ExceptionGroup("h", [CliError("x")])]), ExitCode.USAGE),
    ]
    for error, code in cases:
        assert exit_code_of(error) == code, error


def test_problem_is_described_in_one_line() -> None:
    """The line says what happened; a worker's last words and a group's content are in it."""
    cases: list[tuple[Exception, str]] = [
        (CliError("a\nb"), "a b"),
        (
            WorkerStartError("left at once.", stderr_tail="x\n\nNo module named 'y'\n"),
            "left at once. Its last line",
        ),
        (WorkerStartError("said: boom", stderr_tail="boom\n"), "said: boom"),
        (WorkerStartError("silent"), "silent"),
        (PermissionError(13, "Permission denied", "rows.csv"), "rows.csv: Permission denied"),
        (OSError("odd"), "odd"),
        # Below ten descriptors nothing said what to do about it.
        (OSError(errno.EMFILE, "Too many"), "Too many. Raise the limit on open files (ulimit -n)."),
        (KeyError("x"), "unexpected KeyError: 'x' (--verbose shows where)"),
        (ExceptionGroup("g", [ExceptionGroup("h", [CliError("inner")])]), "inner"),
        (CircuitOpenError(), "CircuitOpenError"),
    ]
    for error, text in cases:
        with case(error):
            line = describe_problem(error)
            assert line.startswith(text)
            assert "\n" not in line


def test_last_words_of_a_worker_are_quoted() -> None:
    """The last line of stderr is most often the reason why a worker did not start."""
    error = WorkerStartError("left at once.", stderr_tail="Traceback\n  No module named 'y'\n\n")
    assert describe_problem(error) == "left at once. Its last line on stderr: No module named 'y'"


def test_one_line_is_short_and_printable_whatever_the_text() -> None:
    """A prompt of a megabyte and half a surrogate pair still make one line that a terminal can print."""
    assert one_line("x" * 5000, 10) == "xxxxxxxxx…"
    one_line("a\ud800b").encode()


def test_reporting_prints_the_error_and_exits(capsys: pytest.CaptureFixture[str]) -> None:
    """An error of the block becomes one line on stderr and the exit status, without a traceback."""
    with pytest.raises(SystemExit) as caught, reporting(verbose=False):
        raise CliError("wrong")
    assert caught.value.code == ExitCode.USAGE
    assert capsys.readouterr().err == "error: wrong\n"


def test_reporting_adds_the_traceback_when_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    """With --verbose the traceback comes first and the line last."""
    with pytest.raises(SystemExit), reporting(verbose=True):
        raise CliError("wrong")
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.endswith("\nerror: wrong\n")


def test_reporting_is_quiet_about_a_reader_that_left(capsys: pytest.CaptureFixture[str]) -> None:
    """``dspex-pool … | head`` prints no error; the status is that of a process that SIGPIPE ended."""
    with pytest.raises(SystemExit) as caught, reporting(verbose=True):
        raise BrokenPipeError
    assert caught.value.code == ExitCode.BROKEN_PIPE
    assert capsys.readouterr().err == ""


def test_say_error_survives_a_closed_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no stderr, the exit status has to do."""
    closed = open("/dev/null", "w")  # noqa: SIM115, PTH123 - closed in the next line, which is the point
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    say_error("nobody hears this")
