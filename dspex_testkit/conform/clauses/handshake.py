"""H: the first exchange, and the pings after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psutil

from dspex_testkit.conform import sentences as say
from dspex_testkit.conform.clause import Opening, Subject, hold
from dspex_testkit.conform.wire import show

if TYPE_CHECKING:
    from dspex_testkit.conform.wire import Wire

__all__ = ["CLAUSES"]

handshake = Subject("H", "handshake")
CLAUSES = handshake.clauses


def _told(wire: Wire) -> dict[str, Any]:
    result = wire.hello.get("result")
    hold(isinstance(result, dict), f"the first ping is answered by {show(wire.hello)}")
    told: dict[str, Any] = wire.hello["result"]
    return told


@handshake.clause(1, say.HELLO_1, opening=Opening.VERSION_1)
def _status_is_ok_in_version_1(wire: Wire) -> None:
    """The answer to a first ping of version 1 says that the status is ok."""
    hold(_told(wire).get("status") == "ok", f"the answer is {show(wire.hello)}")


@handshake.clause(2, say.HELLO_1)
def _status_is_ok(wire: Wire) -> None:
    """The answer to the first ping says that the status is ok."""
    hold(_told(wire).get("status") == "ok", f"the answer is {show(wire.hello)}")


@handshake.clause(3, say.FIRST_PING)
def _has_id_0(wire: Wire) -> None:
    """The answer to the first ping has the id 0."""
    number = wire.hello.get("id")
    hold(number == 0 and not isinstance(number, bool), f"its id is {number!r}")


@handshake.clause(4, say.UNKNOWN_FIELDS, opening=Opening.RAW)
def _unknown_arguments(wire: Wire) -> None:
    """A first ping with arguments of a later version is answered."""
    args = {"initialization": True, "worker_id": "w-1", "from_the_future": {"a": 1}}
    answer = wire.ask("ping", args, id=0)
    hold(answer.get("success") is True, f"the answer is {show(answer)}")


@handshake.clause(5, say.HELLO_1)
def _later_pings(wire: Wire) -> None:
    """Pings after the first, without arguments, are answered by the status, too."""
    for _ in range(2):
        answer = wire.ask("ping")
        result = answer.get("result")
        hold(isinstance(result, dict) and result.get("status") == "ok", f"the answer is {show(answer)}")


@handshake.clause(6, say.HELLO_2, version=2)
def _tells_protocol(wire: Wire) -> None:
    """The answer to a first ping of version 2 tells that version 2 is spoken."""
    hold(_told(wire).get("protocol") == 2, f"protocol is {_told(wire).get('protocol')!r}")


@handshake.clause(7, say.HELLO_2, version=2)
def _tells_pid(wire: Wire) -> None:
    """It tells the process id of the worker, or of a process that the command has started."""
    pid = _told(wire).get("pid")
    family = {
        wire.process.pid,
        *(child.pid for child in psutil.Process(wire.process.pid).children(recursive=True)),
    }
    hold(isinstance(pid, int) and pid in family, f"pid is {pid!r}, but the process is {wire.process.pid}")


@handshake.clause(8, say.HELLO_2, version=2)
def _tells_versions(wire: Wire) -> None:
    """It tells versions: an object of texts, or of null where there is none."""
    versions = _told(wire).get("versions")
    hold(
        isinstance(versions, dict) and all(isinstance(value, str | None) for value in versions.values()),
        f"versions is {versions!r}",
    )


@handshake.clause(9, say.HELLO_2, version=2)
def _tells_capabilities(wire: Wire) -> None:
    """It tells capabilities: a list of texts."""
    found = _told(wire).get("capabilities")
    hold(
        isinstance(found, list) and all(isinstance(value, str) for value in found),
        f"capabilities is {found!r}",
    )
