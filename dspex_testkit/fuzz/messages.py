"""What the fuzzer tells the processes that play for it, and what they tell it, a line of JSON for each message."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from dspex_testkit.fuzz.failure import Failure  # noqa: TC001 - the codec reads the annotations at run time
from dspex_testkit.fuzz.journal import Example  # noqa: TC001 - as above

__all__ = ["ORDER_VARIABLE", "STUCK", "Checked", "Found", "Message", "Order", "Played", "decode", "encode"]

#: Environment variable with the order of a playing process.
ORDER_VARIABLE = "DSPEX_FUZZ_ORDER"


#: Exit status of a playing process in which a case never ended.
STUCK = 70


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What one process is to play."""

    #: Descriptor for its messages.
    descriptor: int
    #: What all cases are drawn from.
    seed: int
    #: Which of how many processes this is: it plays every so-many-th case.
    lane: int = 0
    lanes: int = 1
    #: First case of each test that is not the first of all.
    first: dict[str, int] = {}
    #: Until when it plays, in seconds since 1970.
    until: float
    #: Sizes of the smallest examples so far, by the key of the class.
    known: dict[str, tuple[int, ...]] = {}
    #: Tokens of examples that are to be tried first, by test and then by key.
    examples: dict[str, dict[str, str]] = {}
    #: The bug that is to be planted and found, ``MODULE:FUNCTION``; empty for none.
    canary: str = ""


class Played(msgspec.Struct, frozen=True, tag=True):
    """Cases that were played, since the last message of the kind."""

    test: str
    count: int
    #: CPU seconds.
    cpu: float


class Found(msgspec.Struct, frozen=True, tag=True):
    """A case that failed."""

    test: str
    failure: Failure
    #: The case, made small; ``None`` if as small a one is known.
    example: Example | None = None
    #: Whether the same case, played again, ended in another way.
    is_flaky: bool = False
    #: Whether it is the canary's doing.
    is_canary: bool = False


class Checked(msgspec.Struct, frozen=True, tag=True):
    """An example of an earlier run that was played again."""

    key: str
    #: How it ended; ``None`` if it passed.
    failure: Failure | None


Message: TypeAlias = Played | Found | Checked

_DECODER = msgspec.json.Decoder(Message)


def encode(message: Message) -> bytes:
    """Write a message as a line."""
    return msgspec.json.encode(message) + b"\n"


def decode(line: bytes) -> Message:
    """Read a line.

    Raises:
        msgspec.MsgspecError: It is no message.
    """
    message: Message = _DECODER.decode(line)
    return message
