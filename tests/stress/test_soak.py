"""Load for minutes: no call is lost, workers are recycled all the while, and the parent does not grow."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

from dspex_testkit.plugin.report import report_folder
from tests.documents import ROOT
from tests.stress.loads import MINUTES

pytestmark = pytest.mark.stress

#: Seconds that are measured. A short run shares its minutes with the other tests; ten are for the soak alone.
SECONDS: Final = 60 * MINUTES if MINUTES >= 10 else 30 * MINUTES
WARMUP: Final = min(60.0, 6 * MINUTES)


def run_soak(*words: object) -> subprocess.CompletedProcess[str]:
    """Run the soak in a process of its own."""
    command = [sys.executable, "-m", "tests.stress.soaking", *(str(word) for word in words)]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print(f"\n{done.stdout}")
    return done


def test_soak_loses_no_call_and_leaves_the_parent_as_it_was(
    pytestconfig: pytest.Config, dspex_seed: int
) -> None:
    """Sixteen callers, fifty sessions, workers recycled by uses and by memory: every call gets its own answer.

    Memory, blocks, descriptors and processes of the parent stay flat.
    """
    folder = report_folder(pytestconfig)
    page = ("--report", folder) if folder is not None else ()
    done = run_soak("--seconds", SECONDS, "--warmup", WARMUP, "--seed", dspex_seed, *page)
    assert done.returncode == 0, done.stdout
    assert "workers left by max_uses" in done.stdout
    assert "workers left by max_rss" in done.stdout


def test_leak_of_a_hundred_bytes_a_call_fails_a_soak() -> None:
    """Growth that a user would meet after a week is found within seconds, so a soak that passes says something."""
    done = run_soak("--seconds", 10, "--warmup", 5, "--leak", 100)
    assert done.returncode == 1
    assert "AssertionError: memory grows" in done.stdout or "AssertionError: blocks grows" in done.stdout
