"""M: the fields of answers and their types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_testkit.conform import sentences as say
from dspex_testkit.conform.clause import Opening, Subject, hold
from dspex_testkit.conform.wire import show

if TYPE_CHECKING:
    from dspex_testkit.conform.wire import Message, Wire

__all__ = ["CLAUSES"]

messages = Subject("M", "messages")
CLAUSES = messages.clauses


def _is_moment(value: Any) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


@messages.clause(1, say.SUCCESS)
def _result(wire: Wire) -> None:
    """A success has a result, which may be null but is there."""
    answer = wire.ask("ping")
    hold("result" in answer, f"the answer is {show(answer)}")


@messages.clause(2, say.SUCCESS)
def _timestamp_of_success(wire: Wire) -> None:
    """A success tells when it was answered: a number or a text."""
    answer = wire.ask("ping")
    hold(_is_moment(answer.get("timestamp")), f"its timestamp is {answer.get('timestamp')!r}")


@messages.clause(3, say.FAILURE)
def _error_text(wire: Wire) -> None:
    """A failure has an error text that is not empty."""
    answer = wire.fails()
    error = answer.get("error")
    hold(isinstance(error, str) and error.strip(), f"its error is {error!r}")


@messages.clause(4, say.FAILURE)
def _timestamp_of_failure(wire: Wire) -> None:
    """A failure tells when it was answered."""
    answer = wire.fails()
    hold(_is_moment(answer.get("timestamp")), f"its timestamp is {answer.get('timestamp')!r}")


@messages.clause(5, say.EXTRAS, version=2)
def _usage_and_duration(wire: Wire) -> None:
    """What a success tells besides has the right types: usage is an object, duration_s a number from 0."""
    answer = wire.ask("ping")
    usage, duration = answer.get("usage"), answer.get("duration_s")
    hold(usage is None or isinstance(usage, dict), f"usage is {usage!r}")
    is_number = isinstance(duration, int | float) and not isinstance(duration, bool)
    hold(duration is None or (is_number and duration >= 0), f"duration_s is {duration!r}")


@messages.clause(6, say.VERSION_2, opening=Opening.VERSION_1)
def _no_new_fields_in_success(wire: Wire) -> None:
    """A client of version 1 sees no field of version 2 in a success."""
    answer = wire.ask("ping")
    _has_none_of(answer, "usage", "duration_s")
    _has_none_of(wire.hello, "usage", "duration_s")


@messages.clause(7, say.VERSION_2, opening=Opening.VERSION_1)
def _no_new_fields_in_failure(wire: Wire) -> None:
    """A client of version 1 sees no field of version 2 in a failure."""
    _has_none_of(wire.fails(), "error_info")


@messages.clause(8, say.VERSION_2, opening=Opening.VERSION_1)
def _no_new_facts_in_handshake(wire: Wire) -> None:
    """A client of version 1 is not told of versions and capabilities in the handshake."""
    result = wire.hello.get("result")
    _has_none_of(result if isinstance(result, dict) else {}, "protocol", "versions", "capabilities")


def _has_none_of(message: Message, *names: str) -> None:
    found = [name for name in names if name in message]
    hold(not found, f"version 1 was told {', '.join(found)}: {show(message)}")
