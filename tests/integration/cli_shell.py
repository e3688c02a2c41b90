"""A shell for the tests of the command line: real processes, rows that do what a test wants, and a trace."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from dspex_pool.cli.signals import CODES
from dspex_pool.transport.run_tag import RUN_TAG_VARIABLE
from tests.bounded_waits import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["HANDLER", "Shell", "signals_as_before", "wait_until"]

ROOT = Path(__file__).resolve().parents[2]

#: The setting that has rows answered by ``OBEDIENT`` instead of DSPy, which takes a second to import.
HANDLER = ("--set", "handler=obedient:Obedient")

#: A handler whose rows are orders: how long to sleep, and how to end. Each run of a row leaves a trace.
OBEDIENT = """
import os, signal, time
from pathlib import Path
from dspex_pool.bridge.handler import Handler, command


class Obedient(Handler):
    @command
    def configure_lm(self, args):
        return {"status": "configured", "model": args["model"], "provider": "none", "temperature": None}

    @command
    def load_program(self, args):
        return {"program_id": args["program_id"], "status": "loaded"}

    @command
    def create_program(self, args):
        return {"program_id": args["id"], "status": "created", "signature": "q -> a", "program_type": "predict"}

    @command
    def cleanup_session(self, args):
        return {"status": "cleaned", "session_id": args.get("session_id"), "programs_removed": 1}

    @command
    def execute_program(self, args):
        order = args["inputs"]["q"]
        with open("trace", "a") as trace:
            trace.write(f"{order} {os.getpid()} {args['session_id'][:40]}\\n")
        name, _, rest = order.partition(":")
        if name == "sleep":
            time.sleep(float(rest.partition(" ")[0]))
        elif name == "raise":
            raise ValueError(rest)
        elif name == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif name == "die-once" and not Path("died").exists():
            Path("died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"program_id": args["program_id"], "outputs": {"a": order.upper()}, "execution_time": 0.0}
"""


@contextmanager
def signals_as_before() -> Iterator[None]:
    """Give the signals that stop a command back to this process: one that was stopped ignores them."""
    before = {number: signal.getsignal(number) for number in CODES}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Shell:
    """A folder to work in, and the command to run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "obedient.py").write_text(OBEDIENT)
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("DSPEX_POOL_")
        }
        self.environment["PYTHONPATH"] = str(ROOT)

    @property
    def output(self) -> Path:
        return self.folder / "answers.jsonl"

    @property
    def journal(self) -> Path:
        return self.folder / "answers.jsonl.journal"

    def write(self, rows: Iterable[Any], name: str = "rows.jsonl") -> None:
        """Write the input."""
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def command(self, *arguments: str) -> list[str]:
        """Return the words of the command."""
        return [sys.executable, "-m", "dspex_pool.cli", *arguments]

    def __call__(
        self, *arguments: str, stdin: str = "", seconds: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def words(self, *arguments: str) -> str:
        """Return the command as a line of a shell script."""
        return shlex.join(self.command(*arguments))

    def script(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line in ``sh``."""
        return subprocess.run(
            ["sh", "-c", line],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def python(self, code: str) -> str:
        """Run Python code and return what it printed."""
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True
        ).stdout

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Run the command while the block does, and end it with the block."""
        with subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def answers(self) -> list[dict[str, Any]]:
        """Return the rows of the output."""
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    def recorded(self) -> int:
        """Return how many rows the journal has."""
        return max(0, self.journal.read_bytes().count(b"\n") - 1) if self.journal.exists() else 0

    def wait_recorded(self, rows: int) -> None:
        """Wait until the journal has that many rows."""
        wait_until(lambda: self.recorded() >= rows, f"{rows} rows are recorded")

    def trace(self) -> list[list[str]]:
        """Return what was run: the order, the process that ran it, the session."""
        path = self.folder / "trace"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.rsplit(" ", 2) for line in lines]

    def workers(self, run: int) -> list[psutil.Process]:
        """Return the living workers of the run with process id ``run``."""
        found = []
        for process in psutil.process_iter():
            try:
                tag = process.environ().get(RUN_TAG_VARIABLE, "")
                if tag.startswith(f"{run}-") and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found
