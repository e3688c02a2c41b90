"""Load as a test and as the shell see it: the fixture with its page, the command, its exit status, and Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING

import psutil
import pytest
from typer.testing import CliRunner

from dspex_testkit.cli.app import app
from dspex_testkit.report.files import name_of
from tests.bounded_waits import wait_until
from tests.integration.test_report import QUIET, check_page

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

pytestmark = pytest.mark.integration

SUITE = dedent("""
    import pytest
    from dspex_testkit.load.arrivals import Poisson
    from dspex_testkit.load.profile import Open, Profile

    pytestmark = pytest.mark.ports("sim")
    CROWD = Profile(name="crowd", load=Open(Poisson(40.0)), seconds=5.0, command="sleep", args={"seconds": 0.05})

    @pytest.mark.pool_settings(max_uses=30)
    async def test_well(pool, load):
        (await load(pool, CROWD)).check()

    @pytest.mark.pool_settings(pool_size=1, max_waiting=1)
    async def test_refused(pool, load):
        (await load(pool, CROWD)).check()
""")


def invoke(*words: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["load", *words])


def test_each_load_of_a_test_leaves_a_page_whether_it_passes_or_not(pytester: pytest.Pytester) -> None:
    """Latency and throughput over time, percentiles, restarts by reason, memory, and the seed; in a small file."""
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_inprocess(*QUIET, "--dspex-report=reports")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*dspex reports*", "*test_well-sim-crowd*.html"])
    pages = {path.name: check_page(path.read_text()) for path in (pytester.path / "reports").glob("*.html")}
    well = next(page for name, page in pages.items() if "test_well" in name)
    refused = next(page for name, page in pages.items() if "test_refused-sim-crowd" in name)
    for told in ("latency, p99", "throughput", "memory", "descriptors"):
        assert told in well.sections["lanes"]
    assert "p99" in well.sections["latency"]
    assert "left: max_uses" in well.sections["restarts"]
    assert "nothing failed" in well.sections["failed"]
    assert "--dspex-seed=7" in well.sections["replay"]
    assert "calls ended with PoolSaturatedError" in refused.sections["failed"]


def test_load_is_told_as_a_table_and_as_json(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A profile runs end to end on real workers: percentiles and throughput for people, all of it for programs."""
    folder = tmp_path_factory.mktemp("pages")
    told = invoke("crowd", "--seconds", "2", "--rate", "100", "--workers", "2", "--report", str(folder))
    assert told.exit_code == 0, told.output
    assert "a second" in told.output
    assert "p99.9" in told.output
    (page,) = folder.glob("*.html")
    assert "Poisson(rate=100.0)" in page.read_text()
    asked = invoke("single_operation_latency", "--json")
    result = json.loads(asked.stdout)
    assert result["outcomes"] == {"answer": 500}
    assert 0 < result["latency_s"]["p50"] <= result["latency_s"]["p99"]


def test_failed_calls_are_told_with_their_error() -> None:
    """A command that the handler has not is named, and the exit status is 1."""
    result = invoke("echo", "--seconds", "0.3", "--workers", "1", "--callers", "1", "--command", "fly")
    assert result.exit_code == 1
    assert "unknown command" in result.output.lower()


@pytest.mark.parametrize(
    "words",
    [
        ["nothing"],
        ["echo", "--callers", "1", "--rate", "1"],
        ["echo", "--args", "[1]"],
        # A whole load of calls of which none could be sent.
        ["echo", "--args", '{"n": NaN}'],
        ["echo", "--args", '{"n": 1e999}'],
        # A defect of the command.
        ["echo", "--args", '{"n":' * 5000],
    ],
)
def test_command_line_that_means_nothing_is_refused(words: list[str]) -> None:
    """Before any worker is started, in one line, with exit status 2."""
    result = invoke(*words)
    assert result.exit_code == 2
    assert result.output.count("\n") == 1


def test_interrupted_load_leaves_no_worker() -> None:
    """Ctrl-C ends the load and the pool; the exit status is that of an interrupted program."""
    command = [sys.executable, "-m", "dspex_testkit.cli", "load", "echo", "--seconds", "60", "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        shell = psutil.Process(process.pid)
        wait_until(lambda: len(shell.children()) == 2, "workers are there")
        workers = shell.children()
        wait_until(lambda: sum(worker.cpu_times().user for worker in workers) > 0.3, "they work")
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said == (b"", b"error: interrupted\n")
    assert not [worker for worker in workers if worker.is_running()]


def test_pool_that_cannot_start_ends_the_command_with_the_reason() -> None:
    """It called for half a minute, told of calls that timed out, and ended as if the load had failed."""
    result = invoke("echo", "--handler", "nowhere_at_all:Handler", "--workers", "1", "--seconds", "1")
    assert result.exit_code == 3
    assert "No module named 'nowhere_at_all'" in result.stderr
    assert not result.stdout


@pytest.mark.parametrize(
    ("folder", "said"), [("taken", "taken: File exists"), ("/proc", "/proc: No such file")]
)
def test_folder_that_cannot_be_written_is_told_before_the_load(
    folder: str, said: str, tmp_path: Path
) -> None:
    """It was told after the load, whose result was lost with it."""
    (tmp_path / "taken").write_text("")
    result = invoke("echo", "--handler", "nowhere_at_all:Handler", "--report", str(tmp_path / folder))
    assert result.exit_code == 2
    assert said in result.stderr


def test_page_that_cannot_be_written_is_named_and_the_result_is_told(tmp_path: Path) -> None:
    """On a full disk the error said that no space was left, but not where, and the result of the load was lost."""
    page = tmp_path / f"{name_of('echo')}.html"
    page.symlink_to("/dev/full")
    words = ["--seconds", "0.1", "--workers", "1", "--callers", "1", "--json", "--report", str(tmp_path)]
    result = invoke("echo", *words)
    assert result.exit_code == 2
    assert result.stderr == f"error: cannot write {page}: No space left on device\n"
    assert json.loads(result.stdout)["report"] is None


def test_page_of_a_test_that_cannot_be_written_costs_no_test(pytester: pytest.Pytester) -> None:
    """A disk that filled up ended the whole run of pytest with an internal error."""
    pytester.makepyfile(SUITE)
    folder = pytester.mkdir("reports")
    name = name_of("test_page_of_a_test_that_cannot_be_written_costs_no_test.py::test_well[sim] crowd")
    (folder / f"{name}.html").symlink_to("/dev/full")
    result = pytester.runpytest_inprocess(*QUIET, "--dspex-report=reports", "-k", "well")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"cannot write *{name}.html: No space left on device"])


@pytest.mark.parametrize(("option", "value"), [("--seconds", "inf"), ("--rate", "inf"), ("--rate", "1e9")])
def test_load_without_end_is_refused(option: str, value: str) -> None:
    """Endless seconds were told as a defect of the command, and an endless rate drew arrivals for ever."""
    result = invoke("crowd", "--workers", "1", option, value, "--handler", "nowhere_at_all:Handler")
    assert result.exit_code == 2
    assert f"error: Invalid value for '{option}'" in result.stderr
