"""``dspex-testkit conform``: the run and its verdict on the terminal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dspex_pool.cli.problems import CliError, ExitCode, printing, writing
from dspex_testkit.conform.bench import Outcome, WorkerStartError
from dspex_testkit.conform.catalogue import choose
from dspex_testkit.conform.expected import complaints, load_expected, unexpected_passes
from dspex_testkit.conform.junit import write_junit
from dspex_testkit.conform.profile import Profile, command_of_text, load_profile
from dspex_testkit.conform.run import conform

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from dspex_testkit.conform.bench import Verdict
    from dspex_testkit.conform.run import Findings

__all__ = ["Order", "list_clauses", "run_conform"]

_MARKS = {
    Outcome.PASSED: "[green]kept[/]",
    Outcome.FAILED: "[red]BROKEN[/]",
    Outcome.NOT_APPLICABLE: "[dim]not applicable[/]",
    Outcome.NOT_JUDGED: "[yellow]not judged[/]",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the command line asks for."""

    #: What starts the worker.
    command: tuple[str, ...]
    #: A profile's file.
    profile: Path | None
    #: Roles of commands, ``ROLE=NAME [JSON]``.
    known: tuple[str, ...]
    #: Largest payload, in bytes, in place of the profile's.
    max_frame_bytes: int | None
    #: Patience in seconds, in place of the profile's.
    timeout: float | None
    #: Version to be spoken.
    version: int | None
    #: Ids of clauses, or patterns of ids.
    only: tuple[str, ...]
    #: A file of ids.
    expected_failures: Path | None
    #: Where JUnit XML goes.
    junit: Path | None
    #: Where the page goes.
    html: Path | None
    #: Whether every clause is shown.
    is_verbose: bool


def list_clauses(patterns: Iterable[str]) -> None:
    """Print the chosen clauses with their promises."""
    table = Table("Clause", "Promise", "Needs", box=None, pad_edge=False)
    for clause in choose(patterns):
        needs = [*clause.needs, *(["version 2"] if clause.version == 2 else [])]
        table.add_row(clause.id, escape(clause.promise), ", ".join(needs))
    with printing():
        Console(highlight=False).print(table)


def run_conform(order: Order) -> ExitCode:
    """Hold the worker to the clauses, print and write the verdict, and return the exit status.

    Raises:
        CliError: There is no command, it starts no worker, or a file cannot be written.
        InvalidArgumentError: A file or an option says something that is not understood.
        OSError: A file cannot be read.
    """
    if not any(order.command[:1]):
        raise CliError(
            "there is no command; say what starts the worker after two dashes: conform -- ./my-worker"
        )
    clauses = choose(order.only)
    expected = load_expected(order.expected_failures) if order.expected_failures else {}
    try:
        findings = conform(order.command, profile_of(order), clauses=clauses, version=order.version)
    except WorkerStartError as error:
        raise CliError(str(error)) from error
    # Paths and payloads are for copying, so no line of text is broken.
    console = Console(highlight=False, soft_wrap=True, record=order.html is not None)
    with printing():
        is_well = _print(console, findings, expected, order)
    if order.junit:
        with writing(order.junit):
            write_junit(order.junit, findings, expected)
    if order.html:
        with writing(order.html):
            order.html.parent.mkdir(parents=True, exist_ok=True)
            console.save_html(str(order.html))
    return ExitCode.OK if is_well else ExitCode.FAILED


def profile_of(order: Order) -> Profile:
    """Put together what is known of the worker: the file, and the command line over it."""
    profile = load_profile(order.profile) if order.profile else Profile()
    commands = dict(profile.commands) | dict(command_of_text(text) for text in order.known)
    return replace(
        profile,
        commands=commands,
        max_frame_bytes=order.max_frame_bytes or profile.max_frame_bytes,
        timeout=order.timeout or profile.timeout,
    )


def _print(console: Console, findings: Findings, expected: Mapping[str, int], order: Order) -> bool:
    """Print the verdict; return whether the worker is well."""
    broken = complaints(findings, expected)
    kept = unexpected_passes(findings, expected)
    console.print(
        f"[bold]{escape(' '.join(findings.command))}[/], version {findings.version} of the protocol\n"
    )
    console.print(_by_subject(findings), soft_wrap=False)
    shown = [verdict for verdict in findings.verdicts if order.is_verbose or verdict.clause.id in broken]
    for verdict in shown:
        _print_verdict(console, verdict)
    _print_reasons(console, findings)
    for name, line in kept.items():
        place = escape(f"{order.expected_failures}:{line}")
        console.print(f"\n[red]{place}[/] expects {name} to be broken, but it is kept")
    is_well = not broken and not kept and not findings.of(Outcome.NOT_JUDGED)
    console.print(f"\n[bold {'green' if is_well else 'red'}]{_counts(findings, len(broken))}[/]")
    return is_well


def _counts(findings: Findings, broken: int) -> str:
    """Count in one line how the clauses ended."""
    counts = {outcome: len(findings.of(outcome)) for outcome in Outcome}
    said = [f"{counts[Outcome.PASSED]} kept", f"{broken} broken"]
    if expectedly := counts[Outcome.FAILED] - broken:
        said.append(f"{expectedly} broken as expected")
    for outcome in (Outcome.NOT_APPLICABLE, Outcome.NOT_JUDGED):
        if counts[outcome]:
            said.append(f"{counts[outcome]} {outcome.value}")
    return ", ".join(said)


def _by_subject(findings: Findings) -> Table:
    table = Table("Subject", "Kept", "Broken", "Not applicable", "Not judged", box=None, pad_edge=False)
    for subject in dict.fromkeys(verdict.clause.subject for verdict in findings.verdicts):
        outcomes = [verdict.outcome for verdict in findings.verdicts if verdict.clause.subject == subject]
        table.add_row(subject, *(str(outcomes.count(outcome) or "") for outcome in Outcome))
    return table


def _print_verdict(console: Console, verdict: Verdict) -> None:
    clause = verdict.clause
    console.print(f"\n{_MARKS[verdict.outcome]} [bold]{clause.id}[/] {escape(clause.promise)}")
    if verdict.seen:
        console.print(f"  {escape(verdict.seen)}")
    if verdict.outcome is Outcome.FAILED:
        console.print(f"  [dim]protocol: {escape(clause.source)}[/]")


def _print_reasons(console: Console, findings: Findings) -> None:
    """Say once for each reason which clauses were not judged for it."""
    reasons: dict[str, list[str]] = {}
    for verdict in (*findings.of(Outcome.NOT_APPLICABLE), *findings.of(Outcome.NOT_JUDGED)):
        reasons.setdefault(f"{verdict.outcome.value}: {verdict.seen}", []).append(verdict.clause.id)
    if reasons:
        console.print()
    for reason, names in reasons.items():
        console.print(f"[dim]{escape(reason)} ({', '.join(names)})[/]")
