"""Hold a test to its layer: refuse processes, sockets, real sleeps and forbidden imports while it runs.

An audit hook cannot be removed, so one is installed once, when it is first needed, and asks a cell whether a
guard is on. A refusal raises where it happens and is remembered too, because the code under test may swallow
the exception. Sleeps raise no audit event before Python 3.13, and trio's never do: ``time.sleep`` is replaced
while the guard is on, and trio's waits are measured by an instrument that every run on its system clock gets.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from dspex_testkit import run_watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspex_testkit.layers import Layer
    from dspex_testkit.sites import Sites

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

#: Those of them with an address, and where among the arguments it stands.
_ADDRESSES = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
}

#: What is on this machine, beside 127.0.0.0/8; no name and the unspecified addresses mean it too.
_LOOPBACK = {"localhost", "::1", "", "::", "0.0.0.0", None}

# Numbers of socket.AF_INET and of AF_INET6 on Linux, the BSDs and macOS: the module socket may not be loaded.
_INTERNET = {2, 10, 28, 30}


class LayerViolationError(AssertionError):
    """The test does what its layer forbids."""


class _Cell:
    """Says whether a guard is on, and which. The only state that outlives a test."""

    guard: Guard | None = None
    is_hooked = False


class Guard:
    """Watches one test.

    Args:
        layer: The layer it is held to.
        sleep_budget: Seconds of real sleep that a sealed layer's test may ask for, in sum.
        sites: Names the project's lines.
        ignored_threads: Idents of threads that do not belong to tests.
    """

    def __init__(
        self,
        layer: Layer,
        *,
        sleep_budget: float,
        sites: Sites,
        ignored_threads: frozenset[int] = frozenset(),
    ) -> None:
        #: What was refused, one sentence each.
        self.violations: list[str] = []
        self.layer = layer
        self._sleep_budget = sleep_budget
        self._slept = 0.0
        self._sites = sites
        self._ignored_threads = ignored_threads

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Be on within the block; a guard that was on before is off meanwhile."""
        if not _Cell.is_hooked:
            _Cell.is_hooked = True
            sys.addaudithook(_hook)
        outer = _Cell.guard
        _switch_to(self)
        try:
            yield
        finally:
            _switch_to(outer)

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
        elif event == "socket.__new__":
            if self.layer.is_sealed and args[1] in _INTERNET and not self.ignores_this_thread():
                raise self._refuse("opened a socket")
        elif event in _ACTS and not self.ignores_this_thread():
            self._on_act(event, args)

    def _on_act(self, event: str, args: tuple[Any, ...]) -> None:
        where = _ADDRESSES.get(event)
        told = args[where or 0] if args else ""
        if self.layer.is_sealed:
            raise self._refuse(f"{_ACTS[event]} ({event} {_short(told)})")
        if self.layer.is_local and where is not None and not _is_on_this_machine(told):
            raise self._refuse(f"{_ACTS[event]} beyond this machine ({event} {_short(told)})")

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

    def ignores_this_thread(self) -> bool:
        """Tell whether the running thread belongs to no test."""
        return threading.get_ident() in self._ignored_threads

    def _refuse(self, act: str) -> LayerViolationError:
        violation = f"{_a(self.layer.name)} test {act}{self._where()}"
        self.violations.append(violation)
        return LayerViolationError(violation)

    def _where(self) -> str:
        lines = self._sites.tell(self._sites.of(sys._getframe(2)))
        return "\n    at " + "\n    from ".join(lines) if lines else ""


def _switch_to(guard: Guard | None) -> None:
    """Have ``guard`` watch, or nobody. What others have put in place of a replaced function stays."""
    _Cell.guard = guard
    if guard is not None and guard.layer.is_sealed:
        _replace(time, "sleep", _SLEEP, _counted_sleep)
        run_watch.attend()
        if _watch_run not in run_watch.WATCHERS:
            run_watch.WATCHERS.append(_watch_run)
    else:
        _replace(time, "sleep", _counted_sleep, _SLEEP)


def _replace(owner: Any, name: str, old: Any, new: Any) -> None:
    if getattr(owner, name) is old:
        setattr(owner, name, new)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    guard = _Cell.guard
    if guard is not None:
        guard.on_event(event, args)


def _is_on_this_machine(address: object) -> bool:
    """Tell whether an address is a path, or its host is this one."""
    host = address[0] if isinstance(address, tuple) else address
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if not isinstance(address, tuple) and isinstance(host, str) and "/" in host:
        return True
    return host in _LOOPBACK or (isinstance(host, str) and host.startswith(("127.", "\0", "::ffff:127.")))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


_SLEEP = time.sleep


def _counted_sleep(seconds: Any, /) -> None:
    if _Cell.guard is not None and not _Cell.guard.ignores_this_thread():
        _Cell.guard.on_sleep(float(seconds), "time.sleep")
    _SLEEP(seconds)


def _watch_run(clock: Any) -> Any:
    """Have an instrument count the waits of a run in real time."""
    guard = _Cell.guard
    is_held = guard is not None and guard.layer.is_sealed and run_watch.is_system_clock(clock)
    return _sleep_meter_class()(guard) if is_held else None


@functools.cache
def _sleep_meter_class() -> Any:
    """Return an instrument that counts waits which ended because a deadline came, not because of input."""
    trio: Any = sys.modules["trio"]

    class SleepMeter(trio.abc.Instrument):  # type: ignore[misc] # trio is not imported here
        def __init__(self, guard: Guard) -> None:
            self.guard = guard
            self.began = 0.0

        def before_io_wait(self, timeout: float) -> None:
            self.began = time.monotonic()

        def after_io_wait(self, timeout: float) -> None:
            waited = time.monotonic() - self.began
            if 0 < timeout <= waited:
                with contextlib.suppress(LayerViolationError):  # trio would disable the instrument
                    self.guard.on_sleep(waited, "a deadline on trio's system clock")

    return SleepMeter


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"
