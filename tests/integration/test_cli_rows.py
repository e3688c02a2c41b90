"""Rows are read lazily from JSONL and CSV, and every mistake is named with its place."""

from __future__ import annotations

import io
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex_pool.cli.problems import CliError
from dspex_pool.cli.rows import (
    InputFile,
    Row,
    input_format,
    non_finite_place,
    open_input,
    session_of,
    survey_rows,
)
from dspex_testkit import strategies
from tests.cases import case

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


def jsonl(text: str | bytes) -> InputFile:
    """Make an input of JSON lines."""
    data = text if isinstance(text, bytes) else text.encode()
    return InputFile("rows.jsonl", "jsonl", io.BytesIO(data))


def table(text: str) -> InputFile:
    """Make an input of CSV."""
    return InputFile("rows.csv", "csv", io.BytesIO(text.encode()))


def test_jsonl_rows_carry_their_line_and_id() -> None:
    """Blank lines count as lines and are no rows; a row without id has its line number."""
    rows = list(jsonl('{"id": "a", "q": 1}\n\n{"q": 2}\n{"id": 9}').rows())
    assert [(row.line, row.id) for row in rows] == [(1, "a"), (3, 3), (4, 9)]
    assert rows[0].fields == {"id": "a", "q": 1}


def test_rows_are_read_lazily_and_again() -> None:
    """The first row is there before the last line is looked at, and reading starts over each time."""
    source = jsonl('{"q": 1}\n{"q": 2}\nnonsense\n')
    assert next(source.rows()).fields == {"q": 1}
    assert next(source.rows()).fields == {"q": 1}


def test_byte_order_mark_is_no_part_of_the_first_row() -> None:
    """Files from spreadsheet programs begin with one."""
    assert next(jsonl(b'\xef\xbb\xbf{"q": 1}').rows()).fields == {"q": 1}


def test_bad_jsonl_line_is_named() -> None:
    """File, line and, where there is one, column are in the message."""
    cases: list[tuple[str, str]] = [
        ('{"q": 1,x}', "line 2, column 9: not valid JSON (Expecting property name"),
        ('{"q" 1}', "line 2, column 6: not valid JSON (Expecting ':' delimiter)"),
        ('{"q":', "line 2, column 6: not valid JSON (Expecting value)"),
        ("[1]", "line 2: a row is a JSON object, this is an array"),
        ("3.5", "line 2: a row is a JSON object, this is a number"),
        ("null", "line 2: a row is a JSON object, this is null"),
        ('{"id": null}', "line 2: 'id' is null; it must be a string or an integer"),
        ('{"id": true}', "line 2: 'id' is a boolean"),
        ('{"id": ""}', "line 2: 'id' is an empty string"),
        ('{"id": {}}', "line 2: 'id' is an object"),
        ('{"id": "\\ud800"}', "line 2: 'id' has half a surrogate pair"),
        ('{"q": ' + "9" * 5000 + "}", "line 2: Exceeds the limit"),
        ("[" * 100_000, "line 2: nested too deeply"),
    ]
    for line, text in cases:
        with case(line):
            with pytest.raises(CliError) as caught:
                list(jsonl('{"q": 1}\n' + line + "\n").rows())
            assert str(caught.value).startswith(f"rows.jsonl {text}")


def test_line_that_is_not_utf8_is_named() -> None:
    """The byte is counted from 1."""
    with pytest.raises(CliError, match=r"rows.jsonl line 2, byte 8: not UTF-8"):
        list(jsonl(b'{"q": 1}\n{"q": "\xff"}\n').rows())


@settings(max_examples=20, deadline=None)
@given(st.lists(strategies.json_objects(), max_size=3))
def test_jsonl_gives_back_what_was_written(objects: list[dict[str, Any]]) -> None:
    """Any objects survive, whatever is in them."""
    kept = [{f"x{key}": value for key, value in fields.items()} for fields in objects]
    text = "".join(json.dumps(fields) + "\n" for fields in kept)
    assert [row.fields for row in jsonl(text).rows()] == kept


def test_csv_rows_carry_the_line_where_they_begin() -> None:
    """A cell may hold line breaks and commas; blank lines are skipped; an empty id is none."""
    rows = list(table('id,q\na,"one\ntwo, three"\n\n,x\n7,y\n').rows())
    assert [(row.line, row.id, row.fields["q"]) for row in rows] == [
        (2, "a", "one\ntwo, three"),
        (5, 5, "x"),
        (6, "7", "y"),
    ]


def test_bad_csv_is_named() -> None:
    """File, line and what is wrong are in the message."""
    cases: list[tuple[str, str]] = [
        ("id,q\na\n", "rows.csv line 2: 1 cells, the header has 2"),
        ("id,q\na,b,c\n", "rows.csv line 2: 3 cells, the header has 2"),
        ("q,q\n", "rows.csv: the header line has the column 'q' twice"),
        ("q,\n", "rows.csv: the header line has a column without a name"),
        ('q\n"a"b\n', "rows.csv line 2: not valid CSV"),
    ]
    for text, message in cases:
        with case(text):
            with pytest.raises(CliError) as caught:
                list(table(text).rows())
            assert str(caught.value).startswith(message)


