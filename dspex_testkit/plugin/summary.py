"""What is told of the layers: in each report, and at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dspex_testkit.layers import LAYERS
from dspex_testkit.plugin.stash import LAYER, STATE
from dspex_testkit.seeds import how_to_replay

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write the layer into the report, which travels from xdist's workers to the controller."""
    report = yield
    if (layer := item.stash.get(LAYER, None)) is not None:
        vars(report)["dspex_layer"] = layer.name
    if report.failed and "dspex_seed" in vars(item).get("fixturenames", ()):
        report.sections.append(("dspex seed", how_to_replay(item.config.stash[STATE].seed)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show number, time and slowest test of each layer, and why the run fails if it is for a layer."""
    seconds = _seconds_by_layer(terminalreporter)
    verdict = config.stash[STATE].verdict
    if not seconds and not verdict:
        return
    terminalreporter.section("layers")
    for name, tests in seconds.items():
        slowest = max(tests, key=tests.__getitem__)
        total = sum(tests.values())
        terminalreporter.write_line(
            f"{name:<12} {len(tests):>5} tests {total:>8.2f} s   slowest {tests[slowest]:.2f} s  {slowest}"
        )
    if verdict:
        terminalreporter.write_line(verdict, red=True)


def _seconds_by_layer(terminalreporter: pytest.TerminalReporter) -> dict[str, dict[str, float]]:
    seconds: dict[str, dict[str, float]] = {name: {} for name in LAYERS}
    for reports in terminalreporter.stats.values():
        for report in reports:
            # A subtest's time is part of its test's.
            if type(report) is pytest.TestReport and (name := vars(report).get("dspex_layer")) is not None:
                seconds[name][report.nodeid] = seconds[name].get(report.nodeid, 0.0) + report.duration
    return {name: tests for name, tests in seconds.items() if tests}
