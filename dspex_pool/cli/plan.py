"""The plan of a run: which files, which rows, how many at a time. Decided before any worker starts."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dspex_pool.cli.journal import part_of
from dspex_pool.cli.problems import CliError

if TYPE_CHECKING:
    from dspex_pool.cli.journal import Mark
    from dspex_pool.cli.rows import Survey

__all__ = ["Files", "Selection", "choose_expected_field", "choose_files", "in_flight_limit", "require_field"]

#: The output that is the standard output.
STDOUT = "-"

#: Rows handed to the pool for each worker: one runs, one waits at its door.
ROWS_PER_WORKER = 2


@dataclass(frozen=True, slots=True)
class Files:
    """Where a run writes."""

    #: The output, ``-`` for stdout.
    output: str
    #: The journal; ``None`` for a run that cannot be resumed.
    journal: str | None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows are run, given those that an earlier run recorded."""

    #: Run what is not recorded.
    missing: bool = True
    #: Run what is recorded as failed.
    failed: bool = False

    @classmethod
    def of(cls, *, resume: bool, retry_failed: bool) -> Selection | None:
        """Read the options: neither (``None``) is a run from the start, both is all that has no answer."""
        return cls(missing=resume, failed=retry_failed) if resume or retry_failed else None

    def wants(self, mark: Mark | None) -> bool:
        """Tell whether a row with this record (``None``: never run) is run now."""
        return self.missing if mark is None else self.failed and mark.failed


def choose_files(
    input_path: str,
    output: str | None,
    journal: str | None,
    *,
    selection: Selection | None = None,
    overwrite: bool = False,
) -> Files:
    """Choose output and journal and refuse whatever would destroy something.

    Args:
        input_path: The INPUT argument.
        output: The output option; stdout if not given.
        journal: The journal option; beside the output if not given, none for stdout.
        selection: What is run of an earlier run that is continued; ``None`` for a run from the start.
        overwrite: Whether an existing output may be replaced.

    Raises:
        CliError: A file has no name, two of them are one, the output exists, or there is no journal to go on with.
    """
    for what, given in (("output", output), ("journal", journal)):
        if given == "":
            raise CliError(f"the {what} is an empty text: name a file, or leave the option out")
    chosen = output or STDOUT
    kept = journal or (None if chosen == STDOUT else f"{chosen}.journal")
    if chosen == STDOUT and sys.stdout is None:
        raise CliError("the standard output is closed: name a file with -o")
    if selection is not None:
        if overwrite:
            raise CliError("--overwrite starts anew: leave it out to go on with --resume or --retry-failed")
        _require_journal(kept, selection)
    if chosen.lower().endswith(".csv"):
        raise CliError(f"the output {chosen!r} is JSON lines: name it .jsonl")
    beside = None if chosen == STDOUT else part_of(chosen)
    _refuse_same(
        ("input", input_path),
        ("output", chosen),
        ("journal", kept),
        ("the output while it is written", beside),
    )
    if chosen != STDOUT:
        _prepare_output(chosen, keep=not overwrite, journal=kept)
    return Files(chosen, kept)


def _require_journal(path: str | None, selection: Selection) -> None:
    if path is None:
        raise CliError(
            "--resume and --retry-failed need a journal: name it with --journal, or give -o OUTPUT"
        )
    # Resuming a run that never began is a run from the start, so that a script may always say --resume.
    if not selection.missing and not Path(path).exists():
        raise CliError(f"--retry-failed: there is no journal {path!r} of an earlier run")


def _prepare_output(path: str, *, keep: bool, journal: str | None) -> None:
    if Path(path).is_dir():
        raise CliError(f"the output {path!r} is a directory")
    # What takes its place would be a file: that of a device, or of a pipe at whose end a reader waits.
    if Path(path).exists() and not Path(path).is_file():
        raise CliError(f"the output {path!r} is no regular file: name one, or none for the standard output")
    # With its journal in place the output can be written again, or the journal's own message is the better one.
    if keep and Path(path).exists() and not (journal and Path(journal).exists()):
        raise CliError(f"the output {path!r} exists: replace it with --overwrite, or name another")
    try:
        Path(part_of(path)).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CliError(f"cannot make the directory of {path!r}: {error.strerror}") from error


def _refuse_same(*files: tuple[str, str | None]) -> None:
    seen: dict[str, str] = {}
    for what, path in files:
        if path is None or path == STDOUT:
            continue
        real = os.path.realpath(path)
        if real in seen:
            raise CliError(f"{seen[real]} and {what} are the same file {path!r}")
        seen[real] = what


def in_flight_limit(workers: int) -> int:
    """Return how many rows may be in the pool's hands at the same time."""
    return ROWS_PER_WORKER * workers


def require_field(field: str, option: str, found: int, survey: Survey) -> None:
    """Refuse an option that names a field which no row has: surely a slip of the pen.

    Raises:
        CliError: ``found`` is 0.
    """
    if not found:
        raise CliError(
            f"{option} {field!r}: no row has this field; the first row has {', '.join(survey.first_fields)}"
        )


def choose_expected_field(wanted: str | None, survey: Survey) -> str | None:
    """Return the field with the expected answers: as wanted, else ``expected`` if rows have it.

    Raises:
        CliError: No row has the wanted field.
    """
    if wanted is not None:
        require_field(wanted, "--expected-field", survey.expected, survey)
        return wanted
    return "expected" if survey.expected else None
