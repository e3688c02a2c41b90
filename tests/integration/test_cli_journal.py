"""The journal loses no row, counts none twice, and is never mistaken for that of another run."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
from typing import TYPE_CHECKING

import pytest

from dspex_pool.cli.journal import Mark, open_journal, write_output
from dspex_pool.cli.problems import CliError
from dspex_pool.cli.records import Answer, Entry, Fingerprint, RowError
from tests.cases import case

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

OURS = Fingerprint("jsonl:1", "p:1", "m:1")


def entry(line: int, *, failed: bool = False, attempts: int = 1, match: bool | None = None) -> Entry:
    """Make the record of a row."""
    error = RowError("ValueError", "no") if failed else None
    row = Answer(f"q-{line}", None if failed else {"a": "ä"}, error, attempts, "w-1", 0.25)
    return Entry(line, match, row)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the journal is, in a directory that does not exist yet."""
    return str(tmp_path / "out" / "answers.jsonl.journal")


def recorded(path: str, *entries: Entry) -> bytes:
    """Write a journal with ``entries`` and return its bytes."""
    with open_journal(path, OURS, go_on=False) as journal:
        for each in entries:
            journal.append(each)
    with open(path, "rb") as file:  # noqa: PTH123 - the path is a text here as on the command line
        return file.read()


def rewrite(path: str, data: bytes) -> None:
    """Replace the journal's bytes."""
    with open(path, "wb") as file:  # noqa: PTH123 - the path is a text here as on the command line
        file.write(data)


def test_journal_remembers_every_row(path: str) -> None:
    """Line, failure, match and attempts come back; the file is JSON lines below a header."""
    data = recorded(path, entry(1, match=True), entry(2, failed=True, attempts=3))
    assert [sorted(json.loads(line)) for line in data.splitlines()] == [
        ["created_at", "dspex_pool_journal", "fingerprint"],
        ["line", "match", "row"],
        ["line", "match", "row"],
    ]
    with open_journal(path, OURS, go_on=True) as journal:
        assert [mark[1:] for mark in journal.marks.values()] == [(False, True, 1), (True, None, 3)]


def test_journal_is_with_the_system_before_append_returns(path: str) -> None:
    """Another reader sees the row at once: ``kill -9`` cannot take it back."""
    with open_journal(path, OURS, go_on=False) as journal:
        journal.append(entry(1))
        with open(path, "rb") as file:  # noqa: PTH123 - the path is a text here as on the command line
            assert file.read().count(b"\n") == 2
        assert journal.is_dirty
        journal.sync()
        assert not journal.is_dirty


def test_later_record_of_a_row_replaces_the_earlier(path: str) -> None:
    """A row that failed and was tried again is in the output once, with its last answer."""
    recorded(path, entry(2, failed=True), entry(1), entry(2))
    with open_journal(path, OURS, go_on=True) as journal:
        answers = [json.loads(line) for line in journal.answers()]
        assert [(answer["id"], answer["error"]) for answer in answers] == [("q-1", None), ("q-2", None)]
        assert [json.loads(line)["id"] for line in journal.answers([2])] == ["q-2"]


def test_torn_last_line_is_cut_off_at_any_byte(path: str) -> None:
    """Wherever the write was cut, all whole rows are known and the next one can be appended."""
    data = recorded(path, entry(1), entry(2))
    whole = data.rindex(b"\n", 0, -1) + 1
    for length in [*range(whole, len(data), 12), len(data) - 1]:
        rewrite(path, data[:length])
        with open_journal(path, OURS, go_on=True) as journal:
            assert list(journal.marks) == [1]
            journal.append(entry(3))
        with open_journal(path, OURS, go_on=True) as journal:
            assert [json.loads(line)["id"] for line in journal.answers()] == ["q-1", "q-3"]


def test_journal_without_rows_is_a_run_that_never_began(path: str) -> None:
    """Torn header or whole: nothing was done, so there is nothing to refuse.

    One that was torn within its first word was taken for somebody's data.
    """
    data = recorded(path)
    for length in (*range(25), len(data) - 1, len(data)):
        rewrite(path, data[:length])
        with open_journal(path, OURS, go_on=False) as journal:
            assert journal.marks == {}


@pytest.mark.parametrize(
    ("other", "word"),
    [
        (Fingerprint("jsonl:2", "p:1", "m:1"), "another input:"),
        (Fingerprint("jsonl:1", "p:2", "m:1"), "another program:"),
        (Fingerprint("jsonl:2", "p:1", "m:2"), "another input and language model:"),
    ],
)
def test_journal_of_something_else_is_refused(path: str, other: Fingerprint, word: str) -> None:
    """The message names what differs."""
    recorded(path, entry(1))
    with pytest.raises(CliError, match=word), open_journal(path, other, go_on=True):
        raise AssertionError


