"""Pictures of failures: in the terminal always, as files where ``--dspex-report`` says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dspex_testkit.plugin.replay import from_here
from dspex_testkit.plugin.stash import STATE

if TYPE_CHECKING:
    from collections.abc import Generator

    from dspex_testkit.report.timeline import Timeline

__all__ = ["report_folder"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the settings."""
    text = "Write a page and a trace of each failure of a simulation or a pool into this folder."
    parser.getgroup("dspex", "layers and seeds").addoption("--dspex-report", metavar="FOLDER", help=text)
    parser.addini("dspex_report", text + " Relative to the root of the tests.", default="")


def report_folder(config: pytest.Config) -> Path | None:
    """Return where files go, or ``None`` for nowhere."""
    if (given := config.getoption("--dspex-report")) is not None:
        return Path(given).absolute() if given else None
    named = config.getini("dspex_report")
    return config.rootpath / named if named else None


def pytest_sessionstart(session: pytest.Session) -> None:
    """See that files can be written, before there is a failure to be written about.

    Raises:
        pytest.UsageError: They cannot.
    """
    config = session.config
    folder = report_folder(config)
    # A usage error of an xdist worker reaches nobody; its controller has looked already.
    if folder is None or config.option.collectonly or hasattr(config, "workerinput"):
        return
    from dspex_testkit.report.files import check_folder

    try:
        check_folder(folder)
    except OSError as error:
        reason = error.strerror or error
        raise pytest.UsageError(f"dspex-report: nothing can be written into {folder}: {reason}") from None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the picture that the failure of a test carries."""
    report = yield
    if not report.failed or call.excinfo is None:
        return report
    try:
        from dspex_testkit.report.carried import carried

        timeline = carried(call.excinfo.value)
        if timeline is not None and timeline.lanes:
            _show(item, report, timeline)
    except Exception as error:  # a picture must not hide the failure that it is of
        report.sections.append(("dspex timeline", f"cannot be drawn: {error!r}"))
    return report


def _show(item: pytest.Item, report: pytest.TestReport, timeline: Timeline) -> None:
    import dataclasses

    from dspex_testkit.report.ascii_lanes import ascii_picture
    from dspex_testkit.simulation.telling import quoted

    test = quoted(from_here(item))
    seed = str(item.config.stash[STATE].seed)
    timeline = dataclasses.replace(
        timeline,
        title=item.nodeid,
        seed=timeline.seed or seed,
        replay=timeline.replay or f"replay: pytest {test} --dspex-seed={seed}",
    )
    report.sections.append(("dspex timeline", ascii_picture(timeline)))
    if (folder := report_folder(item.config)) is not None:
        from dspex_testkit.report.files import write_report

        # Attributes of a report travel from xdist's workers to the controller.
        vars(report)["dspex_report"] = [str(path) for path in write_report(timeline, folder)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say where the files are."""
    paths = [
        path
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for path in getattr(report, "dspex_report", ())
    ]
    if paths:
        terminalreporter.section("dspex reports")
        for path in paths:
            terminalreporter.write_line(path)
