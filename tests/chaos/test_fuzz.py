"""``dspex-testkit fuzz`` as the shell sees it: what it finds, its canary, its exit status, and Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psutil
import pytest
from typer.testing import CliRunner

from dspex_testkit.cli.app import app
from dspex_testkit.fuzz import fuzzer
from dspex_testkit.fuzz.files import read_journal
from tests.bounded_waits import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typer.testing import Result

    from dspex_testkit.planting import Planting

pytestmark = [pytest.mark.chaos, pytest.mark.budget(60)]

#: A test whose pool never gets a worker back.
PLANTED = """
import pytest
from dspex_pool.checkout import Checkout
from dspex_testkit.planting import Planting
from dspex_testkit.simulation.explore import explore

pytestmark = pytest.mark.chaos
planting = Planting()

async def leave(self, *_):
    pass

planting.replace(Checkout, "__aexit__", leave)

@explore(seeds=5, pool_size=1, shrink_seconds=3)
async def test_pool(world):
    await world.run(clients=4, calls=12)

def test_that_explores_nothing():
    raise AssertionError("it is never run")
"""


def plants_nothing(planting: Planting) -> None:
    """Plant no bug at all."""


def plants_in_vain(planting: Planting) -> None:
    """Fail to plant a bug."""
    raise LookupError("no such part")


def fuzz(*words: str) -> Result:
    """Run the command in this process; what it starts to play are processes of their own."""
    return CliRunner().invoke(app, ["fuzz", "--workers", "1", *words])


def test_planted_bug_is_kept_with_a_line_that_repeats_it(tmp_path: Path) -> None:
    """The journal holds one small run for all seeds that came to it, and a fresh pytest fails with its line."""
    test = tmp_path / "test_planted.py"
    test.write_text(PLANTED, encoding="utf-8")
    journal = tmp_path / "journal"
    result = fuzz(str(test), "--budget", "3s", "--journal", str(journal), "--no-canary", "--seed", "1")
    assert result.exit_code == 1, result.output
    assert "# AssertionError: Q1: a worker is not settled (test_pool)" in result.output
    (path,) = (journal / "failures").glob("*.json")
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert kept["failure"]["place"] == "dspex_testkit/invariants.py in check_steady"
    assert kept["example"]["size"][:3] == [1, 0, 0]
    assert "call" in kept["example"]["picture"]
    assert path.with_suffix(".md").read_text(encoding="utf-8") in result.output
    token = kept["example"]["token"]
    again = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"{test}::test_pool", f"--dspex-replay={token}"],
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert again.returncode == 1
    assert "Q1: a worker is not settled" in again.stdout


def test_pool_itself_is_fuzzed_and_the_canary_found(tmp_path: Path) -> None:
    """Without TESTS the worlds of the test kit are played; nothing but the planted bug is found in them."""
    result = fuzz("--budget", "4s", "--journal", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "canary found after" in result.output
    (run,) = read_journal(tmp_path).runs.values()
    assert run.canary
    assert set(run.played) <= {
        f"dspex_testkit.fuzz.worlds::{name}" for name in ("test_worker_pool", "test_python_pool")
    }
    assert run.seeds > 0
    assert not read_journal(tmp_path).entries


def test_soak_run_that_misses_its_canary_is_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not find a planted bug has proven nothing, so the exit status is 3."""
    monkeypatch.setattr(fuzzer, "CANARY_LEAST", 2.0)
    result = fuzz("--budget", "2s", "--journal", str(tmp_path), "--canary", f"{__name__}:plants_nothing")
    assert result.exit_code == 3, result.output
    assert "canary missed" in result.output
    (run,) = read_journal(tmp_path).runs.values()
    assert run.canary == 0


def test_soak_mended_bug_is_told_to_pass(tmp_path: Path) -> None:
    """The examples of earlier runs are played first, and what passes now is not open any more."""
    test = tmp_path / "test_planted.py"
    words = (str(test), "--journal", str(tmp_path / "journal"), "--no-canary", "--seed", "1", "--budget")
    test.write_text(PLANTED, encoding="utf-8")
    assert fuzz(*words, "3s").exit_code == 1
    assert fuzz(*words, "1s").exit_code == 1
    test.write_text(PLANTED.replace("planting.replace(", "(lambda *_: None)("), encoding="utf-8")
    result = fuzz(*words, "1s")
    assert result.exit_code == 0, result.output
    assert "passes since" in result.output
    (entry,) = read_journal(tmp_path / "journal").entries.values()
    assert not entry.is_open


def test_soak_endless_case_is_a_failure_and_the_run_goes_on(tmp_path: Path) -> None:
    """A pool that goes round and round costs one process, and is told as what it is."""
    test = tmp_path / "test_endless.py"
    text = PLANTED.replace("await world.run(clients=4, calls=12)", "while True: pass")
    test.write_text(
        "import dspex_testkit.fuzz.hunter as hunter\nhunter.ENDLESS = 0.2\n" + text, encoding="utf-8"
    )
    result = fuzz(str(test), "--budget", "4s", "--journal", str(tmp_path / "journal"), "--no-canary")
    assert result.exit_code == 1, result.output
    assert "NeverEndsError: no end" in result.output


