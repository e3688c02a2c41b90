"""What the user sees on stderr: a bar or plain lines while rows run, and the table at the end."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.progress import Progress, TaskID

    from dspex_pool.cli.summary import Summary, Tally

__all__ = ["BarScreen", "PlainScreen", "QuietScreen", "Screen", "choose_screen", "summary_lines"]

#: Seconds between two updates of the bar, and between two plain lines.
BAR_PERIOD = 0.1
LINE_PERIOD = 5.0


class Screen(Protocol):
    """Where progress goes."""

    #: Seconds between two calls of ``show``.
    period: float

    def say(self, text: str) -> None:
        """Print one line."""

    def show(self, tally: Tally, elapsed: float) -> None:
        """Bring the progress up to date, ``elapsed`` seconds after the first row was handed out."""


class QuietScreen:
    """Says only what the user must know."""

    period = 60.0

    def say(self, text: str) -> None:
        """Print one line."""
        _print_line(text)

    def show(self, tally: Tally, elapsed: float) -> None:
        """Show nothing."""


class PlainScreen:
    """One line every few seconds, for logs."""

    period = LINE_PERIOD

    def say(self, text: str) -> None:
        """Print one line."""
        _print_line(text)

    def show(self, tally: Tally, elapsed: float) -> None:
        """Print how far the run is."""
        _print_line(progress_line(tally, elapsed))


class BarScreen:
    """A progress bar on the terminal.

    Args:
        console: Where it is drawn.
        progress: The bar, running.
        task: The bar's only line.
    """

    period = BAR_PERIOD

    def __init__(self, console: Console, progress: Progress, task: TaskID) -> None:
        self._console = console
        self._progress = progress
        self._task = task

    def say(self, text: str) -> None:
        """Print one line above the bar."""
        with suppress(OSError):
            self._console.print(f"dspex-pool: {text}", markup=False, highlight=False)

    def show(self, tally: Tally, elapsed: float) -> None:
        """Move the bar."""
        with suppress(OSError):
            self._progress.update(
                self._task, completed=tally.done, failed=tally.failed, rate=f"{tally.rate(elapsed):.1f}"
            )
            self._progress.refresh()


def progress_line(tally: Tally, elapsed: float) -> str:
    """Say in one line how far a run is."""
    return f"{tally.done}/{tally.total} rows, {tally.failed} failed, {tally.rate(elapsed):.1f} rows/s"


@contextmanager
def choose_screen(*, total: int, quiet: bool, progress: bool) -> Iterator[Screen]:
    """Open the screen that fits: a bar on a terminal or when asked for, else lines, else nothing.

    Args:
        total: Rows of the input.
        quiet: Show no progress.
        progress: Draw the bar also where stderr is no terminal.
    """
    if quiet or not (progress or sys.stderr.isatty()):
        yield QuietScreen() if quiet else PlainScreen()
        return
    with ExitStack() as stack:
        yield stack.enter_context(_bar(total, forced=progress))


@contextmanager
def _bar(total: int, *, forced: bool) -> Iterator[BarScreen]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, force_terminal=forced or None)
    columns = (
        TextColumn("rows"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]} failed · {task.fields[rate]} rows/s"),
        TimeElapsedColumn(),
    )
    # Refreshed by the caller: a thread that draws would outlive an abrupt end.
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        task = progress.add_task("rows", total=total, failed=0, rate="0.0")
        yield BarScreen(console, progress, task)


def summary_lines(summary: Summary) -> list[tuple[str, str]]:
    """Return the lines of the table at the end: what, and how much."""
    lines = [("rows done", f"{summary.done} of {summary.total}"), ("failed", str(summary.failed))]
    if summary.earlier:
        lines.insert(1, ("of an earlier run", str(summary.earlier)))
    lines += [
        ("retried", str(summary.retried)),
        ("rows a second", f"{summary.rows_per_second:.1f}"),
        (
            "seconds a row, p50 / p95 / p99",
            " / ".join(map(_seconds, (summary.p50, summary.p95, summary.p99))),
        ),
        ("worker restarts", _restarts(summary.restarts)),
        ("answers that match", _matches(summary)),
    ]
    return lines


def print_summary(summary: Summary) -> None:
    """Print the table on stderr."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table("summary", "", box=SIMPLE_HEAD)
    table.columns[1].justify = "right"
    for what, how_much in summary_lines(summary):
        table.add_row(what, how_much)
    with suppress(OSError):
        Console(stderr=True, highlight=False, markup=False).print(table)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _restarts(restarts: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in restarts.items()) or "none"


def _matches(summary: Summary) -> str:
    if not summary.compared:
        return "nothing expected"
    share = 100 * summary.matched / summary.compared
    return f"{summary.matched} of {summary.compared} ({share:.1f} %)"


def _print_line(text: str) -> None:
    with suppress(OSError, ValueError):
        print(f"dspex-pool: {text}", file=sys.stderr, flush=True)
