"""``dspex-testkit load``: a profile of load on a pool of one's own, its progress, and what came of it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dspex_pool.adapters.python_pool import PythonPool
from dspex_pool.cli.problems import CliError, ExitCode, one_line, printing, writing
from dspex_pool.cli.stop import Stop
from dspex_testkit.load.arrivals import Poisson
from dspex_testkit.load.page import describe, write_load_page
from dspex_testkit.load.profile import PROFILES, Closed, Open
from dspex_testkit.load.run import run_load
from dspex_testkit.report.files import check_folder
from dspex_testkit.report.story import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dspex_testkit.load.profile import Profile
    from dspex_testkit.load.result import LoadResult
    from dspex_testkit.load.tally import Stretch

__all__ = ["LoadOrder", "list_profiles", "put_load"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOrder:
    """What the command line asks for; ``None`` leaves it to the profile."""

    profile: str
    seconds: float | None
    handler: str | None
    command: str | None
    #: A JSON object.
    args: str | None
    workers: int | None
    #: Closed, by so many callers; or open, so many a second.
    callers: int | None
    rate: float | None
    seed: int
    as_json: bool
    #: Folder for a page.
    report: Path | None


def list_profiles() -> None:
    """Print the named profiles."""
    table = Table("Profile", "What it is", box=None, pad_edge=False)
    for profile in PROFILES.values():
        table.add_row(profile.name, profile.doc)
    with printing():
        Console(highlight=False).print(table)


def put_load(order: LoadOrder) -> ExitCode:
    """Open a pool, put the load on it, print what came of it, and return the exit status.

    Raises:
        CliError: There is no such profile, what is over it does not fit, or the page cannot be written; if nothing
            can be written into its folder, before the load.
        Stopped: A signal ended it. The pool is closed.
        DspexPoolError: The pool cannot be opened.
    """
    profile = profile_of(order)
    if order.report is not None:
        try:
            check_folder(order.report)
        except OSError as error:
            reason = error.strerror or error
            raise CliError(f"nothing can be written into {order.report}: {reason}") from error
    with _progress(profile) as show:
        result = Stop().run(partial(_load, profile, order.seed, show))
    page = None
    try:
        if order.report is not None:
            with writing(order.report):
                page = write_load_page(result, order.report)
    finally:
        with printing():
            if order.as_json:
                print(json.dumps(result.as_json() | {"report": str(page) if page else None}, indent=2))
            else:
                _print(result, page)
    return ExitCode.FAILED if result.problems() else ExitCode.OK


def profile_of(order: LoadOrder) -> Profile:
    """Return the named profile with what the command line changes of it.

    Raises:
        CliError: There is no such profile, or what is over it does not fit.
    """
    if order.profile not in PROFILES:
        raise CliError(f"there is no profile {order.profile}; known are {', '.join(PROFILES)}")
    if order.callers is not None and order.rate is not None:
        raise CliError("--callers and --rate exclude each other: load is closed or open")
    profile = PROFILES[order.profile]
    changes: dict[str, Any] = {"settings": dict(profile.settings) | _settings_of(order)}
    if order.seconds is not None:
        changes["seconds"] = order.seconds
        if isinstance(profile.load, Closed):
            changes["load"] = replace(profile.load, calls=None)
    if order.callers is not None:
        changes["load"] = Closed(order.callers)
    if order.rate is not None:
        changes["load"] = Open(Poisson(order.rate))
    if order.command is not None:
        changes |= {"command": order.command, "args": {}, "is_echo": False}
    if order.args is not None:
        changes["args"] = _args_of(order.args)
    return replace(profile, **changes)


def _settings_of(order: LoadOrder) -> dict[str, Any]:
    given = {"handler": order.handler, "pool_size": order.workers}
    return {name: value for name, value in given.items() if value is not None}


def _args_of(text: str) -> dict[str, Any]:
    # Not by Python's own reader, which takes NaN.
    with contextlib.suppress(ValueError, RecursionError, msgspec.MsgspecError):
        args = msgspec.json.decode(text)
        if isinstance(args, dict):
            return args
    raise CliError(f"--args must be a JSON object, not {one_line(text, 200)!r}")


async def _load(profile: Profile, seed: int, show: Callable[[Stretch], object]) -> LoadResult:
    async with PythonPool.open(**profile.settings) as pool:
        # Else the calls would wait in vain, one after another, and be told as so many failures of the load.
        await pool.wait_ready(1, fail_fast=True)
        return await run_load(pool, profile, seed=seed, on_stretch=show)


@contextlib.contextmanager
def _progress(profile: Profile) -> Iterator[Callable[[Stretch], object]]:
    """Show how far the load is, on a terminal; elsewhere nothing."""
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("warming up", total=profile.seconds)

        def show(stretch: Stretch) -> None:
            said = f"{stretch.rate:.0f} calls/s, p99 {seconds(stretch.p99)}"
            if stretch.others:
                said += f", {stretch.others} not answered"
            progress.update(task, completed=stretch.end, description=said)

        yield show


def _print(result: LoadResult, page: Path | None) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{result.profile.name}[/], seed {result.seed}: {result.profile.doc}")
    console.print(f"[dim]{escape('; '.join(describe(result.profile)))}[/]\n")
    console.print(
        f"{result.answered} calls answered in {seconds(result.seconds)}, {result.per_second:.4g} a second"
    )
    latencies = result.latency.percentiles()
    table = Table(*latencies, box=None, pad_edge=False)
    table.add_row(*(seconds(value) for value in latencies.values()))
    console.print(table, soft_wrap=False)
    for name, latency in result.tally.other_latency.items():
        console.print(f"{result.outcomes[name]} ended with {name}, p99 {seconds(latency.percentile(99))}")
    for reason, count in result.retired.items():
        console.print(f"{count} workers left: {reason}")
    for name, slope in result.slopes().items():
        console.print(f"{name} {slope}")
    for problem in result.problems():
        console.print(f"[red]{escape(problem)}[/]")
    if page is not None:
        console.print(f"page: {page}")
