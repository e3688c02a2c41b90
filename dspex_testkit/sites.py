"""Where something was done: the lines of the project on the stack, named so that one finds them."""

from __future__ import annotations

import linecache
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Site", "Sites"]

#: The line that did it and, where that is another, the outermost one: file, line number and function of each.
Site: TypeAlias = tuple[tuple[str, int, str], ...]

_HERE = Path(__file__).parent
# What runs the tests is on every stack, and what looks at stacks too.
_OURS = (
    *(str(_HERE / name) for name in ("sites.py", "origins.py", "run_watch.py", "layer_guard.py")),
    str(_HERE / "plugin") + "/",
)


class Sites:
    """Tells lines of a project from those of libraries.

    Args:
        root: Folder of the project.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        # A virtual environment in the project: its scripts are on every stack.
        environment = os.path.join(sys.prefix, "")  # noqa: PTH118 - keeps the last separator
        self._libraries = (*_OURS, environment) if environment.startswith(self._root) else _OURS
        self._within: dict[str, bool] = {}

    def of(self, frame: FrameType | None) -> Site:
        """Return the lines of the project on the stack of ``frame``: the innermost and the outermost.

        Costs some microseconds; nothing is read before it is told.
        """
        first = last = None
        while frame is not None:
            code = frame.f_code
            if self._holds(code.co_filename):
                last = (code.co_filename, frame.f_lineno, code.co_name)
                first = first or last
            frame = frame.f_back
        if first is None or last is None:
            return ()
        return (first,) if first == last else (first, last)

    def _holds(self, name: str) -> bool:
        within = self._within.get(name)
        if within is None:
            is_library = "site-packages" in name or name.startswith(self._libraries)
            within = self._within[name] = name.startswith(self._root) and not is_library
        return within

    def tell(self, site: Site) -> list[str]:
        """Return one line of text for each line of code: where it is, in which function, and what it says."""
        return [
            f"{Path(name).relative_to(self._root)}:{line} in {function}: {linecache.getline(name, line).strip()}"
            for name, line, function in site
        ]
