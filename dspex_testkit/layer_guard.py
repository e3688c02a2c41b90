"""Hold a test to its layer: refuse processes, connections, real sleeps and forbidden imports while it runs.

An audit hook cannot be removed, so one is installed once, when it is first needed, and asks a cell whether a
guard is on. A refusal raises where it happens and is remembered too, because the code under test may swallow
the exception. Sleeps raise no audit event before Python 3.13, and trio's never do: ``time.sleep`` is replaced
while the guard is on, and trio's waits are measured by an instrument that every run on its system clock gets.
"""

from __future__ import annotations

import contextlib
import linecache
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from dspex_testkit.layers import Layer

__all__ = ["Guard", "LayerViolationError"]

#: Audit events of a sealed layer's forbidden acts, and what to call the act.
_ACTS = {
    "subprocess.Popen": "started a process",
    "os.system": "started a process",
    "os.posix_spawn": "started a process",
    "os.spawn": "started a process",
    "os.exec": "replaced its process",
    "os.fork": "forked",
    "os.forkpty": "forked",
    "pty.spawn": "started a process",
    "socket.connect": "opened a connection",
    "socket.sendto": "sent a datagram",
    "socket.sendmsg": "sent a datagram",
    "socket.getaddrinfo": "looked up a name",
    "socket.gethostbyname": "looked up a name",
}


class LayerViolationError(AssertionError):
    """The test does what its layer forbids."""


class _Cell:
    """Says whether a guard is on, and which. The only state that outlives a test."""

    guard: Guard | None = None
    is_hooked = False
    #: The class of trio's default clock, once it was asked for.
    system_clock: Any = None


class Guard:
    """Watches one test.

    Args:
        layer: The layer it is held to.
        sleep_budget: Seconds of real sleep that a sealed layer's test may ask for, in sum.
        root: Folder of the project, to name its lines.
        ignored_threads: Idents of threads that do not belong to tests.
    """

    def __init__(
        self,
        layer: Layer,
        *,
        sleep_budget: float,
        root: Path,
        ignored_threads: frozenset[int] = frozenset(),
    ) -> None:
        #: What was refused, one sentence each.
        self.violations: list[str] = []
        self.layer = layer
        self._sleep_budget = sleep_budget
        self._slept = 0.0
        self._root = str(root)
        self._ignored_threads = ignored_threads

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Be on within the block; a guard that was on before is off meanwhile."""
        if not _Cell.is_hooked:
            _Cell.is_hooked = True
            sys.addaudithook(_hook)
        outer, _Cell.guard = _Cell.guard, self
        try:
            with self._counting_sleeps(), self._measuring_trio():
                yield
        finally:
            _Cell.guard = outer

    def check(self) -> None:
        """Fail if anything was refused, even though the code under test went on.

        Raises:
            LayerViolationError: With all that was refused.
        """
        violations, self.violations = self.violations, []
        if violations:
            raise LayerViolationError("\n".join(violations))

    def on_event(self, event: str, args: tuple[Any, ...]) -> None:
        """Judge an audit event.

        Raises:
            LayerViolationError: The layer forbids it.
        """
        if event == "import":
            self._on_import(args[0])
        elif event in _ACTS and self.layer.is_sealed and not self._is_ignored():
            raise self._refuse(f"{_ACTS[event]} ({event} {_short(args[0] if args else '')})")

    def _on_import(self, module: str) -> None:
        if module.partition(".")[0] in self.layer.forbidden_modules:
            raise self._refuse(f"imported {module}")

    def on_sleep(self, duration: float, by: str) -> None:
        """Count ``duration`` seconds of real sleep.

        Raises:
            LayerViolationError: The budget is used up.
        """
        self._slept += duration
        if self._slept > self._sleep_budget:
            raise self._refuse(
                f"slept {self._slept:.3f} s of real time ({by}; {self._sleep_budget:.3f} s are allowed)"
            )

    def _refuse(self, act: str) -> LayerViolationError:
        violation = f"a {self.layer.name} test {act}{self._where()}"
        self.violations.append(violation)
        return LayerViolationError(violation)

    def _where(self) -> str:
        lines = list(self._project_lines(sys._getframe(2)))
        if not lines:
            return ""
        # Innermost first: the line that did it, then, where it is another, the line of the test.
        shown = lines[:1] if len(lines) == 1 else [lines[0], lines[-1]]
        return "\n    at " + "\n    from ".join(shown)

    def _project_lines(self, frame: FrameType | None) -> Iterator[str]:
        while frame is not None:
            name = frame.f_code.co_filename
            if name.startswith(self._root) and "site-packages" not in name and name != __file__:
                source = linecache.getline(name, frame.f_lineno).strip()
                path = Path(name).relative_to(self._root)
                yield f"{path}:{frame.f_lineno} in {frame.f_code.co_name}: {source}"
            frame = frame.f_back

    def _is_ignored(self) -> bool:
        return threading.get_ident() in self._ignored_threads

    @contextlib.contextmanager
    def _counting_sleeps(self) -> Iterator[None]:
        original = time.sleep

        def counted_sleep(seconds: Any, /) -> None:
            if not self._is_ignored():
                self.on_sleep(float(seconds), "time.sleep")
            original(seconds)

        time.sleep = counted_sleep if self.layer.is_sealed else original
        try:
            yield
        finally:
            time.sleep = original

    @contextlib.contextmanager
    def _measuring_trio(self) -> Iterator[None]:
        clock = _system_clock_class() if self.layer.is_sealed else None
        if clock is None:
            yield
            return
        original = clock.start_clock
        clock.start_clock = _starting_with(_sleep_meter(self), original)
        try:
            yield
        finally:
            clock.start_clock = original


def _hook(event: str, args: tuple[Any, ...]) -> None:
    guard = _Cell.guard
    if guard is not None:
        guard.on_event(event, args)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _system_clock_class() -> Any:
    """Return the class of trio's default clock if trio is loaded, by public names alone."""
    trio = sys.modules.get("trio")
    if _Cell.system_clock is None and trio is not None:

        async def ask() -> Any:
            return type(trio.lowlevel.current_clock())

        _Cell.system_clock = trio.run(ask)
    return _Cell.system_clock


def _starting_with(instrument: Any, start_clock: Callable[[Any], None]) -> Callable[[Any], None]:
    def start(clock: Any) -> None:
        sys.modules["trio"].lowlevel.add_instrument(instrument)
        start_clock(clock)

    return start


def _sleep_meter(guard: Guard) -> Any:
    """Return an instrument that counts waits which ended because a deadline came, not because of input."""
    trio = sys.modules["trio"]

    class SleepMeter(trio.abc.Instrument):  # type: ignore[misc, name-defined] # trio is not imported here
        began = 0.0

        def before_io_wait(self, timeout: float) -> None:
            self.began = time.monotonic()

        def after_io_wait(self, timeout: float) -> None:
            waited = time.monotonic() - self.began
            if 0 < timeout <= waited:
                with contextlib.suppress(LayerViolationError):  # trio would disable the instrument
                    guard.on_sleep(waited, "a deadline on trio's system clock")

    return SleepMeter()
