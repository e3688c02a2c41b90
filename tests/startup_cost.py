"""Measure what the plugin costs a project that does not use it: ``python -m tests.startup_cost [PAIRS]``.

Runs pytest on one empty test with and without the plugin, in turns, all other plugins loaded, and compares CPU times:
the quickest of each, because everything that disturbs a run only adds to it, and the median of the differences.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["cpu_seconds", "main"]


def cpu_seconds(folder: Path, *arguments: str) -> float:
    """Return the CPU seconds of one run of pytest in ``folder``."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:faker", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    null = subprocess.DEVNULL
    subprocess.run(command, cwd=folder, env=environment, stdout=null, stderr=null, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(pairs: int) -> None:
    """Print the comparison of so many pairs of runs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_empty.py").write_text("def test_it(): pass\n", encoding="utf-8")
        cpu_seconds(folder)
        both = [(cpu_seconds(folder, "-p", "no:dspex"), cpu_seconds(folder)) for _ in range(pairs)]
    without, loaded = (min(times) for times in zip(*both, strict=True))
    median = statistics.median(late - early for early, late in both)
    print(f"quickest of {pairs}: {without:.3f} CPU s without, {loaded:.3f} with: {loaded - without:.4f} more")
    print(f"median of the differences: {median:.4f} CPU s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
