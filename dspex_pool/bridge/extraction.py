"""Pick the sentence of a text that best answers a question, by counting shared words.

The plan. A text is split into sentences, a question into content words. Words are compared by their stems,
and a few dozen everyday words by their sense (``begin``, ``start``); words of the same family (``invent``,
``inventor``) count in part. A word that few sentences hold weighs more than one that most hold. A passage
goes on about what its first sentence names or begins with, and a sentence that begins with a pronoun goes
on about the one before it, so such sentences inherit a part of what those share with the question. What the
question asks for (a name, a date, a number, …) tips the balance among sentences that share words; it never
makes an answer of one that shares none.

The same input gives the same answer, always: there is no randomness, no model file and no network.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from dspex_pool.bridge.words import WORD, content_words, sense, split_sentences

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Candidate", "Extraction", "extract"]

#: Weight of a word of the same family, where the same word has 1.
FAMILY_CREDIT = 0.6
#: Weight of a word that a sentence does not hold itself, but goes on about.
INHERITED_CREDIT = 0.7
#: So many words at the start of a text are taken for its subject.
SUBJECT_WORDS = 4
#: What a sentence gains when it holds the kind of thing that the question asks for; a full overlap is 1.
KIND_BONUS = 0.25

_PRONOUNS = frozenset(
    (
        "both",
        "he",
        "her",
        "his",
        "it",
        "its",
        "she",
        "that",
        "their",
        "there",
        "these",
        "they",
        "this",
        "those",
    )
)
_NUMBER_WORDS = (
    "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|sixty|"
    "hundred|thousand|million|billion|half|twice"
)
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"


class _Kind(NamedTuple):
    """A kind of thing that questions ask for."""

    #: What it is called in the explanation of a choice.
    name: str
    #: Recognises the question; what it matches is not a content word of the question.
    asked: re.Pattern[str]
    #: Recognises the thing in a sentence.
    found: re.Pattern[str]


class _Query(NamedTuple):
    """A question, taken apart."""

    #: The question in lower case.
    text: str
    #: Its content words.
    words: tuple[str, ...]
    #: What is looked for: their senses, or what the text repeats when there are none.
    terms: list[str]
    #: How much each term counts.
    weights: list[float]
    #: The kind of thing asked for.
    kind: _Kind | None


_KINDS = (
    _Kind(
        "a date",
        re.compile(r"\bwhen\b|\b(?:which|what) (?:year|date|day|month|century|decade)\b", re.I),
        re.compile(rf"\b1\d{{3}}\b|\b20\d\d\b|\b(?:{_MONTHS})\b|\bcentury\b|\b\d+ (?:BC|AD|BCE|CE)\b"),
    ),
    _Kind(
        "a number",
        re.compile(
            r"\bhow (?:many|much)\b|\bhow(?= (?:long|far|old|tall|high|deep|fast|heavy|hot|cold|large|big|wide|often|"
            r"close)\b)|\b(?:what|which) (?:percentage|number|fraction|share)\b|\bat (?:what|which)(?= temperature)",
            re.I,
        ),
        re.compile(rf"\d|\b(?:{_NUMBER_WORDS})\b", re.I),
    ),
    _Kind(
        "a name",
        re.compile(
            r"\bwho(?:m|se)?\b|\b(?:which|what)(?= (?:person|scientist|author|king|queen|woman|man)\b)", re.I
        ),
        re.compile(
            r"(?<=[a-z,;] )[A-Z][a-z]+|[A-Z][\w.'\u2019-]{1,40} (?:(?:de|da|van|von|of|the|al) )?[A-Z][a-z]+"
        ),
    ),
    _Kind(
        "a place",
        re.compile(
            r"\bwhere\b|\b(?:which|what)(?= (?:country|city|continent|ocean|state|island|sea|place)\b)", re.I
        ),
        re.compile(
            r"\b(?:in|at|on|near|from|to|off|between|across|around|beneath|through|into|of) (?:the )?"
            r"(?:(?:north|south|east|west|central)\w* )?[A-Z][a-z]+"
        ),
    ),
    _Kind(
        "a reason",
        re.compile(r"\bwhy\b", re.I),
        re.compile(
            r"\b(?:because|due to|since|so that|caused|therefore|which is why|as a result|reason)\b", re.I
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sentence of the text, and how well it fits the question."""

    #: The sentence on one line, without white space around it.
    sentence: str
    #: Its place in the text, from 0.
    index: int
    #: Weight of the words shared with the question, from 0 (none) to 1 (all of them).
    overlap: float
    #: What candidates are ranked by: ``overlap``, and the bonus for the kind of thing asked for.
    score: float
    #: The content words of the question that the sentence holds or goes on about, in the question's order.
    shared: tuple[str, ...]
    #: The kind of thing asked for that the sentence holds (``a date``, ``a name``, …), or ``None``.
    kind: str | None


