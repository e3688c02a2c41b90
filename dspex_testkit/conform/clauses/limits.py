"""L: frames that are too long, in both directions, and bytes that are no frames."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dspex_testkit.conform import sentences as say
from dspex_testkit.conform.clause import Opening, Subject, hold
from dspex_testkit.conform.wire import is_same_id, request, show

if TYPE_CHECKING:
    from dspex_testkit.conform.wire import Wire

__all__ = ["CLAUSES"]

limits = Subject("L", "limits")
CLAUSES = limits.clauses

_NO_FRAME = 65
_STRAY_PRINT = b"Traceback (most recent call last):\n"


def _leaves_with_65(wire: Wire, data: bytes) -> None:
    wire.write(data)
    status = wire.left()
    hold(status == _NO_FRAME, f"it left with status {status}{wire.last_words()}")


@limits.clause(1, say.JUDGED, opening=Opening.FRESH)
def _judged_on_the_header(wire: Wire) -> None:
    """A length over the limit is refused before a byte of its payload is there."""
    wire.write(b"\xff\xff\xff\xff")
    wire.left()


@limits.clause(2, say.NO_FRAME, opening=Opening.FRESH)
def _one_byte_too_many(wire: Wire) -> None:
    """A length of one byte more than ``max_frame_bytes`` makes it leave with status 65."""
    _leaves_with_65(wire, (wire.profile.max_frame_bytes + 1).to_bytes(4, "big"))


@limits.clause(3, say.NO_FRAME, opening=Opening.FRESH)
def _stray_print(wire: Wire) -> None:
    """A line of text where a frame belongs makes it leave with status 65."""
    _leaves_with_65(wire, _STRAY_PRINT)


@limits.clause(4, say.NO_FRAME, opening=Opening.FRESH)
def _complaint(wire: Wire) -> None:
    """It complains about such bytes on stderr."""
    before = wire.stderr()
    wire.write(_STRAY_PRINT)
    wire.left()
    hold(wire.stderr() != before, "it left without a word on stderr")


@limits.clause(5, say.TORN, opening=Opening.FRESH)
def _torn_frame(wire: Wire) -> None:
    """When stdin ends inside a frame, it leaves and says on stderr how many bytes are missing."""
    # Numbers that stand in no traceback by chance.
    whole, sent = 1_007, 130
    wire.write(whole.to_bytes(4, "big") + request("ping", {"padding": "x" * 900})[:sent])
    wire.close_stdin()
    wire.left()
    missing = str(whole - sent)
    hold(missing in wire.stderr(), f"{missing} bytes were missing, its stderr says {wire.stderr()[-200:]!r}")


@limits.clause(6, say.FITS_NO_FRAME, needs=("big",))
def _answer_too_long(wire: Wire) -> None:
    """An answer over the limit is not sent; a failure comes in its place, under the same id."""
    number = wire.begin("big")
    answer = wire.answer()
    hold(
        answer.get("success") is False and is_same_id(answer.get("id"), number),
        f"the answer is {show(answer)}",
    )


@limits.clause(7, say.FITS_NO_FRAME, needs=("big",))
def _both_sizes(wire: Wire) -> None:
    """The failure tells the limit and the size that the answer would have had."""
    error = str(wire.ask_role("big").get("error") or "")
    numbers = [int(digits) for digits in re.findall(r"\d+", error)]
    limit = wire.profile.max_frame_bytes
    # An error without a text is the matter of another clause.
    hold(not error or (limit in numbers and max(numbers) > limit), f"the error is {error[:200]!r}")


@limits.clause(8, say.FITS_NO_FRAME, needs=("big",))
def _lives_after_long_answer(wire: Wire) -> None:
    """Afterwards it serves on."""
    wire.ask_role("big")
    wire.lives()
