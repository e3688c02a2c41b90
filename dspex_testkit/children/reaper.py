"""A process that outlives a killed pytest for a moment, to end what the tests had started.

Started by path, on a bare interpreter: ``python -I -S reaper.py TAG PID``. It is no child of pytest, so that a test
that waits for all its children does not wait for it. A byte on its stdin is pytest's farewell, and then nothing is
done. If pytest ends without one, every process that carries the tag in its environment is killed, and every process
that holds the other end of the pipe: a fork of pytest, which has pytest's environment, or a worker of its own.
"""

import contextlib
import os
import select
import signal
import sys
import time

# What is being forked while others are killed is found the next time.
_PATIENCE = 1.5
_PAUSE = 0.02
#: Looks in a row that found nothing.
_QUIET_LOOKS = 3


def main() -> None:
    """Leave pytest's family, wait, and act."""
    tag, pid = sys.argv[1].encode(), int(sys.argv[2])
    ended = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    pipe = _link("self", "0")
    os.write(1, b"ready\n")
    os.close(1)
    if not _said_farewell(ended):
        _end_all(tag, pipe)


def _said_farewell(ended: "int | None") -> bool:
    """Wait for the farewell or the end of pytest, and tell whether it was the first."""
    # Where the end of a process cannot be waited for, the end of the pipe tells of it, unless a fork holds it open.
    ready, _, _ = select.select([0] if ended is None else [0, ended], [], [])
    return 0 in ready and bool(os.read(0, 1))


def _end_all(tag: bytes, pipe: str) -> None:
    deadline, quiet = time.monotonic() + _PATIENCE, 0
    while quiet < _QUIET_LOOKS and time.monotonic() < deadline:
        found = [name for name in _names("/proc") if name.isdecimal() and int(name) != os.getpid()]
        found = [name for name in found if _carries(name, tag) or _holds(name, pipe)]
        for name in found:
            with contextlib.suppress(OSError):
                os.kill(int(name), signal.SIGKILL)
        quiet = 0 if found else quiet + 1
        time.sleep(_PAUSE)


def _carries(name: str, tag: bytes) -> bool:
    try:
        with open(f"/proc/{name}/environ", "rb") as file:  # noqa: PTH123 - a bare interpreter imports less
            entries = file.read().split(b"\0")
    except OSError:
        return False
    return any(entry.startswith(b"DSPEX_TEST_RUN=") and tag in entry[15:].split() for entry in entries)


def _holds(name: str, pipe: str) -> bool:
    try:
        return any(_link(name, number) == pipe for number in _names(f"/proc/{name}/fd"))
    except OSError:
        return False


def _names(folder: str) -> "list[str]":
    return os.listdir(folder)  # noqa: PTH208 - as above


def _link(name: str, number: str) -> str:
    try:
        return os.readlink(f"/proc/{name}/fd/{number}")  # noqa: PTH115 - as above
    except OSError:
        return ""


if __name__ == "__main__":
    main()
