"""What a checker finds in a history, and how several of them are asked at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_testkit.history.record import History, Operation

__all__ = ["BrokenHistoryError", "Checker", "Violation", "check_all"]

#: Violations or operations of which more are only counted.
_MANY = 12


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing in a history that must not be."""

    #: What is wrong, in a sentence.
    text: str
    #: The operations that show it, if operations do.
    operations: tuple[Operation, ...] = ()

    def __str__(self) -> str:
        lines = [f"  {operation}" for operation in self.operations[:_MANY]]
        return "\n".join([self.text, *lines, *_rest(len(self.operations), "operations")])


#: Looks at a history and says what is wrong with it; changes nothing.
Checker: TypeAlias = "Callable[[History], list[Violation]]"


class BrokenHistoryError(AssertionError):
    """Something in a history must not be.

    Args:
        violations: What.
    """

    def __init__(self, violations: list[Violation]) -> None:
        #: What must not be.
        self.violations = violations
        lines = [str(violation) for violation in violations[:_MANY]]
        super().__init__("\n".join([*lines, *_rest(len(violations), "violations")]))


def check_all(history: History, *checkers: Checker) -> None:
    """Ask every checker about a history.

    Raises:
        BrokenHistoryError: They found something; it tells all that they found.
        ValueError: There is no checker.
    """
    if not checkers:
        raise ValueError("no checker was named; check_history asks the usual ones")
    if violations := [violation for checker in checkers for violation in checker(history)]:
        raise BrokenHistoryError(violations)


def _rest(count: int, what: str) -> list[str]:
    return [f"  and {count - _MANY} more {what}"] if count > _MANY else []
