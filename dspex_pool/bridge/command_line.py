"""The worker's command line.

The pool writes it in one plain way, which is read here at once. Any other way, the help, and whatever is wrong are
left to ``argparse``: with what it imports, it would take a tenth of the time to a worker's first answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_pool.protocol.framing import DEFAULT_MAX_FRAME_BYTES, LARGEST_FRAME_BYTES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["Arguments", "frame_limit", "parse_arguments"]

DEFAULT_HANDLER = "dspex_pool.bridge.dspy_handler:DspyHandler"
# Every failure fits this, whatever it has to say.
MIN_MAX_FRAME_BYTES = 1024
_MODES = ("standalone", "pool-worker")


class Arguments:
    """What the command line says; at first, what it says if it is empty."""

    def __init__(self) -> None:
        #: ``standalone`` or ``pool-worker``.
        self.mode = _MODES[0]
        #: Name of this worker, or ``None``.
        self.worker_id: str | None = None
        #: Name of what serves the commands.
        self.handler = DEFAULT_HANDLER
        #: Prefixes of the modules that names in requests may lead to.
        self.allow: list[str] = []
        #: Largest payload, in bytes.
        self.max_frame_bytes = DEFAULT_MAX_FRAME_BYTES


def parse_arguments(words: Sequence[str]) -> Arguments:
    """Read the command line; end the process with status 2 if it is wrong."""
    return _read_plain(words) or _parse(words)


def _read_plain(words: Sequence[str]) -> Arguments | None:
    """Read whole names of options, each with its value in the next word; ``None`` if there is anything else."""
    if len(words) % 2:
        return None
    found = Arguments()
    for name, value in zip(words[::2], words[1::2], strict=True):
        if value.startswith("-") or not _take(found, name, value):
            return None
    return found


def _take(found: Arguments, name: str, value: str) -> bool:
    match name:
        case "--mode" if value in _MODES:
            found.mode = value
        case "--worker-id":
            found.worker_id = value
        case "--handler":
            found.handler = value
        case "--allow":
            found.allow.append(value)
        # No limit has more than ten digits, and of thousands Python makes no number.
        case "--max-frame-bytes" if value.isdecimal() and len(value) <= 10 and _is_limit(int(value)):
            found.max_frame_bytes = int(value)
        case _:
            return False
    return True


def _parse(words: Sequence[str]) -> Arguments:
    found = Arguments()
    _parser().parse_args(words, namespace=found)
    return found


def _parser() -> argparse.ArgumentParser:
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m dspex_pool.bridge",
        description="Serve one client: frames of a 4-byte length and a JSON object, on stdin and stdout.",
    )
    parser.add_argument("--mode", choices=_MODES)
    parser.add_argument("--worker-id", metavar="ID", help="name of this worker, told in answers and logs")
    parser.add_argument("--handler", metavar="PACKAGE.MODULE:CLASS", help="what serves the commands")
    parser.add_argument(
        "--allow",
        metavar="PREFIX",
        action="append",
        help="module whose functions requests may name, as factories and tools; with all modules below it",
    )
    parser.add_argument("--max-frame-bytes", metavar="N", type=frame_limit, help="largest payload")
    return parser


def frame_limit(word: str) -> int:
    """Read the size of the largest payload, in bytes."""
    limit = int(word)
    if not _is_limit(limit):
        from argparse import ArgumentTypeError

        raise ArgumentTypeError(f"{word} is not between {MIN_MAX_FRAME_BYTES} and {LARGEST_FRAME_BYTES}")
    return limit


def _is_limit(number: int) -> bool:
    return MIN_MAX_FRAME_BYTES <= number <= LARGEST_FRAME_BYTES
