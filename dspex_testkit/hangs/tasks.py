"""The tasks of the trio run that hangs: who waits for whom, at which line, with what in hand."""

from __future__ import annotations

import linecache
import re
import sys
from pathlib import Path
from reprlib import Repr
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["redacted", "stack_lines", "task_lines"]

# Names and keys whose values nobody should find in the log of a test run.
_SECRET = re.compile(r"key|secret|token|passw|credential", re.IGNORECASE)
_SECRET_FIELD = re.compile(
    r"""(["'][^"']*(?:key|secret|token|passw|credential)[^"']*["']\s*:\s*)(["']).*?\2""", re.IGNORECASE
)

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlevel = 2

#: Locals shown of one frame at the most.
_MOST_LOCALS = 8
#: Packages whose frames say nothing about the test.
_FOREIGN = ("trio", "pytest", "_pytest", "pluggy", "outcome", "hypothesis", "xdist", "execnet")
_OWN = str(Path(__file__).parents[2] / "dspex_")


def redacted(text: str) -> str:
    """Return a text of JSON, or of a dict, without the values of fields that may hold secrets."""
    return _SECRET_FIELD.sub(r"\1\2***\2", text)


def task_lines() -> list[str]:
    """Return the tree of all tasks of the trio run of this thread, a line each, with their frames below.

    Raises:
        RuntimeError: No trio run is under way in this thread.
    """
    trio = sys.modules["trio"]
    root = trio.lowlevel.current_root_task()
    return [line for child in _children(root) for line in _task(child, "")]


def _children(task: Any) -> list[Any]:
    return [child for nursery in task.child_nurseries for child in nursery.child_tasks]


def _task(task: Any, indent: str) -> Iterator[str]:
    children = _children(task)
    if task.name.startswith("<TrioToken.run_sync_soon") or (
        # The task that only holds the system's own ones.
        not children and task.name.startswith("trio.")
    ):
        return
    yield f"{indent}task {task.name!r}"
    for frame, line in task.iter_await_frames():
        yield from (f"{indent}  {text}" for text in _frame(frame, line))
    for child in children:
        yield from _task(child, indent + "    ")


def _frame(frame: FrameType, line: int) -> Iterator[str]:
    name = frame.f_code.co_filename
    if _is_foreign(name):
        return
    source = linecache.getline(name, line).strip()
    yield f"{_short(name)}:{line} in {frame.f_code.co_name}: {source}"
    if "site-packages" not in name and (held := _locals(frame)):
        yield f"    {held}"


def _locals(frame: FrameType) -> str:
    shown = []
    for name, value in list(frame.f_locals.items())[:_MOST_LOCALS]:
        if name.startswith("__") or callable(value):
            continue
        try:
            text = "***" if _SECRET.search(name) else redacted(_SHORT.repr(value))
        except Exception:
            text = f"<{type(value).__name__}>"
        shown.append(f"{name}={text}")
    return ", ".join(shown)


def stack_lines(frame: FrameType | None) -> list[str]:
    """Return the stack of synchronous code, innermost line last, without pytest's own frames."""
    lines: list[str] = []
    while frame is not None:
        lines[:0] = _frame(frame, frame.f_lineno)
        frame = frame.f_back
    return lines


def _is_foreign(name: str) -> bool:
    if name.startswith("<"):
        return True
    if "site-packages" not in name:
        return (
            name.startswith(sys.base_prefix)
            or "/dspex_testkit/plugin/" in name
            or "/dspex_testkit/hangs/" in name
        )
    return name.rpartition("site-packages/")[2].startswith(_FOREIGN)


def _short(name: str) -> str:
    path = Path(name)
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(Path(*path.parts[-3:]))
