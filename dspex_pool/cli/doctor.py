"""``dspex-pool doctor``: whether a pool would work here, one check at a time."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import psutil
import typer

from dspex_pool.cli.problems import ExitCode, describe_problem, one_line
from dspex_pool.errors import InvalidConfigError
from dspex_pool.session_store.sqlite_file import is_in_use, open_file, place_of
from dspex_pool.transport.run_tag import RUN_TAG_VARIABLE, run_has_ended, shares_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dspex_pool.config import PoolConfig

__all__ = ["Finding", "Level", "examine", "exit_code_of_findings", "print_findings"]

Level: TypeAlias = Literal["ok", "warn", "fail"]

COLOURS: Mapping[Level, str] = {"ok": "green", "warn": "yellow", "fail": "red"}

#: Descriptors that a worker takes in this process: four pipes and one that tells of its end.
DESCRIPTORS_PER_WORKER = 5
#: Descriptors for everything else: standard streams, input, journal, event loop, the host program's own.
DESCRIPTORS_BESIDE = 64
#: Threads that a worker needs at least: it, its reader, and the model's client.
TASKS_PER_WORKER = 4

#: Oldest versions that are supported.
OLDEST_PYTHON = (3, 11)
OLDEST_DSPY = (3, 4, 1)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    #: Name of the check.
    check: str
    #: ``ok``, ``warn`` (it may bite) or ``fail`` (it will not work).
    level: Level
    #: One line: what was found and, unless it is ok, what to do.
    message: str
    #: The numbers behind it.
    facts: Mapping[str, Any] = field(default_factory=dict)


def examine(config: PoolConfig, probe_worker: Callable[[PoolConfig], Finding]) -> list[Finding]:
    """Run all checks, the one that starts a worker last.

    Args:
        config: The settings of the pool that is to work here.
        probe_worker: Starts, pings and stops one worker.
    """
    workers = config.pool_size + config.max_overflow
    files, tasks = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
    return [
        check_interpreter(tuple(sys.version_info[:3]), sys.executable),
        check_packages(
            installed_version, has_own_worker=bool(config.command or config.python or config.handler)
        ),
        check_descriptors(workers, files),
        check_processes(workers, tasks, own_tasks(), is_root=os.geteuid() == 0),
        check_orphans(find_orphans(all_processes())),
        check_session_store(config.session_store),
        probe_worker(config),
    ]


def exit_code_of_findings(findings: Iterable[Finding]) -> ExitCode:
    """Return 1 if any check failed; warnings do not count."""
    return ExitCode.FAILED if any(finding.level == "fail" for finding in findings) else ExitCode.OK


def print_findings(findings: list[Finding], *, as_json: bool) -> None:
    """Print the findings on the standard output, a line each or as one JSON object.

    The JSON is ``{ok, findings: [{check, level, message, facts}]}``.
    """
    if as_json:
        rows = [
            {"check": f.check, "level": f.level, "message": f.message, "facts": f.facts} for f in findings
        ]
        ok = exit_code_of_findings(findings) == ExitCode.OK
        typer.echo(json.dumps({"ok": ok, "findings": rows}, indent=2))
        return
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        level = typer.style(f"{finding.level:<5}", fg=COLOURS[finding.level])
        typer.echo(f"{level} {finding.check:<{width}}  {finding.message}")


def check_interpreter(version: tuple[int, ...], executable: str) -> Finding:
    """Check the Python that runs the pool."""
    text = ".".join(map(str, version))
    facts = {"version": text, "executable": executable, "system": " ".join(os.uname()[0::2])}
    if version[:2] < OLDEST_PYTHON:
        return Finding("interpreter", "fail", f"Python {text} is too old: install 3.11 or newer", facts)
    return Finding("interpreter", "ok", f"Python {text} at {executable}", facts)


def installed_version(package: str) -> str | None:
    """Return the version of an installed package, or ``None``."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_packages(version_of: Callable[[str], str | None], *, has_own_worker: bool) -> Finding:
    """Check the packages of this environment.

    Args:
        version_of: Tells the version of a package.
        has_own_worker: Whether workers run another command, interpreter or handler, so that dspy is not
            needed here.
    """
    names = ("dspex-pool", "trio", "msgspec", "dspy")
    facts = {name: version_of(name) for name in names}
    text = ", ".join(f"{name} {version or 'missing'}" for name, version in facts.items())
    missing = [name for name in names[:-1] if facts[name] is None]
    if missing:
        return Finding("packages", "fail", f"{text}; install {' '.join(missing)}", facts)
    if facts["dspy"] is not None and _release(facts["dspy"]) >= OLDEST_DSPY:
        return Finding("packages", "ok", text, facts)
    oldest = ".".join(map(str, OLDEST_DSPY))
    advice = f"{text}; install dspy {oldest} or newer: pip install 'dspex-pool[dspy]'"
    return Finding("packages", "warn" if has_own_worker else "fail", advice, facts)


