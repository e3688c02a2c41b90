"""The plan destroys nothing, runs what was asked for, and fits the pool to the run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from dspex_pool.cli.journal import Mark
from dspex_pool.cli.plan import (
    Files,
    Selection,
    choose_expected_field,
    choose_files,
    in_flight_limit,
    require_field,
)
from dspex_pool.cli.pool_settings import PATIENCE, config_for_run, load_config, row_timeout
from dspex_pool.cli.problems import CliError
from dspex_pool.cli.rows import Survey
from dspex_pool.config import PoolConfig
from dspex_pool.errors import InvalidConfigError
from tests.cases import case

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

ANSWERED = Mark(0, False, None, 1)
FAILED = Mark(0, True, None, 1)


@pytest.mark.parametrize(
    ("resume", "retry_failed", "missing", "failed", "answered"),
    [(True, False, True, False, False), (False, True, False, True, False), (True, True, True, True, False)],
)
def test_selection_runs_what_the_options_ask_for(
    resume: bool, retry_failed: bool, missing: bool, failed: bool, answered: bool
) -> None:
    """--resume is what is missing, --retry-failed what failed, both all that has no answer."""
    selection = Selection.of(resume=resume, retry_failed=retry_failed)
    assert selection is not None
    assert (selection.wants(None), selection.wants(FAILED), selection.wants(ANSWERED)) == (
        missing,
        failed,
        answered,
    )


def test_selection_of_a_run_from_the_start_is_none() -> None:
    """Then there is nothing to select from."""
    assert Selection.of(resume=False, retry_failed=False) is None


def test_journal_lies_beside_the_output() -> None:
    """Unless it is named, or the output is the standard output."""
    assert choose_files("in.jsonl", "a.jsonl", None) == Files("a.jsonl", "a.jsonl.journal")
    assert choose_files("in.jsonl", "a.jsonl", "j") == Files("a.jsonl", "j")
    assert choose_files("in.jsonl", None, None) == Files("-", None)
    assert choose_files("-", "-", "j") == Files("-", "j")


def test_closed_standard_output_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is paid for."""
    monkeypatch.setattr("sys.stdout", None)
    assert choose_files("in", "a.jsonl", None) == Files("a.jsonl", "a.jsonl.journal")
    with pytest.raises(CliError, match="the standard output is closed: name a file with -o"):
        choose_files("in", None, None)


def test_directory_of_the_output_is_made(tmp_path: Path) -> None:
    """A fresh clone has no ``out/``."""
    choose_files("in.jsonl", str(tmp_path / "out" / "deep" / "a.jsonl"), None)
    assert (tmp_path / "out" / "deep").is_dir()


def test_existing_output_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    """Also with --resume, if the journal that it was written from is gone."""
    output = tmp_path / "a.jsonl"
    output.write_text("paid for")
    for selection in (None, Selection(missing=True)):
        with pytest.raises(CliError, match="exists: replace it with --overwrite, or name another"):
            choose_files("in.jsonl", str(output), None, selection=selection)
    choose_files("in.jsonl", str(output), None, overwrite=True)
    (tmp_path / "a.jsonl.journal").write_text("")
    choose_files("in.jsonl", str(output), None, selection=Selection(missing=True))


def test_files_that_would_destroy_something_are_refused() -> None:
    """Nothing is written over that is still needed."""
    cases: list[tuple[str, str | None, str | None, str]] = [
        ("a.jsonl", "a.jsonl", None, "input and output are the same file"),
        ("a.jsonl", "./a.jsonl", None, "input and output are the same file"),
        ("a.jsonl", None, "a.jsonl", "input and journal are the same file"),
        ("in", "a.jsonl", "a.jsonl", "output and journal are the same file"),
        # The output is written beside its place first; there it replaced whatever was needed.
        ("a.jsonl.part", "a.jsonl", None, "input and the output while it is written are the same file"),
        ("in", "a.jsonl", "a.jsonl.part", "journal and the output while it is written are the same file"),
        ("in", "a.csv", None, "is JSON lines"),
        # Of a variable that a script has not set: the answers went to the standard output, and no journal was kept.
        ("in", "", None, "the output is an empty text: name a file"),
        ("in", "a", "", "the journal is an empty text: name a file"),
        ("in", "/", None, "is a directory"),
        ("in", "/dev/null/x", None, "cannot make the directory"),
    ]
    for given, output, journal, text in cases:
        with case(given, output, journal):
            with pytest.raises(CliError, match=text):
                choose_files(given, output, journal)


def test_output_that_is_no_file_is_refused(tmp_path: Path) -> None:
    """With --overwrite it was replaced by one: a pipe, while its reader waited for ever; or a device."""
    os.mkfifo(tmp_path / "pipe")
    for overwrite in (False, True):
        with pytest.raises(CliError, match="is no regular file"):
            choose_files("in", str(tmp_path / "pipe"), None, overwrite=overwrite)


def test_output_behind_a_link_is_prepared_where_it_is_written(tmp_path: Path) -> None:
    """What was needed there was not looked at, since the link was to be replaced."""
    link, target = tmp_path / "a.jsonl", tmp_path / "share" / "a.jsonl"
    link.symlink_to(target)
    assert choose_files("in", str(link), None) == Files(str(link), f"{link}.journal")
    assert target.parent.is_dir()
    with pytest.raises(CliError, match="input and the output while it is written are the same file"):
        choose_files(f"{target}.part", str(link), None)


