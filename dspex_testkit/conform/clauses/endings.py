"""X: how a worker leaves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dspex_testkit.conform import sentences as say
from dspex_testkit.conform.clause import Opening, Subject, hold
from dspex_testkit.conform.wire import frame, request, show

if TYPE_CHECKING:
    from dspex_testkit.conform.wire import Wire

__all__ = ["CLAUSES"]

endings = Subject("X", "endings")
CLAUSES = endings.clauses


def _status_0(wire: Wire) -> None:
    status = wire.left()
    hold(status == 0, f"it left with status {status}{wire.last_words()}")


@endings.clause(1, say.STDIN_ENDS, opening=Opening.FRESH)
def _leaves_when_stdin_ends(wire: Wire) -> None:
    """When stdin ends, the worker leaves."""
    wire.close_stdin()
    wire.left()


@endings.clause(2, say.STDIN_ENDS, opening=Opening.FRESH)
def _status_when_stdin_ends(wire: Wire) -> None:
    """It does so with status 0."""
    wire.close_stdin()
    _status_0(wire)


@endings.clause(3, say.STDIN_ENDS, opening=Opening.RAW)
def _stdin_ends_before_anything(wire: Wire) -> None:
    """It leaves with status 0 when stdin ends before the first request."""
    wire.close_stdin()
    _status_0(wire)


@endings.clause(4, say.STDIN_ENDS, opening=Opening.FRESH, needs=("slow",))
def _stdin_ends_while_busy(wire: Wire) -> None:
    """It leaves with status 0 when stdin ends while a command runs."""
    wire.begin_slow()
    wire.close_stdin()
    _status_0(wire)


@endings.clause(5, say.STDIN_ENDS, opening=Opening.FRESH, needs=("slow",))
def _stdin_ends_behind_requests(wire: Wire) -> None:
    """It leaves with status 0 when stdin ends behind requests that wait for a command."""
    wire.begin_slow()
    wire.write(b"".join(frame(request("ping", id=number)) for number in range(500, 520)))
    wire.close_stdin()
    _status_0(wire)


@endings.clause(6, say.TORN, opening=Opening.FRESH)
def _stdin_ends_inside_a_frame(wire: Wire) -> None:
    """It leaves when stdin ends inside a frame, be it in the length or in the payload."""
    wire.write(b"\x00\x00")
    wire.close_stdin()
    wire.left()


@endings.clause(7, say.SHUTDOWN, opening=Opening.FRESH)
def _shutdown_is_answered(wire: Wire) -> None:
    """``shutdown`` is answered before the process ends."""
    answer = wire.ask("shutdown", {"worker_id": "w-1"})
    result = answer.get("result")
    hold(
        isinstance(result, dict) and result.get("status") == "shutting_down", f"the answer is {show(answer)}"
    )


@endings.clause(8, say.SHUTDOWN, opening=Opening.FRESH)
def _shutdown_ends_the_process(wire: Wire) -> None:
    """After the answer to ``shutdown`` the process ends with status 0, while stdin is open."""
    wire.ask("shutdown", {"worker_id": "w-1"})
    _status_0(wire)


@endings.clause(9, say.NO_READER, opening=Opening.FRESH)
def _leaves_without_a_reader(wire: Wire) -> None:
    """When nobody reads its stdout any more, the worker leaves, at the latest when it answers."""
    wire.close_stdout()
    _ping_until_gone(wire)


@endings.clause(10, say.NO_READER, opening=Opening.FRESH)
def _no_traceback_without_a_reader(wire: Wire) -> None:
    """It writes no traceback then."""
    wire.close_stdout()
    _ping_until_gone(wire)
    said = wire.stderr()
    traces = [word for word in ("Traceback (most recent", "panic:", "goroutine ", "    at ") if word in said]
    hold(not traces, f"its stderr says {said[-200:]!r}")


def _ping_until_gone(wire: Wire) -> None:
    # The first writes to a pipe that nobody reads may end in a library's buffer; later ones do not.
    deadline = time.monotonic() + wire.profile.timeout
    while wire.process.poll() is None and time.monotonic() < deadline:
        wire.send("ping")
        time.sleep(0.02)
    wire.left(0.0)
