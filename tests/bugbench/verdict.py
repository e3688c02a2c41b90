"""What the bench says in the end: whether it finds what it found before, and fast enough."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from tests.bugbench.finders import FAST

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.bugbench.finders import Finding

__all__ = ["QUICK_SECONDS", "QUICK_SHARE", "SLACK", "complaints", "is_quick"]

#: CPU seconds within which the finders that start no process should find a bug.
QUICK_SECONDS: Final = 2.0
#: Share of the bugs of which that is demanded.
QUICK_SHARE: Final = 0.9
#: The demand is made with so much more time: busy and slow machines need more CPU seconds for the same work.
SLACK: Final = 1.5


def is_quick(finding: Finding, seconds: float = QUICK_SECONDS) -> bool:
    """Tell whether a bug was found without a process, within so many CPU seconds."""
    return finding.finder in FAST and finding.cpu <= seconds


def complaints(found: Mapping[str, Finding], known: Iterable[str]) -> list[str]:
    """Return what has become worse, a sentence each; nothing if all is well.

    Args:
        found: What came of the search for each bug.
        known: Names of the bugs that the table says are found.
    """
    lost = {name for name, finding in found.items() if not finding.finder}
    dropped = lost & {*known}
    said = []
    if dropped:
        said.append(f"found before and not now: {', '.join(sorted(dropped))}")
    if lost - dropped:
        said.append(f"found by nothing: {', '.join(sorted(lost - dropped))}")
    quick = sum(is_quick(finding, QUICK_SECONDS * SLACK) for finding in found.values())
    if quick < (demanded := math.ceil(QUICK_SHARE * len(found))):
        said.append(
            f"too slow: {quick} of {len(found)} bugs are found without a process within {QUICK_SECONDS:g} CPU s "
            f"(x {SLACK:g} for slow machines), and {demanded} should be"
        )
    return said
