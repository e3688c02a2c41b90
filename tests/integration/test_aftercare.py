"""The reaper beside a test run, and a run that ends with and without a farewell."""

from __future__ import annotations

import os
import subprocess
import sys
from textwrap import dedent

import psutil
import pytest

from tests.bounded_waits import has_ended, wait_until

pytestmark = pytest.mark.integration

RUN = """
    import os, signal, subprocess, sys, time
    from dspex_testkit.aftercare import start_reaper
    from dspex_testkit.descendants import own_tag
    send_away = start_reaper(own_tag())
    os.environ["DSPEX_TEST_RUN"] = "1-1 " + own_tag()
    mute = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    tagged = subprocess.Popen(["setsid", "sleep", "60"], **mute).pid
    fork = os.fork()
    if not fork:
        os.close(1)
        time.sleep(60)
    print(os.getpid(), tagged, fork, flush=True)
    if sys.argv[1] == "farewell":
        send_away()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def ended_run(how: str) -> list[int]:
    """Run the program, and its reaper, to their ends; return the ids of what carries its tag, and of its fork."""
    done = subprocess.run(
        [sys.executable, "-c", dedent(RUN), how], stdout=subprocess.PIPE, env=os.environ.copy(), check=False
    )
    own, *pids = [int(text) for text in done.stdout.split()]
    wait_until(lambda: not reapers_of(own), "the reaper had left", seconds=2.0)
    return pids


def reapers_of(pid: int) -> list[psutil.Process]:
    processes = psutil.process_iter(["cmdline"])
    return [one for one in processes if (one.info["cmdline"] or [])[-1:] == [str(pid)]]


def test_killed_run_leaves_neither_children_nor_forks() -> None:
    """What carries its tag is ended, and a fork that has another environment too."""
    pids = ended_run("killed")
    assert len(pids) == 2
    assert all(map(has_ended, pids))


def test_run_that_said_farewell_keeps_what_it_left() -> None:
    """What is left on purpose stays: a run that ends by itself has looked after its own."""
    pids = ended_run("farewell")
    try:
        assert len(pids) == 2
        assert not any(map(has_ended, pids))
    finally:
        for pid in pids:
            psutil.Process(pid).kill()
