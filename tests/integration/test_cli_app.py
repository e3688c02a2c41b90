"""The command line itself: names, help, and one line for every slip of the pen."""

from __future__ import annotations

import ast
import inspect
import json
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

import dspex_pool.cli
from dspex_pool.cli import app as app_module
from dspex_pool.cli.app import app
from dspex_pool.cli.problems import ExitCode
from dspex_pool.cli.run_command import RunOptions
from tests.cases import case
from tests.integration.cli_shell import signals_as_before

pytestmark = pytest.mark.integration

#: What the help may load; everything else waits until a command needs it.
LOADED_AT_ONCE = {"typer", "dspex_pool.cli.options", "dspex_pool.cli.problems", "dspex_pool.errors"}


def shell(*arguments: str) -> tuple[int, str, str]:
    """Run the command and return its status, stdout and stderr."""
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stdout, result.stderr


def test_bare_command_lists_the_commands() -> None:
    """Nobody is left alone with an error."""
    code, out, _ = shell()
    assert code == 0
    assert all(name in out for name in ("run", "doctor", "config"))
    assert shell("--help")[:2] == (0, out)


def test_version_is_told() -> None:
    """For reports of defects."""
    code, out, _ = shell("--version")
    assert code == 0
    assert out.startswith("dspex-pool ")


def test_help_of_run_documents_every_exit_status() -> None:
    """Scripts rely on them."""
    _, out, _ = shell("run", "--help")
    for code in ExitCode:
        assert f"  {code.value} " in out, code
    for option in ("--session-field", "--resume", "--retry-failed", "--retries", "--overwrite", "--lm"):
        assert option in out


def test_help_says_that_retries_may_ask_twice() -> None:
    """A second call of the model is paid for twice."""
    _, out, _ = shell("run", "--help")
    assert "may then ask the model twice" in " ".join(out.split())


def test_slip_of_the_pen_is_one_line() -> None:
    """Status 2, one line on stderr that names what is wrong, and nothing on stdout."""
    cases: list[tuple[list[str], str]] = [
        (["run", "a -> b", "x.jsonl", "--wrokers", "4"], "--wrokers"),
        (["run", "a -> b"], "INPUT"),
        (["run", "a -> b", "x.jsonl", "--workers", "0"], "--workers"),
        (["run", "a -> b", "x.jsonl", "--workers", "many"], "--workers"),
        (["rum"], "rum"),
    ]
    for arguments, text in cases:
        with case(arguments):
            code, out, err = shell(*arguments)
            assert code == ExitCode.USAGE
            assert out == ""
            assert err.startswith("error: ")
            assert err.count("\n") == 1
            assert text in err


def test_options_of_run_are_those_of_the_command_line() -> None:
    """No option is dropped on the way from the shell to the plan."""
    parameters = set(inspect.signature(app_module.run).parameters) - {"context"}
    assert parameters == {field.name for field in fields(RunOptions)}


def test_options_that_may_be_repeated_become_tuples() -> None:
    """Given twice, once or never."""
    plain = {"program": "a -> b", "input": "x", "tool": None, "allow": ["m", "n"], "set_": None}
    assert (RunOptions.of(plain).allow, RunOptions.of(plain).set_) == (("m", "n"), ())
    assert RunOptions.of(plain).tool == ()


def test_run_hands_its_options_over(tmp_path: Path) -> None:
    """An input that does not exist is reported by the plan, in one line."""
    code, _, err = shell("run", "a -> b", str(tmp_path / "no.jsonl"), "--set", "pool_size=1")
    assert code == ExitCode.USAGE
    assert err == f"error: cannot read the input '{tmp_path / 'no.jsonl'}': No such file or directory\n"


def test_config_shows_values_with_their_sources() -> None:
    """As a table and as JSON."""
    code, out, _ = shell("config", "--set", "pool_size=9", "--profile", "dev")
    assert code == 0
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert lines["pool_size"] == ["9", "argument"]
    assert lines["lazy"] == ["true", "profile", "dev"]
    assert lines["min_idle"][0] == "none"
    rows = json.loads(shell("config", "--json")[1])
    assert {"key": "retries", "value": 0, "source": "default"}.items() <= {row["key"]: row for row in rows}[
        "retries"
    ].items()
    assert set(rows[0]) == {"key", "value", "source", "doc"}


def test_config_refuses_an_unknown_setting() -> None:
    """With the nearest known one."""
    code, _, err = shell("config", "--set", "pool_sise=9")
    assert code == ExitCode.USAGE
    assert "did you mean pool_size?" in err


def test_doctor_exits_with_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 if anything failed, and the findings are printed in any case."""
    from dspex_pool.cli import doctor, worker_probe

    monkeypatch.setattr(
        worker_probe, "probe_worker", lambda _config: doctor.Finding("worker", "fail", "dead")
    )
    code, out, _ = shell("doctor")
    assert code == ExitCode.FAILED
    assert out.splitlines()[-1] == "fail  worker       dead"


def test_traceback_is_shown_when_asked_for() -> None:
    """And only then."""
    assert "Traceback" not in shell("config", "--set", "x")[2]
    assert "Traceback" in shell("config", "--set", "x", "--verbose")[2]


def test_help_loads_nothing_heavy() -> None:
    """Only typer and two small modules of ours: trio, rich, msgspec and the pool wait until they are needed."""
    tree = ast.parse(Path(app_module.__file__).read_text())
    names = {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert names <= LOADED_AT_ONCE | {
        "sys",
        "typing",
        "typer.core",
        "dspex_pool.cli",
        "dspex_pool.cli.group",
        "dspex_pool.cli.problems",
    }


def test_entry_point_runs_the_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the installed script calls."""
    monkeypatch.setattr("sys.argv", ["dspex-pool", "--version"])
    with signals_as_before(), pytest.raises(SystemExit) as caught:
        dspex_pool.cli.main()
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("dspex-pool ")
