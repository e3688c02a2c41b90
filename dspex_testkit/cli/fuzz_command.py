"""``dspex-testkit fuzz``: the run, and what it has to say, on the terminal."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dspex_pool.cli.problems import CliError, ExitCode, one_line, printing, writing
from dspex_pool.cli.stop import Stop
from dspex_pool.errors import InvalidArgumentError
from dspex_testkit.fuzz.budget import in_words
from dspex_testkit.fuzz.canary import canary_of
from dspex_testkit.fuzz.files import read_journal, write_entry, write_run
from dspex_testkit.fuzz.fuzzer import Fuzzer, NoTestsError, PlayerError, rate
from dspex_testkit.fuzz.note import note_of
from dspex_testkit.simulation.run import only_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dspex_testkit.fuzz.fuzzer import Asked
    from dspex_testkit.fuzz.journal import Entry, Journal

__all__ = ["CANARY_MISSED", "merge", "run_fuzz"]

#: Exit status of a run that did not find its canary.
CANARY_MISSED: Final = 3
#: Seconds between two looks at the progress: of a bar, and of a line.
_BAR, _LINE = 0.5, 30.0


def run_fuzz(asked: Asked) -> int:
    """Fuzz, print what was found, and return the exit status.

    Raises:
        CliError: There is nothing to play, or a process that plays could not.
        Stopped: A signal stopped the run. What was found is in the journal, and no process is left.
        InvalidArgumentError: The canary or the journal is none.
        OSError: The journal cannot be read or written.
    """
    try:
        if asked.canary:
            canary_of(asked.canary)
    except ValueError as error:
        raise InvalidArgumentError(str(error)) from None
    console = Console(highlight=False, soft_wrap=True)
    fuzzer: list[Fuzzer] = []
    try:
        Stop(advice="what was found is in the journal").run(partial(_fuzz, asked, fuzzer))
    except NoTestsError as error:
        raise CliError(str(error)) from error
    except PlayerError as error:
        if error.ended.complaint:
            raise CliError(one_line(error.ended.complaint)) from error
        print(error.ended.output, file=sys.stderr)
        code = ExitCode.FAILED if error.ended.status < 0 else ExitCode.USAGE
        raise CliError(f"{error}; what it printed is above", code) from error
    with printing():
        return _verdict(console, fuzzer[0])


async def _fuzz(asked: Asked, made: list[Fuzzer]) -> None:
    with _screen(asked.budget) as (show, say):
        fuzzer = Fuzzer(asked, on_found=lambda entry, is_new: say(f"found {entry.key}") if is_new else None)
        made.append(fuzzer)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_show, fuzzer, show)
                await fuzzer.fuzz()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise only_error(group) from None


async def _show(fuzzer: Fuzzer, show: Callable[[Fuzzer], float]) -> None:
    while True:
        await trio.sleep(show(fuzzer))


@contextmanager
def _screen(budget: float) -> Iterator[tuple[Callable[[Fuzzer], float], Callable[[str], object]]]:
    """Open what shows the progress: a bar on a terminal, else lines.

    Returns:
        What shows it and says after how many seconds it wants to again, and what prints a line.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield lambda fuzzer: _show_line(console, fuzzer), lambda text: console.print(text, markup=False)
        return
    columns = (TextColumn("fuzzing"), BarColumn(), TextColumn("{task.fields[told]}"), TimeElapsedColumn())
    # Refreshed by us: a thread that draws would outlive an abrupt end.
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        task = progress.add_task("fuzzing", total=budget, told="")

        def show(fuzzer: Fuzzer) -> float:
            progress.update(task, completed=min(budget, fuzzer.elapsed), told=_told(fuzzer))
            progress.refresh()
            return _BAR

        yield show, lambda text: progress.console.print(text, markup=False)


def _show_line(console: Console, fuzzer: Fuzzer) -> float:
    if fuzzer.seeds:
        console.print(f"{in_words(fuzzer.elapsed)}: {_told(fuzzer)}", markup=False)
    return _LINE


