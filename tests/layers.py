"""Run the test layers one after the other and print what each took.

Every layer runs, also after one has failed, so that one red run tells everything. Each has its own
pytest process: a layer's time includes its start-up, and no layer sees what another imported.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LAYERS", "Layer", "Outcome", "main"]

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "out" / "layers"

# Two at a time: these tests wait more than they compute. A test that needs the machine for itself
# says so with ``xdist_group``, which --dist loadgroup heeds.
PARALLEL = ("-n", "2", "--dist", "loadgroup")
# Chaos waits for what must not happen, and for processes to start and die: two at a time use two thirds of two cores.
WAITING = ("-n", "3", "--dist", "loadgroup")


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of tests and how pytest is to run it."""

    #: Name of its marker.
    name: str
    #: Arguments for pytest beside the marker.
    arguments: tuple[str, ...]
    #: Seconds after which the layer counts as hung and is ended; ``None`` for no limit.
    limit: float | None
    #: Folders whose modules are dealt out to two processes at a time; none for one process. Unlike xdist this
    #: costs a layer of short tests nothing but a second start-up, on the other core.
    halved: tuple[str, ...] = ()


LAYERS = {
    layer.name: layer
    for layer in (
        Layer("fast", ("-n0",), 900.0, halved=("tests/unit", "tests/pool")),
        Layer("protocol", ("-n0",), 180.0, halved=("tests/protocol", "tests/pool")),
        Layer("integration", PARALLEL, 720.0),
        Layer("chaos", WAITING, 900.0),
        # Each load is one page, also of a test that passes.
        Layer("stress", ("-n0", "--dspex-report=out/reports"), None),
    )
}


#: Modules whose tests take long for their size, as bytes of other modules that take as long.
LENGTHY = {
    "test_bridge_life": 56_000,
    "test_bridge_start": 21_000,
    "test_mock_adapter": 20_000,
    "test_mock_port": 30_000,
    "test_pool_care": 24_000,
    "test_pool_checkin": 30_000,
    "test_pool_events": 12_000,
    "test_pool_starts": 19_000,
    "test_pool_state_machine": 81_000,
    "test_port_contract": 75_000,
    "test_session_lease": 23_000,
    "test_session_pool": 28_000,
    "test_session_store": 12_000,
    "test_strategies": 62_000,
}


