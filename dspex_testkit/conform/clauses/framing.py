"""F: frames in both directions, and the handshake on which everything else stands."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from dspex_testkit.conform import sentences as say
from dspex_testkit.conform.clause import Opening, Subject, hold
from dspex_testkit.conform.wire import STAMP, frame, request, show

if TYPE_CHECKING:
    from dspex_testkit.conform.wire import Wire

__all__ = ["CLAUSES"]

framing = Subject("F", "frames")
CLAUSES = framing.clauses

_PLAUSIBLE_BYTES = 1 << 20
_PRINTABLE = frozenset(range(0x20, 0x7F)) | {9, 10, 13}


def _first_answer(wire: Wire) -> bytes:
    """Greet a worker and return what it writes, up to what could be the end of its first frame."""
    wire.send_hello(1)
    deadline = time.monotonic() + wire.profile.timeout
    while not _is_told(wire.unread):
        if not wire.more(deadline):
            break
    hold(wire.unread, f"it ended instead of answering the first ping{wire.last_words()}")
    return wire.unread


def _is_told(data: bytes) -> bool:
    """Tell whether enough was read to say how the frame is made."""
    size = int.from_bytes(data[:4], "big")
    if len(data) < 4:
        return False
    return size > _PLAUSIBLE_BYTES or len(data) >= 4 + size or (size >= 4 and _is_object(data[4:size]))


def _is_object(payload: bytes) -> bool:
    try:
        return isinstance(json.loads(payload), dict)
    except ValueError:
        return False


@framing.clause(0, say.IN_TIME, opening=Opening.RAW, is_foundation=True)
def _first_ping_is_answered(wire: Wire) -> None:
    """The first ping is answered at all."""
    _first_answer(wire)


@framing.clause(1, say.ONLY_FRAMES, opening=Opening.RAW, is_foundation=True)
def _nothing_before_the_first_frame(wire: Wire) -> None:
    """Nothing is on stdout before the first frame: no banner, no blank line."""
    head = _first_answer(wire)[:4]
    hold(
        int.from_bytes(head, "big") <= _PLAUSIBLE_BYTES or not _PRINTABLE.issuperset(head),
        f"its stdout begins with the text {wire.unread[:60]!r}",
    )


@framing.clause(2, say.LENGTH, opening=Opening.RAW, is_foundation=True)
def _length_is_big_endian(wire: Wire) -> None:
    """An answer begins with its length, four bytes, the most significant first."""
    head = _first_answer(wire)[:4]
    hold(int.from_bytes(head, "big") <= _PLAUSIBLE_BYTES, f"the first four bytes are {head!r}")


@framing.clause(3, say.LENGTH, opening=Opening.RAW, is_foundation=True)
def _length_does_not_count_itself(wire: Wire) -> None:
    """The length of an answer is that of its payload alone."""
    data = _first_answer(wire)
    size = int.from_bytes(data[:4], "big")
    hold(len(data) >= 4 + size, f"the length says {size} bytes, but {len(data) - 4} came")


@framing.clause(4, say.OBJECT, opening=Opening.RAW, is_foundation=True)
def _payload_is_an_object(wire: Wire) -> None:
    """The payload of an answer is one JSON object in UTF-8."""
    wire.send_hello(1)
    wire.message()


@framing.clause(5, say.FIRST_PING, opening=Opening.RAW, is_foundation=True)
def _handshake_succeeds(wire: Wire) -> None:
    """The first ping is answered by a success."""
    answer = wire.greet(2)
    hold(answer.get("success") is True, f"the first ping is answered by {show(answer)}")


@framing.clause(6, say.OBJECT, opening=Opening.RAW)
def _no_byte_order_mark(wire: Wire) -> None:
    """A payload does not begin with a byte order mark."""
    wire.send_hello(1)
    payload = wire.payload() or b""
    hold(not payload.startswith(b"\xef\xbb\xbf"), f"a payload begins with {payload[:10]!r}")


@framing.clause(7, say.LENGTH)
def _request_byte_by_byte(wire: Wire) -> None:
    """A request that arrives byte by byte is answered."""
    for byte in frame(request("ping", id=700)):
        wire.write(bytes([byte]))
    _is_success(wire)


@framing.clause(8, say.LENGTH)
def _request_in_two_parts(wire: Wire) -> None:
    """A request that arrives with a pause inside its header, and another inside its payload, is answered."""
    whole = frame(request("ping", id=800))
    for part in (whole[:2], whole[2:20], whole[20:]):
        wire.write(part)
        time.sleep(0.02)
    _is_success(wire)


@framing.clause(9, say.LENGTH)
def _two_requests_at_once(wire: Wire) -> None:
    """Two requests that arrive in one piece are both answered."""
    wire.write(frame(request("ping", id=901)) + frame(request("ping", id=902)))
    _is_success(wire)
    _is_success(wire)


@framing.clause(10, say.LENGTH)
def _request_and_a_half(wire: Wire) -> None:
    """A request that arrives with the beginning of the next one is answered before the rest of that is there."""
    second = frame(request("ping", id=1002))
    wire.write(frame(request("ping", id=1001)) + second[:7])
    _is_success(wire)
    wire.write(second[7:])
    _is_success(wire)


@framing.clause(11, say.LIMIT)
def _long_request(wire: Wire) -> None:
    """A request far longer than a pipe's buffer is read, or as long as the limit allows."""
    padding = min(1_000_000, wire.profile.max_frame_bytes - 200)
    answer = wire.ask("ping", {"padding": "x" * padding})
    hold("success" in answer, f"the answer is {show(answer)}")


