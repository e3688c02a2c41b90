"""``dspex-testkit conform`` as the shell sees it: its verdict, its files, its exit status, and Ctrl-C."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import junitparser
import psutil
import pytest
import typer
from typer.testing import CliRunner

from dspex_testkit.cli.app import app
from dspex_testkit.conform.profile import ROLES
from tests.bounded_waits import wait_until
from tests.documents import ROOT, blocks_of
from tests.faulty_workers import faulty_command

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

pytestmark = pytest.mark.integration

SLOW = 'slow=sleep {"seconds": 60}'


def invoke(*words: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["conform", *words])


def conform(fault: str, *words: str) -> Result:
    """Hold a worker with a fault to what ``words`` say."""
    return invoke(*words, "--", *faulty_command(fault))


def test_well_worker_is_told_to_be_so() -> None:
    """Kept clauses are counted, and the exit status is 0."""
    result = conform("none", "--only", "F0*")
    assert result.exit_code == 0
    assert "10 kept, 0 broken" in result.output


def test_broken_clause_is_shown_with_what_was_seen_and_the_sentence() -> None:
    """The verdict says what is broken, by what, and where it is written; the exit status is 1."""
    result = conform("no_status", "--only", "H*")
    assert result.exit_code == 1
    assert "BROKEN H02 The answer to the first ping says that the status is ok." in result.output
    assert "the answer is {" in result.output
    assert 'protocol: one of version 1 with `"status": "ok"` alone.' in result.output


@pytest.mark.parametrize("clause", ["X04", "X05", "G03", "G04", "G07", "G08", "G10", "C05"])
def test_slow_command_that_is_not_slow_keeps_no_clause(clause: str) -> None:
    """With its name misspelt the worker refused it at once, and clauses about busy workers passed untried."""
    result = conform("none", "--only", clause, "--command", "slow=slip")
    assert result.exit_code == 1
    assert f"BROKEN {clause}" in result.output
    assert "its slow command is to take half a minute; at once came {" in result.output


@pytest.mark.parametrize("option", ["--junit", "--html"])
def test_file_that_cannot_be_written_is_named(option: str) -> None:
    """On a full disk the error said that no space was left, but not where."""
    result = conform("none", "--only", "F01", option, "/dev/full")
    assert result.exit_code == 2
    assert result.stderr == "error: cannot write /dev/full: No space left on device\n"


def test_command_line_tells_what_a_worker_knows() -> None:
    """A role given by --command makes its clauses judged; without it they are not applicable."""
    without = conform("uncancellable", "--only", "G07")
    assert (without.exit_code, "needs a command for the role 'slow'" in without.output) == (0, True)
    judged = conform("uncancellable", "--only", "G07", "--command", SLOW, "--timeout", "0.5")
    assert (judged.exit_code, "BROKEN G07" in judged.output) == (1, True)


def test_profile_tells_what_a_worker_knows(tmp_path: Path) -> None:
    """A TOML file says the same, and more."""
    profile = tmp_path / "worker.toml"
    profile.write_text('max_frame_bytes = 65536\n[commands]\necho = "echo"\n')
    result = conform("ascii_only", "--only", "F1*", "--profile", str(profile))
    assert result.exit_code == 1
    assert "BROKEN F15" in result.output
    assert "7 kept, 1 broken" in result.output


def test_version_is_what_the_worker_speaks_or_what_is_asked_for() -> None:
    """A worker that is held to version 1 is not asked for the rest."""
    assert "version 2 of the protocol" in conform("none", "--only", "H06").output
    assert "version 2 is not spoken" in conform("none", "--only", "H06", "--version", "1").output


def test_expected_failure_is_no_failure(tmp_path: Path) -> None:
    """A clause that is listed may be broken."""
    listed = tmp_path / "expected.txt"
    listed.write_text("# known\n\nH01  # no status yet\nH02\nH05\n")
    result = conform("no_status", "--only", "H*", "--expected-failures", str(listed))
    assert result.exit_code == 0
    assert "3 broken as expected" in result.output


def test_expected_failure_that_is_kept_is_named_with_its_line(tmp_path: Path) -> None:
    """A list that is out of date fails, and says where."""
    listed = tmp_path / "expected.txt"
    listed.write_text("# known\nH03\n")
    result = conform("none", "--only", "H*", "--expected-failures", str(listed))
    assert result.exit_code == 1
    assert "expected.txt:2 expects H03 to be broken, but it is kept" in result.output


def test_reports_are_written(tmp_path: Path) -> None:
    """JUnit has a case for each clause, with what was seen; the page has what was printed."""
    report, page = tmp_path / "made" / "junit.xml", tmp_path / "page.html"
    conform("no_status", "--only", "H*", "--version", "1", "--junit", str(report), "--html", str(page))
    (suite,) = junitparser.JUnitXml.fromfile(str(report))
    assert (suite.tests, suite.failures, suite.skipped) == (9, 3, 4)
    failed = next(case for case in suite if case.classname == "conform.H02")
    assert "the answer is {" in failed.result[0].message
    assert "BROKEN" in page.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--", "no-such-program"], "error: no-such-program: No such file or directory"),
        (["--", "false"], "error: the worker ended with status 1 before its first answer"),
        ([], "error: there is no command"),
        (["--only", "Q1", "--", "true"], "error: there is no clause 'Q1'"),
        (["--command", "fast=x", "--", "true"], "error: --command: there is no role 'fast'"),
        (["--command", "slow=x {", "--", "true"], "arguments that are no JSON"),
        (["--command", 'slow=x {"n": NaN}', "--", "true"], "slow has arguments that JSON cannot carry"),
        (["--", ""], "error: there is no command"),
        (["--profile", "none.toml", "--", "true"], "error: none.toml: No such file"),
        (["--timeout", "inf", "--", "true"], "error: Invalid value for '--timeout'"),
    ],
)
def test_wrong_order_is_one_clear_line(words: list[str], said: str) -> None:
    """What is wrong with the command line, a file or the command is said in one line; the exit status is 2."""
    result = invoke(*words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("timeout = 0", "timeout = 0 is refused: it must be a number above 0 and up to 1e+09"),
        ("timeout = nan", "timeout = nan is refused: it must be a number above 0 and up to 1e+09"),
        (
            "max_frame_bytes = 1.5",
            "max_frame_bytes = 1.5 is refused: it must be a whole number above 0 and up to ",
        ),
        ("time_out = 1", "there is no setting time_out, only commands, max_frame_bytes and timeout"),
        ("[commands]\nslow = {name = 'x', args = {n = nan}}", "slow has arguments that JSON cannot carry"),
        (
            "[commands]\nslow = {name = 'x', args = {n = 2026-11-29}}",
            "slow has arguments that JSON cannot carry",
        ),
        (f"deep = {'[' * 5000}", "it is nested too deeply"),
    ],
)
def test_profile_that_says_something_else_is_one_clear_line(text: str, said: str, tmp_path: Path) -> None:
    """A setting out of its range was said to be none, and a worker that was sent NaN to have kept its clause."""
    profile = tmp_path / "worker.toml"
    profile.write_text(text)
    result = invoke("--profile", str(profile), "--", "true")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert f"error: {profile}: {said}" in result.stderr


def test_listed_id_that_is_none_is_named_with_its_line(tmp_path: Path) -> None:
    """A typing error in the list does not pass for an expectation."""
    listed = tmp_path / "expected.txt"
    listed.write_text("F01\nF1\n")
    result = invoke("--expected-failures", str(listed), "--", "true")
    assert (result.exit_code, "expected.txt:2: 'F1' is no clause" in result.stderr) == (2, True)


def test_list_that_is_no_text_is_named(tmp_path: Path) -> None:
    """It ended the command as a defect of its own, without the name of the file."""
    listed = tmp_path / "expected.txt"
    listed.write_bytes(b"\xff\xfe")
    result = invoke("--expected-failures", str(listed), "--", "true")
    assert (result.exit_code, "expected.txt: 'utf-8' codec can't decode" in result.stderr) == (2, True)


@pytest.mark.parametrize("seconds", ["inf", "nan", "1e300", "0"])
def test_profile_without_a_usable_timeout_is_refused(seconds: str, tmp_path: Path) -> None:
    """Endless patience was an error of the system's timer, told as a defect of the command."""
    profile = tmp_path / "worker.toml"
    profile.write_text(f"timeout = {seconds}\n")
    result = invoke("--profile", str(profile), "--", "true")
    assert (result.exit_code, "worker.toml: timeout = " in result.stderr) == (2, True)