def test_going_on_needs_a_journal(tmp_path: Path) -> None:
    """--resume without one begins; --retry-failed without one has nothing to retry."""
    with pytest.raises(CliError, match="need a journal: name it with --journal"):
        choose_files("in", None, None, selection=Selection(missing=True))
    choose_files("in", str(tmp_path / "a"), None, selection=Selection(missing=True))
    with pytest.raises(CliError, match="there is no journal"):
        choose_files("in", str(tmp_path / "a"), None, selection=Selection(missing=False, failed=True))


def test_going_on_and_starting_anew_contradict_each_other() -> None:
    """The safe reading is not guessed."""
    with pytest.raises(CliError, match="--overwrite starts anew: leave it out"):
        choose_files("in", "a", None, selection=Selection(missing=True), overwrite=True)


def test_expected_field_is_optional_unless_named() -> None:
    """A name that no row has is a slip of the pen, and the fields that there are help to find it."""
    assert choose_expected_field(None, Survey(3, {}, ("q",), 0)) is None
    assert choose_expected_field(None, Survey(3, {}, ("q",), 2)) == "expected"
    assert choose_expected_field("gold", Survey(3, {}, ("q",), 2)) == "gold"
    with pytest.raises(
        CliError, match="--expected-field 'gold': no row has this field; the first row has q, a"
    ):
        choose_expected_field("gold", Survey(3, {}, ("q", "a"), 0))


def test_session_field_that_no_row_has_is_refused() -> None:
    """Every row would fail for the same reason."""
    require_field("tenant", "--session-field", 1, Survey(3, {}, ("q",), 0))
    with pytest.raises(CliError, match="--session-field 'tenant': no row has this field"):
        require_field("tenant", "--session-field", 0, Survey(3, {}, ("q",), 0))


def test_two_rows_a_worker_are_in_flight() -> None:
    """One runs and one waits at the door, so that no worker idles and memory is bounded."""
    assert in_flight_limit(4) == 8


def test_settings_of_the_command_line_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """--set precedes the environment, which precedes the file."""
    file = tmp_path / "pool.toml"
    file.write_text("pool_size = 3\nretries = 1\nping_timeout = 1.5\n")
    monkeypatch.setenv("DSPEX_POOL_RETRIES", "2")
    monkeypatch.setenv("DSPEX_POOL_POOL_SIZE", "5")
    config = load_config(
        file=str(file), profile="dev", settings=["pool_size=7", "allow=a,b", "max_waiting=none"]
    )
    assert (config.pool_size, config.retries, config.ping_timeout, config.lazy) == (7, 2, 1.5, True)
    assert config.allow == ("a", "b")
    assert config.sources["pool_size"] == "argument"


def test_setting_that_cannot_be_is_refused() -> None:
    """Key, value and source are named."""
    cases: list[tuple[str, str]] = [
        ("pool_size", "write KEY=VALUE"),
        ("=3", "write KEY=VALUE"),
        ("pool_sise=3", "did you mean pool_size"),
        ("pool_size=many", r"pool_size = 'many' \(from --set pool_size\) is refused"),
    ]
    for text, message in cases:
        with case(text):
            with pytest.raises((CliError, InvalidConfigError), match=message):
                load_config(settings=[text])


def test_pool_is_fitted_to_the_run() -> None:
    """One caller that bounds its own work needs no guard against callers, and keeps away from a service's store."""
    config = PoolConfig(
        pool_size=2,
        max_overflow=3,
        max_waiting=0,
        codel_target=0.1,
        affinity="strict",
        session_store="sqlite:x.db",
        max_sessions=1,
        lazy=True,
        allow=("a",),
        retries=5,
        call_timeout=9.0,
        min_idle=1,
    )
    fitted = config_for_run(config, rows=100, sessions=30, timeout=None, workers=4, allow=("b",))
    assert (fitted.pool_size, fitted.max_overflow, fitted.floor) == (4, 0, 4)
    assert (fitted.max_waiting, fitted.codel_target, fitted.checkout_timeout) == (None, None, PATIENCE)
    assert (fitted.affinity, fitted.session_store, fitted.session_ttl) == ("hint", "memory", None)
    assert fitted.max_sessions == 31
    assert fitted.allow == ("a", "b")
    assert fitted.retries == 5


def test_pool_is_no_larger_than_the_rows() -> None:
    """One row needs one worker, and --retries precedes the settings."""
    fitted = config_for_run(PoolConfig(retries=2), rows=1, sessions=0, timeout=None, workers=8, retries=0)
    assert (fitted.pool_size, fitted.retries) == (1, 0)
    assert config_for_run(PoolConfig(), rows=0, sessions=0, timeout=None).pool_size == 1


@pytest.mark.parametrize(("timeout", "for_the_rest"), [(None, 60.0), (0.5, 60.0), (90.0, 90.0)])
def test_timeout_of_a_row_does_not_hurry_the_rest(timeout: float | None, for_the_rest: float) -> None:
    """Making a program known may have to import DSPy first, which takes longer than many a row may."""
    assert config_for_run(PoolConfig(), rows=1, sessions=0, timeout=timeout).call_timeout == for_the_rest


def test_timeout_of_a_row_must_be_a_duration() -> None:
    """Zero is refused before a worker starts; without --timeout the settings decide."""
    with pytest.raises(InvalidConfigError, match=r"call_timeout = 0.0 \(from --timeout\) is refused"):
        row_timeout(PoolConfig(), 0.0)
    assert row_timeout(PoolConfig(call_timeout=9.0), None) == 9.0
    assert row_timeout(PoolConfig(call_timeout=9.0), 1.5) == 1.5
