"""How long a worker without a process takes to react to what is done to it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Reactions"]


@dataclass(slots=True)
class Reactions:
    """How long the worker takes to react, in seconds; ``None`` means that it does not react at all."""

    #: From an interrupt to the answer of type ``Cancelled``.
    interrupt: float | None = 0.0
    #: From the end of stdin to the exit with status 0.
    eof: float | None = 0.0
    #: From SIGTERM to the exit with status 0.
    terminate: float | None = 0.0
    #: From SIGKILL to the exit by signal 9.
    kill: float = 0.0

    def unlearn(self, deed: str) -> None:
        """React no more to what a ``Deed`` names, ``ignore_sigterm`` or ``ignore_interrupts``."""
        setattr(self, {"ignore_sigterm": "terminate", "ignore_interrupts": "interrupt"}[deed], None)