def test_format_follows_the_option_then_the_suffix() -> None:
    """The option wins; stdin is JSONL."""
    cases: list[tuple[str, str | None, str]] = [
        ("a.jsonl", None, "jsonl"),
        ("a.NDJSON", None, "jsonl"),
        ("a.csv", None, "csv"),
        ("-", None, "jsonl"),
        ("-", "csv", "csv"),
        ("a.txt", "jsonl", "jsonl"),
    ]
    for label, wanted, chosen in cases:
        assert input_format(label, wanted) == chosen, (label, wanted)


@pytest.mark.parametrize(("label", "wanted"), [("a.txt", None), ("a.json", None), ("a.csv", "xml")])
def test_format_that_nobody_knows_is_refused(label: str, wanted: str | None) -> None:
    """Guessing would make nonsense of the input."""
    with pytest.raises(CliError, match=r"jsonl or .*csv"):
        input_format(label, wanted)


def test_unreadable_input_is_named(tmp_path: Path) -> None:
    """A missing file and a directory are errors that name the path."""
    for path in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(CliError, match="cannot read the input"), open_input(str(path), "jsonl"):
            raise AssertionError


def test_file_is_read_where_it_is(tmp_path: Path) -> None:
    """A regular file is not copied."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"q": 1}\n')
    with open_input(str(path)) as source:
        assert [row.fields for row in source.rows()] == [{"q": 1}]
        assert source.label == str(path)
        assert getattr(source.file, "name", None) == str(path)


def test_stdin_is_copied_so_that_it_can_be_read_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pass checks everything before the second runs anything, on a pipe too."""
    reader, writer = os.pipe()
    os.write(writer, b"q\n1\n")
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with open_input("-", "csv") as source:
            assert source.label == "stdin"
            assert [len(list(source.rows())) for _ in range(2)] == [1, 1]


def test_closed_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to read from."""
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(CliError, match="the standard input is closed: name a file"), open_input("-"):
        raise AssertionError


def test_digest_changes_with_bytes_and_format() -> None:
    """The same bytes read in another way are another input."""
    assert jsonl("q\n1").digest() == jsonl("q\n1").digest()
    assert len({jsonl("q\n1").digest(), jsonl("q\n2").digest(), table("q\n1").digest()}) == 3


def test_survey_counts_rows_sessions_and_expectations() -> None:
    """One pass finds all that the plan needs."""
    source = jsonl('{"t": "a", "expected": 1}\n{"t": "b"}\n{"t": "a"}\n{"t": null}\n')
    survey = survey_rows(source.rows(), source.label, session_field="t")
    assert survey.rows == 4
    assert survey.sessions == {"a": 2, "b": 1}
    assert survey.first_fields == ("t", "expected")
    assert survey.expected == 1


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ('{"id": "a"}\n{"id": "b"}\n{"id": "a"}\n', r"lines 1 and 3: both rows have the id 'a'"),
        ('{"id": 2}\n{"q": 1}\n', r"lines 1 and 2: both rows have the id 2"),
        ('{"id": "7"}\n{"id": 7}\n', r"lines 1 and 2: both rows have the id 7"),
    ],
)
def test_two_rows_of_one_id_are_refused_with_both_lines(text: str, ids: str) -> None:
    """Also where one is a line number, or one is a string."""
    with pytest.raises(CliError, match=ids):
        survey_rows(jsonl(text).rows(), "rows.jsonl")


def test_input_without_rows_is_refused() -> None:
    """An empty file is more likely a mistake than a wish."""
    with pytest.raises(CliError, match=r"rows.jsonl has no rows"):
        survey_rows(jsonl("\n\n").rows(), "rows.jsonl")


def test_session_is_a_text_or_a_whole_number() -> None:
    """Everything else names no session."""
    cases: list[tuple[object, str | None]] = [
        ("a", "a"),
        (7, "7"),
        ("", None),
        (None, None),
        (True, None),
        (1.5, None),
        ([], None),
    ]
    for value, session in cases:
        assert session_of(Row(1, 1, {"t": value}), "t") == session, value


def test_number_that_json_cannot_carry_is_found() -> None:
    """The place inside the field is named."""
    cases: list[tuple[object, str | None]] = [
        (float("nan"), "x is nan"),
        ([1, [2, float("inf")]], "x[1][1] is inf"),
        ({"a": {"b": float("-inf")}}, "x.a.b is -inf"),
        ({"a": [1.5, "nan", None]}, None),
    ]
    for value, place in cases:
        assert non_finite_place(value, "x") == place, value


def test_row_is_named_shortly_whatever_its_id() -> None:
    """An id of ten megabytes does not fill the screen."""
    assert len(Row(3, "x" * 10_000_000, {}).name) < 110
