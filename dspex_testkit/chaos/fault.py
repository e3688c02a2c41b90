"""What a fault is: frozen data that knows how it is injected, where it can be, and what proves that it happened."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

import msgspec

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["EVERYWHERE", "LM", "PROCESS", "SIM", "Fault", "FaultDidNotHappenError", "Witness"]

#: Looks at what is left of a fault, and says in a line for each time that it happened what proves it.
Witness: TypeAlias = Callable[[], Sequence[str]]

#: The kinds of port that a fault can be on.
EVERYWHERE: Final = ("sim", "server", "process")
SIM: Final = ("sim",)
PROCESS: Final = ("process",)
#: No port at all, but a scripted language model.
LM: Final = ("lm",)


class FaultDidNotHappenError(AssertionError):
    """A fault was ordered and nothing proves that it happened, or not as often as it should."""


class Fault(msgspec.Struct, frozen=True, tag=True):
    """One fault as data. Durations are in seconds, sizes in bytes, shares between 0 and 1."""

    #: Where it can happen: kinds of port, or ``lm``.
    where: ClassVar[tuple[str, ...]] = EVERYWHERE
    #: What proves that it happened, in words.
    proof: ClassVar[str] = ""

    @abc.abstractmethod
    def inject(self, to: Injection) -> Witness:
        """Begin, by what ``to`` offers; return who tells what happened. What must be mended is left to ``to``.

        The witness looks at the worker, the bytes or the system, never at whether something was ordered.
        """
