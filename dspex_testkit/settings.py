"""What can be set about the pytest plugin, and what the plugin knows of one run."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from dspex_testkit.layers import LAYERS, FolderLayers
from dspex_testkit.seeds import SEED_VARIABLE, chosen_seed
from dspex_testkit.sites import Sites

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

__all__ = ["MOST_SECONDS", "State", "declare", "number_of", "seconds_of"]

#: Largest number of seconds, as for settings of the pool. The system's timers end not far above.
MOST_SECONDS: Final = 1e9
_RANGE: Final = f"a number from 0 to {MOST_SECONDS:.0f}"


def declare(parser: pytest.Parser) -> None:
    """Declare the options and the settings of the ini file."""
    text = f"Seed of what is drawn by chance, to replay a run (default: {SEED_VARIABLE}, else drawn)."
    parser.getgroup("dspex", "layers and seeds").addoption("--dspex-seed", type=int, metavar="N", help=text)
    parser.addini("dspex_layers", "Layer of the tests in a folder, lines 'folder = layer'.", "linelist", [])
    parser.addini("dspex_strict_layers", "Refuse tests without a layer (default: false).", "bool", False)
    text = "With -m, do not even read folders whose layer was not asked for (default: false)."
    parser.addini("dspex_trust_folders", text, "bool", False)
    text = (
        "Layers that fail when they, or one of their tests, are over budget; or true for all (default: none)."
    )
    parser.addini("dspex_enforce_budgets", text, "args", [])
    text = "Factor over a budget at which a test or a layer fails (default: 3)."
    parser.addini("dspex_budget_slack", text, "float", 3.0)
    text = "Seconds that a fast test may really sleep in sum (default: 0.05)."
    parser.addini("dspex_sleep_budget", text, "float", 0.05)
    for layer in LAYERS.values():
        unit = "CPU seconds" if layer.counts_cpu else "seconds"
        text = f"Budget of one {layer.name} test in {unit} (default: {layer.budget}; 0 for none)."
        parser.addini(f"dspex_budget_{layer.name}", text, "float", layer.budget)
        text = f"Budget of all {layer.name} tests in {unit}, start-up included (default: 0 for none)."
        parser.addini(f"dspex_layer_budget_{layer.name}", text, "float", 0.0)


@dataclass
class State:
    """What the plugin knows of one pytest run."""

    folders: FolderLayers
    is_strict: bool
    trusts_folders: bool
    #: Names of the layers that fail over budget.
    enforced: frozenset[str]
    #: Budget of one test by layer.
    budgets: dict[str, float]
    #: Budget of all tests by layer.
    layer_budgets: dict[str, float]
    slack: float
    sleep_budget: float
    root: Path
    #: Names the project's lines.
    sites: Sites
    #: What is drawn by chance in this run is drawn from it.
    seed: int
    #: Threads that were there before the first test.
    ignored_threads: frozenset[int] = frozenset()
    #: Forbidden modules that a collector was the first to import, by its node id.
    imports: dict[str, set[str]] = field(default_factory=dict)
    #: Number of collected items by layer, before anything was deselected.
    collected: Counter[str] = field(default_factory=Counter)
    #: Why the run fails although its tests passed.
    verdicts: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, config: pytest.Config) -> Self:
        """Read the settings.

        Raises:
            ValueError: A line of ``dspex_layers`` is malformed or names no folder, a name is no layer's, or a number
                is none.
        """
        folders = FolderLayers.parse(config.getini("dspex_layers"))
        folders.check_below(config.rootpath)
        return cls(
            folders=folders,
            is_strict=_flag(config, "dspex_strict_layers"),
            trusts_folders=_flag(config, "dspex_trust_folders"),
            enforced=_enforced(config.getini("dspex_enforce_budgets")),
            budgets={name: number_of(config, f"dspex_budget_{name}") for name in LAYERS},
            layer_budgets={name: number_of(config, f"dspex_layer_budget_{name}") for name in LAYERS},
            slack=number_of(config, "dspex_budget_slack"),
            sleep_budget=number_of(config, "dspex_sleep_budget"),
            root=config.rootpath,
            sites=Sites(config.rootpath),
            seed=chosen_seed(config.getoption("--dspex-seed"), os.environ),
        )

    @property
    def is_used(self) -> bool:
        """Whether this project uses the test kit; the plugin is loaded in every run of the environment."""
        return bool(self.folders.folders)


def _enforced(names: list[str]) -> frozenset[str]:
    # Of TOML's own booleans pytest makes a text with a capital.
    said = [name.lower() for name in names]
    if said in ([], ["false"]):
        return frozenset()
    if said == ["true"]:
        return frozenset(LAYERS)
    if unknown := set(names) - LAYERS.keys():
        known = ", ".join(LAYERS)
        raise ValueError(
            f"dspex_enforce_budgets: {sorted(unknown)} are no layers (true, false, or some of {known})"
        )
    return frozenset(names)


def number_of(config: pytest.Config, name: str) -> float:
    """Return a setting that is a number.

    Raises:
        ValueError: It is none, or out of range.
    """
    value = _read(config, name, _RANGE)
    if not _is_in_range(value):
        raise _refusal(name, f"{value:g}", _RANGE)
    return float(value)


def _flag(config: pytest.Config, name: str) -> bool:
    return bool(_read(config, name, "true or false"))


def _read(config: pytest.Config, name: str, kind: str) -> Any:
    try:
        return config.getini(name)
    except Exception as error:
        # Which it is depends on pytest's version; both show the value alone.
        raise _refusal(name, _text_of(error), kind) from None


def _text_of(error: Exception) -> str:
    """Return the value that pytest could not convert, which its message ends with: quoted, or after its type."""
    text = str(error)
    typed = re.search(r" got \w+: (.*)\Z", text, re.DOTALL)
    return typed[1].strip("'") if typed else text.partition("'")[2].rpartition("'")[0]


def _refusal(name: str, value: object, kind: str) -> ValueError:
    return ValueError(f"{name} = {value} is refused: it must be {kind}")


def seconds_of(item: pytest.Item, name: str) -> float | None:
    """Return what the closest marker ``name(seconds)`` says, or ``None`` without one.

    Raises:
        ValueError: It is given something else than one number of seconds; says what.
    """
    mark = item.get_closest_marker(name)
    if mark is None:
        return None
    given = (*mark.args, *mark.kwargs.values())
    if len(given) == 1 and mark.kwargs.keys() <= {"seconds"} and _is_in_range(given[0]):
        return float(given[0])
    words = ", ".join([*map(repr, mark.args), *(f"{key}={value!r}" for key, value in mark.kwargs.items())])
    raise ValueError(f"{item.nodeid}: {name}({words}) must be {name}(seconds), {_RANGE}")


def _is_in_range(seconds: object) -> bool:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return False
    return 0 <= seconds <= MOST_SECONDS
