"""The example of a project that uses the test kit: copied out of here, with an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.test_workflows import load

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
CONSUMER = ROOT / "examples" / "consumer"

#: Tests in each of its layers.
TESTS = {"fast": 3, "protocol": 3, "integration": 3, "chaos": 1, "stress": 1}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project in a folder of its own, with a new environment that has the packages of this one.

    ``make consumer`` installs them instead, from the registry.
    """
    folder = tmp_path_factory.mktemp("consumer") / "project"
    shutil.copytree(CONSUMER, folder, ignore=shutil.ignore_patterns("__pycache__", ".*cache"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=folder, check=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(folder / ".venv")})
    paths = [str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]
    Path(packages, "installed.pth").write_text("\n".join(paths), encoding="utf-8")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("layer", TESTS)
def test_layer_of_a_consumer_passes(layer: str, project: Path) -> None:
    """Each layer holds its tests, and they pass, with nothing of ours around them but what is installed."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "DSPEX"))
    }
    done = subprocess.run(
        [str(project / ".venv" / "bin" / "python"), "-m", "pytest", "-p", "no:cacheprovider", "-m", layer],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{TESTS[layer]} passed" in done.stdout


def test_consumer_is_as_short_as_is_said() -> None:
    """Its tests in all layers take less than sixty lines."""
    lines = (CONSUMER / "tests" / "test_wordbook.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 60


def test_consumers_workflow_runs_every_layer() -> None:
    """Its matrices name each layer once, and it needs no more than the kit."""
    jobs = load(CONSUMER / ".github" / "workflows" / "tests.yml")["jobs"]
    named = [row["layer"] for job in jobs.values() for row in job["strategy"]["matrix"]["include"]]
    assert sorted(named) == sorted(TESTS)
    project = tomllib.loads((CONSUMER / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["optional-dependencies"]["test"] == ["dspex-pool[testkit]"]
