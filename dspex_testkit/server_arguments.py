"""The command line of the mock server as a program: what each option may say.

Each reads the text of one option, and raises ``argparse.ArgumentTypeError`` for what says nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
from pathlib import Path
from typing import Any, Final

from dspex_pool.protocol.framing import LARGEST_FRAME_BYTES
from dspex_testkit.server_faults import Fault

__all__ = ["REACTIONS", "canned", "delay", "expectations", "fault", "frame_bytes", "reaction", "report"]

#: What there are reactions to.
REACTIONS: Final = ("interrupt", "eof", "terminate", "kill")

_FIELDS: Final = ("command", "args", "result")


def reaction(text: str) -> tuple[str, float | None]:
    """Read how long something takes to be heeded, as ``eof=0.2`` or ``kill=never``."""
    how, _, seconds = text.partition("=")
    if how not in REACTIONS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not HOW=SECONDS: no reaction to {how!r}, only to {', '.join(REACTIONS)}"
        )
    if seconds == "never":
        return how, None
    if (time := _time(seconds)) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: HOW=SECONDS, or HOW=never")
    return how, time


def delay(text: str) -> tuple[str, float]:
    """Read how long an answer takes, as ``ping=0.2``."""
    command, _, seconds = text.partition("=")
    if not command:
        raise argparse.ArgumentTypeError(f"{text!r} is not COMMAND=SECONDS; * is every other command")
    if (time := _time(seconds)) is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time; for a command that is never answered, order a fault"
        )
    return command, time


def _time(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    # What nobody can sleep for is none.
    return seconds if 0 <= seconds <= threading.TIMEOUT_MAX else None


def frame_bytes(text: str) -> int:
    """Read the largest payload, in bytes."""
    if not text.isdecimal() or not 1 <= (number := int(text)) <= LARGEST_FRAME_BYTES:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes from 1 to {LARGEST_FRAME_BYTES}")
    return number


def report(name: str) -> Path:
    """Read where the report goes; in the end would be too late to hear that nothing can be written there."""
    if not name:
        raise argparse.ArgumentTypeError("it is an empty text: name a file, or leave the option out")
    path = Path(name)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"cannot write {name}: Is a directory")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"cannot write {name}: there is no folder {path.parent}")
    writable = path if path.exists() else path.parent
    if not os.access(writable, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot write {name}: Permission denied")
    return path


def canned(name: str) -> dict[str, Any]:
    """Read a file of outputs of programs, by signature."""
    outputs = _json_of(name)
    if not isinstance(outputs, dict):
        raise argparse.ArgumentTypeError(f"{name}: it must hold an object of outputs by signature")
    for signature, output in outputs.items():
        if not isinstance(output, dict):
            raise argparse.ArgumentTypeError(
                f"{name}: the outputs of {signature!r} must be an object, not {output!r}"
            )
    return outputs


def expectations(name: str) -> list[dict[str, Any]]:
    """Read a file of requests that are to come, each with its answer."""
    expected = _json_of(name)
    if not isinstance(expected, list):
        raise argparse.ArgumentTypeError(f"{name}: it must hold a list of {{command, args, result}}")
    for number, one in enumerate(expected, start=1):
        if complaint := _complaint_about(one):
            raise argparse.ArgumentTypeError(
                f"{name}: it must hold a list of {{command, args, result}}; number {number} {complaint}"
            )
    return expected


def _complaint_about(expected: object) -> str:
    if not isinstance(expected, dict) or not isinstance(expected.get("command"), str):
        return "has no text as its command"
    if not isinstance(expected.get("args", {}), dict):
        return f"has args that are no object: {expected['args']!r}"
    unknown = expected.keys() - set(_FIELDS)
    return f"has a {min(unknown)!r}, which nobody reads" if unknown else ""


def _json_of(name: str) -> Any:
    try:
        return json.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{name}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{name}: it is no JSON: {error}") from error


def fault(text: str) -> Fault:
    """Read a fault, as ``ping:die:0.5``."""
    try:
        return Fault.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
