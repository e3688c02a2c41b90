"""The command line of the mock server as a program: what each option may say.

Each reads the text of one option, and raises ``argparse.ArgumentTypeError`` for what says nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dspex_pool.protocol.framing import LARGEST_FRAME_BYTES
from dspex_testkit.server_faults import Fault

__all__ = ["canned", "delay", "expectations", "fault", "frame_bytes", "reaction"]


def reaction(text: str) -> tuple[str, float | None]:
    """Read how long something takes to be heeded, as ``eof=0.2`` or ``kill=never``."""
    name, _, seconds = text.partition("=")
    if seconds == "never":
        return name, None
    if not (time := float(seconds)) >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time")
    return name, time


def delay(text: str) -> tuple[str, float]:
    """Read how long an answer takes, as ``ping=0.2``."""
    command, _, seconds = text.partition("=")
    if not (time := float(seconds)) >= 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time; for a command that is never answered, order a fault"
        )
    return command, time


def frame_bytes(text: str) -> int:
    """Read the largest payload, in bytes."""
    if not 1 <= (number := int(text)) <= LARGEST_FRAME_BYTES:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes from 1 to {LARGEST_FRAME_BYTES}")
    return number


def canned(name: str) -> dict[str, Any]:
    """Read a file of outputs of programs, by signature."""
    outputs = _json_of(name)
    if not isinstance(outputs, dict):
        raise argparse.ArgumentTypeError(f"{name}: it must hold an object of outputs by signature")
    return outputs


def expectations(name: str) -> list[dict[str, Any]]:
    """Read a file of requests that are to come, each with its answer."""
    expected = _json_of(name)
    if not isinstance(expected, list) or not all(
        isinstance(one, dict) and "command" in one for one in expected
    ):
        raise argparse.ArgumentTypeError(f"{name}: it must hold a list of {{command, args, result}}")
    return expected


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
