"""The committed counts, and what is too much more than they are."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.guard.instructions import Count

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BASELINE", "LIMIT", "Baseline", "compare", "load", "record"]

BASELINE = Path(__file__).with_name("baseline.json")
#: How much more than the baseline fails, as a share of it.
LIMIT = 0.10


def _python() -> str:
    # Each minor version has instructions of its own.
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _libraries() -> dict[str, str]:
    return {"python": platform.python_version(), "trio": version("trio")}


@dataclass(frozen=True, slots=True)
class Baseline:
    """The counts of one minor version of Python."""

    counts: Mapping[str, Count]
    #: The versions of the libraries that were counted with.
    libraries: Mapping[str, str]

    @property
    def knows_libraries(self) -> bool:
        """Whether the libraries are the same now, so that their instructions can be compared."""
        return self.libraries == _libraries()


def load() -> Baseline | None:
    """Return the baseline of this minor version of Python, if there is one."""
    found = json.loads(BASELINE.read_text(encoding="utf-8")).get(_python()) if BASELINE.exists() else None
    if found is None:
        return None
    return Baseline({name: Count(**count) for name, count in found["counts"].items()}, found["libraries"])


def record(counts: Mapping[str, Count]) -> None:
    """Make these counts the baseline of this minor version of Python."""
    everything = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {}
    everything[_python()] = {
        "libraries": _libraries(),
        "counts": {name: asdict(count) for name, count in counts.items()},
    }
    BASELINE.write_text(json.dumps(everything, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def compare(counts: Mapping[str, Count], baseline: Baseline) -> list[str]:
    """Return what is more than ``LIMIT`` above the baseline, or has none, in words."""
    complaints = []
    for name, count in counts.items():
        before = baseline.counts.get(name)
        if before is None:
            complaints.append(f"{name}: no baseline")
            continue
        if _is_too_much(count.own, before.own):
            complaints.append(f"{name}: {count.own} instructions of ours, {before.own} in the baseline")
        if baseline.knows_libraries and _is_too_much(count.libraries, before.libraries):
            complaints.append(
                f"{name}: {count.libraries} instructions of libraries, {before.libraries} in the baseline"
            )
    return complaints


def _is_too_much(now: int, before: int) -> bool:
    return now > before * (1 + LIMIT)
