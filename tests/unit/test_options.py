"""How worker processes are to be started."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from dspex_pool.errors import InvalidConfigError
from dspex_pool.protocol.environment import PATH_VARIABLE
from dspex_pool.transport.options import SubprocessOptions, default_worker_command
from dspex_pool.transport.run_tag import RUN_TAG_VARIABLE, own_run_tag
from tests.cases import case

pytestmark = pytest.mark.fast


def test_default_command_is_the_bridge_in_this_interpreter() -> None:
    """Without options, this interpreter runs the bridge as a pool worker."""
    expected = [sys.executable, "-m", "dspex_pool.bridge", "--mode", "pool-worker", "--worker-id", "w-1"]
    assert default_worker_command("w-1") == expected
    assert SubprocessOptions().command_for("w-1") == expected


def test_default_command_carries_the_options_of_the_bridge() -> None:
    """Interpreter, handler, allowed factories and the frame limit reach the worker."""
    options = SubprocessOptions(
        python="/opt/python3", handler="a.b:C", allow=("x.", "y:"), max_frame_bytes=1000
    )
    command = options.command_for("w-2")
    assert command[0] == "/opt/python3"
    rest = ["--handler", "a.b:C", "--allow", "x.", "--allow", "y:", "--max-frame-bytes", "1000"]
    assert command[-8:] == rest


def test_command_is_given_the_worker_id_where_it_asks_for_it() -> None:
    """The placeholder is replaced in every word; other words stay as they are."""
    options = SubprocessOptions(command=["worker", "--name={worker_id}", "{other}"])
    assert options.command_for("w-3") == ["worker", "--name=w-3", "{other}"]


def test_environment_is_the_parents_over_defaults_under_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user has set, here or in the parent, is stronger than the defaults."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    env = SubprocessOptions(env={"MKL_NUM_THREADS": "5", "EXTRA": "x"}).environment()
    assert env["OMP_NUM_THREADS"] == "3"
    assert env["MKL_NUM_THREADS"] == "5"
    assert env["OPENBLAS_NUM_THREADS"] == "1"
    assert env["LITELLM_LOCAL_MODEL_COST_MAP"] == "true"
    assert env["EXTRA"] == "x"
    assert env["PATH"]


def test_environment_names_the_nearest_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a worker that runs a pool itself, the inherited tag is replaced."""
    monkeypatch.setenv(RUN_TAG_VARIABLE, "1-2.00")
    assert SubprocessOptions().environment()[RUN_TAG_VARIABLE] == own_run_tag()


def test_bridge_of_this_interpreter_alone_is_told_where_the_program_finds_modules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Places of another Python's program, or without a fixed meaning, are not passed on."""
    monkeypatch.setattr(sys, "path", ["", "here", "/of/the:program", "/of/the/program", "/lib"])
    assert SubprocessOptions().places() == {PATH_VARIABLE: os.pathsep.join(["/of/the/program", "/lib"])}
    assert SubprocessOptions(python="/opt/python3").places() == {}
    assert SubprocessOptions(command=["worker"]).places() == {}


def test_places_that_cannot_be_told_cost_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``sys.path`` may hold, and imports ignore, is left out; so is a path longer than a variable may be.

    Each start failed with "argument of type 'PosixPath' is not iterable", or with "Argument list too long".
    """
    monkeypatch.setattr(sys, "path", [Path("/a/path"), b"/bytes", None, "/nul\0", "/odd\ud800", "/lib"])
    assert SubprocessOptions().places() == {PATH_VARIABLE: "/lib"}
    monkeypatch.setattr(sys, "path", [f"/archives/{number:0100}.whl" for number in range(1200)])
    assert SubprocessOptions().places() == {}


@pytest.mark.parametrize("unknown", [None, ""])
def test_program_that_does_not_know_its_interpreter_is_told_what_to_set(
    unknown: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Python is embedded, ``sys.executable`` is empty: no worker can be started with it.

    Each start failed with "expected str, bytes or os.PathLike object, not NoneType".
    """
    monkeypatch.setattr(sys, "executable", unknown)
    with pytest.raises(InvalidConfigError, match=r"python is None.*sys\.executable") as caught:
        SubprocessOptions()
    assert caught.value.key == "python"
    assert SubprocessOptions(python="/opt/python3").command_for("w-1")[0] == "/opt/python3"
    assert SubprocessOptions(command=["worker"]).command_for("w-1") == ["worker"]


def test_option_out_of_range_is_refused_by_name() -> None:
    """A wrong option is refused before anything starts, with its name and what is allowed."""
    cases: list[tuple[str, Any]] = [
        ("command", "python worker.py"),
        ("command", ()),
        ("command", ["nice", 5]),
        ("nice", 20),
        ("nice", -21),
        ("limit_address_space", 0),
        ("limit_cpu_seconds", -1),
        ("limit_open_files", 0),
        ("max_frame_bytes", 0),
        ("stderr_tail_bytes", -1),
    ]
    for key, value in cases:
        with case(key, value):
            with pytest.raises(InvalidConfigError, match=key) as caught:
                SubprocessOptions(**{key: value})
            assert (caught.value.key, caught.value.value) == (key, value)
            assert caught.value.allowed
