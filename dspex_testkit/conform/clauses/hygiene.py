"""O: stdout carries frames and nothing else."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from dspex_testkit.conform import sentences as say
from dspex_testkit.conform.clause import Opening, Subject, hold
from dspex_testkit.conform.wire import show

if TYPE_CHECKING:
    from dspex_testkit.conform.wire import Wire

__all__ = ["CLAUSES"]

hygiene = Subject("O", "hygiene of stdout")
CLAUSES = hygiene.clauses

#: Seconds in which something could come that nobody asked for.
_QUIET = 0.15


@hygiene.clause(1, say.ONLY_FRAMES, opening=Opening.RAW)
def _says_nothing_first(wire: Wire) -> None:
    """The worker does not speak before it is spoken to."""
    time.sleep(_QUIET)
    hold(not wire.has_said(), "there was something on stdout before the first request")


@hygiene.clause(2, say.ONLY_FRAMES, opening=Opening.VERSION_1)
def _says_nothing_unasked(wire: Wire) -> None:
    """Between an answer and the next request nothing is on stdout."""
    wire.ask("ping")
    said = wire.message_within(_QUIET)
    hold(said is None, f"nobody had asked for {show(said or {})}")


@hygiene.clause(3, say.PRINTS, needs=("printing",))
def _prints_are_kept_off(wire: Wire) -> None:
    """What a command prints does not come between the frames."""
    answer = wire.ask_role("printing")
    hold(answer.get("success") is True, f"the answer is {show(answer)}")
    wire.lives()


@hygiene.clause(4, say.ONLY_FRAMES, opening=Opening.FRESH)
def _nothing_after_shutdown(wire: Wire) -> None:
    """After the answer to ``shutdown`` stdout ends, and nothing comes before its end."""
    first = wire.ask("shutdown", {"worker_id": "w-1"})
    rest = [message for message in wire.rest() if "event" not in message and message != first]
    hold(not rest, f"after the answer came {rest[:1]}")


@hygiene.clause(5, say.TORN, opening=Opening.FRESH)
def _clean_end_after_stdin(wire: Wire) -> None:
    """When stdin ends, stdout ends between two frames."""
    for _ in range(3):
        wire.send("ping")
    wire.close_stdin()
    wire.rest()


@hygiene.clause(6, say.ONLY_FRAMES, opening=Opening.FRESH)
def _nothing_after_sigterm(wire: Wire) -> None:
    """SIGTERM makes it say nothing on stdout."""
    wire.ask("ping")
    wire.signal(signal.SIGTERM)
    wire.left()
    rest = [message for message in wire.rest() if not {"success", "event"} & message.keys()]
    hold(not rest, f"after SIGTERM came {rest[:1]}")
