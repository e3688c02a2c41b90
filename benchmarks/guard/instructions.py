"""Counting the instructions that the interpreter executes: the same number on a busy machine as on an idle one."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dspex_pool
import dspex_testkit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["Count", "InstructionCounter"]

_OWN = str(Path(dspex_pool.__file__).parent)
# What only measures, or plays the world around the pool.
_NOBODYS = (str(Path(dspex_testkit.__file__).parent), str(Path(__file__).resolve().parents[1]))


@dataclass(frozen=True, slots=True)
class Count:
    """Instructions of some work."""

    #: Those of ``dspex_pool``.
    own: int
    #: Those of everything that it calls and that is written in Python: trio, the standard library.
    libraries: int

    def since(self, earlier: Count, *, times: int) -> Count:
        """Return what one of so many repetitions took, from an earlier count to this."""
        return Count(
            round((self.own - earlier.own) / times), round((self.libraries - earlier.libraries) / times)
        )


class InstructionCounter:
    """Counts in this thread, from ``counting()`` on, in every frame that is entered or resumed meanwhile."""

    def __init__(self) -> None:
        self._own = self._libraries = 0
        #: Those of ``dspex_pool`` by module, as a path within the package.
        self.by_module: Counter[str] = Counter()

    @property
    def count(self) -> Count:
        """What was executed so far."""
        return Count(self._own, self._libraries)

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count within the block. No garbage is collected there: when that happens is no property of the code."""
        was_tracing, was_collecting = sys.gettrace(), gc.isenabled()
        gc.disable()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(was_tracing)
            if was_collecting:
                gc.enable()

    def _enter(self, frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if name.startswith(_NOBODYS):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._count_own if name.startswith(_OWN) else self._count_library

    def _count_own(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "opcode":
            self._own += 1
            self.by_module[frame.f_code.co_filename[len(_OWN) + 1 :]] += 1
        return self._count_own

    def _count_library(self, frame: FrameType, event: str, _: Any) -> Any:
        self._libraries += event == "opcode"
        return self._count_library