def test_worker_that_ends_without_a_word_is_quoted() -> None:
    """Why it did not start is what its stderr says."""
    result = invoke("--", "sh", "-c", "exec >&-; sleep 0.2; echo no licence found >&2; exit 3")
    assert result.exit_code == 2
    assert "ended with status 3 before its first answer; its stderr ends: no licence found" in result.stderr


def test_list_shows_clauses_without_a_worker() -> None:
    """--list needs no command."""
    result = invoke("--list", "--only", "G07")
    assert result.exit_code == 0
    assert "SIGINT while a command runs ends the command" in result.output
    assert "slow" in result.output


def test_ctrl_c_leaves_no_worker() -> None:
    """The exit status is that of an interrupted program, and all workers are gone."""
    words = [sys.executable, "-m", "dspex_testkit.cli", "conform", "--timeout", "60", "--only", "G*"]
    words += ["--command", SLOW, "--", *faulty_command("uncancellable")]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        me = psutil.Process(process.pid)
        try:
            wait_until(lambda: len(me.children(recursive=True)) >= 2, "some workers")
            workers = me.children(recursive=True)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        finally:
            process.kill()
        assert process.stderr is not None
        assert process.stderr.read() == b"error: interrupted\n"
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert alive == []


def test_every_option_is_described_in_the_documents() -> None:
    """The page about conformance names each option of the command, and each role."""
    page = (ROOT / "docs/testkit/conform.md").read_text(encoding="utf-8")
    command = typer.main.get_command(app).commands["conform"]  # type: ignore[attr-defined] # it is a group
    options = {name for option in command.params for name in option.opts if name.startswith("--")}
    assert {name for name in options - {"--help"} if name not in page} == set()
    plain = page.replace("`", "")
    assert {role for role, does in ROLES.items() if f"| {role} | {does} |" not in plain} == set()


def test_page_of_the_documents_shows_what_happens(tmp_path: Path) -> None:
    """The worker of the protocol's page breaks what the page about conformance says, and nothing else."""
    (program,) = (
        block.text for block in blocks_of(ROOT / "docs/protocol.md", "python") if "# file:" in block.text
    )
    (tmp_path / "shouting_worker.py").write_text(program)
    page = (ROOT / "docs/testkit/conform.md").read_text(encoding="utf-8")
    listed = re.search(r"```text\n(# shouting_worker.*?)```", page, re.DOTALL)
    assert listed is not None
    (tmp_path / "expected.txt").write_text(listed[1])
    # Not measured, where coverage is: measuring adds threads and handlers that no page speaks of.
    worker = ["/usr/bin/env", "-u", "COVERAGE_PROCESS_START", "-u", "COVERAGE_PROCESS_CONFIG", sys.executable]
    worker.append(str(tmp_path / "shouting_worker.py"))
    result = invoke("--expected-failures", str(tmp_path / "expected.txt"), "--timeout", "2", "--", *worker)
    assert result.exit_code == 0, f"{shlex.join(worker)}: {result.output}"
