"""The journal as a folder: a file of JSON for each class of failures and each run, and a text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from dspex_pool.errors import InvalidArgumentError
from dspex_testkit.fuzz.journal import FORM, Entry, Journal, RunRecord
from dspex_testkit.fuzz.note import note_of
from dspex_testkit.naming import naming
from dspex_testkit.simulation.workload import of_token

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["prepare_journal", "read_journal", "write_entry", "write_run"]

RecordT = TypeVar("RecordT", Entry, RunRecord)

#: Folders of a journal.
FAILURES: Final = "failures"
RUNS: Final = "runs"


def read_journal(folder: Path) -> Journal:
    """Read the journal in ``folder``; a folder that is not there holds an empty one.

    Raises:
        InvalidArgumentError: A file in it is none of a journal, or its run is none of this version.
        OSError: It cannot be read.
    """
    return Journal(
        [_read_entry(path) for path in sorted((folder / FAILURES).glob("*.json"))],
        [_read(path, RunRecord) for path in sorted((folder / RUNS).glob("*.json"))],
    )


def prepare_journal(folder: Path) -> None:
    """Make the folders of a journal, and see that files can be written there.

    Raises:
        OSError: They cannot.
    """
    for name in (FAILURES, RUNS):
        probe = folder / name / ".probe.part"
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)


def _read(path: Path, kind: type[RecordT]) -> RecordT:
    try:
        record = msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.MsgspecError as error:
        raise InvalidArgumentError(f"{path} is no file of a fuzz journal: {error}") from None
    if record.form != FORM:
        raise InvalidArgumentError(f"{path} has form {record.form}, and this version reads form {FORM}")
    return record


def _read_entry(path: Path) -> Entry:
    entry = _read(path, Entry)
    try:
        of_token(entry.example.token)
    except ValueError as error:
        raise InvalidArgumentError(f"the example in {path} cannot be played: {error}") from None
    return entry


def write_entry(folder: Path, entry: Entry) -> Path:
    """Write an entry and the text about it; return where the text is.

    Raises:
        OSError: They cannot be written; with the name of the file.
    """
    target = folder / FAILURES
    _write(target / f"{entry.key}.json", _in_lines(entry))
    note = target / f"{entry.key}.md"
    _write(note, note_of(entry).encode())
    return note


def write_run(folder: Path, run: RunRecord) -> None:
    """Write what a run did.

    Raises:
        OSError: It cannot be written; with the name of the file.
    """
    _write(folder / RUNS / f"{run.run}.json", _in_lines(run))


def _in_lines(record: Entry | RunRecord) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def _write(path: Path, data: bytes) -> None:
    # A reader, or a journal that is cached while this is killed, sees the old file or the new one.
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        with naming(path):
            part.write_bytes(data)
            part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
