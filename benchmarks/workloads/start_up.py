"""I: how long it takes to begin."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from benchmarks.contenders.raw_worker import read_frame
from benchmarks.figures import Metric
from benchmarks.tasks import HANDLER
from benchmarks.workloads.workload import Settings, Workload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from benchmarks.workloads.workload import Round

__all__ = ["FIRST_ANSWER", "StartUp", "ask_worker"]

ROOT = Path(__file__).resolve().parents[2]
_REQUEST = b'{"id":1,"command":"echo","args":{"value":1},"timestamp":""}'

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


def ask_worker() -> None:
    """Start a worker, have one answer of it, and see it end."""
    command = [sys.executable, "-m", "dspex_pool.bridge", "--mode", "pool-worker", "--handler", HANDLER]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(struct.pack(">I", len(_REQUEST)) + _REQUEST)
        assert b'"success":true' in bytes(read_frame(worker.stdout.fileno()))


class StartUp(Workload):
    """The time from the start of a process; of the worker, to the bytes of its answer and its end."""

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
            begin()
            return {"elapsed": time.perf_counter() - began, "CPU": _cpu_of_children() - before}

        yield measure


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
