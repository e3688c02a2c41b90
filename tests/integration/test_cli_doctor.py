"""The doctor tells what works, what may bite and what will not work."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from dspex_pool.cli.doctor import (
    Finding,
    all_processes,
    check_descriptors,
    check_interpreter,
    check_orphans,
    check_packages,
    check_processes,
    check_session_store,
    examine,
    exit_code_of_findings,
    failed_worker,
    find_orphans,
    installed_version,
    own_tasks,
    print_findings,
)
from dspex_pool.cli.problems import ExitCode
from dspex_pool.config import PoolConfig
from dspex_pool.errors import WorkerStartError
from dspex_pool.session_store.sqlite_file import open_file
from dspex_pool.transport.run_tag import RUN_TAG_VARIABLE, own_run_tag, shares_numbers
from tests.cases import case

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

pytestmark = pytest.mark.integration

UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(("version", "level"), [((3, 10, 9), "fail"), ((3, 11, 0), "ok"), ((4, 0, 0), "ok")])
def test_interpreter_must_be_new_enough(version: tuple[int, ...], level: str) -> None:
    """3.11 is the oldest."""
    assert check_interpreter(version, "python").level == level


def test_dspy_must_be_there_and_new_enough() -> None:
    """Unless workers run something of their own, which may not need it."""
    cases: list[tuple[str | None, bool, str]] = [
        ("3.4.1", False, "ok"),
        ("3.4.0", False, "fail"),
        ("3.10.0rc1", False, "ok"),
        ("3.3.9", False, "fail"),
        ("dev", False, "fail"),
        (None, False, "fail"),
        (None, True, "warn"),
    ]
    for dspy, has_own_worker, level in cases:

        def version_of(package: str, dspy: str | None = dspy) -> str | None:
            return dspy if package == "dspy" else "1.0"

        found = check_packages(version_of, has_own_worker=has_own_worker).level
        assert found == level, (dspy, has_own_worker)


def test_missing_package_is_named() -> None:
    """With what to install."""
    finding = check_packages({"dspex-pool": "0.1"}.get, has_own_worker=False)
    assert finding.level == "fail"
    assert finding.message.endswith("install trio msgspec")


def test_version_of_what_is_not_installed_is_none() -> None:
    """No exception reaches the check."""
    assert installed_version("no-such-package-anywhere") is None
    assert installed_version("trio")


@pytest.mark.parametrize(("limit", "level"), [(113, "fail"), (114, "ok"), (UNLIMITED, "ok")])
def test_descriptors_must_suffice_for_all_workers(limit: int, level: str) -> None:
    """Five for each worker and some for everything else; the message has the command that raises the limit."""
    finding = check_descriptors(10, limit)
    assert finding.level == level
    assert level == "ok" or "ulimit -n 114" in finding.message


def test_processes_must_suffice_for_all_workers() -> None:
    """Threads count, and what the user runs already; root passes any limit."""
    cases: list[tuple[int, bool, str]] = [
        (139, False, "fail"),
        (140, False, "ok"),
        (139, True, "ok"),
        (UNLIMITED, False, "ok"),
    ]
    for limit, is_root, level in cases:
        with case(limit, is_root):
            finding = check_processes(10, limit, 100, is_root=is_root)
            assert finding.level == level
            assert finding.facts["limit"] == (None if limit == UNLIMITED else limit)


def test_own_tasks_count_this_process() -> None:
    """At least this one is running."""
    assert own_tasks() >= 1


def test_system_that_shows_no_process_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``/proc`` the whole command ended with an unexpected ``IndexError``."""

    def without_proc() -> list[int]:
        return [][0]  # as psutil does

    monkeypatch.setattr(psutil, "pids", without_proc)
    assert own_tasks() == 0
    assert find_orphans(all_processes()) == []


def test_session_store_must_be_usable(tmp_path: Path) -> None:
    """Nobody looked at it: all was well, and the pool did not open. What is not there is not made by looking."""
    file, other = tmp_path / "sessions.db", tmp_path / "other.txt"
    other.write_text("no database, but long enough to be looked at" * 100)
    assert check_session_store("memory").level == "ok"
    assert check_session_store(f"sqlite:{file}").level == "ok"
    assert not file.exists()
    missing = check_session_store(f"sqlite:{tmp_path / 'nowhere' / 'sessions.db'}")
    assert (missing.level, "nowhere" in missing.message) == ("fail", True)
    foreign = check_session_store(f"sqlite:{other}")
    assert (foreign.level, "is no SQLite database" in foreign.message) == ("fail", True)
    connection = open_file(file)
    try:
        used = check_session_store(f"sqlite:{file}")
    finally:
        connection.close()
    # As by the pool that runs.
    assert (used.level, "in use by another pool" in used.message) == ("warn", True)
    assert check_session_store(f"sqlite:{file}").level == "ok"


