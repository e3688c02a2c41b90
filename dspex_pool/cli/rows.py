"""Reading rows: JSONL or CSV, from a file or stdin, lazily, with the place of every mistake."""

from __future__ import annotations

import csv
import json
import math
import shutil
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias

from dspex_pool.bridge.field_types import mismatch
from dspex_pool.cli.problems import CliError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "Format",
    "InputFile",
    "Row",
    "Survey",
    "non_finite_place",
    "open_input",
    "session_of",
    "survey_rows",
]

Format: TypeAlias = Literal["jsonl", "csv"]

#: Which suffix means which format.
SUFFIXES: Mapping[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}

#: Largest cell of a CSV file, in characters; the library's own 131072 is less than many a context.
MAX_CELL_CHARS = 64 * 1024 * 1024

#: What cells hold that is no JSON, as Python writes its own values into a table.
_WORDS: Mapping[str, Any] = {"": None, "True": True, "False": False}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the input."""

    #: Line of the file where the row begins, from 1. The journal knows rows by it.
    line: int
    #: The row's own ``id``, or its line number.
    id: str | int
    #: Everything in the row.
    fields: Mapping[str, Any]
    #: Whether all values are texts because the format knows nothing else.
    is_text: bool = False

    @property
    def name(self) -> str:
        """The row as error messages name it."""
        return f"row {one_line(repr(self.id), 80)} (line {self.line})"

    def value(self, name: str, annotation: object = None) -> Any:
        """Return a field as a program takes it: in a format of texts, ``3`` is a number if one is wanted.

        An empty cell is null where null is wanted, and what is wanted as a text stays one.

        Args:
            name: A field that the row has.
            annotation: The type that is wanted; ``None`` for any.
        """
        value = self.fields[name]
        if not self.is_text or annotation in (None, str):
            return value
        found = _value_of_cell(value)
        is_text = isinstance(found, str) or mismatch(found, annotation) is not None
        return value if is_text and mismatch(value, annotation) is None else found


@dataclass(frozen=True, slots=True)
class InputFile:
    """An input that can be read more than once."""

    #: What the user named, for messages.
    label: str
    #: How the bytes are to be read.
    format: Format
    #: The bytes, seekable.
    file: BinaryIO

    def rows(self) -> Iterator[Row]:
        """Yield the rows from the beginning, one at a time.

        Raises:
            CliError: Some line cannot be read; the message names file, line and column.
        """
        self.file.seek(0)
        read = _csv_rows if self.format == "csv" else _jsonl_rows
        return read(self.file, self.label)

    def digest(self) -> str:
        """Return what tells this input from any other: format and SHA-256 of the bytes."""
        self.file.seek(0)
        hashed = sha256()
        while block := self.file.read(1 << 20):
            hashed.update(block)
        return f"{self.format}:{hashed.hexdigest()}"


@dataclass(frozen=True, slots=True)
class Survey:
    """What the first pass over the input found. No row is run before it has passed."""

    #: Number of rows.
    rows: int
    #: Rows a session, if rows name their session.
    sessions: Mapping[str, int]
    #: Names of the first row's fields, for messages.
    first_fields: tuple[str, ...]
    #: Rows that have the field with the expected answer.
    expected: int


def input_format(label: str, wanted: str | None) -> Format:
    """Choose the format: as ``wanted``, else by suffix, else JSONL for stdin.

    Raises:
        CliError: The format is unknown, or the suffix does not tell it.
    """
    if wanted is not None:
        if wanted in ("jsonl", "csv"):
            return "csv" if wanted == "csv" else "jsonl"
        raise CliError(f"--format {wanted!r} is unknown: use jsonl or csv")
    if label == "-":
        return "jsonl"
    for suffix, known in SUFFIXES.items():
        if label.lower().endswith(suffix):
            return known
    raise CliError(f"the suffix of {label!r} does not tell its format: add --format jsonl or --format csv")


@contextmanager
def open_input(label: str, wanted: str | None = None) -> Iterator[InputFile]:
    """Open the input; what cannot be read twice (stdin, a pipe) is copied to a temporary file first.

    Raises:
        CliError: The file cannot be read, or its format is not known.
    """
    chosen = input_format(label, wanted)
    name = "stdin" if label == "-" else label
    with ExitStack() as stack:
        if label == "-" and sys.stdin is None:
            raise CliError("the standard input is closed: name a file")
        source = sys.stdin.buffer if label == "-" else stack.enter_context(_opened(label))
        if label != "-" and source.seekable():
            yield InputFile(name, chosen, source)
            return
        copy = stack.enter_context(tempfile.TemporaryFile())
        shutil.copyfileobj(source, copy)
        yield InputFile(name, chosen, copy)


def _opened(path: str) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise CliError(f"cannot read the input {path!r}: {error.strerror}") from error


def survey_rows(
    rows: Iterable[Row], label: str, *, session_field: str | None = None, expected_field: str = "expected"
) -> Survey:
    """Read all rows once, so that wrong input is refused before anything is paid for.

    Raises:
        CliError: A row cannot be read, two rows share an id, or there is no row.
    """
    lines: dict[str, int] = {}
    sessions: dict[str, int] = {}
    first: tuple[str, ...] = ()
    expected = 0
    for row in rows:
        first = first or tuple(row.fields)
        _refuse_double(lines, row, label)
        expected += expected_field in row.fields
        session = session_field and session_of(row, session_field)
        if session:
            sessions[session] = sessions.get(session, 0) + 1
    if not lines:
        raise CliError(f"{label} has no rows")
    return Survey(len(lines), sessions, first, expected)


def session_of(row: Row, session_field: str) -> str | None:
    """Return the session that a row names, or ``None`` if it names none."""
    value = row.fields.get(session_field)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    return str(value) or None


def non_finite_place(value: Any, place: str) -> str | None:
    """Return where in ``value`` a number is that JSON cannot carry, such as ``scores[2] is nan``."""
    waiting = [(place, value)]
    while waiting:
        where, item = waiting.pop()
        if isinstance(item, float) and not math.isfinite(item):
            return f"{where} is {item}"
        if isinstance(item, dict):
            waiting.extend((f"{where}.{key}", inner) for key, inner in item.items())
        elif isinstance(item, list):
            waiting.extend((f"{where}[{index}]", inner) for index, inner in enumerate(item))
    return None


def _refuse_double(lines: dict[str, int], row: Row, label: str) -> None:
    # 7 and "7" count as the same: whoever joins the answers to the questions rarely tells them apart.
    key = str(row.id)
    if key in lines:
        shown = one_line(repr(row.id), 80)
        raise CliError(
            f"{label} lines {lines[key]} and {row.line}: both rows have the id {shown}; "
            "give each row an id of its own (a row without id has its line number)"
        )
    lines[key] = row.line


# --- JSONL -----------------------------------------------------------------------------------------


def _jsonl_rows(file: BinaryIO, label: str) -> Iterator[Row]:
    for line, raw in enumerate(file, start=1):
        # Without its end, so that an error at the end has a column of this line and not of the next.
        text = _decoded(raw, line, label).rstrip("\r\n")
        if text.strip():
            yield _json_row(text, line, label)


def _json_row(text: str, line: int, label: str) -> Row:
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise CliError(f"{label} line {line}, column {error.colno}: not valid JSON ({error.msg})") from error
    except RecursionError as error:
        raise CliError(f"{label} line {line}: nested too deeply") from error
    except ValueError as error:  # a number with more digits than the interpreter converts
        raise CliError(f"{label} line {line}: {error}") from error
    if not isinstance(fields, dict):
        raise CliError(f"{label} line {line}: a row is a JSON object, this is {_kind(fields)}")
    return Row(line, _json_id(fields, line, label), fields)


def _json_id(fields: dict[str, Any], line: int, label: str) -> str | int:
    if "id" not in fields:
        return line
    value = fields["id"]
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise CliError(f"{label} line {line}: 'id' is {_kind(value)}; it must be a string or an integer")
    if isinstance(value, str) and not _encodable(value):
        raise CliError(f"{label} line {line}: 'id' has half a surrogate pair, which UTF-8 cannot carry")
    return value


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if value == "":
        return "an empty string"
    names = {str: "a string", int: "a number", float: "a number", list: "an array", dict: "an object"}
    return names[type(value)]


def _decoded(raw: bytes, line: int, label: str) -> str:
    # A byte order mark is legal only before everything else.
    start = raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw
    try:
        return start.decode()
    except UnicodeDecodeError as error:
        raise CliError(f"{label} line {line}, byte {error.start + 1}: not UTF-8") from error


# --- CSV -------------------------------------------------------------------------------------------


def _csv_rows(file: BinaryIO, label: str) -> Iterator[Row]:
    csv.field_size_limit(MAX_CELL_CHARS)
    reader = csv.reader((_decoded(raw, line, label) for line, raw in enumerate(file, start=1)), strict=True)
    header: list[str] | None = None
    before = 0
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise CliError(f"{label} line {reader.line_num}: not valid CSV ({error})") from error
        # A cell may hold line breaks: the record begins on the line after the last one's end.
        line, before = before + 1, reader.line_num
        if cells is None:
            return
        if not cells:
            continue
        if header is None:
            header = _checked_header(cells, label)
        else:
            yield _csv_row(header, cells, line, label)


def _checked_header(cells: list[str], label: str) -> list[str]:
    double = {name for name in cells if cells.count(name) > 1}
    if double or "" in cells:
        what = f"the column {min(double)!r} twice" if double else "a column without a name"
        raise CliError(f"{label}: the header line has {what}")
    return cells


def _value_of_cell(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _csv_row(header: list[str], cells: list[str], line: int, label: str) -> Row:
    if len(cells) != len(header):
        raise CliError(f"{label} line {line}: {len(cells)} cells, the header has {len(header)}")
    fields = dict(zip(header, cells, strict=True))
    return Row(line, fields.get("id") or line, fields, is_text=True)
