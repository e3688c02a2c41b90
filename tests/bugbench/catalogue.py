"""All bugs of the bench. A new module of bugs is imported here."""

from __future__ import annotations

from tests.bugbench import ending_bugs, lending_bugs, session_bugs, starting_bugs, talking_bugs, waiting_bugs
from tests.bugbench.planting import BUGS, Bug, planted

__all__ = ["BUGS", "MODULES", "Bug", "planted"]

MODULES = (waiting_bugs, lending_bugs, session_bugs, starting_bugs, talking_bugs, ending_bugs)
