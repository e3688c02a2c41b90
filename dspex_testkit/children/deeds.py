"""What a worker process does to itself when a test orders it, and what lasts: see ``Deed``."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dspex_testkit.plan import Deed

__all__ = ["do_deed"]


def _grandchild(args: Mapping[str, Any]) -> None:
    """Start a process that sleeps for ``seconds``, and forget it."""
    # A Popen that is collected complains of a child that lives; this one is meant to.
    _LEFT.append(subprocess.Popen(["sleep", str(args["seconds"])], stdin=subprocess.DEVNULL))


def _fill_stderr(_: Mapping[str, Any]) -> None:
    """Have stderr lead to a device on which there is never any space."""
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 2)
    os.close(full)


def _leak(args: Mapping[str, Any]) -> None:
    """Take ``bytes`` bytes, touch them, and keep them."""
    _LEAKED.append(bytearray(b"x") * int(args["bytes"]))


def _ignore(number: int) -> Callable[[Mapping[str, Any]], object]:
    return lambda _: signal.signal(number, signal.SIG_IGN)


_LEFT: Final[list[subprocess.Popen[bytes]]] = []
_LEAKED: Final[list[bytearray]] = []
_DEEDS: Final[Mapping[str, Callable[[Mapping[str, Any]], object]]] = {
    "ignore_sigterm": _ignore(signal.SIGTERM),
    "ignore_interrupts": _ignore(signal.SIGINT),
    "grandchild": _grandchild,
    "fill_stderr": _fill_stderr,
    "leak": _leak,
}


def do_deed(deed: Deed) -> None:
    """Do it."""
    _DEEDS[deed.name](deed.args)
