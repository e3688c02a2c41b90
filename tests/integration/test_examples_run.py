"""The examples run as they are, say what they should, and leave no worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dspex_pool.transport.run_tag import RUN_TAG_VARIABLE

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"

#: What each example prints, as pieces of its output in any order.
SAYS = {
    "quickstart": ["It reaches the sea in Egypt.\n"],
    "own_handler": [
        "deepest lake on Earth: At about 1,640 metres it is the deepest lake on Earth.\n",
        "unfrozen fresh water of the world: It holds roughly a fifth of the world's unfrozen fresh water.\n",
        "killed by signal 11",
    ],
    "evaluate": [
        "Do you crash? worker w-",
        "killed by signal 11",
        "Do you hang? worker w-",
        "did not answer 'execute_program'",
        "88.1 % right; failed: {",
        "'WorkerDiedError': 1",
        "'CallTimeoutError': 1",
    ],
}

#: Modules that examples load; they are no programs.
PARTS = {"own_handler_worker", "flaky_program"}


def workers_of(pid: int) -> list[psutil.Process]:
    """Return the processes that a pool in process ``pid`` has started and that still run."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(RUN_TAG_VARIABLE, "").startswith(f"{pid}-"):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


@pytest.mark.parametrize("name", SAYS)
def test_example_runs_as_it_is(name: str, tmp_path: Path) -> None:
    """The program ends well wherever it is started, with what it promises on stdout and nothing on stderr."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        output, errors = program.communicate(timeout=30)
    assert (program.returncode, errors) == (0, "")
    assert not [piece for piece in SAYS[name] if piece not in output], output
    assert workers_of(program.pid) == []


def test_every_example_is_run() -> None:
    """A new example gets its line in the table."""
    programs = {path.stem for path in EXAMPLES.glob("*.py")} - PARTS
    assert programs == SAYS.keys()
