"""The example questions: what ``make run`` feeds to the pool."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from dspex_pool.bridge.extraction import extract
from dspex_pool.bridge.words import split_sentences

pytestmark = pytest.mark.integration

QUESTIONS = Path(__file__).parents[2] / "examples" / "questions.jsonl"
ROWS: list[dict[str, str]] = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]

TENANTS = Counter(row["tenant"] for row in ROWS)


def test_rows_are_enough_and_complete() -> None:
    """At least 200 rows, each with its five fields as text that is not empty."""
    assert len(ROWS) >= 200
    for row in ROWS:
        assert list(row) == ["id", "tenant", "context", "question", "expected"]
        assert all(isinstance(value, str) and value == value.strip() != "" for value in row.values()), row[
            "id"
        ]


def test_ids_count_up_and_questions_differ() -> None:
    """No row is there twice."""
    assert [row["id"] for row in ROWS] == [f"q{number:03}" for number in range(1, len(ROWS) + 1)]
    assert len({(row["context"], row["question"]) for row in ROWS}) == len(ROWS)


def test_tenants_share_the_rows() -> None:
    """Ten tenants or more, none of them small."""
    assert len(TENANTS) >= 10
    assert min(TENANTS.values()) >= 15


def test_expected_piece_is_in_exactly_one_sentence() -> None:
    """A match means that the right sentence was found."""
    for row in ROWS:
        sentences = split_sentences(row["context"])
        holding = [one for one in sentences if row["expected"].casefold() in one.casefold()]
        assert 3 <= len(sentences) <= 5, row["id"]
        assert len(holding) == 1, row["id"]
        assert row["question"].endswith("?"), row["id"]


@pytest.mark.parametrize("tenant", TENANTS)
def test_embedded_engine_answers_most(tenant: str) -> None:
    """A worse engine shows: of each tenant's questions it answers at least four in five."""
    rows = [row for row in ROWS if row["tenant"] == tenant]
    answers = [extract(row["context"], row["question"]).answer.casefold() for row in rows]
    matches = sum(row["expected"].casefold() in answer for row, answer in zip(rows, answers, strict=True))
    assert matches / len(rows) >= 0.8