def test_existing_journal_is_kept_unless_told_otherwise(path: str) -> None:
    """A run from the start neither adds to an earlier run nor forgets it by itself."""
    data = recorded(path, entry(1))
    with pytest.raises(CliError, match=r"go on with --resume, or start anew with --overwrite"):
        recorded(path)
    with open_journal(path, OURS, go_on=True) as journal:
        assert len(journal.marks) == 1
    with open_journal(path, OURS, go_on=False, overwrite=True) as journal:
        assert journal.marks == {}
        # Not before there is something in its place.
        assert os.path.getsize(path) == len(data)  # noqa: PTH202 - the path is a text here
        journal.append(entry(2))
    with open_journal(path, OURS, go_on=True) as journal:
        assert list(journal.marks) == [2]


def test_file_that_is_no_journal_is_never_overwritten(path: str) -> None:
    """Not even with --overwrite: it is somebody's data."""
    recorded(path)
    for data in [b'{"id": 1}\n', b"a,b\n1,2\n", b"\xff\n", b"no newline"]:
        with case(data):
            rewrite(path, data)
            with (
                pytest.raises(CliError, match="is no journal of dspex-pool"),
                open_journal(path, OURS, go_on=False, overwrite=True),
            ):
                raise AssertionError
            with open(path, "rb") as file:  # noqa: PTH123 - the path is a text here as on the command line
                assert file.read() == data


def test_journal_of_a_later_version_is_refused(path: str) -> None:
    """What we cannot read we do not touch."""
    rewrite_version = recorded(path).replace(b'journal":1', b'journal":2')
    rewrite(path, rewrite_version)
    with (
        pytest.raises(CliError, match="has version 2, this program knows 1"),
        open_journal(path, OURS, go_on=True),
    ):
        raise AssertionError


def test_damage_in_the_middle_is_refused_with_its_line(path: str) -> None:
    """Skipping it would run, and pay for, rows twice."""
    cases: list[bytes] = [b"{broken\n", b'{"line": 1}\n', b'{"line":1,"match":null,"row":7}\n', b"\xff\n"]
    data = recorded(path, entry(1))
    for damage in cases:
        with case(damage):
            rewrite(path, data + damage + data.splitlines(keepends=True)[1])
            with pytest.raises(CliError, match="is damaged in line 3"), open_journal(path, OURS, go_on=True):
                raise AssertionError


def test_discarded_journal_is_gone(path: str) -> None:
    """A run that did nothing leaves nothing that a later run would have to be told about."""
    with open_journal(path, OURS, go_on=False) as journal:
        journal.discard()
        journal.discard()
    assert not os.path.exists(path)  # noqa: PTH110 - the path is a text here as on the command line


def test_two_runs_cannot_share_a_journal(path: str) -> None:
    """The second is told; the first is not disturbed."""
    with open_journal(path, OURS, go_on=False) as journal:
        with (
            pytest.raises(CliError, match="in use by another run"),
            open_journal(path, OURS, go_on=False, overwrite=True),
        ):
            raise AssertionError
        journal.append(entry(1))


def test_journal_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """A directory in its place and a file in the place of its directory are errors with the path."""
    (tmp_path / "file").write_text("")
    for bad in (tmp_path, tmp_path / "file" / "journal"):
        with (
            pytest.raises(CliError, match="cannot open the journal"),
            open_journal(str(bad), OURS, go_on=False),
        ):
            raise AssertionError


def test_journal_that_is_no_file_is_refused() -> None:
    """A device keeps nothing, and a pipe is waited at for ever; a device was an error without a name."""
    with pytest.raises(CliError, match="the journal '/dev/null' is no regular file"):
        with open_journal("/dev/null", OURS, go_on=False):
            raise AssertionError


