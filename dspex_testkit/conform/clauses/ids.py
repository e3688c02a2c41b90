"""I: the ids of requests and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_testkit.conform import sentences as say
from dspex_testkit.conform.clause import Subject, hold
from dspex_testkit.conform.wire import request, show

if TYPE_CHECKING:
    from dspex_testkit.conform.wire import Wire

__all__ = ["CLAUSES"]

ids = Subject("I", "ids")
CLAUSES = ids.clauses


def _comes_back(wire: Wire, *numbers: int) -> None:
    for number in numbers:
        answer = wire.ask("ping", id=number)
        got = answer.get("id")
        hold(got == number and type(got) is int, f"the request {number} is answered under {got!r}")


def _is_unusable(wire: Wire, number: Any) -> None:
    """Hold that a request with such an id is answered by a failure without one."""
    wire.say(request("ping", id=number))
    answer = wire.answer()
    hold(
        answer.get("success") is False and answer.get("id", "") is None,
        f"the id {'left out' if number is ... else repr(number)} is answered by {show(answer)}",
    )


@ids.clause(1, say.SUCCESS)
def _id_of_the_request(wire: Wire) -> None:
    """A success has the id of its request."""
    _comes_back(wire, 101, 102)


@ids.clause(2, say.REQUEST)
def _large_ids(wire: Wire) -> None:
    """Ids beyond 32 bits come back as they were."""
    _comes_back(wire, 2**31 + 7, 2**32 + 7, 2**53 - 1)


@ids.clause(3, say.REQUEST)
def _ids_in_any_order(wire: Wire) -> None:
    """Ids need not grow, nor follow one another."""
    _comes_back(wire, 350, 30, 0, 7)


@ids.clause(4, say.REQUEST)
def _id_used_again(wire: Wire) -> None:
    """An id may be used again once its request was answered."""
    _comes_back(wire, 44, 44)


@ids.clause(5, say.ONE_ANSWER)
def _one_answer(wire: Wire) -> None:
    """A request has one answer, and not a second one later."""
    before = wire.duplicates
    for _ in range(5):
        wire.ask("ping")
    # One request at a time was out; a second answer to it came before the answer to the next one.
    hold(wire.duplicates == before, "a request was answered, and then answered again")


@ids.clause(6, say.FAILURE)
def _id_of_the_failed_request(wire: Wire) -> None:
    """A failure has the id of its request."""
    answer = wire.fails(id=601)
    hold(answer.get("id") == 601, f"the request 601 is answered under {answer.get('id')!r}")


@ids.clause(7, say.NULL_ID)
def _missing_id(wire: Wire) -> None:
    """A request without an id is answered by a failure whose id is null."""
    _is_unusable(wire, ...)


@ids.clause(8, say.NULL_ID)
def _null_id(wire: Wire) -> None:
    """A request whose id is null is answered by such a failure."""
    _is_unusable(wire, None)


@ids.clause(9, say.NULL_ID)
def _text_id(wire: Wire) -> None:
    """A request whose id is a text is answered by such a failure."""
    _is_unusable(wire, "7")


@ids.clause(10, say.NULL_ID)
def _negative_id(wire: Wire) -> None:
    """A request whose id is negative is answered by such a failure."""
    _is_unusable(wire, -1)


@ids.clause(11, say.NULL_ID)
def _broken_id(wire: Wire) -> None:
    """A request whose id is no whole number is answered by such a failure."""
    _is_unusable(wire, 1.5)


@ids.clause(12, say.NULL_ID)
def _boolean_id(wire: Wire) -> None:
    """A request whose id is true is answered by such a failure."""
    _is_unusable(wire, True)
