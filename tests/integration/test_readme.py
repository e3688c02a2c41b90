"""What the README and the pages of ``docs/`` show is run: programs, commands, and what is said of others."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.documents import README, ROOT, Block, blocks_of, commands, documents

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

#: Programs that are shown, in order, by document. A later one may use what an earlier one is saved as.
PROGRAMS = {path: blocks_of(path, "python") for path in documents() if blocks_of(path, "python")}

#: What each program of the README prints.
PRINTS = [
    "It reaches the sea in Egypt.\n",
    "{'answer': 'Water boils at 100 degrees at sea level.'}\n",
    "{'answer': 'Water boils at 100 degrees at sea level.'}\n",
    r"call_stop w-1 after 0\.\d{3} s\n1 healthy, 1 commands\n",
    r"(?s).*4 passed in .*",
]


def is_test(block: Block) -> bool:
    """Tell whether a block is for pytest."""
    return re.search(r"^((async )?def test_|class Test)", block.text, re.MULTILINE) is not None


def run_python(blocks: list[Block], folder: Path) -> str:
    """Run a program, or tests that stand one after the other, in ``folder``.

    A block that names a file in its first line is saved under that name, for those that follow.

    Raises:
        AssertionError: It failed, wrote to stderr, or left a temporary file.
    """
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    scripts = []
    for block in blocks:
        named = re.match(r"# file: (\S+)\n", block.text)
        script = folder / (named[1] if named else f"test_block_{block.line}.py")
        script.write_text(block.text, encoding="utf-8")
        scripts += [] if named else [script.name]
    if not scripts:
        return ""
    # One run for all tests of a page: each start of pytest takes a second or two.
    runner = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:faker"] if is_test(blocks[0]) else []
    done = subprocess.run(
        [sys.executable, *runner, *scripts],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"{blocks[0]}\n{done.stdout}\n{done.stderr}"
    # What pytest keeps of its last runs is no program's.
    assert [path for path in temporary.iterdir() if not path.name.startswith("pytest-of-")] == [], blocks[0]
    return done.stdout


def runs_of(blocks: list[Block]) -> list[list[Block]]:
    """Return the blocks as they are run: programs alone, tests with those that follow them."""
    runs: list[list[Block]] = []
    for block in blocks:
        if runs and is_test(block) and is_test(runs[-1][-1]) and not block.text.startswith("# file:"):
            runs[-1].append(block)
        else:
            runs.append([block])
    return runs


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_programs_run(path: Path, tmp_path: Path) -> None:
    """Every Python program of a document runs as it stands, in order; those of the README print what they should."""
    printed = [run_python(blocks, tmp_path) for blocks in runs_of(PROGRAMS[path])]
    if path == README:
        assert len(printed) == len(PRINTS)
        for text, expected in zip(printed, PRINTS, strict=True):
            assert text == expected or re.fullmatch(expected, text), text


def test_first_program_prints_what_is_shown_below_it() -> None:
    """The block of text below the smallest program is its output."""
    assert [block.text for block in blocks_of(README, "text")] == PRINTS[:1]


def masked(text: str) -> list[str]:
    """Return the lines of an output with the figures masked that differ from run to run, and without its widths.

    How often progress is told between the first row and the last depends on the machine.
    """
    text = re.sub(r"(?m)^dspex-pool: (?!0/)(\d+)/(?!\1 )\d+ rows.*\n", "", text)
    text = re.sub(r"\d+\.\d{3}", "S", text)
    text = re.sub(r"(rows a second) +\S+|\d+\.\d rows/s", r"\1 R", text)
    lines = (re.sub(r" +", " ", line).strip(" ─") for line in text.splitlines())
    return [line for line in lines if line]


def test_run_prints_what_is_shown(tmp_path: Path) -> None:
    """The command behind ``make run`` answers all questions; its summary is the one in the README, times apart."""
    block = next(block for block in blocks_of(README, "console") if block.text.startswith("$ make run\n"))
    shown = masked(block.text)
    line = next(line for line in shown if line.startswith(".venv/bin/dspex-pool run "))
    assert line in (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(BIN)", ".venv/bin")
    words = [sys.executable, "-m", "dspex_pool.cli", *shlex.split(line)[1:]]
    words[words.index("-o") + 1] = str(tmp_path / "answers.jsonl")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert masked(done.stderr + done.stdout)[1:] == shown[shown.index(line) + 2 :]
    assert len((tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()) == 231


def test_commands_are_understood() -> None:
    """Every ``dspex-pool`` command line that is shown has only arguments and options that exist."""
    import typer

    from dspex_pool.cli.app import app

    lines = [words[1:] for words in commands() if words[0] == "dspex-pool"]
    assert {words[0] for words in lines} >= {"run", "doctor"}
    group = typer.main.get_command(app)
    for words in lines:
        context = group.make_context("dspex-pool", words[:1])
        _, command, _ = group.resolve_command(context, words)  # type: ignore[attr-defined] # it is a group
        command.make_context(words[0], words[1:])


#: What the README says of the standard library's pool, one word each if it is so.
OTHER_POOL = """
import os, signal, sys, time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

def crash():
    os.kill(os.getpid(), signal.SIGKILL)

def nap(seconds):
    time.sleep(seconds)
    return os.getpid()

def is_broken(act):
    try:
        return not act()
    except BrokenProcessPool:
        return True

if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        pool.submit(nap, 0.01).result()
        innocent = pool.submit(nap, 5)
        pool.submit(crash)
        print("innocent" * is_broken(innocent.result), "useless" * is_broken(lambda: pool.submit(nap, 0)))
    with ProcessPoolExecutor(1) as pool:
        slow = pool.submit(nap, 0.5)
        try:
            slow.result(timeout=0.2)
        except TimeoutError:
            print("taken" * slow.running(), "stuck" * (not slow.cancel()), flush=True)
    pool = ProcessPoolExecutor(1)
    print(pool.submit(nap, 0.01).result(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_is_said_of_the_standard_librarys_pool_is_so(tmp_path: Path) -> None:
    """A crash fails the innocent and breaks the pool, a timeout frees nothing, and workers outlive their parent."""
    script = tmp_path / "other_pool.py"
    script.write_text(OTHER_POOL, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as program:
        assert program.stdout is not None
        lines = [program.stdout.readline().split() for _ in range(3)]
        program.wait(timeout=20)
        program.stdout.close()
    orphan = psutil.Process(int(lines[2][0]))
    try:
        assert lines[:2] == [["innocent", "useless"], ["taken", "stuck"]]
        time.sleep(0.5)  # it could leave, and does not
        assert orphan.is_running()
        assert orphan.ppid() != program.pid
    finally:
        orphan.kill()
