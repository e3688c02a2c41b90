"""What is told of the layers: in each report, and at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dspex_testkit.plugin.ports import has_seeded_order
from dspex_testkit.plugin.stash import CPU, FAILED, LAYER, STATE
from dspex_testkit.seeds import how_to_replay
from dspex_testkit.spending import Cost, Spending

if TYPE_CHECKING:
    from collections.abc import Generator

#: Of a run: what the layers cost.
SPENDING = pytest.StashKey[Spending]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write the layer into the report, which travels from xdist's workers to the controller."""
    report = yield
    if (layer := item.stash.get(LAYER, None)) is not None:
        vars(report).update(dspex_layer=layer.name, dspex_cpu=item.stash.get(CPU, 0.0))
    item.stash[FAILED] = report.failed or item.stash.get(FAILED, False)
    if report.failed and ("dspex_seed" in vars(item).get("fixturenames", ()) or has_seeded_order(item)):
        report.sections.append(("dspex seed", how_to_replay(item.config.stash[STATE].seed)))
    return report


class _Collector:
    """Adds up what the layers cost, where reports are made and where xdist brings them together."""

    def __init__(self, spending: Spending) -> None:
        self._spending = spending

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # A subtest's time is part of its test's.
        if type(report) is pytest.TestReport and (name := vars(report).get("dspex_layer")) is not None:
            self._spending.add(name, report.nodeid, Cost(report.duration, vars(report)["dspex_cpu"]))


def pytest_configure(config: pytest.Config) -> None:
    """Listen to reports."""
    config.stash[SPENDING] = Spending()
    config.pluginmanager.register(_Collector(config.stash[SPENDING]), "dspex-spending")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Take the time that the start took."""
    session.config.stash[SPENDING].note_start()


# The terminal's own hook shows the summary after all that it is wrapped around; this part may be loaded after it.
@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, Any, Any]:
    """Fail the run if a layer cost more than it may."""
    config, state = session.config, session.config.stash[STATE]
    spending = config.stash[SPENDING]
    result = yield
    spending.note_end()
    if hasattr(config, "workerinput"):
        config.workeroutput["dspex_cpu"] = spending.whole.cpu  # type: ignore[attr-defined] # by xdist
        return result
    over = list(spending.over(state.layer_budgets, state.enforced, state.slack))
    state.verdicts += over
    if over and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return result


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Learn from an xdist worker what it cost."""
    cpu = getattr(node, "workeroutput", {}).get("dspex_cpu", 0.0)
    node.config.stash[SPENDING].workers_cpu += cpu


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show time and slowest test of each layer against the budgets, and why the run fails if it is for a layer."""
    state = config.stash[STATE]
    lines = list(config.stash[SPENDING].lines(state.budgets, state.layer_budgets))
    if not lines and not state.verdicts:
        return
    terminalreporter.section("layers")
    for line in lines:
        terminalreporter.write_line(line)
    for verdict in state.verdicts:
        terminalreporter.write_line(verdict, red=True)
