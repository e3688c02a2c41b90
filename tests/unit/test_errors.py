"""Errors carry their facts, and what others put on them, wherever they go."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING

import pytest

from dspex_pool.errors import CheckoutTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_pool.errors import DspexPoolError

pytestmark = pytest.mark.fast


def sent(error: DspexPoolError) -> DspexPoolError:
    """Return the error as another process would get it."""
    answer: DspexPoolError = pickle.loads(pickle.dumps(error))
    return answer


@pytest.mark.parametrize("travel", [sent, copy.copy, copy.deepcopy])
def test_error_keeps_what_others_put_on_it(travel: Callable[[DspexPoolError], DspexPoolError]) -> None:
    """An attribute of somebody else made the copy fail, which breaks a pool of processes, and notes were lost."""
    error = CheckoutTimeoutError("no worker came free", waited=1.5)
    error.row = 7  # type: ignore[attr-defined] # somebody's own
    error.add_note("while row 7 was asked")
    arrived = travel(error)
    assert (type(arrived), str(arrived)) == (CheckoutTimeoutError, "no worker came free")
    assert arrived.facts() == {"waited": 1.5}
    assert vars(arrived) == {"waited": 1.5, "row": 7, "__notes__": ["while row 7 was asked"]}
