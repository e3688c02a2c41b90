"""The files of a report: a page, a trace, and their names."""

from __future__ import annotations

import contextlib
import re
import tempfile
import zlib
from typing import TYPE_CHECKING, Final

from dspex_testkit.naming import naming
from dspex_testkit.report.page import page_of
from dspex_testkit.report.perfetto import trace_json

if TYPE_CHECKING:
    from pathlib import Path

    from dspex_testkit.report.timeline import Timeline

__all__ = ["check_folder", "name_of", "write_page", "write_report"]

#: Characters of a title that are kept in a file's name.
_LONGEST: Final = 80


def write_report(timeline: Timeline, folder: Path) -> list[Path]:
    """Write the page and the trace of ``timeline`` into ``folder``, which is made if it is not there.

    Returns:
        The page, and the trace.

    Raises:
        OSError: One cannot be written, and is named.
    """
    page, trace = write_page(timeline, folder), folder / f"{name_of(timeline.title)}.trace.json"
    with naming(trace):
        trace.write_bytes(trace_json(timeline))
    return [page, trace]


def write_page(timeline: Timeline, folder: Path) -> Path:
    """Write the page of ``timeline`` alone into ``folder``, which is made if it is not there, and return its path.

    Raises:
        OSError: It cannot be written, and is named.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{name_of(timeline.title)}.html"
    with naming(page):
        page.write_text(page_of(timeline), encoding="utf-8")
    return page


def check_folder(folder: Path) -> None:
    """See that files can be written into ``folder``, and leave nothing there, nor the folder if it was not there.

    Raises:
        OSError: They cannot.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Without a name where the system can, so that it cannot be another's.
        with tempfile.TemporaryFile(dir=folder):
            pass
    finally:
        for path in missing:
            # It may not have been made, or another run may have written there meanwhile.
            with contextlib.suppress(OSError):
                path.rmdir()


def name_of(title: str) -> str:
    """Return a name for files that says which test it is, and is no other test's."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", title).strip("-")
    return f"{plain[-_LONGEST:].strip('-') or 'run'}-{zlib.crc32(title.encode()):08x}"