def _release(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:3]
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in parts)


def check_descriptors(workers: int, limit: int) -> Finding:
    """Check the limit on open descriptors against what the workers take."""
    needed = DESCRIPTORS_BESIDE + DESCRIPTORS_PER_WORKER * workers
    facts = {"limit": _number(limit), "needed": needed, "workers": workers}
    text = f"{_limit(limit)} allowed, {needed} needed by {workers} workers"
    if limit != resource.RLIM_INFINITY and limit < needed:
        return Finding("open files", "fail", f"{text}; raise it: ulimit -n {needed}", facts)
    return Finding("open files", "ok", text, facts)


def check_processes(workers: int, limit: int, running: int, *, is_root: bool) -> Finding:
    """Check the limit on processes and threads against what runs already and what the workers add.

    Args:
        workers: Workers of the pool.
        limit: Processes and threads that this user may have.
        running: Processes and threads that this user has.
        is_root: Whether this user is root, whom the system lets pass the limit.
    """
    needed = running + TASKS_PER_WORKER * workers
    facts = {"limit": _number(limit), "running": running, "needed": needed, "workers": workers}
    text = f"{_limit(limit)} allowed, about {needed} needed ({running} running now)"
    if limit != resource.RLIM_INFINITY and limit < needed and not is_root:
        return Finding(
            "processes", "fail", f"{text}; raise it: ulimit -u {needed}, or start fewer workers", facts
        )
    return Finding("processes", "ok", text, facts)


def all_processes(attributes: list[str] | None = None) -> Iterator[psutil.Process]:
    """Give all processes with some of their attributes; none where the system shows none, as without ``/proc``."""
    # What psutil raises then.
    with contextlib.suppress(IndexError):
        yield from psutil.process_iter(attributes)


def own_tasks() -> int:
    """Return how many processes and threads this user has."""
    uid, tasks = os.getuid(), 0
    for process in all_processes(["uids", "num_threads"]):
        if process.info["uids"] is not None and process.info["uids"].real == uid:
            tasks += process.info["num_threads"] or 1
    return tasks


def find_orphans(
    processes: Iterable[psutil.Process], counts_alike: Callable[[int], bool] = shares_numbers
) -> list[int]:
    """Return the ids of worker processes whose pool is gone.

    Args:
        processes: Where to look.
        counts_alike: Tells whether the tag of a process means the process that has this number here.
    """
    found = []
    for process in processes:
        try:
            tag = process.environ().get(RUN_TAG_VARIABLE)
            if tag is None or process.status() == psutil.STATUS_ZOMBIE or not counts_alike(process.pid):
                continue
            if run_has_ended(tag):
                found.append(process.pid)
        # Not ours to look at, gone meanwhile, or a tag that somebody else made up.
        except (psutil.Error, OSError, ValueError):
            continue
    return sorted(found)


def check_orphans(pids: list[int]) -> Finding:
    """Report workers that outlived their pool."""
    if not pids:
        return Finding("orphans", "ok", "no worker of an earlier run is left", {"pids": []})
    shown = " ".join(map(str, pids))
    text = f"{len(pids)} workers outlived their pool; end them: kill {shown}"
    return Finding("orphans", "warn", one_line(text, 500), {"pids": pids})


def check_session_store(setting: str) -> Finding:
    """Check that the session store can be opened. A file that does not exist yet is not made.

    Args:
        setting: The value of ``session_store``.
    """
    kind, _, path = setting.partition(":")
    facts = {"session_store": setting}
    if kind != "sqlite":
        return Finding("sessions", "ok", "in memory: sessions end with the pool", facts)
    try:
        place = place_of(path)
        # An empty one would be taken for a new one, and written to.
        if place.exists() and place.stat().st_size:
            open_file(place).close()
        elif not os.access(place if place.exists() else place.parent, os.W_OK):
            text = f"{place} cannot be written: make its folder, or change its permissions"
            return Finding("sessions", "fail", text, facts)
    except InvalidConfigError as error:
        level: Level = "warn" if is_in_use(error.__cause__) else "fail"
        return Finding("sessions", level, one_line(error.message, 500), facts)
    except OSError as error:
        return Finding("sessions", "fail", describe_problem(error), facts)
    return Finding("sessions", "ok", f"{place} can be used", facts)


def failed_worker(error: BaseException) -> Finding:
    """Make the finding for a worker that did not work."""
    return Finding("worker", "fail", describe_problem(error), {"error": type(error).__name__})


def _number(limit: int) -> int | None:
    return None if limit == resource.RLIM_INFINITY else limit


def _limit(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)