def test_soak_ctrl_c_keeps_what_was_found_and_leaves_no_process(tmp_path: Path) -> None:
    """The exit status is that of an interrupted program, the journal is whole, and nobody plays on."""
    test, journal = tmp_path / "test_planted.py", tmp_path / "journal"
    test.write_text(PLANTED, encoding="utf-8")
    words = [
        sys.executable,
        "-m",
        "dspex_testkit.cli",
        "fuzz",
        str(test),
        "--budget",
        "10m",
        "--journal",
        str(journal),
    ]
    with subprocess.Popen(
        [*words, "--no-canary", "--workers", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        me = psutil.Process(process.pid)
        try:
            wait_until(lambda: [*journal.glob("failures/*.md")], "a failure", seconds=60)
            players = me.children(recursive=True)
            assert players
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        finally:
            process.kill()
        assert process.stderr is not None
        assert process.stderr.read().endswith(b"error: interrupted; what was found is in the journal\n")
    _, alive = psutil.wait_procs(players, timeout=5)
    assert alive == []
    known = read_journal(journal)
    assert len(known.entries) == len(known.runs) == 1


@contextmanager
def fuzzing(journal: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[psutil.Process]]]:
    """Run the command apart for ten minutes; enter when it plays, with those that play for it."""
    words = ["--budget", "10m", "--journal", str(journal), "--no-canary", "--workers", "2"]
    with subprocess.Popen(
        [sys.executable, "-m", "dspex_testkit.cli", "fuzz", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        me, players = psutil.Process(process.pid), []
        try:
            wait_until(lambda: len(me.children()) == 2, "two that play", seconds=60)
            players = me.children(recursive=True)
            yield process, players
        finally:
            process.kill()
            for player in players:
                with suppress(psutil.NoSuchProcess):
                    player.kill()


def test_sigterm_keeps_what_was_found_and_leaves_no_process(tmp_path: Path) -> None:
    """A run that was ended by SIGTERM left those that played to themselves, for seconds, and no record of itself."""
    with fuzzing(tmp_path) as (process, players):
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
        assert process.stderr is not None
        said = "error: stopped by SIGTERM; what was found is in the journal\n"
        assert process.stderr.read().decode().endswith(said)
        _, alive = psutil.wait_procs(players, timeout=0.1)
        assert alive == []
    assert len(read_journal(tmp_path).runs) == 1


def test_many_ctrl_c_end_as_one_does(tmp_path: Path) -> None:
    """Of several Ctrl-C in a row one struck when the run had ended, and the status was that of a killed program."""
    with fuzzing(tmp_path) as (process, players):

        def strike() -> bool:
            process.send_signal(signal.SIGINT)
            return process.poll() is not None

        wait_until(strike, "the end of the command", seconds=20)
        assert process.returncode == 130
        assert process.stderr is not None
        assert process.stderr.read().endswith(b"error: interrupted; what was found is in the journal\n")
        _, alive = psutil.wait_procs(players, timeout=0.1)
        assert alive == []
    assert len(read_journal(tmp_path).runs) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--budget", "soon"], "a budget is a time such as 30s, 10m or 2h, not 'soon'"),
        (["--canary", "nowhere:bug"], "'nowhere:bug' names no function MODULE:FUNCTION that plants a bug"),
        (["--canary", "os:getcwd"], "'os:getcwd' plants no bug: it must take one argument, the Planting"),
        (["--merge"], "there is nothing to merge"),
        (["--merge", "/nowhere"], "/nowhere is no folder"),
        # They stood for the working directory, all tests, and the canary that is taken if none is named.
        (["--merge", ""], "it is an empty text"),
        ([""], "it is an empty text"),
        (["--canary", ""], "it is an empty text"),
    ],
)
def test_wrong_command_line_is_told_in_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    """The exit status is 2, and nothing is played or written."""
    result = fuzz(*words, "--journal", str(tmp_path / "journal"))
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "journal").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothere.py", "--no-canary"], "error: file or directory not found: nothere.py\n"),
        (
            ["--canary", f"{__name__}:plants_in_vain"],
            f"error: the canary {__name__}:plants_in_vain cannot be planted: LookupError: no such part\n",
        ),
    ],
)
def test_wrong_thing_to_play_is_told_in_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    """What pytest printed in the process that plays came with it, down to the traceback of an internal error."""
    result = fuzz(*words, "--budget", "3s", "--journal", str(tmp_path / "journal"))
    assert result.exit_code == 2
    assert result.stderr == said


def test_merge_keeps_what_two_machines_found(tmp_path: Path) -> None:
    """Their runs and failures are in one journal; a file that is none of a journal is named."""
    for name in ("a", "b"):
        (tmp_path / name / "runs").mkdir(parents=True)
        record = {
            "run": name,
            "began": "",
            "seed": 1,
            "seconds": 60.0,
            "cpu": 60.0,
            "played": {"t": 30},
            "canary": 1,
        }
        (tmp_path / name / "runs" / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
    whole = tmp_path / "whole"
    result = fuzz("--merge", str(tmp_path / "a"), str(tmp_path / "b"), "--journal", str(whole))
    assert result.exit_code == 0, result.output
    assert "60 seeds in 2 runs, 1800 an hour; the canary was missed 0 times" in result.output
    assert set(read_journal(whole).runs) == {"a", "b"}
    (whole / "runs" / "c.json").write_text("{}", encoding="utf-8")
    broken = fuzz("--merge", str(whole), "--journal", str(tmp_path / "other"))
    assert broken.exit_code == 2
    assert "c.json is no file of a fuzz journal" in broken.stderr
