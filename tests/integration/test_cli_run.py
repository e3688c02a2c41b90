"""``dspex-pool run`` with real worker processes."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.bounded_waits import wait_until
from tests.integration.cli_shell import HANDLER, Shell

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

FACTS = "The Nile flows north. Its delta lies in Egypt. Ships do not pass the cataracts."


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A folder of its own."""
    return Shell(tmp_path)


def question(number: int, **fields: Any) -> dict[str, Any]:
    """Make a row for the extractive engine."""
    row = {
        "id": f"q-{number}",
        "context": FACTS,
        "question": "Where does the delta lie?",
        "expected": "egypt",
    }
    return {**row, "tenant": f"t-{number % 2}", **fields}


def test_rows_are_answered_by_dspy_in_worker_processes(shell: Shell) -> None:
    """The main job: every row once, in the order of the input, with the summary on stderr."""
    shell.write(question(number) for number in range(12))
    done = shell(
        *("run", "context, question -> answer", "rows.jsonl", "-o", "out/answers.jsonl"),
        *("--workers", "2", "--session-field", "tenant", "--timeout", "10"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    rows = [json.loads(line) for line in (shell.folder / "out/answers.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"q-{number}" for number in range(12)]
    assert {row["outputs"]["answer"] for row in rows} == {"Its delta lies in Egypt."}
    assert {tuple(row) for row in rows} == {("id", "outputs", "error", "attempts", "worker_id", "duration_s")}
    assert all(row["worker_id"] and row["attempts"] == 1 and row["error"] is None for row in rows)
    assert "12 of 12 (100.0 %)" in done.stderr


def test_table_goes_in_and_standard_output_comes_out(shell: Shell) -> None:
    """A filter between two others: CSV on stdin, JSON lines on stdout, numbers where the signature wants them."""
    table = "id,q\na,one\nb,two\n"
    done = shell("run", "q -> a", "-", "--format", "csv", "--workers", "1", "--quiet", *HANDLER, stdin=table)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = sorted((json.loads(line) for line in done.stdout.splitlines()), key=lambda row: str(row["id"]))
    assert [(row["id"], row["outputs"]) for row in rows] == [("a", {"a": "ONE"}), ("b", {"a": "TWO"})]


def test_factory_and_saved_program_are_programs(shell: Shell) -> None:
    """Code of one's own from the allow-list, and what dump_program gives."""
    (shell.folder / "bots.py").write_text(
        "import dspy\n\n\ndef build():\n    return dspy.ChainOfThought('context, question -> answer')\n"
    )
    program = {
        "definition": {"signature": "context, question -> answer", "program_type": "predict"},
        "state": None,
    }
    (shell.folder / "saved.json").write_text(json.dumps(program))
    shell.write([question(1)])
    for named, options in (("bots:build", ("--allow", "bots")), ("saved.json", ())):
        done = shell("run", named, "rows.jsonl", "--session-field", "tenant", "--quiet", *options)
        assert done.returncode == 0, done.stderr + done.stdout
        assert json.loads(done.stdout)["outputs"]["answer"] == "Its delta lies in Egypt."


def test_row_that_fails_is_a_record_and_is_retried_alone(shell: Shell) -> None:
    """Status 1 and the reason in the output; --retry-failed runs that row and no other."""
    shell.write([{"q": "one"}, {"q": "raise:no such thing"}, {"q": "three"}])
    run = ("run", "q -> a", "rows.jsonl", "-o", "answers.jsonl", "--workers", "1", *HANDLER)
    done = shell(*run)
    assert done.returncode == 1, done.stderr
    assert [row["id"] for row in shell.answers()] == [1, 2, 3]
    assert shell.answers()[1]["error"]["type"] == "ValueError"
    assert "no such thing" in shell.answers()[1]["error"]["message"]
    done = shell(*run, "--retry-failed")
    assert done.returncode == 1, done.stderr
    assert [line[0] for line in shell.trace()].count("one") == 1
    assert [line[0] for line in shell.trace()].count("raise:no such thing") == 2


def test_row_whose_worker_dies_is_run_again_on_another(shell: Shell) -> None:
    """With --retries; the summary tells of the restart and of the second attempt."""
    shell.write([{"q": "die-once"}, {"q": "two"}])
    done = shell(
        "run", "q -> a", "rows.jsonl", "-o", "answers.jsonl", "--workers", "1", "--retries", "2", *HANDLER
    )
    assert done.returncode == 0, done.stderr
    assert [row["attempts"] for row in shell.answers()] == [2, 1]
    assert len({line[1] for line in shell.trace() if line[0] == "die-once"}) == 2
    assert re.search(r"retried +1 ", done.stderr)
    assert re.search(r"worker restarts +died 1 ", done.stderr)


def test_rows_survive_workers_that_are_killed(shell: Shell) -> None:
    """With --retries, whoever kills workers while they run costs time and not one row."""
    shell.write({"id": n, "q": f"sleep:0.03 {n}", "t": f"t{n % 5}"} for n in range(150))
    run = ("run", "q -> a", "rows.jsonl", "-o", "answers.jsonl", "--session-field", "t", "--retries", "3")
    dice = random.Random(4)
    with shell.started(*run, "--workers", "3", *HANDLER) as process:
        for wanted in range(10, 100, 15):
            shell.wait_recorded(wanted)
            for victim in dice.sample(shell.workers(process.pid), 1):
                victim.kill()
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert [row["id"] for row in shell.answers()] == list(range(150))
    assert re.search(r"worker restarts +.*died", err)
    assert shell.workers(process.pid) == []


def test_row_whose_worker_dies_is_a_record_without_retries(shell: Shell) -> None:
    """Nothing that may have been paid for is run twice unasked."""
    shell.write([{"q": "die:"}, {"q": "two"}])
    done = shell("run", "q -> a", "rows.jsonl", "-o", "answers.jsonl", "--workers", "1", *HANDLER)
    assert done.returncode == 1, done.stderr
    dead, well = shell.answers()
    assert dead["error"]["type"] == "WorkerDiedError"
    assert dead["attempts"] == 1
    assert dead["worker_id"]
    assert well["error"] is None


def test_row_that_takes_too_long_is_a_record(shell: Shell) -> None:
    """With --timeout; the rows after it are answered."""
    shell.write([{"q": "sleep:60"}, {"q": "two"}])
    done = shell(
        "run", "q -> a", "rows.jsonl", "-o", "answers.jsonl", "--workers", "1", "--timeout", "0.3", *HANDLER
    )
    assert done.returncode == 1, done.stderr
    slow, well = shell.answers()
    assert slow["error"]["type"] == "CallTimeoutError"
    assert well["error"] is None


def test_interruption_drains_and_the_run_goes_on_later(shell: Shell) -> None:
    """Ctrl-C: rows that run are finished, 130; --resume runs the others; none runs twice."""
    shell.write({"id": f"r{n}", "q": f"sleep:0.05 {n}"} for n in range(120))
    run = ("run", "q -> a", "rows.jsonl", "-o", "answers.jsonl", "--workers", "2", *HANDLER)
    with shell.started(*run) as process:
        shell.wait_recorded(6)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "stopping: no new rows, waiting for" in err
    assert "the same command with --resume" in err
    assert "Traceback" not in err
    first = shell.answers()
    assert 6 <= len(first) < 120
    assert all(row["error"] is None for row in first)
    assert shell.workers(process.pid) == []
    done = shell(*run, "--resume")
    assert done.returncode == 0, done.stderr
    assert [row["id"] for row in shell.answers()] == [f"r{n}" for n in range(120)]
    assert len(shell.trace()) == 120


def test_interruption_while_the_input_is_read_ends_at_once(shell: Shell) -> None:
    """Nothing has begun, so there is nothing to drain."""
    with subprocess.Popen(
        shell.command("run", "q -> a", "-", "-o", "answers.jsonl"),
        cwd=shell.folder,
        env=shell.environment,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # The input is copied in blocks: once the first is taken, the command is reading.
        assert process.stdin is not None
        process.stdin.write('{"q": "one"}\n' * 20_000)
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=8)
    assert process.returncode == 130
    assert err == "error: interrupted\n"


def test_second_interruption_ends_at_once(shell: Shell) -> None:
    """Rows that would run for a minute do not hold up the shell, and no worker stays."""
    shell.write([{"q": "quick"}, *({"q": f"sleep:60 {n}"} for n in range(4))])
    run = ("run", "q -> a", "rows.jsonl", "-o", "answers.jsonl", "--workers", "2", *HANDLER)
    with shell.started(*run) as process:
        wait_until(lambda: len(shell.trace()) >= 3, "three rows have run")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        for line in process.stderr:
            if "waiting for" in line:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=8)
    assert process.returncode == 130, err
    assert shell.workers(process.pid) == []
    assert [row["id"] for row in shell.answers()] == [1]


def test_termination_drains_too(shell: Shell) -> None:
    """SIGTERM is the service manager's Ctrl-C: 143, and nothing that ran is lost."""
    shell.write({"q": f"sleep:0.2 {n}"} for n in range(50))
    run = ("run", "q -> a", "rows.jsonl", "-o", "answers.jsonl", "--workers", "2", *HANDLER)
    with shell.started(*run) as process:
        shell.wait_recorded(2)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=8)
    assert process.returncode == 143, err
    assert len(shell.answers()) == len(shell.trace())


def test_killed_run_goes_on_later(shell: Shell) -> None:
    """``kill -9``: its workers leave, and --resume gives an output with every row once."""
    shell.write({"id": n, "q": f"sleep:0.05 {n}"} for n in range(60))
    run = ("run", "q -> a", "rows.jsonl", "-o", "answers.jsonl", "--workers", "2", *HANDLER)
    with shell.started(*run) as process:
        shell.wait_recorded(6)
        process.kill()
        process.wait()
    wait_until(lambda: not shell.workers(process.pid), "its workers are gone", seconds=2.0)
    assert not shell.output.exists()
    known = shell.recorded()
    done = shell(*run, "--resume")
    assert done.returncode == 0, done.stderr
    assert [row["id"] for row in shell.answers()] == list(range(60))
    # At most the rows that were running, and those that a worker had answered unheard, ran twice.
    assert len(shell.trace()) <= 60 + 4
    assert known >= 6


def test_reader_that_leaves_ends_the_run_quietly(shell: Shell) -> None:
    """``dspex-pool run … | head -1`` stops paying for answers when nobody reads them."""
    shell.write({"q": f"sleep:0.05 {n}"} for n in range(200))
    with shell.started("run", "q -> a", "rows.jsonl", "--workers", "1", "--quiet", *HANDLER) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["error"] is None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(timeout=8)
    assert process.returncode == 141, err
    assert err == ""
    assert len(shell.trace()) < 200
