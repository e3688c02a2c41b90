"""``--dspex-replay``: a run that was to be repeated and was not is no success."""

from __future__ import annotations

import html
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

QUIET = ("-p", "no:faker", "-p", "no:cacheprovider", "-p", "no:randomly")

SUITE = """
import pytest
from dspex_testkit.simulation.explore import explore

@explore(seeds=1)
async def test_explored(world):
    await world.run(clients=1, calls=1)

def test_other():
    pass
"""

FAILING = """
import pytest
from dspex_testkit.simulation.explore import explore

@pytest.mark.parametrize("name", ['say "$HOME"'])
@explore(seeds=1, shrink_seconds=0.1)
async def test_explored(world, name):
    await world.run(clients=1, calls=1)
    assert name == ""

@pytest.mark.ports("sim")
@pytest.mark.parametrize("name", ['say "$HOME"'])
async def test_body(pool, name):
    await pool.call("echo")
    assert name == ""
"""


def test_replay_line_can_be_typed_where_it_was_printed(pytester: pytest.Pytester) -> None:
    """It named the file from the root of the tests, and a shell took the ids of parameters for its own words."""
    pytester.makefile(".ini", pytest="[pytest]")
    folder = pytester.mkdir("tests")
    (folder / "test_it.py").write_text(FAILING)

    def typed(line: str) -> str:
        command = f"{sys.executable} -m {line} {' '.join(QUIET)}"
        return subprocess.run(
            command, shell=True, cwd=folder, capture_output=True, text=True, check=False
        ).stdout

    lines = re.findall(r"replay: (pytest .*)", typed("pytest --dspex-report=out"))
    (page,) = folder.glob("out/*test_body*.html")
    lines += re.findall(r">(pytest .*?)<", html.unescape(page.read_text()))
    assert len(set(lines)) == 2
    for line in lines:
        assert "1 failed" in typed(line), line


NOTHING = "--dspex-replay: nothing was repeated, for no test that ran is made by explore"


@pytest.mark.parametrize("processes", [(), ("-n1",)])
def test_replay_that_repeated_nothing_fails_the_run(
    pytester: pytest.Pytester, processes: tuple[str, ...]
) -> None:
    """The option was ignored where no selected test is made by explore, and the run passed."""
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess(*QUIET, *processes, "-k", "other", "--dspex-replay=S1.x")
    result.assert_outcomes(passed=1, deselected=0 if processes else 1)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines([NOTHING])


@pytest.mark.parametrize("processes", [(), ("-n1",)])
def test_replay_that_was_played_says_nothing(pytester: pytest.Pytester, processes: tuple[str, ...]) -> None:
    """What the one run ended with is all that is told: here that the token is none."""
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess(*QUIET, *processes, "--dspex-replay=S1.x")
    result.assert_outcomes(passed=1, failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.no_fnmatch_line(NOTHING)
