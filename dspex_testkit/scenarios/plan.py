"""A plan of faults as data on a time line; it travels as JSON, and is the same for the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Union

import msgspec

from dspex_testkit.chaos.catalogue import CATALOGUE
from dspex_testkit.scenarios.acts import ACTS
from dspex_testkit.scenarios.targets import AnyTarget  # noqa: TC001 - msgspec looks it up

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_testkit.chaos.fault import Fault

    AnyFault = Fault
else:
    # Of as many as there are.
    AnyFault = Union[(*CATALOGUE, *ACTS)]

__all__ = ["FaultPlan", "Strike"]


class Strike(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One fault on the time line. Durations are in seconds, the same on every kind of port."""

    #: When, counted from the beginning.
    at: float
    #: What; its own ``worker`` is that of the target, if there is one.
    fault: AnyFault
    #: Whom it hits; ``None`` for faults that are the whole pool's, or a language model's.
    target: AnyTarget | None = None
    #: How long it lasts; ``None`` for until faults stop, or as long as the fault itself says.
    lasting: float | None = None
    #: How long it looks for its target, and draws anew where the fault did not come to pass.
    patience: float = 5.0

    def aimed_at(self, index: int | None) -> Fault:
        """Return the fault for one worker."""
        # Whatever it is, it has a worker if its strike has a target.
        changed: Mapping[str, Any] = {} if index is None else {"worker": index}
        return msgspec.structs.replace(self.fault, **changed)

    def __post_init__(self) -> None:
        if self.at < 0:
            raise ValueError(f"at must be at least 0, not {self.at}")
        if self.target is not None and "worker" not in self.fault.__struct_fields__:
            raise ValueError(f"{self.fault} is not one worker's: it has no target")


class FaultPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong, and when."""

    #: What everything was drawn from, and what targets are drawn from.
    seed: int
    #: How long faults run, in seconds.
    seconds: float
    #: The faults, in the order of time.
    strikes: tuple[Strike, ...]

    def encode(self) -> bytes:
        """Return the plan as JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> FaultPlan:
        """Return the plan that ``encode`` wrote.

        Raises:
            msgspec.ValidationError: It is none, or has a fault or a target that there is not.
        """
        return msgspec.json.decode(data, type=cls)