#: What starting Hypothesis takes, as bytes of modules that take as long.
HYPOTHESIS = 40_000
#: Have pytest run without it: its own plugin imports it before the end of any run, that of pytest-trio at the start.
NO_HYPOTHESIS = ("-p", "no:hypothesispytest", "-p", "dspex_testkit.late_hypothesis")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one layer came to."""

    #: Name of the layer.
    name: str
    #: Empty when all is well, else why the layer counts as failed.
    failure: str
    #: Tests run, or ``None`` when pytest left no report.
    tests: int | None
    #: Tests skipped.
    skipped: int
    #: Seconds from the start of pytest to its end.
    seconds: float


def parts_of(layer: Layer, options: argparse.Namespace) -> list[tuple[str, ...]]:
    """Return what each pytest process of ``layer`` is to collect: all, or half of the modules each."""
    if not layer.halved or options.pytest_arguments or options.coverage:
        return [()]
    searching, plain = halves_of(
        [path for folder in layer.halved for path in (ROOT / folder).glob("test_*.py")]
    )
    # A profile is an option of Hypothesis' plugin.
    leaner = () if options.hypothesis_profile else NO_HYPOTHESIS
    return [(*layer.halved, *without(plain)), (*layer.halved, *without(searching), *leaner)]


def halves_of(modules: list[Path]) -> tuple[list[Path], list[Path]]:
    """Deal out ``modules`` into halves that take as long; those that import Hypothesis are all in the first."""
    weights = {path: LENGTHY.get(path.stem, path.stat().st_size) for path in modules}
    halves: tuple[list[Path], list[Path]] = ([path for path in modules if needs_hypothesis(path)], [])
    sizes = [HYPOTHESIS + sum(weights[path] for path in halves[0]), 0]
    for module in sorted(set(modules) - set(halves[0]), key=lambda path: (-weights[path], path)):
        lighter = sizes.index(min(sizes))
        halves[lighter].append(module)
        sizes[lighter] += weights[module]
    return halves


def needs_hypothesis(module: Path) -> bool:
    """Tell whether a module of tests imports Hypothesis, itself or for the depth of its searches."""
    text = module.read_text(encoding="utf-8")
    return "hypothesis" in text or "tests.search_profiles" in text


def without(modules: list[Path]) -> list[str]:
    """Return what leaves ``modules`` out. Pytest looks through a folder once for each name it is given instead."""
    return [f"--ignore={path.relative_to(ROOT)}" for path in modules]


def pytest_command(
    layer: Layer, options: argparse.Namespace, report: Path, part: tuple[str, ...]
) -> list[str]:
    """Return the command line that runs ``part`` of ``layer``."""
    runner = ["-m", "coverage", "run", "-m", "pytest"] if options.coverage else ["-m", "pytest"]
    command = [sys.executable, *runner, "-q", "-p", "no:faker", "-m", layer.name, *layer.arguments, *part]
    command.append(f"--junit-xml={report}")
    if options.short and layer.name == "chaos":
        # A soak is a chaos test of more than five seconds; its name says so.
        command += ["-k", "not soak"]
    if options.hypothesis_profile or options.coverage:
        # Both take many times as long, on purpose.
        command += ["-o", "dspex_enforce_budgets=false"]
    if options.hypothesis_profile:
        command.append(f"--hypothesis-profile={options.hypothesis_profile}")
    return [*command, *options.pytest_arguments]


def run_layer(layer: Layer, options: argparse.Namespace) -> Outcome:
    """Run ``layer`` to its end, or to its limit."""
    print(f"\n=== {layer.name} ===", flush=True)
    begun = time.monotonic()
    # Measuring makes the start of a worker several times as long.
    limit = layer.limit and layer.limit * (3 if options.coverage else 1)
    reports, failures = run_parts(layer, options, limit)
    seconds = time.monotonic() - begun
    print(f"{layer.name}: {seconds:.1f} s", flush=True)
    counts = [read_report(report) for report in reports]
    tests = None if any(count is None for count, _ in counts) else sum(count or 0 for count, _ in counts)
    return Outcome(
        layer.name, ", ".join(sorted(failures)), tests, sum(skipped for _, skipped in counts), seconds
    )


def run_parts(layer: Layer, options: argparse.Namespace, limit: float | None) -> tuple[list[Path], set[str]]:
    """Run the parts of ``layer`` side by side; return their reports and in which ways they failed.

    What the second prints is shown when the first has ended, so that lines are not mixed.
    """
    parts = parts_of(layer, options)
    reports = [REPORTS / f"{layer.name}{number or ''}.xml" for number in range(len(parts))]
    with contextlib.ExitStack() as stack:
        running = []
        for number, (report, part) in enumerate(zip(reports, parts, strict=True)):
            report.unlink(missing_ok=True)
            output = stack.enter_context(tempfile.TemporaryFile()) if number else None
            command = pytest_command(layer, options, report, part)
            # No input: nothing may wait for a terminal that continuous integration has not got.
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
            )
            running.append((stack.enter_context(process), output))
        failures = set()
        try:
            for process, output in running:
                failures.add(wait_for(process, limit))
                if output is not None:
                    output.seek(0)
                    print(output.read().decode(errors="replace"), end="", flush=True)
        except SystemExit:
            for process, _ in running:
                process.terminate()
            raise
    return reports, failures - {""}


def wait_for(process: subprocess.Popen[bytes], limit: float | None) -> str:
    """Wait for pytest and say why it failed; empty if it did not.

    Workers of a pytest that is killed leave by themselves: their stdin ends.
    """
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        process.kill()
        return f"over its limit of {limit:.0f} s"
    except KeyboardInterrupt:
        process.wait()
        raise
    return {0: "", 1: "failed", 5: "no tests"}.get(status, f"pytest ended with {status}")


def read_report(report: Path) -> tuple[int | None, int]:
    """Return how many tests ran and how many of them were skipped, from pytest's JUnit file."""
    try:
        suites = ElementTree.parse(report).getroot().findall("testsuite")
    except (FileNotFoundError, ElementTree.ParseError):
        return None, 0
    tests = sum(int(suite.get("tests", 0)) for suite in suites)
    return tests, sum(int(suite.get("skipped", 0)) for suite in suites)


def table(outcomes: list[Outcome]) -> str:
    """Return the closing table."""
    lines = [f"\n{'layer':<12} {'tests':>6} {'skipped':>8} {'seconds':>8}  result"]
    for outcome in outcomes:
        tests = "?" if outcome.tests is None else str(outcome.tests)
        result = outcome.failure or "passed"
        lines.append(f"{outcome.name:<12} {tests:>6} {outcome.skipped:>8} {outcome.seconds:>8.1f}  {result}")
    total = sum(outcome.seconds for outcome in outcomes)
    lines.append(
        f"{'all':<12} {sum(outcome.tests or 0 for outcome in outcomes):>6} "
        f"{sum(outcome.skipped for outcome in outcomes):>8} {total:>8.1f}"
    )
    return "\n".join(lines)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; what follows ``--`` is for pytest."""
    parser = argparse.ArgumentParser(prog="layers.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("layers", nargs="+", choices=list(LAYERS))
    parser.add_argument("--short", action="store_true", help="leave out the chaos tests named soak")
    parser.add_argument("--coverage", action="store_true", help="measure, workers included")
    parser.add_argument("--hypothesis-profile", metavar="NAME")
    given = sys.argv[1:] if arguments is None else arguments
    end = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:end])
    options.pytest_arguments = given[end + 1 :]
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the layers named on the command line; return 1 if any failed, else 0."""
    options = parse(arguments)
    REPORTS.mkdir(parents=True, exist_ok=True)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Ctrl-C at a terminal comes to pytest as well; this comes to nobody else.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        outcomes = [run_layer(LAYERS[name], options) for name in options.layers]
    except KeyboardInterrupt:
        return 130
    print(table(outcomes))
    return 1 if any(outcome.failure for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
