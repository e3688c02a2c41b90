"""Wrong input from a real shell: one line that says what and where, a documented status, nothing lost."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from dspex_pool.transport.run_tag import RUN_TAG_VARIABLE
from tests.integration.cli_shell import HANDLER, Shell

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

RUN = ("run", "q -> a", "rows.jsonl", "-o", "answers.jsonl")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A folder of its own, with one good row."""
    shell = Shell(tmp_path)
    shell.write([{"id": "a", "q": "one"}])
    return shell


def the_error(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one error line of a run that failed, and see that there is no traceback."""
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((*RUN, "--wrokers", "4"), "--wrokers"),
        (
            ("run", "q -> a", "missing.jsonl"),
            "cannot read the input 'missing.jsonl': No such file or directory",
        ),
        (("run", "q -> a", "bad.jsonl"), "bad.jsonl line 7, column 7: not valid JSON"),
        ((*RUN, "--module", "guess"), "--module 'guess' is unknown: use predict, chain_of_thought"),
        ((*RUN, "--set", "pool_size=0"), "pool_size = '0' (from --set pool_size) is refused"),
        ((*RUN, "--config", "missing.toml"), "missing.toml"),
        (("run", "q: wrong -> a", "rows.jsonl"), "unknown type 'wrong'"),
        (("run", "no:thing", "rows.jsonl"), "allow its module with --allow"),
        ((*RUN, "--resume", "--overwrite"), "--overwrite starts anew"),
    ],
)
def test_wrong_command_line_is_one_line(shell: Shell, arguments: tuple[str, ...], text: str) -> None:
    """Status 2, before any worker starts and before any file is written."""
    (shell.folder / "bad.jsonl").write_text('{"q": 1}\n' * 6 + '{"q": \n')
    before = sorted(path.name for path in shell.folder.iterdir())
    done = shell(*arguments)
    assert done.returncode == 2
    assert text in the_error(done)
    assert sorted(path.name for path in shell.folder.iterdir()) == before


def test_factory_that_does_not_exist_is_one_line(shell: Shell) -> None:
    """The worker finds out; it is one error and not one a row."""
    shell.write({"q": str(n)} for n in range(20))
    done = shell(
        "run", "nowhere:build", "rows.jsonl", "-o", "answers.jsonl", "--allow", "nowhere", "--workers", "1"
    )
    assert done.returncode == 2, done.stderr
    assert "the program 'nowhere:build' cannot be built" in the_error(done)
    assert not shell.journal.exists()
    assert not shell.output.exists()


def test_worker_command_that_does_not_exist_is_one_line(shell: Shell) -> None:
    """Status 3, at once."""
    done = shell(*RUN, "--set", 'command=["/no/such/worker"]', seconds=20)
    assert done.returncode == 3, done.stderr
    assert "/no/such/worker" in the_error(done)


def test_handler_that_runs_no_programs_is_one_line(shell: Shell) -> None:
    """It was an unknown command, of which the user had never heard, and the status of a pool that cannot start."""
    done = shell(*RUN, "--set", "handler=dspex_testkit.children.echo:EchoHandler", "--workers", "1")
    assert done.returncode == 2, done.stderr
    assert the_error(done) == (
        "error: the workers run no programs (Unknown command: configure_lm): "
        "leave the setting handler or command out, or name a handler that serves what DSPy's does"
    )


def test_worker_that_leaves_at_start_is_one_line_with_its_last_words(shell: Shell) -> None:
    """Status 3, at once; the reason is what the worker wrote last."""
    script = "import sys; print('no licence found', file=sys.stderr); sys.exit(3)"
    command = json.dumps([sys.executable, "-c", script])
    done = shell(*RUN, "--set", f"command={command}", seconds=20)
    assert done.returncode == 3, done.stderr
    assert "no licence found" in the_error(done)
    assert "exit status 3" in the_error(done)


def test_verbose_adds_the_traceback(shell: Shell) -> None:
    """For reports of defects."""
    done = shell(*RUN, "--set", 'command=["/no/such/worker"]', "--verbose", seconds=20)
    assert done.returncode == 3
    assert "Traceback" in done.stderr
    assert done.stderr.rstrip().splitlines()[-1].startswith("error: ")


def test_rows_that_do_not_fit_are_records_beside_the_others(shell: Shell) -> None:
    """NaN, a missing input, a missing session and one of ten megabytes: each fails alone, named."""
    (shell.folder / "rows.jsonl").write_text(
        '{"id": "nan", "t": "x", "q": NaN}\n'
        '{"id": "missing", "t": "x"}\n'
        '{"id": "homeless", "q": "one"}\n'
        '{"id": "long", "q": "one", "t": "' + "x" * 10_000_000 + '"}\n'
        '{"id": "good", "t": "x", "q": "one"}\n'
    )
    done = shell(*RUN, "--session-field", "t", "--workers", "1", *HANDLER)
    assert done.returncode == 1, done.stderr
    rows = {row["id"]: row for row in shell.answers()}
    assert rows["good"]["outputs"] == {"a": "ONE"}
    messages = {name: row["error"]["message"] for name, row in rows.items() if row["error"]}
    assert re.match(r"row 'nan' \(line 1\): q is nan", messages["nan"])
    assert re.match(
        r"row 'missing' \(line 2\): .* misses the input 'q'; its inputs are q", messages["missing"]
    )
    assert re.match(r"row 'homeless' \(line 3\) has no session: 't'", messages["homeless"])
    assert "session" in messages["long"]
    assert max(map(len, messages.values())) <= 2000
    assert len(done.stderr) < 10_000


def test_doctor_finds_a_working_pool(shell: Shell) -> None:
    """Every line ok, and a real worker has answered."""
    done = shell("doctor", "--json")
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout)
    assert found["ok"]
    worker = found["findings"][-1]
    assert worker["check"] == "worker"
    assert worker["facts"]["versions"]["python"]
    assert 0 < worker["facts"]["handshake_s"] < 10


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("import sys; print('no licence found', file=sys.stderr); sys.exit(3)", "no licence found"),
        ("import time; time.sleep(60)", "said nothing within 0.5 s"),
    ],
)
def test_doctor_names_a_worker_that_does_not_work(shell: Shell, script: str, text: str) -> None:
    """Status 1, and the reason."""
    command = json.dumps([sys.executable, "-c", script])
    done = shell("doctor", "--set", f"command={command}", "--set", "spawn_timeout=0.5")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("fail")
    assert text in done.stdout


def test_doctor_says_that_a_worker_does_not_leave(shell: Shell) -> None:
    """It is killed in the end, which may cost a moment at every shutdown."""
    script = (
        "import os, sys, time; from dspex_pool.bridge.__main__ import main\n"
        "if os.fork(): time.sleep(60)\n"
        "else: sys.argv = ['bridge', '--mode', 'pool-worker', '--worker-id', 'w']; main()"
    )
    command = json.dumps([sys.executable, "-c", script])
    done = shell("doctor", "--set", f"command={command}", "--set", "terminate_grace=0.2")
    assert done.returncode == 0, done.stdout
    assert "did not leave when its stdin ended" in done.stdout


def test_doctor_finds_workers_that_outlived_their_pool(shell: Shell) -> None:
    """With the command that ends them; it is a warning."""
    environment = {**shell.environment, RUN_TAG_VARIABLE: "1-1000000000.00"}
    with subprocess.Popen(["sleep", "60"], env=environment) as orphan:
        try:
            done = shell("doctor", "--json")
        finally:
            orphan.kill()
    found = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found["orphans"]["level"] == "warn"
    assert orphan.pid in found["orphans"]["facts"]["pids"]


@pytest.mark.parametrize(
    ("streams", "text"),
    [
        (">&-", "the standard output is closed: name a file with -o"),
        ("<&-", "the standard input is closed: name a file"),
    ],
)
def test_closed_standard_stream_is_one_line(shell: Shell, streams: str, text: str) -> None:
    """Nothing is run whose answers nobody could get."""
    done = shell.script(
        f"""{shell.words("run", "q -> a", "-" if "<" in streams else "rows.jsonl")} {streams}"""
    )
    assert done.returncode == 2
    assert the_error(done) == f"error: {text}"


def test_closed_stderr_spoils_no_file(shell: Shell) -> None:
    """The next file opened would get its number, and all messages with it."""
    done = shell.script(f"{shell.words(*RUN, *HANDLER)} 2>&-")
    assert done.returncode == 0
    assert [row["id"] for row in shell.answers()] == ["a"]
    assert shell.journal.read_bytes().count(b"\n") == 2


def test_help_is_quick(shell: Shell) -> None:
    """Neither trio nor rich nor msgspec nor the pool is loaded for it."""
    # As the entry point does it; what was imported is out of the collector's sight, or it takes a tenth longer.
    code = (
        "import gc, sys, dspex_pool.cli; sys.argv = ['dspex-pool', '--help']\n"
        "try: dspex_pool.cli.main()\n"
        "except SystemExit: print(*sys.modules) if gc.get_freeze_count() > len(gc.get_objects()) else None"
    )
    loaded = set(shell.python(code).split())
    assert "dspex_pool.cli.app" in loaded
    assert not loaded & {
        "trio",
        "rich",
        "msgspec",
        "psutil",
        "dspy",
        "dspex_pool.config",
        "dspex_pool.worker",
    }
