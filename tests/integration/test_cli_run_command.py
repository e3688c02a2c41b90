"""The whole of ``dspex-pool run`` on a fake pool: options in, output, journal, summary and exit status out."""

from __future__ import annotations

import inspect
import io
import json
import os
import select
import signal
import sys
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from dspex_pool.cli.problems import CliError, ExitCode, exit_code_of
from dspex_pool.cli.recorder import write_lines
from dspex_pool.cli.run import RowReply
from dspex_pool.cli.run_command import RunOptions, run_command
from dspex_pool.errors import CircuitOpenError, InvalidConfigError, ProgramError
from tests.cases import case
from tests.integration.cli_shell import signals_as_before

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from dspex_pool.cli.execution import Plan
    from dspex_pool.config import PoolConfig

pytestmark = pytest.mark.integration

SIGNATURE = "q -> a"


class FakePool:
    """Answers every row with its question in capitals; some rows do what the test wants."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.sessions: list[str] = []
        self.configs: list[PoolConfig] = []
        self.plans: list[Plan] = []
        self.on_row: dict[str, Callable[[], Any]] = {}
        self.on_open: Callable[[Callable[[str], None]], Any] = lambda _on_restart: None

    @asynccontextmanager
    async def open(
        self, plan: Plan, config: PoolConfig, on_restart: Callable[[str], None]
    ) -> AsyncIterator[FakePool]:
        self.plans.append(plan)
        self.configs.append(config)
        self.on_open(on_restart)
        yield self

    async def begin_session(self, session_id: str) -> None:
        self.sessions.append(session_id)

    async def end_session(self, session_id: str) -> None:
        self.sessions.remove(session_id)

    async def run_row(self, session_id: str, inputs: Mapping[str, Any]) -> RowReply:
        await trio.lowlevel.checkpoint()
        question = inputs["q"]
        self.asked.append(question)
        said = self.on_row.get(question, lambda: None)()
        if inspect.isawaitable(said):
            await said
        if isinstance(said, Exception):
            raise said
        return RowReply({"a": question.upper()}, "w-1", 1, 0.01)


class Shop:
    """One input, one output and a pool."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pool = FakePool()
        self.write(
            {"id": name, "q": name, "expected": name, "t": name[0]} for name in ("a1", "a2", "b1", "b2")
        )

    @property
    def output(self) -> Path:
        return self.folder / "answers.jsonl"

    @property
    def journal(self) -> Path:
        return self.folder / "answers.jsonl.journal"

    def write(self, rows: Any) -> None:
        (self.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(self, **options: Any) -> ExitCode:
        """Run with ``options`` over the defaults."""
        given = {
            "program": SIGNATURE,
            "input": str(self.folder / "rows.jsonl"),
            "output": str(self.output),
            **options,
        }
        return run_command(RunOptions(**given), self.pool.open)

    def answers(self) -> dict[str, Any]:
        """Return the rows of the output by id, each of which is there once."""
        rows = [json.loads(line) for line in self.output.read_text().splitlines()]
        assert len({row["id"] for row in rows}) == len(rows)
        return {row["id"]: row for row in rows}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Four rows of two tenants."""
    return Shop(tmp_path)


def test_run_answers_every_row(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """Output in the order of the input, a table on stderr, nothing on stdout, status 0."""
    assert shop.run() == ExitCode.OK
    assert list(shop.answers()) == ["a1", "a2", "b1", "b2"]
    assert shop.answers()["a2"] == {
        "id": "a2",
        "outputs": {"a": "A2"},
        "error": None,
        "attempts": 1,
        "worker_id": "w-1",
        "duration_s": 0.01,
    }
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "4 of 4 (100.0 %)" in shown.err


def test_run_uses_one_session_for_all_unless_told(shop: Shop) -> None:
    """With --session-field each tenant has one, and it is ended after its last row."""
    shop.run()
    assert shop.pool.sessions == ["anonymous"]
    shop.pool.sessions.clear()
    shop.run(session_field="t", overwrite=True)
    assert shop.pool.sessions == ["anonymous"]
    assert shop.pool.plans[1].survey.sessions == {"a": 2, "b": 2}


def test_run_fits_the_pool(shop: Shop) -> None:
    """Options reach the pool's settings."""
    shop.run(
        workers=2, timeout=1.5, retries=3, allow=("x",), set_=("ping_timeout=2",), lm="openai/m", quiet=True
    )
    config = shop.pool.configs[0]
    assert (config.pool_size, config.retries, config.ping_timeout) == (2, 3, 2.0)
    assert shop.pool.plans[0].row_timeout == 1.5
    assert config.allow == ("x",)
    assert shop.pool.plans[0].lm.label == "openai/m"


def test_failed_rows_are_records_and_the_status_is_1(shop: Shop) -> None:
    """--retry-failed runs them alone; then everything is answered."""
    shop.pool.on_row["a2"] = lambda: ProgramError("no", worker_id="w-9", type="ValueError")
    assert shop.run() == ExitCode.FAILED
    assert shop.answers()["a2"]["error"] == {"type": "ValueError", "message": "no"}
    shop.pool.asked.clear()
    shop.pool.on_row.clear()
    assert shop.run(retry_failed=True) == ExitCode.OK
    assert shop.pool.asked == ["a2"]
    assert list(shop.answers()) == ["a1", "a2", "b1", "b2"]


def test_second_run_is_refused_before_anything_is_touched(shop: Shop) -> None:
    """--overwrite starts anew."""
    shop.run()
    before = shop.output.read_bytes(), shop.journal.read_bytes()
    with pytest.raises(CliError, match="exists: go on with --resume"):
        shop.run()
    assert (shop.output.read_bytes(), shop.journal.read_bytes()) == before
    assert shop.run(overwrite=True) == ExitCode.OK


def test_pool_that_is_gone_leaves_a_run_that_can_be_resumed(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is done is in the output; what is not stays missing; --resume runs it and no more."""
    shop.pool.on_row["b1"] = lambda: CircuitOpenError("no worker starts")
    with pytest.raises(ExceptionGroup) as caught:
        shop.run(workers=1)
    assert exit_code_of(caught.value) == ExitCode.NO_POOL
    done = list(shop.answers())
    assert "b1" not in done
    missing = 4 - len(done)
    assert (
        f"{missing} of 4 rows are missing; the same command with --resume runs them"
        in capsys.readouterr().err
    )
    shop.pool.on_row.clear()
    shop.pool.asked.clear()
    assert shop.run(resume=True) == ExitCode.OK
    assert len(shop.pool.asked) == missing
    assert list(shop.answers()) == ["a1", "a2", "b1", "b2"]


def test_run_that_did_nothing_leaves_nothing(shop: Shop) -> None:
    """The next one needs no --overwrite."""
    for name in ("a1", "a2", "b1", "b2"):
        shop.pool.on_row[name] = lambda: CircuitOpenError("no worker starts")
    with pytest.raises(ExceptionGroup):
        shop.run()
    assert [path.name for path in shop.folder.iterdir()] == ["rows.jsonl"]
    shop.pool.on_row.clear()
    assert shop.run() == ExitCode.OK


def test_retry_that_did_nothing_keeps_the_records_of_the_failed_rows(shop: Shop) -> None:
    """Of an earlier run in which every row failed; its journal was removed, and could not be retried again."""
    for name in ("a1", "a2", "b1", "b2"):
        shop.pool.on_row[name] = lambda: ProgramError("no", worker_id="w-9", type="ValueError")
    assert shop.run() == ExitCode.FAILED
    before = shop.answers()
    for name in ("a1", "a2", "b1", "b2"):
        shop.pool.on_row[name] = lambda: CircuitOpenError("no worker starts")
    with pytest.raises(ExceptionGroup):
        shop.run(retry_failed=True)
    assert shop.answers() == before
    shop.pool.on_row.clear()
    assert shop.run(retry_failed=True) == ExitCode.OK


@pytest.mark.parametrize("opens", [True, False])
def test_run_that_did_nothing_keeps_what_it_was_to_overwrite(shop: Shop, opens: bool) -> None:
    """A pool that could not start cost the journal of the earlier run: --resume ran, and paid for, all rows again."""
    shop.run(workers=1)
    before = shop.output.read_bytes(), shop.journal.read_bytes()
    if not opens:
        shop.pool.on_open = no_pool
    for row in ("a1", "a2", "b1", "b2"):
        shop.pool.on_row[row] = lambda: CircuitOpenError("no worker starts")
    with pytest.raises(ExceptionGroup):
        shop.run(overwrite=True)
    assert (shop.output.read_bytes(), shop.journal.read_bytes()) == before
    shop.pool.asked.clear()
    assert shop.run(resume=True) == ExitCode.OK
    assert shop.pool.asked == []


def no_pool(_on_restart: object) -> None:
    """Fail to open."""
    raise CircuitOpenError("no worker starts")


def test_resume_with_nothing_left_starts_no_pool(shop: Shop) -> None:
    """The output is written again from the journal."""
    shop.run()
    shop.output.unlink()
    assert shop.run(resume=True) == ExitCode.OK
    assert len(shop.pool.plans) == 1
    assert list(shop.answers()) == ["a1", "a2", "b1", "b2"]


def test_output_that_could_not_be_written_is_by_resume_and_no_row_is_run_again(shop: Shop) -> None:
    """What the error promises: the journal has it all."""
    beside = shop.folder / "answers.jsonl.part"
    beside.mkdir()
    with pytest.raises(CliError, match="from which the same command with --resume writes it"):
        shop.run()
    beside.rmdir()
    shop.pool.asked.clear()
    assert shop.run(resume=True) == ExitCode.OK
    assert len(shop.answers()) == 4
    assert shop.pool.asked == []


def test_resume_without_an_earlier_run_begins(shop: Shop) -> None:
    """So that a script may always say --resume."""
    assert shop.run(resume=True) == ExitCode.OK
    assert len(shop.pool.asked) == 4


@pytest.mark.parametrize(
    ("change", "options", "word"),
    [
        (True, {}, "input"),
        (False, {"program": "q -> b"}, "program"),
        (False, {"lm": "openai/x"}, "language model"),
    ],
)
def test_resume_of_something_else_is_refused(
    shop: Shop, change: bool, options: dict[str, Any], word: str
) -> None:
    """One clear error, and the earlier results stay."""
    shop.run()
    if change:
        shop.write([{"id": "new", "q": "new"}])
    before = shop.output.read_bytes()
    with pytest.raises(CliError, match=f"belongs to another {word}"):
        shop.run(resume=True, **options)
    assert shop.output.read_bytes() == before


def test_wrong_input_is_refused_before_the_pool_starts(shop: Shop) -> None:
    """Bad JSON on line 3 costs nothing, and neither journal nor output is begun."""
    (shop.folder / "rows.jsonl").write_text('{"q": "a"}\n{"q": "b"}\n{"q": \n')
    with pytest.raises(CliError, match=r"rows.jsonl line 3, column 7: not valid JSON"):
        shop.run()
    assert shop.pool.plans == []
    assert [path.name for path in shop.folder.iterdir()] == ["rows.jsonl"]


def test_wrong_option_is_refused(shop: Shop) -> None:
    """Before the pool starts."""
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"session_field": "tenant"}, CliError, "--session-field 'tenant': no row has this field"),
        ({"expected_field": "gold"}, CliError, "--expected-field 'gold': no row has this field"),
        ({"program": "m:f"}, CliError, "allow its module with --allow"),
        ({"module": "guess"}, CliError, "'guess' is unknown: use predict"),
        ({"resume": True, "output": None}, CliError, "need a journal"),
        ({"profile": "fast"}, InvalidConfigError, "profile"),
        ({"timeout": -1.0}, InvalidConfigError, "call_timeout"),
    ]
    for options, error, text in cases:
        with case(options, error):
            with pytest.raises(error, match=text):
                shop.run(**options)
            assert shop.pool.plans == []


def test_factory_gets_the_fields_that_have_no_other_meaning(shop: Shop) -> None:
    """Id, session and expectation are not handed to it."""
    assert shop.run(program="m:f", allow=("m",), session_field="t") == ExitCode.OK
    assert shop.pool.plans[0].job(2).no_inputs == {"id", "t", "expected"}


def test_restarts_are_counted_by_reason(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """And said as they happen, with --verbose."""

    def two_deaths(on_restart: Callable[[str], None]) -> None:
        on_restart("died")
        on_restart("died")

    shop.pool.on_open = two_deaths
    shop.run(verbose=True)
    shown = capsys.readouterr().err
    assert "died 2" in shown
    assert "a worker was replaced: died" in shown


def test_quiet_run_says_nothing(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither progress nor summary."""
    assert shop.run(quiet=True) == ExitCode.OK
    assert capsys.readouterr() == ("", "")


def test_first_interruption_drains_and_leaves_a_run_that_can_be_resumed(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    """130, the rows that ran are in the output, --resume runs the others."""
    shop.write({"id": f"r{n}", "q": f"r{n}"} for n in range(30))

    async def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)
        # The row runs still when the signal is taken.
        await trio.testing.wait_all_tasks_blocked()

    shop.pool.on_row["r2"] = interrupt
    with signals_as_before():
        assert shop.run(workers=1) == ExitCode.INTERRUPTED
    done = list(shop.answers())
    assert "r2" in done
    assert len(done) < 30
    assert "stopping: no new rows, waiting for" in capsys.readouterr().err
    shop.pool.on_row.clear()
    shop.pool.asked.clear()
    assert shop.run(resume=True) == ExitCode.OK
    assert sorted([*done, *shop.pool.asked]) == sorted(f"r{n}" for n in range(30))


def test_standard_output_gets_rows_as_they_are_finished(shop: Shop, capfdbinary: Any) -> None:
    """One line each, and no file is written."""
    assert shop.run(output=None) == ExitCode.OK
    rows = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert sorted(row["id"] for row in rows) == ["a1", "a2", "b1", "b2"]
    assert [path.name for path in shop.folder.iterdir()] == ["rows.jsonl"]


def test_standard_output_may_be_a_pipe_that_does_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program may have made it so; a reader that is slower than the rows ended the run."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    lines = [bytes([65 + number]) * 50_000 + b"\n" for number in range(6)]
    got: list[bytes] = []
    with open(read, "rb") as reader, open(write, "w") as stdout:  # noqa: PTH123 - descriptors

        def read_when_full() -> None:
            while select.select([], [write], [], 0)[1]:
                pass
            got.append(reader.read(sum(map(len, lines))))

        monkeypatch.setattr("sys.stdout", stdout)
        thread = threading.Thread(target=read_when_full, daemon=True)
        thread.start()
        write_lines(lines)
        thread.join(10)
        monkeypatch.undo()
    assert got == [b"".join(lines)]


def test_standard_output_of_a_resumed_run_has_every_row_once(shop: Shop, capfdbinary: Any) -> None:
    """What an earlier run recorded comes first."""
    journal = str(shop.folder / "j")
    shop.pool.on_row["b2"] = lambda: ProgramError("no")
    shop.run(output="-", journal=journal)
    capfdbinary.readouterr()
    shop.pool.on_row.clear()
    assert shop.run(output="-", journal=journal, retry_failed=True) == ExitCode.OK
    rows = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [(row["id"], row["error"]) for row in rows] == [(name, None) for name in ("a1", "a2", "b1", "b2")]


class Gone(io.RawIOBase):
    """A standard output whose reader has left, or whose disk is full."""

    def __init__(self, error: OSError) -> None:
        self.error = error
        self.buffer = self

    def write(self, _data: Any) -> int:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code"),
    [(BrokenPipeError(), ExitCode.BROKEN_PIPE), (OSError(28, "No space left on device"), ExitCode.USAGE)],
)
def test_reader_that_left_ends_the_run(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, error: OSError, code: ExitCode
) -> None:
    """Nobody pays for answers that nobody reads."""
    monkeypatch.setattr(sys, "stdout", Gone(error))
    with pytest.raises(ExceptionGroup) as caught:
        shop.run(output=None)
    assert exit_code_of(caught.value) == code
