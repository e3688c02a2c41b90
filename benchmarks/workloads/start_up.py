"""I: how long it takes to begin."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.contenders.raw_worker import read_frame
from benchmarks.figures import Metric
from benchmarks.tasks import HANDLER
from benchmarks.workloads.workload import Settings, Workload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from benchmarks.workloads.workload import Round

__all__ = ["FIRST_ANSWER", "StartUp", "ask_worker"]

ROOT = Path(__file__).resolve().parents[2]

#: What is begun, as arguments of the interpreter.
_BEGUN: Mapping[str, Sequence[str]] = {
    "an empty interpreter": ("-c", ""),
    "import dspex_pool": ("-c", "import dspex_pool"),
    "import PythonPool from it": ("-c", "from dspex_pool import PythonPool"),
    "dspex-pool --help": ("-m", "dspex_pool.cli", "--help"),
    "dspex-pool run --help": ("-m", "dspex_pool.cli", "run", "--help"),
}
FIRST_ANSWER = "a worker to its first answer, without DSPy"


def _run(arguments: Sequence[str]) -> None:
    subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


def ask_worker(task: str = "echo", value: Any = 1) -> float:
    """Start a worker, ask it one thing, and see it end; return the seconds from its start to its answer."""
    command = [sys.executable, "-m", "dspex_pool.bridge", "--mode", "pool-worker", "--handler", HANDLER]
    asked = json.dumps({"id": 1, "command": task, "args": {"value": value}, "timestamp": ""}).encode()
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(struct.pack(">I", len(asked)) + asked)
        answer = bytes(read_frame(worker.stdout.fileno()))
        answered = time.perf_counter() - began
        assert b'"success":true' in answer
    return answered


class StartUp(Workload):
    """From the start of a process to its end; of the worker, to its answer. Processor time is of all of it."""

    letter = "I"
    title = "from the start of a process"
    metrics = (Metric("elapsed"), Metric("CPU"))
    cases: ClassVar[Mapping[str, Settings]] = {"with bytecode files": {}}
    subjects = (*_BEGUN, FIRST_ANSWER)
    reference = "an empty interpreter"
    rounds = 9

    @contextlib.asynccontextmanager
    async def prepare(self, subject: str, settings: Settings) -> AsyncIterator[Round]:
        """Run it once, so that files are read and compiled."""
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        begin = ask_worker if subject == FIRST_ANSWER else functools.partial(_run, _BEGUN[subject])
        begin()

        async def measure() -> dict[str, float]:
            began, before = time.perf_counter(), _cpu_of_children()
            answered = begin()
            elapsed = time.perf_counter() - began
            return {"elapsed": elapsed if answered is None else answered, "CPU": _cpu_of_children() - before}

        yield measure


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
