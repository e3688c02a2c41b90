"""G: SIGTERM and SIGINT."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from dspex_testkit.conform import sentences as say
from dspex_testkit.conform.clause import Opening, Subject, hold
from dspex_testkit.conform.wire import is_same_id, show

if TYPE_CHECKING:
    from dspex_testkit.conform.wire import Message, Wire

__all__ = ["CLAUSES"]

signals = Subject("G", "signals")
CLAUSES = signals.clauses

#: The bound of the protocol for SIGTERM, in seconds.
_A_SECOND = 1.0
# Nobody tells when a command has begun, and before that the signal is one that comes while idle. So it is repeated.
_REPEAT = 0.1


@signals.clause(1, say.SIGTERM, opening=Opening.FRESH)
def _sigterm_while_idle(wire: Wire) -> None:
    """SIGTERM while idle ends the worker within a second."""
    wire.signal(signal.SIGTERM)
    wire.left(_A_SECOND)


@signals.clause(2, say.SIGTERM, opening=Opening.FRESH)
def _status_after_sigterm(wire: Wire) -> None:
    """It leaves with status 0 then."""
    wire.signal(signal.SIGTERM)
    status = wire.left()
    hold(status == 0, f"it left with status {status}")


@signals.clause(3, say.SIGTERM, opening=Opening.FRESH, needs=("slow",))
def _sigterm_while_busy(wire: Wire) -> None:
    """SIGTERM while a command runs ends the worker within a second; nothing is finished."""
    wire.begin_slow()
    wire.signal(signal.SIGTERM)
    wire.left(_A_SECOND)


@signals.clause(4, say.SIGTERM, opening=Opening.FRESH, needs=("slow",))
def _status_after_sigterm_while_busy(wire: Wire) -> None:
    """It leaves with status 0 then, too."""
    wire.begin_slow()
    wire.signal(signal.SIGTERM)
    status = wire.left()
    hold(status == 0, f"it left with status {status}")


@signals.clause(5, say.SIGINT_IDLE, opening=Opening.FRESH)
def _sigint_while_idle(wire: Wire) -> None:
    """SIGINT while idle does not end the worker."""
    for _ in range(5):
        wire.signal(signal.SIGINT)
        time.sleep(0.01)
    wire.lives()


@signals.clause(6, say.SIGINT_IDLE, opening=Opening.FRESH)
def _sigint_while_idle_is_silent(wire: Wire) -> None:
    """SIGINT while idle is not answered, and does not hit the next request."""
    wire.signal(signal.SIGINT)
    time.sleep(_REPEAT)
    # A worker that has ended is the matter of another clause.
    if wire.process.poll() is None:
        said = wire.answer_within(0.0)
        hold(said is None, f"it said {show(said or {})}")
        answer = wire.ask("ping")
        hold(answer.get("success") is True, f"the next answer is {show(answer)}")


@signals.clause(7, say.SIGINT_RUNNING, opening=Opening.FRESH, needs=("slow",))
def _sigint_while_busy(wire: Wire) -> None:
    """SIGINT while a command runs ends the command: its request is answered."""
    _cancelled(wire)


@signals.clause(8, say.SIGINT_RUNNING, opening=Opening.FRESH, needs=("slow",))
def _cancelled_is_a_failure(wire: Wire) -> None:
    """The answer is a failure, under the id of the request."""
    number, answer = _cancelled(wire)
    hold(
        answer.get("success") is False and is_same_id(answer.get("id"), number),
        f"{number} is answered by {show(answer)}",
    )


@signals.clause(9, say.SIGINT_RUNNING, opening=Opening.FRESH, needs=("slow",), version=2)
def _cancelled_type(wire: Wire) -> None:
    """The failure has the type ``Cancelled``."""
    _, answer = _cancelled(wire)
    info = answer.get("error_info")
    hold(isinstance(info, dict) and info.get("type") == "Cancelled", f"the answer is {show(answer)}")


@signals.clause(10, say.SIGINT_RUNNING, opening=Opening.FRESH, needs=("slow",))
def _lives_after_sigint(wire: Wire) -> None:
    """After that the worker lives on."""
    _cancelled(wire)
    wire.lives()


def _cancelled(wire: Wire) -> tuple[int, Message]:
    """Begin a slow command and interrupt it until it is answered; return its id and the answer."""
    number = wire.begin_slow()
    deadline = time.monotonic() + wire.profile.timeout
    while (answer := wire.answer_within(_REPEAT)) is None:
        hold(time.monotonic() < deadline, "it went on with its command")
        hold(wire.process.poll() is None, f"it did not answer{wire.last_words()}")
        wire.signal(signal.SIGINT)
    return number, answer
