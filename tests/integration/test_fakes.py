"""Fake data: legal where it must be, nasty where it should be, and the same for the same test."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dspex_pool.bridge.signatures import parse_signature
from dspex_pool.session_table import check_session_id
from dspex_testkit.nasty_strings import NASTY_STRINGS

pytestmark = pytest.mark.integration


def _some(faker: Any) -> list[Any]:
    return [
        faker.session_id(),
        faker.question_and_context(),
        faker.signature(),
        faker.nasty_string(),
        faker.name(),
    ]


def test_faker_gives_the_same_to_the_same_test(dspex_faker: Any, dspex_seed: int) -> None:
    """Seed and name of the test decide alone, whatever was drawn before."""
    from dspex_testkit.fakes import faker_of

    first = _some(dspex_faker)
    assert _some(dspex_faker) != first
    assert _some(faker_of(dspex_seed, "another test")) != first
    name = f"{__name__.replace('.', '/')}.py::test_faker_gives_the_same_to_the_same_test"
    assert _some(faker_of(dspex_seed, name)) == first
    assert _some(faker_of(dspex_seed + 1, name)) != first


def test_faker_gives_what_the_pool_takes(dspex_faker: Any) -> None:
    """Ids are legal, signatures can be parsed, both forms alike, and the context holds the answer."""
    for _ in range(20):
        check_session_id(dspex_faker.session_id())
        parse_signature(dspex_faker.signature())
        parse_signature(dspex_faker.signature_fields())
        asked = dspex_faker.question_and_context()
        assert asked["answer"] in asked["context"]
        assert asked["question"].removeprefix("What is ").removesuffix("?") in asked["answer"]


def test_session_ids_are_unique_enough(dspex_faker: Any) -> None:
    """Sessions of one test do not meet by accident."""
    assert len({dspex_faker.session_id() for _ in range(100)}) == 100


def test_nasty_strings_can_be_carried() -> None:
    """None is refused by UTF-8 or JSON: what goes wrong with them is somebody's mistake."""
    for reason, text in NASTY_STRINGS.items():
        assert json.loads(json.dumps(text).encode()) == text, reason
        assert text.encode().decode() == text, reason
    assert len(set(NASTY_STRINGS.values())) == len(NASTY_STRINGS)


def test_nasty_strings_are_all_given(dspex_faker: Any) -> None:
    """A test that wants all of them gets all of them."""
    assert sorted(dspex_faker.nasty_strings()) == sorted(NASTY_STRINGS.values())
