"""Whether a failed call may be tried again, and when."""

from __future__ import annotations

from dspex_pool.errors import DspexPoolError, ProgramError, RemoteProtocolError, WorkerDiedError

__all__ = ["FREE_RETRIES", "delay_before_retry"]

#: Tries that cost no ``retries``: after a worker died that provably never had the command.
FREE_RETRIES = 2

#: Seconds before a failure that the worker calls retryable is tried again, unless it says how long.
RETRY_DELAY = 0.5

#: Longest such delay that is waited out. Beyond it the caller decides, who finds the delay in the error.
LONGEST_RETRY_DELAY = 60.0


def delay_before_retry(
    error: DspexPoolError, *, attempt: int, retries: int, idempotent: bool, begun: bool
) -> float | None:
    """Return the seconds after which to try again, or ``None`` to give up.

    Args:
        error: What ended the last try.
        attempt: How many tries there have been.
        retries: Further tries that the caller allows.
        idempotent: Whether running the command twice does no harm.
        begun: Whether the last try got as far as the command itself.
    """
    if isinstance(error, WorkerDiedError):
        untouched = not begun or error.request_sent is False or error.request_read is False
        if untouched and attempt <= max(retries, FREE_RETRIES):
            return 0.0
        return 0.0 if idempotent and attempt <= retries else None
    if attempt > retries:
        return None
    if isinstance(error, RemoteProtocolError):
        return 0.0 if idempotent or not begun else None
    if isinstance(error, ProgramError) and error.retryable and idempotent:
        delay = RETRY_DELAY if error.retry_after is None else max(0.0, error.retry_after)
        return delay if delay <= LONGEST_RETRY_DELAY else None
    return None
