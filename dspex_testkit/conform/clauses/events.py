"""V: events, which only version 2 has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.conform import sentences as say
from dspex_testkit.conform.clause import BrokenClauseError, Opening, Subject, hold
from dspex_testkit.conform.wire import show

if TYPE_CHECKING:
    from dspex_testkit.conform.wire import Message, Wire

__all__ = ["CLAUSES"]

events = Subject("V", "events")
CLAUSES = events.clauses


def _until_answer(wire: Wire) -> list[Message]:
    """Run the command that tells of an event; return what came before its answer."""
    wire.begin("progress")
    found: list[Message] = []
    while (message := wire.message()) is not None:
        if "event" not in message:
            return found
        found.append(message)
    raise BrokenClauseError(f"it ended instead of answering{wire.last_words()}")


@events.clause(1, say.ASKED_EVENTS, opening=Opening.VERSION_1, needs=("progress",))
def _none_in_version_1(wire: Wire) -> None:
    """A client of version 1 is sent no events."""
    found = _until_answer(wire)
    hold(not found, f"it was sent {show(found[0] if found else {})}")


@events.clause(2, say.ASKED_EVENTS, version=2, needs=("progress",))
def _none_unasked(wire: Wire) -> None:
    """A client of version 2 that asked for none is sent none."""
    found = _until_answer(wire)
    hold(not found, f"it was sent {show(found[0] if found else {})}")


@events.clause(3, say.EVENT, opening=Opening.EVENTS, version=2, needs=("progress",))
def _asked_for(wire: Wire) -> None:
    """A client that asked for progress is told of it before the answer."""
    hold(any(message.get("event") == "progress" for message in _until_answer(wire)), "no event came")


@events.clause(4, say.EVENT, opening=Opening.EVENTS, version=2, needs=("progress",))
def _shape(wire: Wire) -> None:
    """An event has one of the three kinds, and its data is an object."""
    for message in _until_answer(wire):
        hold(message["event"] in ("log", "chunk", "progress"), f"its kind is {message['event']!r}")
        hold(isinstance(message.get("data"), dict), f"its data is {message.get('data')!r}")


@events.clause(5, say.EVENT, opening=Opening.EVENTS, version=2, needs=("progress",))
def _id_of_event(wire: Wire) -> None:
    """An event has the id of its request, or null."""
    wire.ask("ping")
    wire.begin("progress", id=555)
    message = wire.message() or {}
    hold("event" not in message or message.get("id", "") in (555, None), f"the event is {show(message)}")
