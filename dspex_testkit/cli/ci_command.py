"""``dspex-testkit ci``: the workflow file for a project that tests with the test kit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dspex_pool.errors import InvalidArgumentError
from dspex_testkit.fuzz.budget import seconds_of
from dspex_testkit.layers import LAYERS

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CiOrder", "github_workflow"]

#: Minutes after which a job counts as hung, and seconds that all tests of a layer may take together; 0 for no limit.
_BUDGETS: Final = {
    "fast": (10, 30),
    "protocol": (10, 60),
    "integration": (20, 300),
    "chaos": (30, 900),
    "stress": (60, 0),
}
#: Layers that only run at night, each with a seed of its own.
_NIGHT: Final = ("chaos", "stress")
#: Minutes that a fuzzing job may take beyond its budget: installing, and making the last failure small.
_FUZZ_SLACK: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class CiOrder:
    """What the workflow is to do."""

    #: Layers of which there are tests.
    layers: Sequence[str]
    #: What pip installs.
    install: str
    #: Version of Python.
    python: str
    #: Explored tests that are fuzzed at night; empty for none.
    fuzz: str
    #: For how long, as the fuzzer is told it.
    budget: str


def github_workflow(order: CiOrder) -> str:
    """Return the workflow: a job for each layer, chaos, stress and fuzzing at night, their reports kept.

    Raises:
        InvalidArgumentError: There is no such layer, the budget is no time, or a text cannot be quoted.
    """
    if unknown := [name for name in order.layers if name not in LAYERS]:
        raise InvalidArgumentError(f"no such layers: {', '.join(unknown)}; there are {', '.join(LAYERS)}")
    try:
        minutes = round(seconds_of(order.budget) / 60) + _FUZZ_SLACK
    except ValueError as error:
        raise InvalidArgumentError(str(error)) from None
    values = {"install": order.install, "python": order.python, "fuzz": order.fuzz}
    for name, text in values.items():
        if '"' in text or not text.isprintable():
            raise InvalidArgumentError(f"--{name}: {text!r} would break the quotes of the workflow file")
    # What is one word here must be one there.
    values["budget"] = "".join(order.budget.split())
    values["set_up"] = _SET_UP % values
    by_day = [name for name in LAYERS if name in order.layers and name not in _NIGHT]
    by_night = [name for name in _NIGHT if name in order.layers]
    parts = [_HEAD % values]
    if by_day:
        parts.append(_LAYERS % (values | _DAY | {"matrix": _matrix(by_day)}))
    if by_night:
        parts.append(_LAYERS % (values | _LATE | {"matrix": _matrix(by_night)}))
    if order.fuzz:
        parts.append(_FUZZ % (values | {"minutes": minutes}))
    return "\n".join(parts)


def _matrix(names: Sequence[str]) -> str:
    return "\n".join(
        f"          - { {'layer': name, 'minutes': _BUDGETS[name][0], 'budget': _BUDGETS[name][1]} }".replace(
            "'", ""
        )
        for name in names
    )


_HEAD: Final = """\
# Made by dspex-testkit ci --github; the layers as a matrix, each with its time limit and its budget in seconds.
name: tests
on:
  push:
  pull_request:
  schedule:
    - cron: "17 3 * * *"

permissions:
  contents: read

jobs:
"""

_SET_UP: Final = """\
      - uses: actions/checkout@v6
      - uses: actions/setup-python@v6
        with: { python-version: "%(python)s" }
      - run: python -m pip install "%(install)s"
"""

_UPLOAD: Final = """\
      - uses: actions/upload-artifact@v7
        if: always()
        with: { name: "%(name)s", path: out, if-no-files-found: ignore }
"""

#: One job for each layer of a matrix; ``condition`` and ``more`` are lines of the job and of its command.
_LAYERS: Final = """\
  %(job)s:
%(condition)s\
    runs-on: ubuntu-latest
    timeout-minutes: ${{ matrix.minutes }}
    strategy:
      fail-fast: false
      matrix:
        include:
%(matrix)s
    steps:
%(set_up)s\
      - run: >-
          python -m pytest -m ${{ matrix.layer }} --dspex-report=out/reports
          -o dspex_enforce_budgets=${{ matrix.layer }} -o dspex_layer_budget_${{ matrix.layer }}=${{ matrix.budget }}
%(more)s\
""" + _UPLOAD.replace("%(name)s", "${{ matrix.layer }}")

_DAY: Final = {"job": "layers", "condition": "", "more": ""}
_LATE: Final = {
    "job": "night",
    "condition": "    if: github.event_name == 'schedule'\n",
    "more": "          --dspex-seed=${{ github.run_number }}\n",
}

_FUZZ: Final = """\
  fuzz:
    if: github.event_name == 'schedule'
    runs-on: ubuntu-latest
    timeout-minutes: %(minutes)s
    steps:
%(set_up)s\
      - uses: actions/cache@v5
        with: { path: out/fuzz, key: "fuzz-${{ github.run_id }}", restore-keys: fuzz- }
      - run: dspex-testkit fuzz %(fuzz)s --budget %(budget)s --journal out/fuzz --seed ${{ github.run_number }}
""" + _UPLOAD.replace("%(name)s", "fuzz")
