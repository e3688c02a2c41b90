"""Bugs of real pools, to be planted into ours: what a simulation that is worth its time must find."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.checkout import Checkout
from dspex_pool.core.books import Books
from dspex_pool.core.start_policy import StartPolicy
from dspex_pool.core.wait_line import WaitLine
from dspex_pool.decision_runner import DecisionRunner
from dspex_pool.pool_state import PoolState
from dspex_pool.protocol.conversation import ClientConversation
from dspex_pool.worker import PoolWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from dspex_pool.core.records import Waiter

__all__ = ["BUGS", "QUICK"]


def barging(patch: pytest.MonkeyPatch) -> None:
    """Serve the newest waiter first."""

    def last(self: WaitLine, worker: int) -> Waiter | None:
        return next(reversed(self._open.values()), None)

    patch.setattr(WaitLine, "first_for", last)


def leak_on_cancel(patch: pytest.MonkeyPatch) -> None:
    """Return no worker whose caller is cancelled in the block."""
    leave = Checkout.__aexit__

    async def forget(self: Checkout, *error: Any) -> None:
        if error[0] is not trio.Cancelled:
            await leave(self, *error)

    patch.setattr(Checkout, "__aexit__", forget)


def gap_before_the_block(patch: pytest.MonkeyPatch) -> None:
    """Wait between the grant and the block, where a cancelled caller has a worker and does not know it."""
    enter = Checkout.__aenter__

    async def enter_late(self: Checkout) -> Any:
        lease = await enter(self)
        await trio.lowlevel.checkpoint()
        return lease

    patch.setattr(Checkout, "__aenter__", enter_late)


def ghost_in_line(patch: pytest.MonkeyPatch) -> None:
    """Leave a cancelled waiter in line."""
    patch.setattr(PoolState, "cancel_waiter", lambda self, number, now: True)


def unproven_reuse(patch: pytest.MonkeyPatch) -> None:
    """Lend workers that still owe an answer."""
    patch.setattr(PoolWorker, "why_unclean", lambda self: None)


def any_answer(patch: pytest.MonkeyPatch) -> None:
    """Take the next answer for one's own, whatever its id."""
    accept = ClientConversation._accept_reply

    def careless(self: ClientConversation, reply: Any, payload: bytes) -> Any:
        awaited = next(iter(self._awaited), None)
        return accept(self, reply if awaited is None else type(reply)(awaited, *_rest(reply)), payload)

    patch.setattr(ClientConversation, "_accept_reply", careless)


def _rest(reply: Any) -> tuple[Any, ...]:
    return tuple(getattr(reply, name) for name in reply.__struct_fields__[1:])


def one_too_many(patch: pytest.MonkeyPatch) -> None:
    """Start a worker more than is allowed."""
    patch.setattr(Books, "capacity", property(lambda self: self.pool_size + self.options.max_overflow + 1))


def no_pause(patch: pytest.MonkeyPatch) -> None:
    """Try failed starts again at once."""
    fail = StartPolicy.failed

    def failed(self: StartPolicy, now: float, error: BaseException | None) -> float:
        fail(self, now, error)
        self.retry_at = now
        return 0.0

    patch.setattr(StartPolicy, "failed", failed)


def lost_wake_up(patch: pytest.MonkeyPatch) -> None:
    """Sleep through a wake-up that comes earlier than the one that was known."""

    def carry_out(self: DecisionRunner) -> None:
        deadline = self._timer.deadline
        original(self)
        self._timer.deadline = max(self._timer.deadline, min(deadline, 1e9))

    original = DecisionRunner.carry_out
    patch.setattr(DecisionRunner, "carry_out", carry_out)


BUGS: tuple[Callable[[pytest.MonkeyPatch], None], ...] = (
    barging,
    leak_on_cancel,
    gap_before_the_block,
    ghost_in_line,
    unproven_reuse,
    any_answer,
    one_too_many,
    no_pause,
    lost_wake_up,
)

#: Those that are found and shrunk in a second or so.
QUICK = (leak_on_cancel, any_answer, one_too_many, no_pause)
