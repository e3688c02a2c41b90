"""The tag by which orphaned workers are found."""

from __future__ import annotations

import errno
import os
import sys

import psutil
import pytest

from dspex_pool.transport import run_tag
from dspex_pool.transport.run_tag import own_run_tag, run_has_ended

pytestmark = pytest.mark.fast

# Above the largest process id of any system.
NO_PID = 2**31 - 2


def test_own_run_goes_on() -> None:
    """The tag of a process that runs is recognised as such, and does not change."""
    assert own_run_tag() == own_run_tag()
    assert own_run_tag().startswith(f"{os.getpid()}-")
    assert not run_has_ended(own_run_tag())


def test_run_has_ended_when_its_process_is_gone() -> None:
    """Without the process the run is over."""
    assert run_has_ended(f"{NO_PID}-1700000000.00")


def test_run_has_ended_when_its_pid_was_given_to_another() -> None:
    """A process of the same id that started at another time is another run."""
    assert run_has_ended(f"{os.getpid()}-0.01")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system keeps the time of the start itself")
def test_run_goes_on_when_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start time moves with the clock: ``doctor`` told to kill the workers of pools that ran."""
    tag = own_run_tag()
    booted, started = psutil.boot_time(), psutil.Process().create_time()
    monkeypatch.setattr(psutil, "boot_time", lambda: booted + 3600)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: started + 3600)
    assert not run_has_ended(tag)


def test_run_of_a_zombie_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ended and was not reaped owns nothing any more."""
    monkeypatch.setattr(psutil.Process, "status", lambda self: psutil.STATUS_ZOMBIE)
    assert run_has_ended(own_run_tag())


def test_run_is_taken_to_go_on_when_its_process_cannot_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be known is not called an orphan."""

    def refuse(self: psutil.Process) -> str:
        raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(psutil.Process, "status", refuse)
    assert not run_has_ended(own_run_tag())


def test_run_without_a_start_time_is_known_by_its_number_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``/proc`` nobody tells when a process started; no worker could be started there."""

    def gone(pid: int) -> psutil.Process:
        raise psutil.NoSuchProcess(pid)

    run_tag._started.cache_clear()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(psutil, "Process", gone)
            tag = own_run_tag()
    finally:
        run_tag._started.cache_clear()
    assert tag == f"{os.getpid()}-0.00"
    assert not run_has_ended(tag)
    assert run_has_ended(f"{NO_PID}-0.00")


def test_run_whose_start_time_cannot_be_read_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no descriptor left to read it by, the first start of a worker failed with a bare OSError."""

    def no_descriptor(*_: object) -> float:
        raise OSError(errno.EMFILE, "Too many open files")

    run_tag._started.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(psutil.Process, "create_time", no_descriptor)
        assert own_run_tag() == f"{os.getpid()}-0.00"
    assert own_run_tag() != f"{os.getpid()}-0.00"


@pytest.mark.parametrize("tag", ["", "12", "x-y", "12-"])
def test_run_tag_of_another_form_is_refused(tag: str) -> None:
    """A variable that somebody else has set is not read as a tag."""
    with pytest.raises(ValueError, match=r"invalid literal|could not convert"):
        run_has_ended(tag)
