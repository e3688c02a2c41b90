"""Words: sentence ends, stems and senses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex_pool.bridge.words import content_words, sense, split_sentences, stem
from tests.cases import case
from tests.search_profiles import depth


def test_text_is_split_at_the_ends_of_sentences_only() -> None:
    """Numbers, initials, abbreviations and line breaks end no sentence; blank lines do."""
    cases: list[tuple[str, list[str]]] = [
        ("", []),
        (" \n ", []),
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("It is 3.5 km long. It ends.", ["It is 3.5 km long.", "It ends."]),
        ("Dr. Ross met J. J. Thomson. They talked.", ["Dr. Ross met J. J. Thomson.", "They talked."]),
        ("So said I. Then I left.", ["So said I.", "Then I left."]),
        ('He said "Go." She went.', ['He said "Go."', "She went."]),
        ("A line\nbroken. Another", ["A line broken.", "Another"]),
        ("A heading\n\nA text.", ["A heading", "A text."]),
        ("It was e.g. a cat.", ["It was e.g. a cat."]),
        ("It ends here. and goes on", ["It ends here. and goes on"]),
    ]
    for text, sentences in cases:
        with case(text):
            assert split_sentences(text) == sentences


@settings(max_examples=depth(10, 1000))
@given(st.text())
def test_splitting_loses_nothing_but_white_space(text: str) -> None:
    """Every character of a text is in one of its sentences, and no sentence breaks a line."""
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(len(sentence.splitlines()) == 1 for sentence in sentences)


def test_forms_of_one_word_have_one_stem() -> None:
    """Inflection does not keep a question from its answer."""
    cases: list[tuple[str, str]] = [
        ("invented", "inventing"),
        ("families", "family"),
        ("boxes", "box"),
        ("stopped", "stop"),
        ("largest", "large"),
        ("written", "writes"),
        ("rising", "rose"),
        ("Nile's", "nile"),
        ("skies", "sky"),
        ("quickly", "quick"),
        ("glasses", "glass"),
    ]
    for one, other in cases:
        assert stem(one) == stem(other), one


def test_what_only_looks_like_an_ending_stays() -> None:
    """A word is not cut down to another."""
    for one, other in [("king", "kin"), ("speed", "spe"), ("glass", "glas"), ("virus", "viru")]:
        assert stem(one) != stem(other), one


@settings(max_examples=depth(10, 1000))
@given(st.text(min_size=1, max_size=20))
def test_stem_takes_any_word(word: str) -> None:
    """No word breaks the stemmer, and stems are in lower case where that exists."""
    assert stem(word) == stem(word.lower())


@pytest.mark.parametrize(("one", "other"), [("began", "started"), ("houses", "home"), ("author", "wrote")])
def test_everyday_words_of_one_sense_are_equal(one: str, other: str) -> None:
    """A question may say ``start`` where the text says ``begin``."""
    assert sense(one) == sense(other)


def test_content_words_leave_out_what_carries_no_meaning() -> None:
    """Only words that tell one sentence from another are compared, each once."""
    assert content_words("What is the length of the Nile, the longest river? The Nile!") == [
        "length",
        "nile",
        "longest",
        "river",
    ]