class FakeProcess:
    """A process as the search for orphans sees it."""

    def __init__(
        self, pid: int, environ: Callable[[], Mapping[str, str]], status: str = psutil.STATUS_SLEEPING
    ) -> None:
        self.pid = pid
        self.environ = environ
        self._status = status

    def status(self) -> str:
        return self._status


def refuse() -> Mapping[str, str]:
    """Behave as a process of another user."""
    raise psutil.AccessDenied(7)


def test_orphans_are_workers_whose_pool_is_gone() -> None:
    """Workers of a living pool, strangers, zombies and processes that may not be looked into are none.

    Nor are those in a container: there their pool has another number, so each of them seemed to have outlived it, and
    whoever looked for orphans outside was told to kill them.
    """
    gone = {RUN_TAG_VARIABLE: f"{os.getpid()}-1000000000.00"}
    processes = [
        FakeProcess(2, lambda: gone),
        FakeProcess(1, lambda: gone),
        FakeProcess(3, lambda: gone, psutil.STATUS_ZOMBIE),
        FakeProcess(4, lambda: {RUN_TAG_VARIABLE: own_run_tag()}),
        FakeProcess(5, dict),
        FakeProcess(6, lambda: {RUN_TAG_VARIABLE: "made up"}),
        FakeProcess(7, refuse),
        FakeProcess(8, lambda: gone),
    ]
    found = find_orphans(processes, lambda pid: pid != 8)  # type: ignore[arg-type]  # as far as the search looks
    assert found == [1, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems number all processes in one way")
def test_process_beside_this_one_numbers_processes_alike() -> None:
    """Only then a tag can be trusted."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as neighbour:
        assert shares_numbers(neighbour.pid)
        neighbour.communicate()
    with pytest.raises(OSError, match=str(neighbour.pid)):
        shares_numbers(neighbour.pid)


def test_orphans_are_reported_with_the_command_that_ends_them() -> None:
    """They hurt nobody at once, so it is a warning."""
    assert check_orphans([]).level == "ok"
    finding = check_orphans([11, 12])
    assert finding.level == "warn"
    assert finding.message == "2 workers outlived their pool; end them: kill 11 12"


def test_worker_that_does_not_work_is_a_failure() -> None:
    """The finding says what the error says."""
    finding = failed_worker(WorkerStartError("left at once", stderr_tail="boom"))
    assert finding.level == "fail"
    assert finding.message == "left at once. Its last line on stderr: boom"


def test_only_failures_make_the_status_1() -> None:
    """A warning is no reason to stop a deployment."""
    ok, warn, fail = Finding("a", "ok", ""), Finding("b", "warn", ""), Finding("c", "fail", "")
    assert exit_code_of_findings([ok, warn]) == ExitCode.OK
    assert exit_code_of_findings([ok, fail]) == ExitCode.FAILED


def test_all_checks_are_made_the_worker_last() -> None:
    """The order is that of a diagnosis: what a later check needs comes first."""
    probed: list[PoolConfig] = []

    def probe(config: PoolConfig) -> Finding:
        probed.append(config)
        return Finding("worker", "ok", "answered")

    config = PoolConfig(pool_size=2, max_overflow=1)
    findings = examine(config, probe)
    assert [finding.check for finding in findings] == [
        "interpreter",
        "packages",
        "open files",
        "processes",
        "orphans",
        "sessions",
        "worker",
    ]
    assert findings[2].facts["workers"] == 3
    assert probed == [config]


def test_findings_are_printed_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    """Level, check and message in columns."""
    print_findings([Finding("a", "ok", "fine"), Finding("long", "warn", "hm")], as_json=False)
    assert capsys.readouterr().out == "ok    a     fine\nwarn  long  hm\n"


def test_findings_are_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With the numbers behind them."""
    print_findings([Finding("a", "fail", "no", {"n": 1})], as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "ok": False,
        "findings": [{"check": "a", "level": "fail", "message": "no", "facts": {"n": 1}}],
    }
