"""J: rows through the command line."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from benchmarks.figures import Metric
from benchmarks.workloads.workload import Settings, Workload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from benchmarks.workloads.workload import Round

__all__ = ["CommandRows"]

ROOT = Path(__file__).resolve().parents[2]
ROWS = ROOT / "examples" / "questions.jsonl"
SIGNATURE = "context, question -> answer"
_ALONE = "DSPy alone, in one process"
_WORKERS = {"1 worker": 1, "2 workers": 2, "4 workers": 4}


def _run_command(workers: int) -> dict[str, float]:
    """Run the rows by the command; its rate counts from the first row, the whole from its start."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["run", SIGNATURE, str(ROWS), "-o", f"{folder}/answers.jsonl", "--session-field", "tenant"]
        command = [sys.executable, "-m", "dspex_pool.cli", *words, "--workers", str(workers)]
        began = time.perf_counter()
        ended = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        taken = time.perf_counter() - began
    rate = re.search(r"rows a second +([0-9.,]+)", ended.stdout + ended.stderr)
    assert rate is not None, ended.stderr
    return {"rows a second": float(rate[1].replace(",", "")), "the whole command": taken}


def _run_alone() -> dict[str, float]:
    """Run the rows one after the other, as a script without a pool would; in a process of its own."""
    began = time.perf_counter()
    code = "from benchmarks.workloads.command_rows import print_rate; print_rate()"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return {"rows a second": float(ended.stdout), "the whole command": time.perf_counter() - began}


def print_rate() -> None:
    """Put all rows through the program, and print how many that were a second."""
    import dspy

    from dspex_pool.bridge.extractive import MODEL, ExtractiveEngine

    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    began = time.perf_counter()
    with dspy.context(lm=dspy.LM(MODEL, engine=ExtractiveEngine(), cache=False)):
        program = dspy.Predict(SIGNATURE)
        for row in rows:
            program(context=row["context"], question=row["question"])
    print(len(rows) / (time.perf_counter() - began))


class CommandRows(Workload):
    """The built-in language model answers at once, so this is what the rest costs."""

    letter = "J"
    title = "dspex-pool run, 231 rows with the built-in language model"
    metrics = (Metric("rows a second", "/s", more_is_better=True), Metric("the whole command"))
    cases: ClassVar[Mapping[str, Settings]] = {"examples/questions.jsonl": {}}
    subjects = (_ALONE, *_WORKERS)
    reference = _ALONE
    rounds = 2

    @contextlib.asynccontextmanager
    async def prepare(self, subject: str, settings: Settings) -> AsyncIterator[Round]:
        """Open nothing: every round is a command of its own."""
        run: Callable[[], dict[str, float]] = (
            _run_alone if subject == _ALONE else functools.partial(_run_command, _WORKERS[subject])
        )

        async def measure() -> dict[str, float]:
            return run()

        yield measure
