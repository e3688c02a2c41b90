"""A worker in a caller's hands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from dspex_pool.core.records import Outcome
from dspex_pool.errors import UseAfterReturnError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_pool.core.records import Granted
    from dspex_pool.protocol import Event
    from dspex_pool.worker import PoolWorker

__all__ = ["Lease"]


class Lease(msgspec.Struct, eq=False):
    """A worker in a caller's hands, from ``async with pool.checkout()`` until that block ends.

    A struct, because every call makes one.
    """

    #: The worker lent.
    worker: PoolWorker
    #: What the pool's core knows of this lease.
    granted: Granted
    #: The session that it was checked out for.
    session: str | None
    #: Bytes that the worker had been sent before.
    sent_before: int
    #: When its holder got it, on the clock of trio.
    since: float = 0.0
    #: Whether the worker was returned.
    is_ended: bool = False
    _reason: str | None = None

    @property
    def token(self) -> int:
        """Fencing token of this lease; strictly increasing in the pool."""
        return self.granted.token

    @property
    def worker_id(self) -> str:
        """Name of the worker."""
        return self.worker.worker_id

    async def request(
        self,
        command: str,
        args: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> Any:
        """Run a command in the lent worker; see ``PoolWorker.request``.

        Raises:
            UseAfterReturnError: The lease has ended; not a byte was written.

        Cancellation: The caller leaves at once; what the worker still owes becomes the pool's affair.
        """
        self._require_live()
        return await self.worker.request(command, args or {}, timeout=timeout, on_event=on_event)

    def update(self, state: Any) -> None:
        """Attach ``state`` to the worker for its later leases.

        Raises:
            UseAfterReturnError: The lease has ended.
        """
        self._require_live()
        self.worker.state = state

    def retire(self, reason: str = "caller") -> None:
        """Have the worker replaced when this lease ends.

        Raises:
            UseAfterReturnError: The lease has ended.
        """
        self._require_live()
        self._reason = reason

    def end(self, *, resets: bool = False) -> tuple[Outcome, str]:
        """End the lease and say what that proves about the worker. For the pool.

        Args:
            resets: Whether a used worker needs the reset hook before others may use it.
        """
        self.is_ended = True
        is_unused = self.worker.port.bytes_sent == self.sent_before
        unclean = self._reason
        if unclean is None:
            unclean = self.worker.why_unclean()
            if unclean == "answer_due":
                return Outcome.CARE, unclean
        if unclean is not None:
            return (Outcome.VOID if is_unused else Outcome.RETIRE), unclean
        if is_unused:
            return Outcome.UNUSED, ""
        return (Outcome.CARE, "reset") if resets else (Outcome.CLEAN, "")

    def _require_live(self) -> None:
        if self.is_ended:
            raise UseAfterReturnError(
                f"the lease of worker {self.worker_id} (token {self.token}) has ended. "
                "Use a lease only inside its 'async with' block.",
                worker_id=self.worker_id,
                token=self.token,
            )
