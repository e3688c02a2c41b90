"""What makes failures of two seeds the same: the error, what it says beside its figures, and its place."""

from __future__ import annotations

import re
import sysconfig
import traceback
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Failure", "failure_of", "plain_text"]

#: Where frames lie that say nothing about whose error it is.
_FOREIGN: Final = ("/trio/", "/outcome/", "/_pytest/", "/pluggy/", "<")
#: Characters of a text that are kept.
_LONGEST: Final = 90
_LABEL: Final = re.compile(r"[A-Z]\d{1,2}: ")
_ERROR_NAME: Final = re.compile(r"\b[A-Z]\w*(?:Error|Cancelled|WouldBlock)\b")


class Failure(msgspec.Struct, frozen=True, order=True):
    """A class of failures."""

    #: Name of the error's class.
    error: str
    #: What it says, without figures and values.
    text: str
    #: Where it was raised: file and function, no line, which every change of the file moves.
    place: str

    @property
    def key(self) -> str:
        """Return a name for files that no other failure has."""
        plain = re.sub(r"[^a-z0-9]+", "-", f"{self.error} {self.text}".lower()).strip("-")
        return f"{plain[:60].strip('-')}-{zlib.crc32(repr(self).encode()):08x}"

    @property
    def title(self) -> str:
        """Return it in one line."""
        return f"{self.error}: {self.text}" if self.text else self.error


def failure_of(error: BaseException) -> Failure:
    """Return the class of failures to which ``error`` belongs."""
    return Failure(type(error).__name__, plain_text(str(error)), _place(error))


def plain_text(text: str) -> str:
    """Return what a message says whatever the seed: its first clause without figures, the errors it names."""
    line = (text.strip().splitlines() or [""])[0]
    # Invariants have numbers of their own: "Q1: a worker is not settled".
    label = match[0] if (match := _LABEL.match(line)) else ""
    clause = re.split(r"[:({\[]| after | from seed ", line[len(label) :], maxsplit=1)[0]
    clause = re.sub(r"'[^']*'|\"[^\"]*\"|-?\d+(?:\.\d+)?", "#", clause).strip()
    named = [name for name in dict.fromkeys(_ERROR_NAME.findall(line)) if name not in clause]
    return label + ", ".join([clause[:_LONGEST], *named[:3]]).strip(", ")


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    names = [f"{_short(frame.filename)} in {frame.name}" for frame in frames if _is_ours(frame.filename)]
    return names[-1] if names else ""


def _is_ours(path: str) -> bool:
    return not any(part in path for part in _FOREIGN) and not _is_within(path, _standard_library())


def _is_within(path: str, folders: Iterable[str]) -> bool:
    return "site-packages" not in path and any(path.startswith(folder) for folder in folders)


def _standard_library() -> tuple[str, ...]:
    return tuple({f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib")})


def _short(path: str) -> str:
    """Cut a path to what is the same on every machine: the package's folder and what is below it."""
    parts = Path(path).parts
    for package in ("dspex_pool", "dspex_testkit"):
        if package in parts[:-1]:
            last = len(parts) - 1 - parts[::-1].index(package)
            return "/".join(parts[last:])
    return "/".join(parts[-2:])
