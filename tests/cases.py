"""Many cases of one promise in one test: a crowd of collected items costs more than what they check."""

from __future__ import annotations

from contextlib import contextmanager
from reprlib import Repr
from typing import TYPE_CHECKING

__all__ = ["case"]

if TYPE_CHECKING:
    from collections.abc import Iterator

# Long enough to tell the cases of one table apart, short enough for those that are long on purpose.
SHORT = Repr()
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 120


@contextmanager
def case(*facts: object) -> Iterator[None]:
    """Name the case in whatever goes wrong inside the ``with`` block.

    Args:
        facts: What tells this case from the others of its test.
    """
    try:
        yield
    # Also pytest's own outcomes, such as an error that was expected and did not come.
    except BaseException as error:
        error.add_note(f"in the case {', '.join(map(SHORT.repr, facts))}")
        raise
