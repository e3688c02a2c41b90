"""The continuous integration and the Makefile speak of the same verbs."""

from __future__ import annotations

import importlib
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dspex_testkit.cli.app import app

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

#: Verbs with the sentence that bare ``make`` prints for each.
VERBS = dict(re.findall(r"^([a-z]+):.*?## (.+)$", MAKEFILE, re.MULTILINE))
VARIABLES = set(re.findall(r"^([A-Z]+) \?=", MAKEFILE, re.MULTILINE))
LAYERS = {"fast", "protocol", "integration", "chaos", "stress"}


def load(path: Path) -> dict[str, Any]:
    """Parse a workflow. PyYAML comes with dspy and has no types of its own."""
    parsed = importlib.import_module("yaml").safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(parsed, dict)
    return parsed


def steps(path: Path) -> list[dict[str, Any]]:
    """Return the steps of all jobs of a workflow."""
    return [step for job in load(path)["jobs"].values() for step in job["steps"]]


def runs_of(step: dict[str, Any]) -> list[str]:
    """Return the shell lines of a step, with a word in the place of each expression."""
    return re.sub(r"\$\{\{.*?\}\}", "expression", step.get("run", "")).splitlines()


def make_calls(path: Path) -> list[list[str]]:
    """Return the arguments of every ``make`` in the steps of a workflow."""
    lines = [line for step in steps(path) for line in runs_of(step)]
    return [shlex.split(line)[1:] for line in lines if line.split()[:1] == ["make"]]


def test_workflows_are_three() -> None:
    """A pull request, main and the night have a workflow each."""
    assert [path.stem for path in WORKFLOWS] == ["main", "nightly", "pull_request"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_names_only_verbs_that_exist(path: Path) -> None:
    """Every ``make`` of a workflow asks for a verb and for variables that the Makefile has."""
    calls = make_calls(path)
    assert calls
    for arguments in calls:
        variables = {argument.partition("=")[0] for argument in arguments if "=" in argument}
        assert {argument for argument in arguments if "=" not in argument} <= VERBS.keys()
        assert variables <= VARIABLES


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_is_bounded_and_pinned(path: Path) -> None:
    """Every job has a time limit, every action a major version, and the token may only read."""
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 60 for job in workflow["jobs"].values())
    used = [step["uses"] for step in steps(path) if "uses" in step]
    assert not [action for action in used if not re.fullmatch(r"actions/[a-z-]+@v\d+", action)]


def test_pull_requests_see_every_supported_python() -> None:
    """The matrix holds the versions that the project declares, on Linux and macOS."""
    declared = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    matrix = load(ROOT / ".github" / "workflows" / "pull_request.yml")["jobs"]["layers"]["strategy"]["matrix"]
    assert matrix["python"] == declared
    assert {system.partition("-")[0] for system in matrix["system"]} == {"ubuntu", "macos"}


def test_every_layer_is_a_verb_with_a_sentence() -> None:
    """Each layer can be run by its name, and bare ``make`` explains every verb in one line."""
    assert VERBS.keys() >= LAYERS | {"run", "test", "check", "format", "coverage", "clean", "install", "help"}
    assert all(len(sentence) <= 100 for sentence in VERBS.values())
    phony = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert set(phony.group(1).split()) == VERBS.keys()


def test_ci_runs_the_test_command_of_the_readme() -> None:
    """``.ci/run`` can be executed and does nothing but ``make test``, without input."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "exec make test </dev/null" in script.read_text(encoding="utf-8")


def test_night_runs_what_takes_time_and_keeps_what_it_found() -> None:
    """Chaos, stress and the planted bugs run every night; what chaos and stress report is always kept."""
    nightly = load(ROOT / ".github" / "workflows" / "nightly.yml")
    verbs = {call[0] for call in make_calls(ROOT / ".github" / "workflows" / "nightly.yml")}
    assert verbs >= {"fast", "integration", "chaos", "stress", "bugbench"}
    for name in ("chaos", "stress"):
        *_, run, upload = nightly["jobs"][name]["steps"]
        assert "--dspex-report=out/reports" in run["run"]
        assert upload["if"] == "always()"
        assert "matrix" in upload["with"]["name"]


def test_workflow_of_the_example_is_what_the_command_prints() -> None:
    """Its file says so, and its page too."""
    printed = CliRunner().invoke(app, ["ci", "--github"])
    kept = ROOT / "examples" / "consumer" / ".github" / "workflows" / "tests.yml"
    assert printed.output == kept.read_text(encoding="utf-8")


def test_printed_workflow_has_a_job_for_each_layer_and_keeps_their_reports(tmp_path: Path) -> None:
    """It is valid YAML: every layer once with time limit and budget, chaos, stress and fuzzing at night alone."""
    printed = CliRunner().invoke(app, ["ci", "--github", "--fuzz", "tests/test_pool.py", "--budget", "20m"])
    assert printed.exit_code == 0
    path = tmp_path / "tests.yml"
    path.write_text(printed.output, encoding="utf-8")
    jobs = load(path)["jobs"]
    assert list(jobs) == ["layers", "night", "fuzz"]
    rows = {name: jobs[name]["strategy"]["matrix"]["include"] for name in ("layers", "night")}
    assert [row["layer"] for row in rows["layers"]] == ["fast", "protocol", "integration"]
    assert [row["layer"] for row in rows["night"]] == ["chaos", "stress"]
    assert all(0 < row["minutes"] <= 60 and row["budget"] >= 0 for each in rows.values() for row in each)
    assert {name for name, job in jobs.items() if "schedule" in job.get("if", "")} == {"night", "fuzz"}
    assert jobs["fuzz"]["timeout-minutes"] == 35
    for job in jobs.values():
        *_, run, upload = job["steps"]
        assert ("python -m pytest -m" in run["run"]) != (
            "dspex-testkit fuzz tests/test_pool.py --budget 20m" in run["run"]
        )
        assert upload["if"] == "always()"
    options = set(re.findall(r" -o (dspex_\w+?)_\$", printed.output)) | set(
        re.findall(r"--dspex-\w+", printed.output)
    )
    assert options == {"dspex_layer_budget", "--dspex-report", "--dspex-seed"}


def test_workflow_for_unknown_layers_or_nobody_is_refused() -> None:
    """The layers that there are, and the one service that there is, are named in one line."""
    for words, said in (
        (["--github", "--layer", "slow"], "no such layers: slow; there are fast, protocol"),
        (["--github", "--budget", "long"], "a budget is a time such as"),
        ([], "--github is the only one"),
    ):
        result = CliRunner().invoke(app, ["ci", *words])
        assert result.exit_code == 2
        assert said in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--python", '3"'], "--python: '3\"' would break the quotes of the workflow file"),
        (["--install", "a\nb"], "--install: 'a\\nb' would break the quotes of the workflow file"),
    ],
)
def test_workflow_that_could_not_be_read_is_refused(words: list[str], said: str) -> None:
    """It was printed, and found out about by whoever reads the file."""
    printed = CliRunner().invoke(app, ["ci", "--github", *words])
    assert (printed.exit_code, printed.stdout) == (2, "")
    assert printed.stderr == f"error: {said}\n"


def test_budget_of_a_printed_workflow_is_one_word() -> None:
    """One with a space was two words of the fuzzer's command line, of which it took the second for a test."""
    printed = CliRunner().invoke(app, ["ci", "--github", "--fuzz", "tests/test_pool.py", "--budget", "20 m"])
    assert "dspex-testkit fuzz tests/test_pool.py --budget 20m --journal" in printed.stdout
