"""What the calls of a run cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Ledger"]


@dataclass(slots=True)
class Ledger:
    """What the calls of a run cost."""

    #: Models that were asked.
    models: set[str] = field(default_factory=set)
    #: Costs in US dollars; ``None`` for one that is not known.
    costs: list[float | None] = field(default_factory=list)
    #: Why the first of them is not known.
    reason: str | None = None

    def enter(self, entry: Mapping[str, Any]) -> None:
        """Note one call, given as DSPy's history entry."""
        self.models.add(entry["model"])
        self.costs.append(entry["cost"])
        if entry["cost"] is None and self.reason is None:
            details = entry.get("cost_details") or {}
            self.reason = details.get("reason") or "the provider's price is not known"

    def total(self, used_models: Sequence[str]) -> tuple[float | None, str | None]:
        """Return the sum in US dollars, or ``None`` and the reason why it cannot be told."""
        if self.reason is not None:
            return None, self.reason
        if foreign := sorted(set(used_models) - self.models):
            return None, f"the program's own model {foreign[0]} is not priced here"
        return sum(cost for cost in self.costs if cost is not None), None
