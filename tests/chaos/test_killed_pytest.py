"""Pytest itself is killed while it runs tests of real processes, and nothing of them is left.

The seed of a run shuffles our own integration tests and draws the moment. A kill counts only at a moment when a
process that the tests had started was alive.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.bounded_waits import wait_until

if TYPE_CHECKING:
    import random

pytestmark = pytest.mark.chaos

ROOT = Path(__file__).resolve().parents[2]
MODULES = (
    "test_pool_processes",
    "test_pool_processes_life",
    "test_subprocess_process",
    "test_sessions",
    "test_facades",
)
PROBE = "DSPEX_KILLED_RUN"


def alive(probe: str) -> dict[int, str]:
    """Return the processes that carry the probe in their environment, with their commands."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                if f"{PROBE}={probe}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
    return found


def count_workers(run: subprocess.Popen[bytes], probe: str) -> int:
    """Count what the tests have started: neither pytest nor its own workers."""
    assert run.poll() is None, "it ended before it could be killed"
    return sum("pytest" not in command and "exec(" not in command for command in alive(probe).values())


def kill_and_look(draw: random.Random, *arguments: str) -> None:
    """Run integration tests, kill pytest at a moment of ``draw``, and look for what is left."""
    probe = f"{os.getpid()}-{draw.random()}"
    modules = [f"tests/integration/{name}.py" for name in draw.sample(MODULES, len(MODULES))]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:faker",
        "-m",
        "integration",
        *arguments,
        *modules,
    ]
    environment, null = {**os.environ, PROBE: probe}, subprocess.DEVNULL
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=null, stdout=null, stderr=null) as run:
        try:
            wait_until(lambda: count_workers(run, probe), "a test started a process", seconds=60.0)
            time.sleep(draw.uniform(0, 3))
            wait_until(lambda: count_workers(run, probe), "a process was at risk")
        finally:
            run.kill()
        assert run.wait() == -signal.SIGKILL
    wait_until(lambda: not alive(probe), "all of its processes were gone", seconds=2.0)


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_killed_pytest_leaves_nothing(dspex_random: random.Random, arguments: tuple[str, ...]) -> None:
    """Two seconds after the kill no process is left, nor one of xdist's workers."""
    kill_and_look(dspex_random, *arguments)


@pytest.mark.parametrize("moment", range(20))
def test_killed_pytest_leaves_nothing_soak(dspex_random: random.Random, moment: int) -> None:
    """At twenty moments, whatever they hit."""
    kill_and_look(dspex_random, *(("-n", "2") if moment % 4 == 3 else ()))