def test_full_disk_is_an_error_and_keeps_what_was_written(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that stops half-way leaves a torn line, which the next run cuts off."""
    with open_journal(path, OURS, go_on=False) as journal:
        journal.append(entry(1))
        real = os.pwrite
        written: list[int] = []

        def half_then_full(fd: int, data: memoryview, offset: int) -> int:
            if written:
                raise OSError(28, "No space left on device")
            written.append(real(fd, data[:10], offset))
            return written[0]

        with monkeypatch.context() as patched:
            patched.setattr("dspex_pool.cli.journal.os.pwrite", half_then_full)
            with pytest.raises(CliError, match=r"cannot write the journal .*: No space left on device"):
                journal.append(entry(2))
    with open_journal(path, OURS, go_on=True) as journal:
        assert journal.marks == {1: Mark(journal.marks[1].offset, False, None, 1)}


@pytest.mark.parametrize("long", [True, False])
def test_row_after_a_torn_one_is_kept(path: str, long: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows finish while a run ends that met a full disk; by then there may be room again.

    Their lines followed the torn one, and the journal was damaged for good.
    """
    short, torn = entry(2), Entry(3, None, Answer("x" * 1000, None, None, 1, None, 0.0))
    with open_journal(path, OURS, go_on=False) as journal:
        real, left = os.pwrite, [300 if long else 10]

        def full(fd: int, data: memoryview, offset: int) -> int:
            if not left:
                raise OSError(28, "No space left on device")
            return real(fd, data[: left.pop()], offset)

        with monkeypatch.context() as patched:
            patched.setattr("dspex_pool.cli.journal.os.pwrite", full)
            with pytest.raises(CliError, match="No space left on device"):
                journal.append(torn)
        journal.append(short)
    with open_journal(path, OURS, go_on=True) as journal:
        assert list(journal.marks) == [2]
        assert [json.loads(line)["id"] for line in journal.answers()] == ["q-2"]


def test_disk_that_refuses_to_sync_is_an_error(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that may not be on the disk are not called safe."""
    with open_journal(path, OURS, go_on=False) as journal:
        journal.append(entry(1))

        def refuse(_fd: int) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patched:
            patched.setattr("dspex_pool.cli.journal.os.fsync", refuse)
            with pytest.raises(CliError, match=r"cannot write the journal .*: Input/output error"):
                journal.sync()


def test_journal_and_output_are_on_the_disk_before_others_count_on_them(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that loses its power leaves a journal with its header, and the old output or the whole new one."""
    output, synced = tmp_path / "answers.jsonl", []
    real_fsync = os.fsync

    def fsync(fd: int) -> None:
        found = os.fstat(fd)
        synced.append((0 if stat.S_ISDIR(found.st_mode) else found.st_size, output.exists()))
        real_fsync(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with open_journal(path, OURS, go_on=False) as journal:
        header = journal.end
        journal.append(entry(1))
        write_output(journal, str(output))
    # Each file, and then its folder.
    assert synced[:4] == [(header, False), (0, False), (output.stat().st_size, False), (0, True)]


def test_output_is_written_whole_and_in_input_order(path: str, tmp_path: Path) -> None:
    """The order of completion does not show, and a reader never sees half of the file."""
    output = tmp_path / "answers.jsonl"
    output.write_text("old")
    recorded(path, entry(3), entry(1), entry(2, failed=True))
    with open_journal(path, OURS, go_on=True) as journal:
        write_output(journal, str(output))
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["id"] for row in rows] == ["q-1", "q-2", "q-3"]
    assert rows[1] == {
        "id": "q-2",
        "outputs": None,
        "error": {"type": "ValueError", "message": "no"},
        "attempts": 1,
        "worker_id": "w-1",
        "duration_s": 0.25,
    }
    assert [found.name for found in tmp_path.iterdir() if found.is_file()] == ["answers.jsonl"]


@pytest.mark.parametrize("old", ["old", None])
def test_output_behind_a_link_is_written_and_the_link_stays(
    old: str | None, path: str, tmp_path: Path
) -> None:
    """The link became a file, and what it points at stayed as it was."""
    link, target = tmp_path / "answers.jsonl", tmp_path / "share" / "answers.jsonl"
    target.parent.mkdir()
    if old is not None:
        target.write_text(old)
    link.symlink_to(target)
    recorded(path, entry(1))
    with open_journal(path, OURS, go_on=True) as journal:
        write_output(journal, str(link))
    assert link.readlink() == target
    assert json.loads(target.read_text())["id"] == "q-1"
    assert list(target.parent.iterdir()) == [target]


def test_output_that_cannot_be_written_is_named(path: str, tmp_path: Path) -> None:
    """It did not say that the journal still has everything, and that nothing must be paid for again."""
    recorded(path, entry(1))
    output = tmp_path / "gone" / "answers.jsonl"
    with open_journal(path, OURS, go_on=True) as journal:
        with pytest.raises(CliError) as caught:
            write_output(journal, str(output))
    assert str(caught.value) == (
        f"cannot write the output {str(output)!r}: No such file or directory; the answers are in the journal "
        f"{path!r}, from which the same command with --resume writes it"
    )


def test_output_that_does_not_fit_leaves_no_half_of_it(path: str, tmp_path: Path) -> None:
    """On a full disk its beginning stayed beside it, and took what room there was."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open_journal(path, OURS, go_on=False) as journal:
        for line in range(1, 50):
            journal.append(entry(line))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            with pytest.raises(CliError, match=r"cannot write the output .*: File too large"):
                write_output(journal, str(tmp_path / "out.jsonl"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.glob("out.jsonl*")) == []
