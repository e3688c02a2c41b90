"""The benchmarks as a command: what they write, and what becomes of contenders that cannot take part."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.__main__ import main
from benchmarks.contenders import CONTENDERS, Entry, open_contender
from benchmarks.contenders.contender import TrioContender, WrongAnswerError
from benchmarks.rounds import nothing_left, run_case
from benchmarks.workloads import WORKLOADS
from tests.bounded_waits import has_ended, wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]


def command(folder: Path, *words: str) -> list[str]:
    """Return the command line of a short run that writes into ``folder``."""
    return [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", "--output", str(folder), *words]


def test_command_writes_tables_of_what_it_measured(tmp_path: Path) -> None:
    """A run ends well, and its figures are in Markdown and in JSON, with ratios to the raw limit."""
    words = ("--only", "A", "--case", "free", "--subjects", "raw,ours: WorkerPool")
    subprocess.run(command(tmp_path, *words), cwd=ROOT, check=True, capture_output=True, timeout=60)
    (result,) = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["results"]
    assert result["failures"] == {}
    assert result["subjects"]["raw limit"]["p50"]["ratio"] == 1.0
    assert result["subjects"]["ours: WorkerPool"]["p50"]["ratio"] > 0
    assert "| ours: WorkerPool |" in (tmp_path / "results.md").read_text(encoding="utf-8")


def test_stored_results_that_cannot_be_read_are_named_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of an older shape ended the command with a KeyError, after the measuring, whose figures were lost."""
    stored = tmp_path / "results.json"
    for text in ("{", "[]", '{"results": [{"workload": "A", "case": "free processors"}]}'):
        stored.write_text(text, encoding="utf-8")
        assert main(["--nothing", "--output", str(tmp_path)]) == 2
        assert str(stored) in capsys.readouterr().err
        assert stored.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--case", "no such case"], "--case 'no such case'"),
        (["--subjects", "nobody"], "--subjects 'nobody'"),
        (["--output", "/dev/null/results"], "/dev/null"),
    ],
)
def test_run_that_can_measure_nothing_says_why_and_changes_nothing(
    words: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stored figures were replaced by none, or the folder was found out about when all was measured."""
    assert main(["--only", "A", "--quick", "--output", str(tmp_path), *words]) == 2
    assert reason in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rounds", ["0", "-1", "some"])
def test_rounds_are_at_least_one(rounds: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a round every figure was "never", and replaced what was stored."""
    with pytest.raises(SystemExit, match="2"):
        main(["--only", "A", "--rounds", rounds])
    assert "--rounds" in capsys.readouterr().err


@pytest.mark.trio
async def test_subject_that_fails_is_shown_and_the_others_are_measured() -> None:
    """Its reason stands in the place of its figures; the round goes on with the next."""
    case = next(iter(WORKLOADS["A"].cases))
    with nothing_left():
        result = await run_case(
            WORKLOADS["A"], case, ["raw limit", "nobody"], rounds=1, quick=True, seed=0, tell=lambda _: None
        )
    assert result.failures == {"nobody": "KeyError: 'nobody'"}
    assert len(result.samples["raw limit"]) == 1


@pytest.mark.trio
async def test_contender_that_is_not_installed_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is lacking is told from one that fails."""
    monkeypatch.setitem(CONTENDERS, "nobody", Entry("futures:open_loky", "no-such-distribution"))
    with pytest.raises(ImportError, match="no-such-distribution is not installed"):
        open_contender("nobody", 1)


@pytest.mark.trio
async def test_wrong_answer_is_a_failure() -> None:
    """A pool that answers something else has no figures, however fast it was."""
    with pytest.raises(WrongAnswerError):
        await _Liar().one_by_one("echo", "x", 1)


class _Liar(TrioContender):
    async def call(self, task: str, argument: Any, *, timeout: float | None = None) -> Any:
        return "y"


def test_interrupt_leaves_no_process(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a round ends everything that was started, and the command says so."""
    words = ("--only", "B", "--case", "2", "--subjects", "raw,ours: PythonPool", "--rounds", "1000")
    quiet, heard = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(
        command(tmp_path, *words), cwd=ROOT, stdout=quiet, stderr=heard, text=True
    ) as running:
        parent = psutil.Process(running.pid)
        wait_until(lambda: len(parent.children(recursive=True)) >= 6, "both pools have their workers")
        below = parent.children(recursive=True)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "nothing is left running" in said
    assert all(has_ended(process.pid) for process in below)
    assert not list(tmp_path.iterdir())
