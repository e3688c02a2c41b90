"""Layer 1: the adapter on canned answers, with no wire and no worker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.adapters.base import ANONYMOUS
from dspex_pool.adapters.commands import CommandAdapter
from dspex_pool.errors import CallTimeoutError
from dspex_pool.protocol.messages import ErrorInfo, Failure
from dspex_pool.protocol.strict_json import decode_json, encode_json
from dspex_pool.remote_failures import error_from_failure
from dspex_testkit.canned_bridge import CannedBridge, CannedOutputs
from dspex_testkit.plan import CommandFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Mock"]


class Mock(CommandAdapter):
    """Canned programs behind the adapter interface.

    Args:
        canned: Outputs by signature string, or functions of the inputs that give them.
        delays: Seconds that a command takes, by command, on trio's clock.
        session_id: The session it speaks for.
        bridge: Share this one's programs instead of an own.
    """

    def __init__(
        self,
        canned: CannedOutputs | None = None,
        *,
        delays: Mapping[str, float] | None = None,
        session_id: str = ANONYMOUS,
        bridge: CannedBridge | None = None,
    ) -> None:
        super().__init__(session_id)
        self.delays = dict(delays or {})
        self._bridge = bridge if bridge is not None else CannedBridge(worker_id="mock", canned=canned)

    def session_adapter(self, session_id: str) -> Mock:
        """Return the mock of another session, over the same canned bridge."""
        return Mock(delays=self.delays, session_id=session_id, bridge=self._bridge)

    async def _run(self, command: str, args: dict[str, Any], timeout: float | None) -> Any:
        # What a wire would refuse is refused, and nothing is shared with the caller.
        arrived = decode_json(encode_json({"args": args}))["args"]
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            await trio.sleep(self.delays.get(command, 0.0))
            return self._result(command, arrived)
        raise CallTimeoutError(
            f"the mock did not answer {command!r} within {timeout:g} s", command=command, waited=timeout
        )

    def _result(self, command: str, args: dict[str, Any]) -> Any:
        try:
            return self._bridge.run(command, args)
        except CommandFailedError as error:
            info = ErrorInfo(type=error.type, message=error.message, **error.info)
            failure = Failure(0, error.message, time.time(), info)
            raise error_from_failure(failure, command=command, args=args, worker_id="mock") from None
