"""``dspex-pool run`` while another program kills its workers twice a second: every row is answered once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.bounded_waits import wait_until
from tests.integration.cli_shell import Shell

if TYPE_CHECKING:
    import random
    import subprocess

pytestmark = pytest.mark.chaos

QUESTIONS = Path(__file__).resolve().parents[2] / "examples" / "questions.jsonl"

#: A DSPy program that answers from the context, and takes its time.
SLOW_PROGRAM = """
import time

import dspy


class Slow(dspy.Module):
    def __init__(self):
        super().__init__()
        self.answer = dspy.Predict("context, question -> answer")

    def forward(self, context, question, seconds):
        time.sleep(seconds)
        return self.answer(context=context, question=question)
"""

#: Seconds between two kills, and rows that are answered between them: where workers take seconds to start, a row
#: would else be hit as often as it may be retried, always by the worker that has just come.
PAUSE, ROWS = 0.5, 8

#: Kills without which nothing is shown.
ENOUGH_KILLS = 3


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A folder of its own, with a program that takes its time."""
    (tmp_path / "slow.py").write_text(SLOW_PROGRAM, encoding="utf-8")
    return Shell(tmp_path)


def questions(count: int, seconds: float) -> list[dict[str, Any]]:
    """Return ``count`` rows that take ``seconds`` each."""
    asked = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    rows = (asked[number % len(asked)] for number in range(count))
    return [{**row, "id": f"row-{number}", "seconds": seconds} for number, row in enumerate(rows)]


def kill_workers(shell: Shell, run: subprocess.Popen[str], draw: random.Random, seconds: float) -> list[int]:
    """Kill a random worker every half second in which rows are answered; return the process ids of those hit.

    How many rows a machine answers meanwhile is its own affair: when all are answered, the killing is over.
    """
    hit, deadline = list[int](), time.monotonic() + seconds
    while time.monotonic() < deadline and run.poll() is None:
        workers = sorted(worker.pid for worker in psutil.Process(run.pid).children() if is_alive(worker))
        if workers:
            pid = draw.choice(workers)
            with contextlib.suppress(ProcessLookupError):  # the run is just over
                os.kill(pid, signal.SIGKILL)
                hit.append(pid)
        recorded = shell.recorded()
        time.sleep(PAUSE)
        wait_until(lambda: run.poll() is not None or shell.recorded() >= recorded + ROWS, "rows are answered")  # noqa: B023 - awaited here
    return hit


def is_alive(process: psutil.Process) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def run_under_kills(shell: Shell, draw: random.Random, rows: list[dict[str, Any]], seconds: float) -> None:
    """Run rows on four DSPy workers under kills, and check everything that was promised."""
    shell.write(rows)
    words = ("run", "slow:Slow", "rows.jsonl", "-o", "answers.jsonl", "--allow", "slow")
    with shell.started(*words, "--session-field", "tenant", "--workers", "4", "--retries", "3") as run:
        wait_until(lambda: shell.recorded() > 0, "a row is recorded", seconds=30)
        hit = kill_workers(shell, run, draw, seconds)
        _, told = run.communicate(timeout=120)
    assert run.returncode == 0, told
    answers = shell.answers()
    assert [answer["id"] for answer in answers] == [row["id"] for row in rows]
    assert not [answer for answer in answers if answer["error"]]
    for row, answer in zip(rows, answers, strict=True):
        said = answer["outputs"]["answer"]
        assert said in row["context"] or said.startswith("I do not know")
    assert shell.workers(run.pid) == []
    assert len(hit) >= ENOUGH_KILLS, "the run was over before the killing: more rows are needed"
    assert max(answer["attempts"] for answer in answers) > 1, "no row was hit"


def test_kills_fail_no_row(shell: Shell, dspex_random: random.Random) -> None:
    """Up to five seconds of kills: every row once, none failed, no process left."""
    run_under_kills(shell, dspex_random, questions(300, 0.03), 5.0)


def test_kills_fail_no_row_in_a_soak(shell: Shell, dspex_random: random.Random) -> None:
    """Up to thirty seconds of kills, two a second where workers start that fast."""
    run_under_kills(shell, dspex_random, questions(1800, 0.05), 30.0)
