"""What cannot be written is told in one line that names it, by every command of both programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from typer.testing import CliRunner

from dspex_testkit.cli.app import app
from dspex_testkit.fuzz.files import write_run
from dspex_testkit.fuzz.journal import RunRecord
from tests.integration.cli_shell import HANDLER, Shell

pytestmark = pytest.mark.integration

#: Commands that print, by what is in the folder.
PRINTING: Final = [
    ["dspex_pool.cli", "--help"],
    ["dspex_pool.cli", "--version"],
    ["dspex_pool.cli", "config"],
    ["dspex_pool.cli", "config", "--json"],
    ["dspex_pool.cli", "doctor", *HANDLER],
    ["dspex_pool.cli", "run", "q -> a", "rows.jsonl", "--quiet", *HANDLER],
    ["dspex_testkit.cli"],
    ["dspex_testkit.cli", "ci", "--github"],
    ["dspex_testkit.cli", "conform", "--list"],
    ["dspex_testkit.cli", "load", "--list"],
    ["dspex_testkit.cli", "load", "echo", "--seconds", "0.1", "--workers", "1"],
    ["dspex_testkit.cli", "load", "echo", "--seconds", "0.1", "--workers", "1", "--json"],
    ["dspex_testkit.cli", "fuzz", "--merge", "."],
]


@pytest.mark.parametrize(
    ("words", "unbuffered"), [*((words, "") for words in PRINTING), (PRINTING[2], "1"), (PRINTING[-1], "1")]
)
def test_standard_output_that_is_full_is_named(words: list[str], unbuffered: str, tmp_path: Path) -> None:
    """It was a traceback, or a line that did not say what was full, with status 120 and a complaint at the end."""
    shell = Shell(tmp_path)
    shell.write([{"q": "one"}])
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=tmp_path,
            env=shell.environment | {"PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    said = [line for line in done.stderr.splitlines() if not line.startswith("dspex-pool: ")]
    assert said == ["error: cannot write the standard output: No space left on device"]
    assert done.returncode == 2


def test_journal_of_fuzzing_that_cannot_be_merged_is_named(tmp_path: Path) -> None:
    """On a full disk the error said that no space was left, but not where."""
    ours, other = tmp_path / "ours", tmp_path / "other"
    write_run(other, RunRecord(run="r", began="", seed=1, seconds=1.0, cpu=1.0, played={}))
    (ours / "runs").mkdir(parents=True)
    (ours / "runs" / "r.json.part").symlink_to("/dev/full")
    result = CliRunner().invoke(app, ["fuzz", "--merge", str(other), "--journal", str(ours)])
    assert result.exit_code == 2
    assert result.stderr == f"error: cannot write {ours}/runs/r.json: No space left on device\n"


@pytest.mark.parametrize(
    "words",
    [
        ["conform", "--profile", "", "--", "true"],
        ["conform", "--expected-failures", "", "--", "true"],
        ["conform", "--junit", "", "--", "true"],
        ["conform", "--html", "", "--", "true"],
        ["load", "echo", "--seconds", "0.1", "--report", ""],
        ["fuzz", "--budget", "1s", "--journal", ""],
    ],
    ids=lambda words: words[-3] if "--" in words else words[-2],
)
def test_path_that_is_an_empty_text_is_refused(words: list[str]) -> None:
    """It stood for the working directory: pages and journals were strewn there, and files were called directories."""
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "it is an empty text: name a file or folder" in result.stderr
    assert result.stderr.count("\n") == 1
