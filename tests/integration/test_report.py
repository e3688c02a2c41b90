"""Reports of failures, in a small project of its own: in the terminal, as a page and as a trace."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from dspex_testkit.report.page import page_of
from dspex_testkit.report.timeline import Call, Mark, Verdict
from tests.unit.test_report import KILLED

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

QUIET = ("-p", "no:faker", "-p", "no:cacheprovider", "--dspex-seed=7")

SUITE = dedent("""
    import pytest
    from dspex_pool.errors import WorkerDiedError
    from dspex_testkit.simulation.explore import explore
    from dspex_testkit.simulation.faults import Kill, swarm

    pytestmark = pytest.mark.chaos

    @explore(seeds=50, faults=swarm(Kill), pool_size=2, shrink_seconds=0.3)
    async def test_explored(world):
        outcomes = await world.run(clients=8, calls=40)
        assert outcomes.count("WorkerDiedError") < 2

    @pytest.mark.ports("sim")
    async def test_killed(pool):
        pool.kill(0)
        outcomes = await pool.call_many(6, "echo", callers=3)
        assert outcomes.count(WorkerDiedError) == 5

    @pytest.mark.ports("sim")
    async def test_bare(make_pool):
        async with make_pool.worker_pool() as pool:
            async with pool.checkout():
                raise ValueError("of the caller")

    @pytest.mark.ports("sim")
    async def test_well(pool):
        await pool.call("echo")
""")


class Page(html.parser.HTMLParser):
    """What matters of a page: its sections by their ids, and all that could lead elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: dict[str, str] = {}
        self.elsewhere: list[str] = []
        self.open: list[str] = []
        self._section = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take down sections and links."""
        self.elsewhere += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "action")]
        self.elsewhere += [tag] * (tag in ("script", "link", "iframe", "img"))
        if tag not in ("meta", "br"):
            self.open.append(tag)
        if tag == "section":
            self._section = dict(attrs).get("id") or ""

    def handle_endtag(self, tag: str) -> None:
        """See that what is opened is closed."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collect the texts of sections."""
        self.sections[self._section] = f"{self.sections.get(self._section, '')} {data.strip()}".strip()


def check_page(text: str) -> Page:
    """See that a page is well formed, small, and needs nothing from anywhere."""
    page = Page(text)
    assert page.open == []
    assert page.elsewhere == []
    assert not re.search(r"https?:|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text
    assert "max-width: 40rem" in text
    assert len(text.encode()) < 500_000
    return page


def test_page_answers_the_three_questions_without_a_network() -> None:
    """What failed, which fault came before it, who held what; how to see it again; and nothing is fetched."""
    page = check_page(page_of(KILLED))
    assert "AssertionError: assert 1 == 2" in page.sections["failed"]
    assert "Kill at 1 s struck w-1 #1, which call 1 held" in page.sections["faults"]
    assert "call 2 stood in line since 0.5 s" in page.sections["holders"]
    assert "--dspex-replay=S1.abc" in page.sections["replay"]
    assert "replaced: died 1" in page.sections["restarts"]


def test_page_of_a_long_run_is_still_small() -> None:
    """Of thousands of calls the page shows those near the failure, says so, and counts them all."""
    marks = tuple(
        Mark(at / 10, "w1", "to", f"work {at}", '{"text":"' + 150 * "x" + '"}') for at in range(5_000)
    )
    calls = tuple(Call("call 1", at / 10, at / 10 + 0.5, "answer") for at in range(5_000))
    long = dataclasses.replace(KILLED, marks=marks, calls=calls, verdict=Verdict("E", "late", 400.0))
    page = check_page(page_of(long))
    assert "far from the failure are left out" in page.sections["lanes"]
    assert "5000 answered calls" in page.sections["latency"]


def test_failures_are_drawn_in_the_terminal_and_written_where_asked(pytester: pytest.Pytester) -> None:
    """A simulation and a body that fail show their lanes, and leave a page and a trace each; others leave nothing."""
    pytester.makepyfile(SUITE)
    folder: Path = pytester.path / "reports"
    result = pytester.runpytest_inprocess(*QUIET, "--dspex-report=reports")
    result.assert_outcomes(failed=3, passed=1)
    result.stdout.fnmatch_lines([
        "*dspex timeline*", "w-? #?*!* Kill*", "call *E WorkerDiedError", "*struck w-? #?, which call * held*",
        "*dspex timeline*", "w-1 #1*!* signal SIGKILL*",
        "*dspex reports*", "*test_explored*.html", "*test_explored*.trace.json",
    ])  # fmt: skip
    pages = {
        path.name.partition("py-")[2][:10]: check_page(path.read_text()) for path in folder.glob("*.html")
    }
    assert sorted(pages) == ["test_bare-", "test_explo", "test_kille"]
    assert "--dspex-replay=S1." in pages["test_explo"].sections["replay"]
    assert "signal SIGKILL" in pages["test_kille"].sections["faults"]
    assert (
        "w-1 #1 was held by nobody: it had ended, until then by caller 1"
        in pages["test_bare-"].sections["holders"]
    )
    traces = [json.loads(path.read_text())["traceEvents"] for path in folder.glob("*.trace.json")]
    assert [any(event.get("cat") == "fault" for event in trace) for trace in traces] != [False] * 3


@pytest.mark.parametrize("way", ["option", "setting"])
def test_folder_that_cannot_be_written_is_told_at_the_start(pytester: pytest.Pytester, way: str) -> None:
    """It was told with the first failure, whose files were lost, and without the folder."""
    pytester.makepyfile("def test_well(): pass")
    pytester.path.joinpath("file").touch()
    if way == "setting":
        pytester.makeini("[pytest]\ndspex_report = file/reports")
    option = ("--dspex-report=file/reports",) if way == "option" else ()
    result = pytester.runpytest_inprocess(*QUIET, *option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    folder = pytester.path / "file" / "reports"
    result.stderr.fnmatch_lines(
        [f"ERROR: dspex-report: nothing can be written into {folder}: Not a directory"]
    )


def test_folder_is_not_made_for_nothing(pytester: pytest.Pytester) -> None:
    """A run without a failure leaves no folder behind, neither a new one nor those above it."""
    pytester.makepyfile("def test_well(): pass")
    result = pytester.runpytest_inprocess(*QUIET, "--dspex-report=made/reports")
    result.assert_outcomes(passed=1)
    assert not pytester.path.joinpath("made").exists()


@pytest.mark.parametrize("option", [(), ("--dspex-report=",)])
def test_nothing_is_written_unless_asked(option: tuple[str, ...], pytester: pytest.Pytester) -> None:
    """Without the option or the setting the terminal has the picture, and the folder is left alone.

    An empty option, as of a variable that a script has not set, wrote into it; as a setting it means nowhere, too.
    """
    pytester.makepyfile(SUITE)
    before = set(pytester.path.iterdir())
    result = pytester.runpytest_inprocess(*QUIET, "-k", "killed", *option)
    result.assert_outcomes(failed=1, deselected=3)
    result.stdout.fnmatch_lines(["*dspex timeline*"])
    result.stdout.no_fnmatch_line("*dspex reports*")
    assert {path for path in pytester.path.iterdir() if path.name != "__pycache__"} == before
