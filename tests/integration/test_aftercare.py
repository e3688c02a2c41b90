"""The reaper beside a test run, and a run that ends with and without a farewell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.bounded_waits import has_ended, wait_until

if TYPE_CHECKING:
    from pathlib import Path

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


INTERRUPTED = """
    import subprocess, time, pytest
    @pytest.mark.integration
    def test_it():
        started = subprocess.Popen(["sleep", "60"])
        print(started.pid, flush=True)
        time.sleep(60)
"""


def test_interrupted_run_leaves_no_process_of_the_test(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a test: pytest does not tear it down, so what it had started stayed behind."""
    (tmp_path / "test_it.py").write_text(dedent(INTERRUPTED), encoding="utf-8")
    quiet = ("-q", "-s", "-p", "no:cacheprovider", "-p", "no:faker", "-n0")
    command = [sys.executable, "-m", "pytest", *quiet, "--rootdir", str(tmp_path), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=_heed_ctrl_c) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        run.send_signal(signal.SIGINT)
        run.stdout.read()
        assert run.wait(60) == pytest.ExitCode.INTERRUPTED
    wait_until(lambda: has_ended(pid), "its process was gone", seconds=2.0)


def _heed_ctrl_c() -> None:
    # Where the tests run in the background of a script, children would ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