@framing.clause(12, say.LIMIT, needs=("small max_frame_bytes",))
def _request_of_exactly_the_limit(wire: Wire) -> None:
    """A request of exactly ``max_frame_bytes`` is read."""
    size = wire.profile.max_frame_bytes - len(request("ping", {"padding": ""}, id=1200))
    wire.say(request("ping", {"padding": "x" * size}, id=1200))
    _is_success(wire)


@framing.clause(13, say.OBJECT)
def _letters_of_any_language(wire: Wire) -> None:
    """A request may hold letters of any language, as they are."""
    answer = wire.ask("ping", {"note": "Zürich 東京 🙂"})
    hold(answer.get("success") is True, f"the answer is {show(answer)}")


@framing.clause(14, say.OBJECT)
def _spaces_between_tokens(wire: Wire) -> None:
    """A request may have blanks and line breaks wherever JSON allows them."""
    spaced = {"timestamp": STAMP, "args": {}, "command": "ping", "id": 1400}
    wire.say(b"\n " + json.dumps(spaced, indent=2).encode() + b" \n")
    _is_success(wire)


@framing.clause(15, say.OBJECT, needs=("echo",))
def _text_survives(wire: Wire) -> None:
    """Letters of any language, quotes and control characters come back as they were sent."""
    args = {"text": 'Zürich 東京 🙂 "\\/\b\t\n\u0001\u2028'}
    answer = wire.ask(wire.profile.commands["echo"].name, args)
    hold(answer.get("result") == args, f"{args} came back as {show(answer)}")


@framing.clause(16, say.OBJECT, needs=("echo",))
def _values_survive(wire: Wire) -> None:
    """Numbers, null, booleans, lists and nested objects come back as they were sent."""
    args = {"a": [1, -2, 0.5, 1e-7, True, False, None], "b": {"c": {"d": []}}, "": {}}
    answer = wire.ask(wire.profile.commands["echo"].name, args)
    hold(answer.get("result") == args, f"{args} came back as {show(answer)}")


@framing.clause(17, say.LENGTH, needs=("echo",))
def _long_answer(wire: Wire) -> None:
    """An answer far longer than a pipe's buffer arrives whole, or as long as the limit allows."""
    args = {"text": "x" * min(1_000_000, wire.profile.max_frame_bytes - 500)}
    answer = wire.ask(wire.profile.commands["echo"].name, args)
    hold(answer.get("result") == args, f"the answer is {show(answer)}")


def _is_success(wire: Wire) -> None:
    answer = wire.answer()
    hold(answer.get("success") is True, f"the answer is {show(answer)}")
