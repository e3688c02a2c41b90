"""Names, folders and selection of the layers."""

from __future__ import annotations

from pathlib import PurePath

import pytest

from dspex_testkit.layers import LAYERS, FolderLayers, names_layers_only, selected_layers


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


@pytest.mark.parametrize(
    ("selected", "path", "out"),
    [
        (["fast"], "tests/chaos", False),
        (["fast"], "tests/chaos/deep/test_x.py", True),
        (["fast"], "tests/chaos/light/test_x.py", False),
        (["fast"], "tests", False),
        (["fast"], "docs", False),
        (["fast", "chaos"], "tests/chaos", False),
        (["fast", "stress"], "tests/chaos", False),
        ([], "tests/chaos", False),
    ],
)
def test_folder_is_out_when_no_test_of_the_selected_layers_can_be_in_it(
    selected: list[str], path: str, out: bool
) -> None:
    """Deeper folders count, and layers without a folder may have tests anywhere."""
    lines = ["tests = integration", "tests/unit = fast", "tests/chaos = chaos", "tests/chaos/light = fast"]
    folders = FolderLayers.parse(lines)
    assert folders.is_out_of(selected, PurePath(path)) is out


@pytest.mark.parametrize(
    ("expression", "only"),
    [("fast or not chaos", True), ("fast or slow", False), ("fast or", False), ("", False)],
)
def test_expression_is_about_layers_only(expression: str, only: bool) -> None:
    """Another mark may be on tests of any layer."""
    assert names_layers_only(expression) is only