def _told(fuzzer: Fuzzer) -> str:
    per_hour = rate(fuzzer.seeds, fuzzer.elapsed)
    return f"{fuzzer.seeds} seeds, {per_hour} an hour, {len(fuzzer.found)} kinds of failures"


def _verdict(console: Console, fuzzer: Fuzzer) -> int:
    """Print what came of it; return the exit status."""
    for key in fuzzer.found:
        console.print(note_of(fuzzer.journal.entries[key]), markup=False)
    if fuzzer.journal.entries:
        console.print(_table(fuzzer.journal))
    console.print(
        f"{fuzzer.seeds} seeds in {in_words(fuzzer.elapsed)} and {fuzzer.cpu:.0f} CPU s: "
        f"{rate(fuzzer.seeds, fuzzer.elapsed)} an hour, {rate(fuzzer.seeds, fuzzer.cpu)} a CPU hour; "
        f"seed {fuzzer.asked.seed}"
    )
    is_missed = bool(fuzzer.asked.canary) and not fuzzer.canary
    console.print(_about_canary(fuzzer))
    if fuzzer.found:
        folder = fuzzer.asked.journal / "failures"
        console.print(
            f"[bold red]{len(fuzzer.found)} kinds of failures[/], each with its text in {escape(str(folder))}"
        )
    return CANARY_MISSED if is_missed else int(bool(fuzzer.found))


def _about_canary(fuzzer: Fuzzer) -> str:
    if not fuzzer.asked.canary:
        return "there was no canary: that nothing is found proves little"
    found = fuzzer.canary_found
    if found is None or found.example is None:
        return (
            f"[bold red]canary missed[/]: nothing found the planted bug {escape(fuzzer.asked.canary)}, "
            "so this run would not have found one like it either"
        )
    calls, faults, turns, *_ = found.example.size
    return (
        f"canary found after {fuzzer.canary} seeds: {escape(found.failure.title)}, "
        f"shrunk to {calls} calls, {faults} faults, {turns} decisions"
    )


def _table(journal: Journal) -> Table:
    """Return what was found, and what of it passes again. A size is calls, faults, decisions of the scheduler."""
    table = Table("Failure", "Test", "Seeds", "Size", "Seen", "State", box=None, pad_edge=False)
    for entry in journal.ranked():
        table.add_row(
            escape(entry.failure.title),
            escape(entry.test.rpartition("::")[2]),
            str(sum(entry.seeds.values())),
            "/".join(map(str, entry.example.size[:3])),
            f"{entry.first_seen[:10]} to {entry.last_seen[:10]}",
            _state(entry),
        )
    return table


def _state(entry: Entry) -> str:
    if entry.is_flaky:
        return "[red]flaky[/]"
    return "[red]open[/]" if entry.is_open else f"[green]passes since {entry.passed_at[:10]}[/]"


def merge(folders: tuple[Path, ...], journal: Path) -> int:
    """Merge the journals in ``folders`` into ``journal``, and print what is in it.

    Raises:
        CliError: A folder is not there, or there is none, or the journal cannot be written.
        InvalidArgumentError: A file in it is none of a journal.
        OSError: It cannot be read.
    """
    if not folders:
        raise CliError("there is nothing to merge; name the folders of journals: fuzz --merge OTHER_DIR...")
    for folder in folders:
        if not folder.is_dir():
            raise CliError(f"{folder} is no folder")
    whole = read_journal(journal)
    for folder in folders:
        whole.merge(read_journal(folder))
    with writing(journal):
        for entry in whole.entries.values():
            write_entry(journal, entry)
        for run in whole.runs.values():
            write_run(journal, run)
    with printing():
        _print_merged(whole)
    return ExitCode.OK


def _print_merged(whole: Journal) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if whole.entries:
        console.print(_table(whole))
    seeds, seconds = (sum(getattr(run, name) for run in whole.runs.values()) for name in ("seeds", "seconds"))
    missed = sum(run.canary == 0 for run in whole.runs.values())
    console.print(
        f"{len(whole.entries)} kinds of failures; {seeds} seeds in {len(whole.runs)} runs, "
        f"{rate(seeds, seconds)} an hour; the canary was missed {missed} times"
    )
