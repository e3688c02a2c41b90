"""Names, folders and selection of the layers."""

from __future__ import annotations

from pathlib import PurePath

import pytest

from dspex_testkit.layers import LAYERS, FolderLayers, selected_layers


def test_longest_folder_decides() -> None:
    """A deeper folder has its own layer; similar names are other folders."""
    folders = FolderLayers.parse(["tests = integration", "tests/unit=fast"])
    assert folders.layer_of(PurePath("tests/unit/deep/test_x.py")) == "fast"
    assert folders.layer_of(PurePath("tests/unitary/test_x.py")) == "integration"
    assert folders.layer_of(PurePath("docs/test_x.py")) is None


@pytest.mark.parametrize("line", ["tests/unit", "tests = quick", "= fast", "tests : fast"])
def test_unreadable_line_is_shown(line: str) -> None:
    """The error shows the line and the layers there are."""
    with pytest.raises(ValueError, match=r"not of the form.*fast, protocol") as info:
        FolderLayers.parse([line])
    assert line in str(info.value)


@pytest.mark.parametrize(
    ("expression", "layers"),
    [
        ("", []),
        ("fast", ["fast"]),
        ("fast or protocol", ["fast", "protocol"]),
        ("not chaos", []),
        ("fast and not slow", ["fast"]),
        ("slow and fast", ["fast"]),
        ("(chaos or stress) and not (slow or broken)", ["chaos", "stress"]),
        ("not (fast or protocol)", []),
        ("fast and protocol", []),
        ("slow(reason='x') or fast", ["fast"]),
        ("slow", []),
        ("fast or (", []),
        ("fast + slow", []),
    ],
)
def test_expression_asks_for_the_layers_that_it_names_in_the_positive(
    expression: str, layers: list[str]
) -> None:
    """A layer is asked for if its mark can be what makes a test match."""
    assert selected_layers(expression) == layers


def test_only_fast_counts_cpu_time() -> None:
    """Waiting is what the other layers are for."""
    assert [layer.name for layer in LAYERS.values() if layer.counts_cpu] == ["fast"]
    assert [layer.name for layer in LAYERS.values() if layer.forbidden_modules] == ["fast", "protocol"]
