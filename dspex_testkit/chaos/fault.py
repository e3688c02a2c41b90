"""What a fault is: frozen data that knows how it is injected, where it can be, and what proves that it happened."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
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


#: The least that settings of these names may be, unless a fault has a least of its own.
_LEAST: Final = {
    "seconds": 0.0,
    "retry_after": 0.0,
    "bytes_per_second": 1e-9,  # it divides
    "times": 1,
    "size": 0,
    "bits": 1,
    "pieces": 0,
    "burners": 1,
}


class FaultDidNotHappenError(AssertionError):
    """A fault was ordered and nothing proves that it happened, or not as often as it should."""


class Fault(msgspec.Struct, frozen=True, tag=True):
    """One fault as data. Durations are in seconds, sizes in bytes, shares between 0 and 1.

    Raises:
        TypeError: A duration, a size, a number of times or of a worker is no number.
        ValueError: It is less than the least of its kind.
    """

    #: Where it can happen: kinds of port, or ``lm``.
    where: ClassVar[tuple[str, ...]] = EVERYWHERE
    #: What proves that it happened, in words.
    proof: ClassVar[str] = ""
    #: The least that its settings may be, where that is not what it is for others of the name.
    least: ClassVar[Mapping[str, float]] = {}

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            self._check(name, getattr(self, name))

    def _check(self, name: str, value: object) -> None:
        least = self.least.get(name, _LEAST.get(name))
        if value is None or (least is None and name != "worker"):
            return
        what = f"{type(self).__name__}: {name} = {value!r} is refused"
        if isinstance(value, bool) or not isinstance(value, int if name == "worker" else int | float):
            oldest = (
                ": it is a number, and the oldest worker has 0" if name == "worker" else ": it is a number"
            )
            raise TypeError(what + oldest)
        # Not "less", since NaN is neither less nor more.
        if least is not None and not value >= least:
            raise ValueError(f"{what}: it is at least {least:g}")

    @abc.abstractmethod
    def inject(self, to: Injection) -> Witness:
        """Begin, by what ``to`` offers; return who tells what happened. What must be mended is left to ``to``.

        The witness looks at the worker, the bytes or the system, never at whether something was ordered.
        """
