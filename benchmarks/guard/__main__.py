"""The command: ``python -m benchmarks.guard``, or ``make guard``."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from benchmarks.guard.baseline import BASELINE, LIMIT, compare, load, record
from benchmarks.guard.subjects import count_all, count_parts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.guard.baseline import Baseline
    from benchmarks.guard.instructions import Count

__all__ = ["main"]

#: Exit statuses: something became slow; there is nothing to compare with.
SLOWER, NO_BASELINE = 1, 3


def main(words: list[str]) -> int:
    """Count, and compare with the baseline or become it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guard",
        description="Count the instructions of one call and compare them with the committed baseline.",
    )
    parser.add_argument("--record", action="store_true", help="make what is counted now the baseline")
    parser.add_argument("--parts", action="store_true", help="only show where a call's instructions go")
    options = parser.parse_args(words)
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets must not decide which branch is taken.
        command = [sys.executable, "-m", "benchmarks.guard", *words]
        os.execve(sys.executable, command, {**os.environ, "PYTHONHASHSEED": "0"})
    if options.parts:
        _show_parts(count_parts())
        return 0
    counts, baseline = count_all(), load()
    _show(counts, baseline)
    if options.record:
        record(counts)
        print(f"recorded in {BASELINE.name}; commit it with the reason")
        return 0
    if baseline is None:
        print(
            f"no baseline for Python {sys.version_info.major}.{sys.version_info.minor}: nothing was compared"
        )
        return NO_BASELINE
    complaints = compare(counts, baseline)
    for complaint in complaints:
        print(f"more than {LIMIT:.0%} above the baseline, or without one: {complaint}")
    if not baseline.knows_libraries:
        print(f"libraries were not compared: the baseline was counted with {dict(baseline.libraries)}")
    return SLOWER if complaints else 0


def _show(counts: dict[str, Count], baseline: Baseline | None) -> None:
    print(f"{'instructions of one':44} {'ours':>8} {'before':>8} {'libraries':>10} {'before':>8}")
    for name, count in counts.items():
        before = baseline.counts.get(name) if baseline is not None else None
        own, libraries = (before.own, before.libraries) if before is not None else ("-", "-")
        print(f"{name:44} {count.own:>8} {own:>8} {count.libraries:>10} {libraries:>8}")


def _show_parts(parts: Mapping[str, int]) -> None:
    """Print the table of ``benchmarks/README.md``."""
    print("| part of one call through `PythonPool` | instructions |\n| --- | ---: |")
    for part, count in parts.items():
        print(f"| {part} | {count:,} |")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
