"""A project of explored tests that all fail, each by a claim of its own, and what its failures look like."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Failure", "fail_all", "replay", "replay_many", "write_project"]

TESTS = '''
import random, zlib
import pytest
from dspex_testkit.simulation.explore import explore
from dspex_testkit.simulation.faults import swarm

pytestmark = pytest.mark.chaos


@pytest.mark.parametrize("number", range({first}, {first} + {count}))
@explore(seeds=50, faults=swarm(), cancel="everywhere", pool_size=2, shrink_seconds={seconds})
async def test_claim(world, number):
    """A claim that does not hold, drawn from the number."""
    numbers = random.Random(number)
    outcomes = await world.run(clients=numbers.randint(2, 10), calls=numbers.randint(10, 40))
    kind = numbers.choice(["answer", "cancelled", "own error", "WorkerDiedError", "CallTimeoutError"])
    claim = number % 4
    if claim == 0:
        limit = numbers.randint(1, 4) if kind == "answer" else 1
        count = outcomes.count(kind)
        assert count < limit
    elif claim == 1:
        order = [outcome.call.number for outcome in outcomes if outcome.kind == "answer"]
        code = zlib.crc32(repr(order[-4:]).encode()) % 3
        assert code, order
    elif claim == 2:
        steps = [entry[2:] for entry in world.log if entry[1] == "lent"]
        code = zlib.crc32(repr(steps).encode()) % 3
        assert code, steps
    else:
        late = max(outcome.ended for outcome in outcomes)
        limit = numbers.choice([4.0, 8.0])
        assert late < limit
'''

CONFTEST = """
import json, os
import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    if call.when == "call":
        error = call.excinfo.value if call.excinfo else None
        story = [type(error).__name__, str(error), getattr(error, "__notes__", [""])[-1]]
        with open(os.environ["DSPEX_STORIES"], "a", encoding="utf-8") as stories:
            stories.write(json.dumps([item.nodeid, *story]) + "\\n")
    return (yield)
"""

#: Forks have the hash seed of the process that they are forked from, which has imported all and run no test.
REPLAY_MANY = """
import gc, json, os, sys
import pytest

assert not pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider"])
gc.freeze()
for nodeid, token in json.load(sys.stdin):
    if not (fork := os.fork()):
        pytest.main([nodeid, "--dspex-replay=" + token, "-q", "-p", "no:cacheprovider"])
        os._exit(0)
    assert os.waitpid(fork, 0)[1] == 0
"""


#: Each costs every process a part of its start-up.
OTHERS_PLUGINS = " ".join(f"-p no:{name}" for name in ("faker", "hypothesispytest", "trio"))


class Failure(NamedTuple):
    """How a test has failed."""

    #: The class of its error.
    kind: str
    #: The text of its error.
    text: str
    #: The line by which it is repeated.
    line: str

    @property
    def token(self) -> str:
        """What stands for the run."""
        return self.line.rpartition("--dspex-replay=")[2]


def write_project(folder: Path, count: int, *, first: int = 0, shrink_seconds: float = 0.1) -> None:
    """Write ``count`` tests that fail, numbered from ``first``: each number is another claim."""
    text = TESTS.format(first=first, count=count, seconds=shrink_seconds)
    (folder / "test_claims.py").write_text(text)
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "replay_many.py").write_text(REPLAY_MANY)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = " + OTHERS_PLUGINS)


def fail_all(folder: Path, *, hash_seed: int) -> dict[str, Failure]:
    """Run all tests in a process of their own, and return how each has failed, by its name."""
    return _run(folder, ["-m", "pytest", "-q", "-p", "no:cacheprovider"], hash_seed)


def replay(folder: Path, failure: Failure, *, hash_seed: int) -> Failure:
    """Type the line of a failure into a fresh process, and return how that failed."""
    words = shlex.split(failure.line.removeprefix("replay: "))
    (again,) = _run(folder, ["-m", *words, "-p", "no:cacheprovider"], hash_seed).values()
    return again


def replay_many(
    folder: Path, failures: Iterable[tuple[str, Failure]], *, hash_seed: int
) -> dict[str, Failure]:
    """Repeat failures one after the other, each in a pytest run and a process of its own, forked from a fresh one."""
    tokens = json.dumps([(name, failure.token) for name, failure in failures])
    return _run(folder, ["replay_many.py"], hash_seed, tokens)


def _run(folder: Path, arguments: list[str], hash_seed: int, text: str = "") -> dict[str, Failure]:
    stories = folder / "stories.jsonl"
    stories.unlink(missing_ok=True)
    environ = os.environ | {"PYTHONHASHSEED": str(hash_seed), "DSPEX_STORIES": str(stories)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environ, input=text, capture_output=True, text=True
    )
    assert stories.exists(), done.stdout + done.stderr
    told = [json.loads(line) for line in stories.read_text(encoding="utf-8").splitlines()]
    return {name: Failure(*story) for name, *story in told}