@dataclass(frozen=True, slots=True)
class Extraction:
    """All sentences of a text, ranked by how well they answer a question."""

    #: The question, as asked.
    question: str
    #: The content words of the question, each once, in its order.
    words: tuple[str, ...]
    #: The sentences, the best first; equal ones in the text's order.
    ranked: tuple[Candidate, ...]

    @property
    def best(self) -> Candidate | None:
        """The sentence chosen, or ``None`` when no sentence shares anything with the question."""
        return self.ranked[0] if self.ranked and self.ranked[0].overlap > 0 else None

    @property
    def answer(self) -> str:
        """The sentence chosen, or a sentence that begins with ``I do not know`` and says why."""
        if self.best is not None:
            return self.best.sentence
        if not self.ranked:
            return "I do not know: there is no text to answer from."
        return "I do not know: no sentence of the text shares a content word with the question."

    @property
    def explanation(self) -> str:
        """How the answer was chosen, in one sentence."""
        best = self.best
        if best is None:
            return f"No answer was found among {len(self.ranked)} sentences."
        place = f"Sentence {best.index + 1} of {len(self.ranked)}"
        if not self.words:
            return f"{place} is the most central one; there is no question to compare it with."
        found = f" and holds {best.kind}" if best.kind else ""
        count = f"{len(best.shared)} of {len(self.words)} content words"
        return f"{place} matches {count} of the question ({', '.join(best.shared)}){found}."


def extract(text: str, question: str) -> Extraction:
    """Rank the sentences of ``text`` by how well they answer ``question``.

    Without a question (one without letters or digits) the sentences are ranked by how much of what the text
    repeats they hold, which puts the most central one first.
    """
    sentences = split_sentences(text)
    senses = [_senses(sentence) for sentence in sentences]
    query = _ask(question, senses)
    credit = _all_credits(query.terms, sentences, senses)
    candidates = [
        _candidate(index, sentence, credit[index], query) for index, sentence in enumerate(sentences)
    ]
    candidates.sort(key=lambda candidate: -candidate.score)
    return Extraction(question=question, words=query.words, ranked=tuple(candidates))


def _ask(question: str, senses: Sequence[frozenset[str]]) -> _Query:
    kind = next((kind for kind in _KINDS if kind.asked.search(question)), None)
    words = _once_per_sense(content_words(kind.asked.sub(" ", question) if kind else question))
    terms = [sense(word) for word in words] or _repeated(senses)
    return _Query(question.lower(), tuple(words), terms, _weights(terms, senses), kind)


def _senses(sentence: str) -> frozenset[str]:
    parts = (part for word in content_words(sentence) for part in {word, *word.split("-")})
    return frozenset(sense(part) for part in parts)


def _topic(sentences: Sequence[str]) -> frozenset[str]:
    """Return what a text goes on about: the subject of its first sentence, and the names in it."""
    if not sentences:
        return frozenset()
    words = [match.group() for match in WORD.finditer(sentences[0])]
    about = words[:SUBJECT_WORDS] + [word for word in words if word[0].isupper()]
    return _senses(" ".join(about))


def _once_per_sense(words: Sequence[str]) -> list[str]:
    return list({sense(word): word for word in reversed(words)}.values())[::-1]


def _repeated(senses: Sequence[frozenset[str]]) -> list[str]:
    """Return the terms of more than one sentence; of the only sentence or of unrelated ones, all."""
    counts = Counter(term for sentence in senses for term in sentence)
    return sorted(term for term in counts if counts[term] > 1) or sorted(counts)


def _weights(terms: Sequence[str], senses: Sequence[frozenset[str]]) -> list[float]:
    """Weigh each term by its rarity among the sentences; one that none holds counts as held by one."""
    counts = Counter(term for sentence in senses for term in sentence)
    return [math.log(1 + len(senses) / max(counts[term], 1)) for term in terms]


def _all_credits(
    terms: Sequence[str], sentences: Sequence[str], senses: Sequence[frozenset[str]]
) -> list[list[float]]:
    """Weigh, for each sentence and term, how well the sentence holds the term: itself, or by inheritance.

    What is inherited is passed on from pronoun to pronoun, ever weaker. A sentence that holds no term itself
    has no credit, but passes on what it goes on about.
    """
    topic = _topic(sentences)
    base = [INHERITED_CREDIT if term in topic else 0.0 for term in terms]
    result: list[list[float]] = []
    before = base
    for sentence, held in zip(sentences, senses, strict=True):
        own = [_credit(term, held) for term in terms]
        inherited = [INHERITED_CREDIT * credit for credit in before] if _continues(sentence) else base
        before = [max(weights) for weights in zip(own, inherited, base, strict=True)]
        result.append(before if any(own) else own)
    return result


def _continues(sentence: str) -> bool:
    first = WORD.search(sentence)
    return first is not None and first.group().lower() in _PRONOUNS


def _credit(term: str, senses: frozenset[str]) -> float:
    if term in senses:
        return 1.0
    return FAMILY_CREDIT if any(_same_family(term, other) for other in senses) else 0.0


def _same_family(one: str, other: str) -> bool:
    """Tell whether two stems begin alike for at least five letters and three fifths of the longer one."""
    common = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        common += 1
    return common >= 5 and common >= 0.6 * max(len(one), len(other))


def _candidate(index: int, sentence: str, credit: Sequence[float], query: _Query) -> Candidate:
    overlap = sum(c * w for c, w in zip(credit, query.weights, strict=True)) / (sum(query.weights) or 1.0)
    found = _kind_found(sentence, query)
    return Candidate(
        sentence=sentence,
        index=index,
        overlap=overlap,
        score=overlap + KIND_BONUS if found and overlap > 0 else overlap,
        # Without a question there are terms, but no words that they stand for.
        shared=tuple(word for word, c in zip(query.words, credit, strict=False) if c > 0),
        kind=found,
    )


def _kind_found(sentence: str, query: _Query) -> str | None:
    """Name the kind of thing asked for, if the sentence holds one that the question does not hold already."""
    if query.kind is None:
        return None
    matches = (match.group().lower() for match in query.kind.found.finditer(sentence))
    return query.kind.name if any(match not in query.text for match in matches) else None
