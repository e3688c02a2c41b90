"""Extraction: which sentence answers a question, and when none does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex_pool.bridge.extraction import extract
from dspex_pool.bridge.words import split_sentences
from tests.cases import case
from tests.search_profiles import depth

COMPANY = (
    "Acme was founded in Oslo by Ada Berg in 1987. It makes bicycle bells of brass. "
    "The factory burned down in March 2004 because a kiln was left unattended. "
    "About 250 people work there today. Robots paint the bells."
)


def test_extract_finds_the_sentence_for_each_kind_of_question() -> None:
    """Who, when, where, how many, why and what lead to the sentence that says it."""
    cases: list[tuple[str, str]] = [
        ("Who founded Acme?", "Ada Berg"),
        ("When was Acme founded?", "1987"),
        ("In which city was Acme founded?", "Oslo"),
        ("How many people work at Acme?", "250"),
        ("Why did the factory burn down?", "kiln"),
        ("When did the factory burn down?", "March 2004"),
        ("What does Acme make?", "bicycle bells"),
        ("Who or what paints the bells?", "Robots"),
        ("What is produced of brass?", "brass"),
    ]
    for question, piece in cases:
        assert piece in extract(COMPANY, question).answer, question


def test_rare_word_counts_more_than_a_common_one() -> None:
    """A word that every sentence holds tells nothing about any of them."""
    text = "The red lamp is old. The blue lamp is new. The lamp shop sells a green lamp."
    assert extract(text, "Which lamp is blue?").answer == "The blue lamp is new."


def test_word_of_the_same_family_counts_in_part() -> None:
    """``invention`` finds ``inventor``, yet the very word beats it."""
    assert (
        extract("Bread is cheap. The inventor was poor.", "Whose invention?").answer
        == "The inventor was poor."
    )
    both = extract("The inventor was poor. The invention was sold.", "What about the invention?")
    assert both.answer == "The invention was sold."


@pytest.mark.parametrize(
    "text",
    [
        "The grey heron is a bird. Grain prices rose. It eats fish. Fish is eaten by cats.",
        "Here lives a grey heron. It eats fish. Fish is eaten by cats.",
    ],
)
def test_pronoun_goes_on_about_what_came_before(text: str) -> None:
    """A sentence about "it" is about the subject of the text, or of the sentence before."""
    assert extract(text, "What does the grey heron eat?").answer == "It eats fish."


def test_pronoun_passes_on_a_sentence_that_shares_nothing() -> None:
    """From pronoun to pronoun the topic is kept, though ever weaker."""
    text = "Prices rose in May. The moa was large. It had no wings. It fed on leaves. Cows fed on grass."
    assert extract(text, "What did the moa feed on?").answer == "It fed on leaves."


def test_kind_asked_for_decides_between_equals() -> None:
    """Among sentences that share as much, the one that holds a date answers ``when``."""
    text = "The bridge opened with a parade. The bridge opened in 1932."
    found = extract(text, "When was it that the bridge opened?")
    assert found.answer == "The bridge opened in 1932."
    assert found.best is not None
    assert found.best.kind == "a date"


def test_kind_counts_only_when_the_question_does_not_hold_it_already() -> None:
    """A year that the question names is not the year asked for."""
    text = "In 1932 the bridge was a wonder. The bridge opened early in 1930."
    assert "1930" in extract(text, "When was the bridge opened, if not in 1932?").answer


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "there is no text"), (" \n\n ", "there is no text"), ("Cats purr. Dogs bark.", "no sentence")],
)
def test_unanswerable_question_gets_no_invention(text: str, why: str) -> None:
    """Without a sentence that shares a word there is no answer, even if one holds the right kind of thing."""
    found = extract(text, "Who invented the telescope?")
    assert found.best is None
    assert found.answer.startswith(f"I do not know: {why}")
    assert found.explanation.startswith("No answer was found among")


def test_explanation_names_the_sentence_and_the_words() -> None:
    """The choice can be checked by the one who reads it."""
    assert extract(COMPANY, "Who founded Acme?").explanation == (
        "Sentence 1 of 5 matches 2 of 2 content words of the question (founded, acme) and holds a name."
    )


@pytest.mark.parametrize("question", ["", "?", "Who was he?"])
def test_without_content_words_the_central_sentence_is_chosen(question: str) -> None:
    """A summary is the sentence that holds most of what the text repeats."""
    text = "Hello there. Tea grows in Assam. Tea from Assam is strong, and Assam tea is loved. Rain falls."
    found = extract(text, question)
    assert found.answer.startswith("Tea")
    assert "most central" in found.explanation


def test_only_sentence_is_its_own_summary() -> None:
    """Nothing is repeated in one sentence, so all its words count."""
    assert extract("Tea grows in Assam.", "").answer == "Tea grows in Assam."


def test_equal_sentences_keep_the_order_of_the_text() -> None:
    """The first of equals is chosen, so the answer is always the same."""
    found = extract("Ants dig. Ants bite. Ants run.", "What do ants do?")
    assert [candidate.index for candidate in found.ranked] == [0, 1, 2]


@settings(max_examples=depth(10, 1000))
@given(text=st.text(), question=st.text())
def test_answer_is_a_sentence_of_the_text_or_a_refusal(text: str, question: str) -> None:
    """Whatever goes in, nothing comes out that was not in the text, and overlaps are shares."""
    found = extract(text, question)
    assert found.answer in split_sentences(text) or found.answer.startswith("I do not know")
    assert all(0 <= candidate.overlap <= 1 + 1e-9 for candidate in found.ranked)
    assert found == extract(text, question)


def test_monotonous_text_takes_no_longer_than_its_length() -> None:
    """Data pasted as text does not hang the worker: no pattern tries the same place again and again."""
    for piece in ["A", "a", ".", "1", "1,", ". ", "\u2019", "A-", "[", "the A "]:
        with case(piece):
            found = extract(f"Dogs bark. {piece * 5_000}", "Who barks?")
            assert found.answer.startswith("Dogs bark.")
