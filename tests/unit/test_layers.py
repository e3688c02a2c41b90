"""Names, folders and selection of the layers."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from dspex_testkit.layers import LAYERS, FolderLayers, names_layers_only, selected_layers
from tests.cases import case


def test_longest_folder_decides() -> None:
    """A deeper folder has its own layer; similar names are other folders."""
    folders = FolderLayers.parse(["tests = integration", "tests/unit=fast"])
    assert folders.layer_of(PurePath("tests/unit/deep/test_x.py")) == "fast"
    assert folders.layer_of(PurePath("tests/unitary/test_x.py")) == "integration"
    assert folders.layer_of(PurePath("docs/test_x.py")) is None


def test_root_itself_gives_its_layer_to_all_tests() -> None:
    """``. = fast`` was read and gave no test its layer."""
    folders = FolderLayers.parse([". = fast", "./slow = stress"])
    assert folders.layer_of(PurePath("test_x.py")) == "fast"
    assert folders.layer_of(PurePath("deep/er/test_x.py")) == "fast"
    assert folders.layer_of(PurePath("slow/test_x.py")) == "stress"
    assert folders.is_out_of(["fast"], PurePath("slow"))
    assert not folders.is_out_of(["stress"], PurePath("slow"))


def test_folder_that_is_not_below_the_root_is_refused() -> None:
    """It was read, and could never be that of a test."""
    for line in ["/tests = fast", "../tests = fast", "tests/../../x = fast"]:
        with case(line), pytest.raises(ValueError, match="is not below the root") as info:
            FolderLayers.parse([line])
        assert line in str(info.value)


def test_folder_with_two_layers_is_refused() -> None:
    """The later line counted, and nobody heard of the earlier."""
    with pytest.raises(ValueError, match="dspex_layers: tests/unit has two layers: fast, chaos"):
        FolderLayers.parse(["tests/unit = fast", "tests/unit = chaos"])
    assert FolderLayers.parse(["tests/unit = fast", "./tests/unit/ = fast"]).has("fast")


def test_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A misspelt one gave its layer to nobody, and its tests were held to nothing."""
    (tmp_path / "tests").mkdir()
    folders = FolderLayers.parse(["tests = integration", ". = fast", "tests/unti = fast"])
    with pytest.raises(ValueError, match=f"dspex_layers: there is no tests/unti below {tmp_path}"):
        folders.check_below(tmp_path)
    (tmp_path / "tests/unti").mkdir()
    folders.check_below(tmp_path)


def test_unreadable_line_is_shown() -> None:
    """The error shows the line and the layers there are."""
    for line in ["tests/unit", "tests = quick", "= fast", "tests : fast"]:
        with case(line):
            with pytest.raises(ValueError, match=r"not of the form.*fast, protocol") as info:
                FolderLayers.parse([line])
            assert line in str(info.value)


def test_expression_asks_for_the_layers_that_it_names_in_the_positive() -> None:
    """A layer is asked for if its mark can be what makes a test match."""
    cases: list[tuple[str, list[str]]] = [
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
    ]
    for expression, layers in cases:
        assert selected_layers(expression) == layers, expression


def test_only_fast_counts_cpu_time() -> None:
    """Waiting is what the other layers are for."""
    assert [layer.name for layer in LAYERS.values() if layer.counts_cpu] == ["fast"]
    assert [layer.name for layer in LAYERS.values() if layer.forbidden_modules] == ["fast", "protocol"]


def test_folder_is_out_when_no_test_of_the_selected_layers_can_be_in_it() -> None:
    """Deeper folders count, and layers without a folder may have tests anywhere."""
    cases: list[tuple[list[str], str, bool]] = [
        (["fast"], "tests/chaos", False),
        (["fast"], "tests/chaos/deep/test_x.py", True),
        (["fast"], "tests/chaos/light/test_x.py", False),
        (["fast"], "tests", False),
        (["fast"], "docs", False),
        (["fast", "chaos"], "tests/chaos", False),
        (["fast", "stress"], "tests/chaos", False),
        ([], "tests/chaos", False),
    ]
    lines = ["tests = integration", "tests/unit = fast", "tests/chaos = chaos", "tests/chaos/light = fast"]
    folders = FolderLayers.parse(lines)
    for selected, path, out in cases:
        with case(selected, path):
            assert folders.is_out_of(selected, PurePath(path)) is out


def test_expression_is_about_layers_only() -> None:
    """Another mark may be on tests of any layer."""
    cases: list[tuple[str, bool]] = [
        ("fast or not chaos", True),
        ("fast or slow", False),
        ("fast or", False),
        ("", False),
    ]
    for expression, only in cases:
        assert names_layers_only(expression) is only, expression
