"""The checks that every history of a pool must stand, together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.history.call_checkers import (
    lawful,
    not_empty,
    not_vacuous,
    one_outcome_each,
    own_answers,
    own_programs,
)
from dspex_testkit.history.consistency import consistent
from dspex_testkit.history.pool_checkers import (
    deaths_cost_one_call_each,
    leases_exclusive,
    nothing_alive_after_close,
    sizes_within_bounds,
    starts_bounded,
    waiters_in_order,
    without_gaps,
)
from dspex_testkit.history.verdict import BrokenHistoryError, Checker, Violation, check_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_testkit.history.call_checkers import Errors
    from dspex_testkit.history.record import History

__all__ = [
    "POOL_CHECKERS",
    "BrokenHistoryError",
    "Checker",
    "Violation",
    "check_all",
    "check_history",
    "consistent",
    "deaths_cost_one_call_each",
    "default_checkers",
    "lawful",
    "leases_exclusive",
    "not_empty",
    "not_vacuous",
    "nothing_alive_after_close",
    "one_outcome_each",
    "own_answers",
    "own_programs",
    "sizes_within_bounds",
    "starts_bounded",
    "waiters_in_order",
    "without_gaps",
]

#: What is checked of a pool that a history attends; nothing is found where none was attended.
POOL_CHECKERS: tuple[Checker, ...] = (
    without_gaps,
    leases_exclusive,
    sizes_within_bounds,
    waiters_in_order,
    starts_bounded,
    deaths_cost_one_call_each,
    nothing_alive_after_close,
)


def default_checkers(
    *, errors: Errors | Mapping[str, Errors] = (), faults: int | None = None
) -> list[Checker]:
    """Return all checkers, for those who want some more, or some less.

    Args:
        errors: Errors that may happen, see ``lawful``.
        faults: How many faults were proven to have happened; ``None`` where none were to happen.
    """
    checkers = [one_outcome_each, lawful(errors), own_answers(), own_programs, consistent(), *POOL_CHECKERS]
    return [*checkers, not_empty if faults is None else not_vacuous(faults)]


def check_history(
    history: History,
    *more: Checker,
    errors: Errors | Mapping[str, Errors] = (),
    faults: int | None = None,
) -> None:
    """Ask all checkers about a history, and some more.

    Args:
        more: Checkers besides the usual ones.
        errors: Errors that may happen, see ``lawful``; by default none.
        faults: How many faults were proven to have happened; ``None`` where none were to happen.

    Raises:
        BrokenHistoryError: They found something.
    """
    check_all(history, *default_checkers(errors=errors, faults=faults), *more)
